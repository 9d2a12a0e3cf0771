//! Peers that break the rules: nothing grows, nothing hangs, nobody else notices.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backend::Manners,
    client::{Client, PATIENCE},
    eventually, noops,
    world::{Plan, World},
};
use crate::config::ListenerTls;

#[tokio::test]
async fn greetings_that_are_none_make_the_server_unavailable() {
    let endless = vec![b'x'; 10 << 20];
    for greeting in [
        &b"* PREAUTH welcome\r\n"[..],
        b"* BYE\r\n",
        b"220 mail.example.org ESMTP\r\n",
        b"\0\x01\x02\r\n",
        &endless,
    ] {
        let world = World::with(Plan {
            old: Manners {
                greeting: greeting.to_vec(),
                ..Manners::default()
            },
            ..Plan::default()
        });
        let mut client = world.client().await;
        let answer = client.try_login("alice@example.org", "secret").await;
        assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
        assert!(!world.old.seen.has("secret"));
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unavailable_within_the_limit() {
    let mut plan = Plan::default();
    plan.old.greeting = Vec::new();
    plan.limits.backend.negotiate = Duration::from_millis(200);
    let world = World::with(plan);
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
}

#[tokio::test]
async fn a_server_without_a_verdict_is_unavailable_within_the_limit_and_left() {
    let mut plan = Plan::default();
    plan.old.verdicts = Some(std::sync::Arc::new(tokio::sync::Semaphore::new(0)));
    plan.limits.backend.login = Duration::from_millis(200);
    let world = World::with(plan);
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    // It did not close when we did, and it may have taken the login; but no command came with it, so no
    // move need be afraid of what it still does.
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn an_endless_line_and_a_gigabyte_announced_are_answered_and_ended() {
    let mut plan = Plan::default();
    plan.limits.preauth.login = Duration::from_secs(3);
    let world = World::with(plan);
    let mut client = world.client().await;
    _ = client.try_send(&vec![b'x'; 1 << 20]).await;
    assert!(client.rest().await.starts_with("* BYE"));

    let mut client = world.client().await;
    client.send("a LOGIN {1000000000}\r\n").await;
    let answer = client.answer("a ").await;
    assert!(
        answer.starts_with("a NO") || answer.starts_with("a BAD"),
        "{answer}"
    );

    let mut client = world.client().await;
    // LITERAL+ promises that it may come unasked: it is passed over, for as long as a login may take.
    client.send("a LOGIN {1000000000+}\r\nxxxx").await;
    let answer = client.answer("a ").await;
    assert!(answer.starts_with("a NO [TOOBIG]"), "{answer}");
    assert!(client.rest().await.contains("BYE"));
    assert_eq!(world.old.seen.count(&world.old.seen.connections), 0);
}

#[tokio::test]
async fn thousands_of_pipelined_commands_end_at_their_limit() {
    let world = World::new();
    let mut client = world.client().await;
    _ = client.try_send(&noops(5000)).await;
    let rest = client.rest().await;
    assert!(rest.contains("* BYE"), "{rest}");
    assert!(rest.lines().count() < 200);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_sent_away() {
    let mut plan = Plan::default();
    plan.limits.preauth.login = Duration::from_secs(1);
    let world = World::with(plan);
    let mut client = world.client().await;
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_closed() {
    let mut plan = Plan::default();
    plan.limits.preauth.handshake = Duration::from_millis(200);
    let world = World::with(plan);
    let mut client = Client::plain(world.address).await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn one_connection_more_than_the_limit_reads_why() {
    let mut plan = Plan {
        listener: ListenerTls::StartTls,
        ..Plan::default()
    };
    plan.limits.connections.per_address = 2;
    let world = World::with(plan);
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut client = Client::plain(world.address).await;
        assert!(client.line().await.starts_with("* OK"));
        served.push(client);
    }
    let mut surplus = Client::plain(world.address).await;
    assert!(surplus.rest().await.starts_with("* BYE"));
    served.pop();
    eventually_served(&world).await;
}

async fn eventually_served(world: &World) {
    let limit = Instant::now() + PATIENCE;
    loop {
        // Each answer takes a round trip, so this does not spin.
        let mut client = Client::plain(world.address).await;
        if client.line().await.starts_with("* OK") {
            return;
        }
        assert!(Instant::now() < limit, "the place was never free again");
    }
}

#[tokio::test]
async fn a_second_login_on_a_relayed_connection_never_reaches_the_server() {
    let world = World::new();
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client
        .send("u UNAUTHENTICATE\r\nl LOGIN bob@example.org secret\r\n")
        .await;
    assert!(client.rest().await.starts_with("* BYE"));
    eventually("the session is gone", || {
        world.registry.counts().sessions == 0
    })
    .await;
    assert!(!world.old.seen.has("UNAUTHENTICATE"));
    assert!(!world.old.seen.has("bob"));
    assert_eq!(world.registry.unconfirmed(), 0);
}
