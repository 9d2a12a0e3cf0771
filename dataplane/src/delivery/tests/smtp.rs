//! SMTP, where the first recipient chooses the server: what is other than by LMTP.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{
    server::{Manners, Moment, count},
    world::{MailSystem, Plan, World},
};
use crate::{config::DeliveryProtocol, session::tests::eventually};

const ALICE: &str = "alice@a.example";
const BOB: &str = "bob@a.example";
const CAROL: &str = "carol@a.example";

fn plan() -> Plan {
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

/// Sends the rest of a message, for whose recipients there is one answer.
async fn finish(mail: &mut MailSystem) -> String {
    let [answer] = &mail.finish("Subject: hello\r\n\r\nHello.\r\n", 1).await[..] else {
        unreachable!("it was asked for one");
    };
    answer.clone()
}

#[tokio::test]
async fn the_first_recipient_chooses_the_server_and_who_is_elsewhere_comes_again_alone() {
    let world = World::with(plan());
    let mut mail = world.mail_system().await;
    let answers = mail
        .begin(&[ALICE, BOB, CAROL, "x@elsewhere.example"])
        .await;
    assert_eq!(
        answers,
        ["250 2.1.5", "452 4.5.3", "250 2.1.5", "550 5.1.2"]
    );
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert_eq!(world.source.seen.recipients(), [ALICE, CAROL]);
    assert_eq!(
        count(&world.target.seen.connections),
        0,
        "it was not even reached"
    );
    assert_eq!(mail.begin(&[BOB]).await, ["250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert_eq!(world.target.seen.recipients(), [BOB]);
    assert_eq!(world.counted("elsewhere", "nobody"), 1);
    assert_eq!(world.counted("delivered", "nobody"), 3);
    assert_eq!(world.deliveries(), 0);
    let message = &world.source.seen.messages()[0];
    assert!(message.contains(" with ESMTP id "), "{message}");
}

#[tokio::test]
async fn who_was_refused_has_chosen_nothing() {
    let mut plan = plan();
    plan.source.to = &[("alice", "550 5.1.1 Unknown here")];
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    let answers = mail.begin(&[ALICE, BOB, CAROL]).await;
    assert_eq!(answers, ["550 5.1.1", "250 2.1.5", "452 4.5.3"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert_eq!(world.target.seen.recipients(), [BOB]);
}

#[tokio::test]
async fn one_word_of_the_server_s_is_for_everybody() {
    let mut plan = plan();
    plan.source.verdict = "452 4.2.2 Full";
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, CAROL]).await;
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "452 4.2.2");
    assert_eq!(world.counted("server_deferred", "backend"), 2);
    assert!(world.source.seen.recipients().is_empty());
}

#[tokio::test]
async fn a_message_in_chunks_goes_on_as_one() {
    let world = World::with(plan());
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE]).await;
    mail.0.send("BDAT 7\r\na\r\n.\r\n.").await;
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    assert!(world.source.seen.recipients().is_empty());
    mail.0.send("BDAT 3 LAST\r\n\r\nx").await;
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    let message = &world.source.seen.messages()[0];
    let (_, text) = message.split_once("+0000\r\n").unwrap();
    assert_eq!(text, "a\r\n..\r\n..\r\nx\r\n");
}

#[tokio::test]
async fn a_message_that_is_taken_back_between_chunks_reaches_nobody() {
    let world = World::with(plan());
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE]).await;
    mail.0.send("BDAT 3\r\na\r\n").await;
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    mail.0.send("RSET\r\n").await;
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    let deliveries = || world.deliveries() == 0;
    eventually("nobody is registered", deliveries).await;
    assert_eq!(mail.begin(&[BOB]).await, ["250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert!(world.source.seen.recipients().is_empty());
    assert_eq!(count(&world.source.seen.ends), 0, "its end was never sent");
    assert_eq!(world.target.seen.recipients(), [BOB]);
}

#[tokio::test]
async fn a_held_recipient_is_deferred_and_no_server_hears_of_it() {
    let world = World::with(plan());
    world.fence();
    let mut mail = world.mail_system().await;
    assert_eq!(mail.begin(&[ALICE, BOB]).await, ["451 4.2.1", "250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert_eq!(count(&world.source.seen.connections), 0);
    assert_eq!(world.target.seen.recipients(), [BOB]);
    world.flip();
    assert_eq!(mail.begin(&[ALICE]).await, ["250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert_eq!(world.target.seen.recipients(), [BOB, ALICE]);
}

#[tokio::test]
async fn a_fence_over_one_recipient_defers_the_message_for_all_of_them() {
    let world = World::with(plan());
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, CAROL]).await;
    world.fence();
    assert_eq!(world.drained().await, (1, 0));
    assert_eq!(mail.data().await, "451 4.2.1");
    assert!(world.source.seen.recipients().is_empty());
    assert_eq!(mail.begin(&[CAROL]).await, ["250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "250 2.0.0");
    assert_eq!(world.source.seen.recipients(), [CAROL]);
}

#[tokio::test]
async fn a_fence_waits_for_the_word_on_a_message_that_is_whole() {
    let verdicts = Arc::new(Semaphore::new(0));
    let mut plan = plan();
    plan.source.verdicts = Some(Arc::clone(&verdicts));
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, CAROL]).await;
    assert_eq!(mail.data().await, "354");
    mail.0.send("Hello.\r\n.\r\n").await;
    let whole = || count(&world.source.seen.ends) == 1;
    eventually("the message is whole", whole).await;
    world.fence();
    verdicts.add_permits(1);
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    assert_eq!(world.drained().await, (1, 0));
    assert_eq!(world.source.seen.recipients(), [ALICE, CAROL]);
}

#[tokio::test]
async fn a_server_that_dies_behind_the_end_leaves_one_answer_that_says_to_come_again() {
    let mut plan = plan();
    plan.source.hangs_up = Some(Moment::AtEnd);
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, CAROL]).await;
    assert_eq!(mail.data().await, "354");
    assert_eq!(finish(&mut mail).await, "451 4.4.2");
    assert_eq!(world.counted("unanswered", "backend"), 2);
}

#[tokio::test]
async fn nothing_is_smuggled_and_nothing_behind_it_is_read() {
    let world = World::with(plan());
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE]).await;
    assert_eq!(mail.data().await, "354");
    mail.0
        .send("Hello.\n.\r\nMAIL FROM:<root@a.example>\r\nRCPT TO:<bob@a.example>\r\nDATA\r\nx\r\n.\r\n")
        .await;
    assert_eq!(mail.answers(1).await, ["554 5.6.0"]);
    let closed = || count(&world.source.seen.ended) == 1;
    eventually("the server's connection is closed", closed).await;
    assert_eq!(count(&world.source.seen.ends), 0);
    assert_eq!(count(&world.target.seen.connections), 0);
}
