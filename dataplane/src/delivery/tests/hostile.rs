//! Mail systems and servers that break the rules, or bend them.

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use super::{
    server::{Manners, Moment, count},
    world::{MailSystem, Plan, World},
};
use crate::{
    config::DeliveryProtocol,
    net::local::Place,
    session::tests::{client::Client, eventually, world::Authority},
};

const ALICE: &str = "alice@a.example";
const BOB: &str = "bob@a.example";
const CAROL: &str = "carol@a.example";

/// A plan with SMTP on both sides.
fn smtp() -> Plan {
    let manners = Manners {
        smtp: true,
        ..Manners::default()
    };
    Plan {
        protocol: DeliveryProtocol::Smtp,
        source: manners.clone(),
        target: manners,
        ..Plan::default()
    }
}

/// A plan in which no limit comes to the help of whoever waits for a mail system that reads nothing. By a socket in the file
/// system, whose kernel buffer is small and does not grow.
fn with_patience(path: &Path) -> Plan {
    let mut plan = Plan {
        place: Place::File {
            path: path.to_owned(),
            mode: 0o600,
        },
        ..Plan::default()
    };
    plan.limits.deliveries.answer = Duration::from_hours(1);
    plan.limits.deliveries.front.max_recipients = u32::MAX;
    plan
}

async fn mail_system_at(path: &Path) -> MailSystem {
    #[expect(clippy::disallowed_methods, reason = "a mail system has no `net`")]
    let stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let mut mail = MailSystem(Client::over(Box::new(stream)));
    assert_eq!(mail.answers(1).await, ["220"]);
    mail
}

#[tokio::test]
async fn nothing_that_was_said_in_clear_is_part_of_a_message_under_tls() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let world = World::with(Plan {
        certificate: Some(authority.sign("localhost").write(directory.path(), "dock")),
        ..smtp()
    });
    let mut mail = world.mail_system().await;
    // Whoever is in the middle begins a message, and lets the mail system end it.
    assert_eq!(mail.begin(&[CAROL]).await, ["250 2.1.5"]);
    mail.0.send("STARTTLS\r\n").await;
    assert_eq!(mail.answers(1).await, ["503 5.5.1"]);
    mail.0.send("RSET\r\nSTARTTLS\r\n").await;
    assert_eq!(mail.answers(2).await, ["250 2.0.0", "220 2.0.0"]);
    let mut mail = MailSystem(mail.0.upgrade(&authority.root).await);
    mail.0.send("EHLO mx.example.org\r\n").await;
    mail.0.answer("250 ").await;
    assert_eq!(mail.begin(&[ALICE]).await, ["250 2.1.5"]);
    assert_eq!(world.deliveries(), 1);
    assert_eq!(mail.data().await, "354");
    assert_eq!(mail.finish("Hello.\r\n", 1).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), [ALICE]);
    let message = &world.source.seen.messages()[0];
    assert!(message.contains(" with ESMTPS id "), "{message}");
    // That server had been told of a mail system in clear.
    assert_eq!(count(&world.source.seen.connections), 2);
}

#[tokio::test]
async fn no_line_of_a_message_that_was_refused_is_taken_for_a_command() {
    let message = "RSET\r\nMAIL FROM:<admin@a.example>\r\nRCPT TO:<carol@a.example>\r\nDATA\r\nForged\r\n.\r\n";
    for recipient in [ALICE, BOB] {
        let world = World::with(Plan {
            target: Manners {
                to: &[("bob", "550 5.1.1 Unknown here")],
                ..Manners::default()
            },
            ..Plan::default()
        });
        let mut mail = world.mail_system().await;
        let accepted = mail.begin(&[recipient]).await;
        world.fence();
        world.drained().await;
        mail.0.send(format!("DATA\r\n{message}")).await;
        let refused = if accepted == ["250 2.1.5"] {
            "451 4.2.1"
        } else {
            "503 5.5.1"
        };
        assert_eq!(mail.answers(1).await, [refused]);
        assert_eq!(mail.0.rest().await, "");
        assert!(!world.source.seen.has("RCPT TO:<carol"));
    }
}

#[tokio::test]
async fn a_mail_system_that_reads_nothing_keeps_no_fence_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let world = World::with(with_patience(&path));
    let mut mail = mail_system_at(&path).await;
    assert_eq!(mail.begin(&[ALICE]).await, ["250 2.1.5"]);
    let nobody = "RCPT TO:<x@elsewhere.example>\r\n".repeat(100);
    // Until nothing is taken of it any more, since its answers are not taken.
    let stuck = async { while mail.0.try_send(nobody.as_bytes()).await.is_ok() {} };
    let is_stuck = timeout(Duration::from_millis(500), stuck).await.is_err();
    assert!(is_stuck, "its connection ended");
    world.fence();
    assert_eq!(world.drained().await, (1, 0));
}

#[tokio::test]
async fn an_answer_that_is_not_taken_holds_up_no_server_s_word() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lmtp");
    let long = format!("250 2.0.0 {}", "x".repeat(400));
    let world = World::with(Plan {
        source: Manners {
            verdict: Box::leak(long.into_boxed_str()),
            ..Manners::default()
        },
        ..with_patience(&path)
    });
    let mut mail = mail_system_at(&path).await;
    mail.begin(&[ALICE; 900]).await;
    assert_eq!(mail.data().await, "354");
    mail.0.send("Hello.\r\n.\r\n").await;
    eventually("the message is whole", || {
        count(&world.source.seen.ends) == 1
    })
    .await;
    world.fence();
    let (_, unconfirmed) = world.drained().await;
    assert_eq!(unconfirmed, 0);
    assert_eq!(mail.answers(900).await, ["250 2.0.0"; 900]);
}

#[tokio::test]
async fn a_yes_before_the_end_of_the_message_is_none() {
    for (early, answer) in [
        ("250 2.0.0 Saved", "451 4.4.2"),
        ("354 Go on", "451 4.4.2"),
        ("552 5.2.3 Too large", "552 5.2.3"),
    ] {
        let world = World::with(Plan {
            source: Manners {
                early: Some(early),
                hangs_up: Some(Moment::AtEnd),
                ..Manners::default()
            },
            ..Plan::default()
        });
        let mut mail = world.mail_system().await;
        mail.begin(&[ALICE]).await;
        assert_eq!(mail.data().await, "354");
        mail.0.send("Hello.\r\n").await;
        eventually("some of it came", || count(&world.source.seen.octets) > 100).await;
        assert_eq!(mail.finish("", 1).await, [answer], "{early}");
        assert_eq!(world.deliveries(), 0);
        assert_eq!(world.registry.unconfirmed(), 0);
    }
}

#[tokio::test]
async fn a_word_too_many_is_no_answer_to_what_is_asked_next() {
    let world = World::with(Plan {
        source: Manners {
            more: Some("250 2.0.0 And saved again"),
            to: &[("carol", "550 5.1.1 Unknown here")],
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    assert_eq!(mail.deliver(&[ALICE]).await, ["250 2.0.0"]);
    assert_eq!(
        mail.begin(&[ALICE, CAROL]).await,
        ["250 2.1.5", "550 5.1.1"]
    );
    assert_eq!(mail.data().await, "354");
    assert_eq!(mail.finish("Hello.\r\n", 1).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), [ALICE; 2]);
    assert_eq!(count(&world.source.seen.connections), 2);
}

#[tokio::test]
async fn data_planes_that_lead_to_each_other_end_it_before_there_is_a_message() {
    for plan in [Plan::default(), smtp()] {
        let world = World::in_a_circle(plan);
        let mut mail = world.mail_system().await;
        assert_eq!(mail.begin(&[ALICE]).await, ["451 4.4.6"]);
        assert_eq!(world.deliveries(), 0);
    }
}

/// By SMTP there is one answer for all.
#[tokio::test]
async fn a_server_that_changes_its_mind_about_one_refuses_no_other_for_good() {
    let mut plan = smtp();
    plan.source.to_after_reset = &[("dave", "550 5.1.1 Unknown here")];
    let recipients = std::sync::Arc::new(tokio::sync::Semaphore::new(2));
    plan.source.recipients = Some(std::sync::Arc::clone(&recipients));
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    let answers = mail.begin(&[CAROL, "dave@a.example"]).await;
    assert_eq!(answers, ["250 2.1.5"; 2]);
    // So that it is reset before the message comes.
    mail.0.send(format!("RCPT TO:<{ALICE}>\r\n")).await;
    eventually("the server was asked", || {
        world.source.seen.has("RCPT TO:<alice")
    })
    .await;
    world.fence();
    world.drained().await;
    recipients.add_permits(10);
    assert_eq!(mail.answers(1).await, ["451 4.2.1"]);
    assert_eq!(mail.data().await, "451 4.3.0");
    assert!(world.source.seen.recipients().is_empty());
}

#[tokio::test]
async fn nobody_takes_the_places_of_all_others() {
    let mut plan = Plan::default();
    plan.limits.connections.per_address = 2;
    let world = World::with(plan);
    let (_first, _second) = (world.mail_system().await, world.mail_system().await);
    let farewell = world.stranger().await.rest().await;
    assert!(farewell.starts_with("421 4."), "{farewell}");
}

#[tokio::test]
async fn one_who_is_named_twice_is_one_delivery_each_time() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, ALICE, BOB, ALICE]).await;
    assert_eq!(world.deliveries(), 4);
    mail.0.send("RSET\r\n").await;
    mail.answers(1).await;
    eventually("nothing is registered", || world.deliveries() == 0).await;
}
