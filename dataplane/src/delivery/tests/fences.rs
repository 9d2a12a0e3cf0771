//! Moves, kicks and stops while messages are on their way.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    server::{Manners, count},
    world::{Plan, World},
};
use crate::session::tests::eventually;

const ALICE: &str = "alice@a.example";
const BOB: &str = "bob@a.example";
const CAROL: &str = "carol@a.example";

/// A plan in which the source's words wait for permits.
fn slow_to_answer() -> (Plan, Arc<Semaphore>) {
    let verdicts = Arc::new(Semaphore::new(0));
    let plan = Plan {
        source: Manners {
            verdicts: Some(Arc::clone(&verdicts)),
            ..Manners::default()
        },
        ..Plan::default()
    };
    (plan, verdicts)
}

/// A plan in which a message that is cut is cut at once.
fn impatient() -> Plan {
    let mut plan = Plan::default();
    plan.limits.relay.drain = Duration::ZERO;
    plan
}

#[tokio::test]
async fn a_fenced_recipient_is_deferred_and_the_others_get_the_message() {
    let world = World::new();
    world.fence();
    let mut mail = world.mail_system().await;
    let answers = mail.begin(&[ALICE, "\"al\\ice\"@A.example", BOB]).await;
    assert_eq!(answers, ["451 4.2.1", "451 4.2.1", "250 2.1.5"]);
    assert_eq!(mail.data().await, "354");
    assert_eq!(mail.finish("Hello.\r\n", 1).await, ["250 2.0.0"]);
    assert_eq!(count(&world.source.seen.connections), 0);
    assert_eq!(world.drained().await, (0, 0));
}

#[tokio::test]
async fn connection_caching_over_a_flip_leads_to_the_new_home() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    assert_eq!(mail.deliver(&[ALICE]).await, ["250 2.0.0"]);
    world.fence();
    // The kept connection is none of the fence's business.
    assert_eq!(world.drained().await, (0, 0));
    assert_eq!(mail.begin(&[ALICE]).await, ["451 4.2.1"]);
    mail.0.send("RSET\r\n").await;
    mail.answers(1).await;
    world.flip();
    assert_eq!(mail.deliver(&[ALICE, CAROL]).await, ["250 2.0.0"; 2]);
    assert_eq!(world.source.seen.recipients(), [ALICE, CAROL]);
    assert_eq!(world.target.seen.recipients(), [ALICE]);
}

#[tokio::test]
async fn a_fence_between_rcpt_and_data_waits_for_no_mail_system_and_takes_one_recipient_out() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    assert_eq!(mail.begin(&[ALICE, CAROL, BOB]).await, ["250 2.1.5"; 3]);
    world.fence();
    assert_eq!(world.drained().await, (1, 0));
    assert_eq!(mail.recipient(CAROL).await, "250 2.1.5");
    assert_eq!(mail.data().await, "354");
    let answers = mail.finish("Hello.\r\n", 4).await;
    assert_eq!(
        answers,
        ["451 4.2.1", "250 2.0.0", "250 2.0.0", "250 2.0.0"]
    );
    assert_eq!(world.source.seen.recipients(), [CAROL, CAROL]);
    assert_eq!(world.target.seen.recipients(), [BOB]);
}

#[tokio::test]
async fn a_message_for_nobody_but_the_fenced_is_not_even_taken() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE]).await;
    world.fence();
    world.drained().await;
    assert_eq!(mail.data().await, "451 4.2.1");
    assert_eq!(mail.deliver(&[CAROL]).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), [CAROL]);
}

#[tokio::test]
async fn a_fence_while_the_server_thinks_about_a_recipient_does_not_wait_for_it() {
    let recipients = Arc::new(Semaphore::new(0));
    let world = World::with(Plan {
        source: Manners {
            recipients: Some(Arc::clone(&recipients)),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut mail = world.mail_system().await;
    mail.begin(&[]).await;
    mail.0.send(format!("RCPT TO:<{ALICE}>\r\n")).await;
    eventually("the server was asked", || world.source.seen.has("RCPT")).await;
    world.fence();
    assert_eq!(world.drained().await, (1, 0));
    recipients.add_permits(10);
    assert_eq!(mail.answers(1).await, ["451 4.2.1"]);
    // The server has said yes, and must not deliver all the same.
    assert_eq!(mail.recipient(CAROL).await, "250 2.1.5");
    assert_eq!(mail.data().await, "354");
    assert_eq!(mail.finish("Hello.\r\n", 1).await, ["250 2.0.0"]);
    assert_eq!(world.source.seen.recipients(), [CAROL]);
}

#[tokio::test]
async fn a_message_on_its_way_may_become_whole_and_the_fence_waits_for_the_word_on_it() {
    let (plan, verdicts) = slow_to_answer();
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE]).await;
    mail.data().await;
    world.fence();
    mail.0.send("Hello.\r\n.\r\n").await;
    eventually("the server has it", || count(&world.source.seen.ends) == 1).await;
    assert_eq!(world.deliveries(), 1);
    verdicts.add_permits(1);
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    assert_eq!(world.drained().await, (1, 0));
    assert_eq!(world.source.seen.recipients(), [ALICE]);
}

#[tokio::test]
async fn a_message_that_does_not_become_whole_in_time_is_cut_where_the_fence_is_and_nowhere_else() {
    let world = World::with(impatient());
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, BOB, CAROL]).await;
    mail.data().await;
    mail.0.send("Half of ").await;
    eventually("it came", || count(&world.source.seen.octets) > 0).await;
    world.fence();
    assert_eq!(world.drained().await, (1, 0));
    eventually("it is cut", || count(&world.source.seen.ended) == 1).await;
    let answers = mail.finish("it.\r\n", 3).await;
    assert_eq!(answers, ["451 4.2.1", "250 2.0.0", "451 4.2.1"]);
    assert!(world.source.seen.recipients().is_empty());
    assert_eq!(world.target.seen.recipients(), [BOB]);
}

#[tokio::test]
async fn nothing_cuts_between_the_end_of_a_message_and_the_word_on_it() {
    let (mut plan, verdicts) = slow_to_answer();
    plan.limits.relay.drain = Duration::ZERO;
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, CAROL]).await;
    mail.data().await;
    mail.0.send("Hello.\r\n.\r\n").await;
    eventually("the server has it", || count(&world.source.seen.ends) == 1).await;
    world.fence();
    world.kick();
    world.stop();
    verdicts.add_permits(1);
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    assert_eq!(world.drained().await, (1, 0));
    assert_eq!(world.deliveries(), 1, "Carol's");
    verdicts.add_permits(1);
    assert_eq!(mail.answers(1).await, ["250 2.0.0"]);
    assert!(mail.0.rest().await.starts_with("421 4.3.2 "));
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_server_that_gives_no_word_makes_the_move_unconfirmed() {
    let (mut plan, _verdicts) = slow_to_answer();
    plan.limits.deliveries.verdict = Duration::from_millis(200);
    plan.limits.relay.close = Duration::from_millis(200);
    let world = World::with(plan);
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, BOB]).await;
    mail.data().await;
    mail.0.send("Hello.\r\n.\r\n").await;
    eventually("the server has it", || count(&world.source.seen.ends) == 1).await;
    world.fence();
    assert_eq!(mail.answers(2).await, ["451 4.4.2", "250 2.0.0"]);
    assert_eq!(world.drained().await, (1, 1));
}

#[tokio::test]
async fn a_kick_takes_its_account_out_of_a_message_at_once() {
    let world = World::new();
    let mut mail = world.mail_system().await;
    mail.begin(&[ALICE, BOB]).await;
    mail.data().await;
    mail.0.send("Half of ").await;
    eventually("it came", || count(&world.source.seen.octets) > 0).await;
    world.kick();
    eventually("it is cut", || count(&world.source.seen.ended) == 1).await;
    assert_eq!(mail.finish("it.\r\n", 2).await, ["451 4.3.0", "250 2.0.0"]);
    assert_eq!(world.counted("kicked", "us"), 1);
}

#[tokio::test]
async fn at_a_stop_who_sends_nothing_is_sent_away_and_a_message_on_its_way_is_delivered() {
    let world = World::new();
    let mut idle = world.mail_system().await;
    let mut open = world.mail_system().await;
    open.begin(&[ALICE]).await;
    let mut sending = world.mail_system().await;
    sending.begin(&[ALICE, BOB]).await;
    sending.data().await;
    world.stop();
    for mail in [&mut idle, &mut open] {
        assert!(mail.0.rest().await.starts_with("421 4.3.2 "));
    }
    let answers = sending.finish("Hello.\r\n", 2).await;
    assert_eq!(answers, ["250 2.0.0"; 2]);
    assert!(sending.0.rest().await.starts_with("421 4.3.2 "));
    assert_eq!(world.deliveries(), 0);
}
