//! Messages, and what goes wrong with them.

use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};

use ferrypost_proto::v1;
use tokio::sync::Semaphore;

use super::{
    server::{Manners, Moment, count},
    world::{MailSystem, Plan, World},
};
use crate::{
    net::local::Place,
    session::tests::{client::Client, eventually},
};

const ALICE: &str = "alice@a.example";
const BOB: &str = "bob@a.example";
const CAROL: &str = "carol@a.example";

#[tokio::test]
async fn each_recipient_of_a_message_has_the_answer_of_its_own_server_in_order() {
    let world = World::with(Plan {
        target: Manners {
            verdict: "452 4.2.2 Full",
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    let answers = mail.deliver(&[ALICE, BOB, CAROL, BOB, ALICE]).await;
    assert_eq!(
        answers,
        [
            "250 2.0.0",
            "452 4.2.2",
            "250 2.0.0",
            "452 4.2.2",
            "250 2.0.0"
        ]
    );
    assert_eq!(world.source.seen.recipients(), [ALICE, CAROL, ALICE]);
    assert!(world.target.seen.recipients().is_empty());
    let message = &world.source.seen.messages()[0];
    let (header, rest) = message.split_once("+0000\r\n").unwrap();
    assert!(
        header.starts_with("Received: from mx.example.org ([127.0.0.1])\r\n\tby dp-1 "),
        "{header}"
    );
    assert_eq!(rest, "Subject: hello\r\n\r\nHello.\r\n");
    assert_eq!(world.deliveries(), 0);
    assert_eq!(world.counted("delivered", "nobody"), 3);
    assert_eq!(world.counted("server_deferred", "backend"), 2);
}

#[tokio::test]
async fn a_server_s_no_to_a_recipient_is_passed_on_and_the_others_get_the_message() {
    let world = World::with(Plan {
        source: Manners {
            to: &[
                ("carol", "550 5.1.1 Unknown here"),
                ("alice+x", "451 4.3.0 Later"),
            ],
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    let answers = mail.begin(&[CAROL, "alice+x@a.example", ALICE]).await;
    assert_eq!(answers, ["550 5.1.1", "451 4.3.0", "250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(mail.finish("Hello.\r\n", 1).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), [ALICE]);
}

#[tokio::test]
async fn who_has_no_record_follows_the_rule_of_the_domain() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    let answers = mail
        .begin(&[
            "x@elsewhere.example",
            "x@closed.example",
            "new@t.example",
            "\"two words\"@t.example",
        ])
        .await;
    assert_eq!(
        answers,
        ["550 5.1.2", "550 5.1.1", "250 2.1.5", "250 2.1.5"]
    );
    assert_eq!(mail.data().await, "354");
    mail.finish("Hello.\r\n", 2).await;
    assert_eq!(
        world.target.seen.recipients(),
        ["new@t.example", "\"two words\"@t.example"]
    );
}

#[tokio::test]
async fn the_postmaster_is_there_without_a_domain_where_nobody_else_is() {
    let world = World::without_table(Plan::default());
    let mut config = world.config();
    let refuse = v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {});
    config.names.as_mut().unwrap().bare_names = Some(refuse);
    world.publish(config);
    let mut mail = world.mail_system().await;
    let answers = mail.begin(&["PostMaster", "alice"]).await;
    assert_eq!(answers, ["250 2.1.5", "550 5.1.2"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(mail.finish("Hello.\r\n", 1).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), ["PostMaster"]);
}

#[tokio::test]
async fn before_there_is_a_table_everything_is_for_later() {
    let world = World::without_table(Plan::default());
    let mut mail = world.mail_system().await;
    assert_eq!(
        mail.begin(&[ALICE, "x@elsewhere.example"]).await,
        ["451 4.3.0"; 2]
    );
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_message_leaves_the_other_its_own_answer() {
    let world = World::with(Plan {
        source: Manners {
            hangs_up: Some(Moment::After(10)),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    assert_eq!(mail.begin(&[ALICE, BOB, CAROL]).await.len(), 3);
    assert_eq!(mail.data().await, "354");
    mail.0.send("Hello, how are you?\r\n").await;
    eventually("it has hung up", || count(&world.source.seen.ended) == 1).await;
    // What is written first after it may still get lost in the kernel.
    let text = "More.\r\n".repeat(100_000);
    let answers = mail.finish(&text, 3).await;
    assert_eq!(answers, ["451 4.4.2", "250 2.0.0", "451 4.4.2"]);
    assert_eq!(world.target.seen.recipients(), [BOB]);
    // The mail system goes on.
    assert_eq!(mail.deliver(&[BOB]).await, ["250 2.0.0"]);
}

#[tokio::test]
async fn a_server_that_dies_before_its_word_may_have_delivered_and_its_end_is_seen() {
    let world = World::with(Plan {
        source: Manners {
            hangs_up: Some(Moment::AtEnd),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    assert_eq!(
        mail.deliver(&[ALICE, BOB]).await,
        ["451 4.4.2", "250 2.0.0"]
    );
    assert_eq!(world.counted("unanswered", "backend"), 1);
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_message_and_opened_anew_if_the_server_has_closed_it() {
    let world = World::with(Plan {
        target: Manners {
            hangs_up: Some(Moment::WhenDone),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    for _ in 0..3 {
        assert_eq!(mail.deliver(&[ALICE, BOB]).await, ["250 2.0.0"; 2]);
    }
    assert_eq!(count(&world.source.seen.connections), 1);
    assert_eq!(count(&world.target.seen.connections), 3);
    assert_eq!(world.source.seen.recipients(), [ALICE; 3]);
    assert_eq!(world.target.seen.recipients(), [BOB; 3]);
}

#[tokio::test]
async fn a_message_that_is_taken_back_goes_to_nobody_and_the_next_one_only_to_its_own() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE]).await;
    mail.0.send("RSET\r\n").await;
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    assert_eq!(world.deliveries(), 0);
    assert_eq!(mail.deliver(&[CAROL]).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), [CAROL]);
    assert_eq!(world.counted("withdrawn", "nobody"), 1);
}

#[tokio::test]
async fn a_mail_system_that_dies_in_the_middle_of_a_message_has_sent_none() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, BOB]).await;
    mail.data().await;
    mail.0.send("Half a mess").await;
    eventually("some of it came", || count(&world.source.seen.octets) > 0).await;
    drop(mail);
    for server in [&world.source, &world.target] {
        eventually("its connection is cut", || count(&server.seen.ended) == 1).await;
        assert!(server.seen.recipients().is_empty());
    }
    eventually("nothing is registered", || world.deliveries() == 0).await;
}

#[tokio::test]
async fn a_bare_line_end_refuses_the_message_and_what_stands_behind_it_is_not_read() {
    for smuggled in ["\n.\r\n", "\r\n.\n", "\n.\n", "\r.\r\n", "\r\n.\r\r\n"] {
        let world = World::new();
        let mut mail = world.mail_system().await;
        mail.begin(&[ALICE, BOB]).await;
        mail.data().await;
        let behind =
            "MAIL FROM:<admin@a.example>\r\nRCPT TO:<carol@a.example>\r\nDATA\r\nSmuggled\r\n.\r\n";
        mail.0.send(format!("Hello{smuggled}{behind}")).await;
        assert_eq!(mail.answers(2).await, ["554 5.6.0"; 2], "{smuggled:?}");
        assert_eq!(mail.0.rest().await, "");
        for server in [&world.source, &world.target] {
            assert_eq!(count(&server.seen.ends), 0);
            assert!(!server.seen.has("RCPT TO:<carol"));
        }
    }
}

#[tokio::test]
async fn a_message_that_goes_round_is_refused_and_not_delivered() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    let hops = |count| "Received: from there\r\n".repeat(count);
    mail.begin(&[ALICE]).await;
    mail.data().await;
    assert_eq!(
        mail.finish(&format!("{}\r\nHello.\r\n", hops(99)), 1).await,
        ["250 2.0.0"]
    );
    mail.begin(&[ALICE, BOB]).await;
    mail.data().await;
    let answers = mail
        .finish(&format!("{}\r\nHello.\r\n", hops(100)), 2)
        .await;
    assert_eq!(answers, ["554 5.4.6"; 2]);
    assert_eq!(count(&world.source.seen.ends), 1);
    assert_eq!(mail.deliver(&[ALICE]).await, ["250 2.0.0"]);
}

#[tokio::test]
async fn the_slowest_server_sets_the_pace_and_nothing_is_kept_for_it() {
    const PIECE: usize = 1 << 16;
    const PIECES: usize = 48 << 4;
    let permits = Arc::new(Semaphore::new(0));
    let world = World::with(Plan {
        source: Manners {
            reads: Some((Arc::clone(&permits), PIECE)),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, BOB]).await;
    mail.data().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let line = [&[b'x'; 1022][..], b"\r\n"].concat();
        let piece = line.repeat(PIECE / line.len());
        for _ in 0..PIECES {
            mail.0.send(&piece).await;
            counting.fetch_add(piece.len(), Ordering::SeqCst);
        }
        mail.finish("", 2).await
    });
    // What lies in four kernel buffers and in ours, at any moment.
    let mut most = 0;
    for _ in 0..PIECES / 8 {
        permits.add_permits(8);
        eventually("it has read that", || {
            permits.available_permits() == 0 || sending.is_finished()
        })
        .await;
        let slow = count(&world.source.seen.octets);
        most = most.max(count(&sent).saturating_sub(slow));
    }
    permits.add_permits(PIECES * 4);
    assert_eq!(sending.await.unwrap(), ["250 2.0.0"; 2]);
    assert!(most < PIECE * PIECES / 2, "{most} octets were ahead");
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_a_door_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let world = World::with(Plan {
        place: Place::File {
            path: path.clone(),
            mode: 0o600,
        },
        ..Plan::default()
    });
    #[expect(clippy::disallowed_methods, reason = "a mail system has no `net`")]
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut mail = MailSystem(Client::over(Box::new(stream)));
    assert_eq!(mail.answers(1).await, ["220"]);
    assert_eq!(mail.deliver(&[ALICE, BOB]).await, ["250 2.0.0"; 2]);
    assert_eq!(world.source.seen.recipients(), [ALICE]);
    world.stop();
    assert!(mail.0.rest().await.starts_with("421 4.3.2 "));
    eventually("the socket is gone", || !path.exists()).await;
}

#[tokio::test]
async fn nobody_delivers_who_is_not_meant_to() {
    let world = World::with(Plan {
        from: vec!["192.0.2.0/24".parse().unwrap()],
        ..Plan::default()
    });
    assert_eq!(world.stranger().await.rest().await, "");
}

#[tokio::test]
async fn one_mail_system_too_many_is_told_to_come_again() {
    let world = World::with(Plan {
        connections: Some(1),
        ..Plan::default()
    });
    let _first = world.mail_system().await;
    let farewell = world.stranger().await.rest().await;
    assert!(farewell.starts_with("421 4."), "{farewell}");
}

/// A world whose target is like this.
fn with_target(target: Manners) -> World {
    World::with(Plan {
        target,
        ..Plan::default()
    })
}

#[tokio::test]
async fn what_a_server_holds_against_a_mail_system_is_said_in_its_words_and_not_for_good() {
    let world = with_target(Manners {
        turns_away: Some("554 5.7.1 Not from you"),
        ..Manners::default()
    });
    let mut mail = world.mail_system().await;
    assert_eq!(mail.begin(&[ALICE, BOB]).await, ["250 2.1.5", "451 4.7.0"]);
    mail.0.send(format!("RCPT TO:<{BOB}>\r\n")).await;
    assert_eq!(mail.0.line().await, "451 4.7.0 Not from you");
    assert_eq!(count(&world.target.seen.connections), 1, "asked once");
    assert_eq!(world.counted("server_deferred", "backend"), 2);
}

#[tokio::test]
async fn a_server_that_greets_nobody_is_away_whatever_code_it_has_for_that() {
    for greeting in ["421 4.3.2 Not now", "554 5.3.2 Not here"] {
        let world = with_target(Manners {
            greeting,
            ..Manners::default()
        });
        let mut mail = world.mail_system().await;
        assert_eq!(mail.begin(&[ALICE, BOB]).await, ["250 2.1.5", "451 4.3.0"]);
        assert_eq!(world.counted("backend_unavailable", "backend"), 1);
    }
}

#[tokio::test]
async fn a_server_that_fails_everybody_is_not_tried_for_every_message() {
    let mut plan = Plan::default();
    plan.limits.breaker.clients = 1;
    plan.limits.breaker.pause = std::time::Duration::from_mins(10);
    plan.target.greeting = "421 4.3.2 Not now";
    let world = World::with(plan);
    for _ in 0..3 {
        let mut mail = world.mail_system().await;
        assert_eq!(mail.begin(&[BOB, ALICE]).await, ["451 4.3.0", "250 2.1.5"]);
    }
    assert_eq!(count(&world.target.seen.connections), 1);
}
