//! Moves.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backend::count,
    message::Wire,
    world::{Plan, World, request},
};
use crate::session::tests::eventually;

/// With little time to end by itself.
fn hasty() -> World {
    let mut plan = Plan::default();
    plan.limits.relay.drain = Duration::from_millis(300);
    World::with(plan)
}

/// With little time for a server's end.
fn impatient() -> World {
    let mut plan = Plan::default();
    plan.limits.relay.drain = Duration::from_millis(300);
    plan.limits.relay.close = Duration::from_millis(300);
    World::with(plan)
}

#[tokio::test]
async fn a_held_request_goes_to_the_new_home_and_its_body_is_read_not_before() {
    let world = World::new();
    let mut client = world.client().await;
    client.ask("GET /", "alice", "").await;
    world.fence();
    let expecting = "Content-Length: 4\r\nExpect: 100-continue\r\n";
    client
        .send(request("PUT /a", "alice", expecting))
        .await
        .unwrap();
    eventually("it is held", || world.held() == 1).await;
    // The kept connection has ended; nothing of the new request was seen anywhere.
    eventually("nothing is at the old server", || world.routed() == 0).await;
    assert_eq!(world.old.seen.count() + world.new.seen.count(), 1);
    world.flip();
    assert_eq!(client.head().await.unwrap().status(), 100);
    client.send("body").await.unwrap();
    assert_eq!(client.message().await.unwrap().text(), "new /a");
    assert_eq!(count(&world.new.seen.octets), 4);
    assert_eq!(world.new.seen.last().field("expect"), None);
}

#[tokio::test]
async fn a_move_that_is_off_releases_to_the_old_home() {
    let world = World::new();
    let mut client = world.client().await;
    world.fence();
    client.send(request("GET /a", "alice", "")).await.unwrap();
    eventually("it is held", || world.held() == 1).await;
    world.abort();
    assert_eq!(client.message().await.unwrap().text(), "old /a");
}

#[tokio::test]
async fn who_is_held_for_too_long_is_told_to_come_again() {
    let mut plan = Plan::default();
    plan.limits.hold.timeout = Duration::from_millis(200);
    let world = World::with(plan);
    let mut client = world.client().await;
    world.fence();
    let held = client.ask("GET /a", "alice", "").await;
    assert_eq!((held.status(), held.field("retry-after")), (503, Some("5")));
    assert_eq!(
        client.ask("GET /a", "bob", "").await.text(),
        "new /a",
        "others are served"
    );
    assert_eq!(world.held(), 0);
}

#[tokio::test]
async fn a_fence_waits_for_what_is_being_answered_and_closes_what_is_kept() {
    let world = World::new();
    let (mut busy, mut idle) = (world.client().await, world.client().await);
    idle.ask("GET /", "alice", "").await;
    busy.send(request("POST /slow", "alice", "Content-Length: 0\r\n"))
        .await
        .unwrap();
    eventually("it is there", || world.old.seen.count() == 2).await;
    world.fence();
    eventually("what was kept is closed", || world.routed() == 1).await;
    assert_eq!(count(&world.old.seen.ended), 1);
    world.old.steps.add_permits(1);
    assert_eq!(
        busy.message().await.unwrap().status(),
        200,
        "it is answered"
    );
    eventually("the fence is drained", || world.routed() == 0).await;
    // Its connection ends, too: whatever comes next is another server's.
    eventually("the connection is closed", || {
        count(&world.old.seen.ended) == 2
    })
    .await;
    world.flip();
    assert_eq!(busy.ask("GET /b", "alice", "").await.text(), "new /b");
}

/// A client whose request the old server has when its account is fenced.
async fn fenced_at(world: &World, line: &str, fields: &str) -> Wire {
    let mut client = world.client().await;
    client.send(request(line, "alice", fields)).await.unwrap();
    eventually("it is there", || world.old.seen.count() == 1).await;
    world.fence();
    client
}

#[tokio::test]
async fn a_long_poll_is_ended_by_503_and_its_server_waited_for() {
    let world = World::new();
    let mut client = fenced_at(&world, "GET /slow", "").await;
    let ended = client.message().await.unwrap();
    assert_eq!(
        (ended.status(), ended.field("retry-after")),
        (503, Some("5"))
    );
    assert_eq!(world.routed(), 1, "the server has not ended it");
    world.old.steps.add_permits(1);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn what_writes_has_all_of_the_drain_and_is_503_behind_it() {
    let world = hasty();
    let mut client = fenced_at(&world, "POST /slow", "Content-Length: 0\r\n").await;
    let cut = client.message().await.unwrap();
    assert_eq!(cut.status(), 503);
    assert_eq!(world.routed(), 1, "the server may be executing it");
    world.old.steps.add_permits(1);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(
        (
            count(&world.old.seen.executed),
            world.registry.unconfirmed()
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn a_server_that_does_not_end_makes_the_end_unconfirmed() {
    let world = impatient();
    let mut client = fenced_at(&world, "POST /slow", "Content-Length: 0\r\n").await;
    assert_eq!(client.message().await.unwrap().status(), 503);
    eventually("it is given up", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 1);
}

#[tokio::test]
async fn an_event_stream_ends_like_an_event_and_its_client_finds_the_new_home() {
    let world = World::new();
    let mut client = world.client().await;
    client
        .send(request("GET /events", "alice", ""))
        .await
        .unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(client.chunk().await.unwrap(), b"data: 1\n\n");
    world.old.steps.add_permits(1);
    assert_eq!(client.chunk().await.unwrap(), b"data: 1\n\n");
    world.fence();
    assert_eq!(
        client.chunk().await.unwrap(),
        b"",
        "the body has its proper end"
    );
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    world.flip();
    client
        .send(request("GET /events", "alice", ""))
        .await
        .unwrap();
    client.head().await.unwrap();
    assert_eq!(world.new.seen.count(), 1);
}

#[tokio::test]
async fn an_event_stream_and_a_poll_end_at_a_move_and_begin_again_on_the_other_side_though_their_server_is_deaf()
 {
    let world = impatient();
    let (mut stream, mut poll) = (world.client().await, world.client().await);
    let events = request("GET /deaf-events", "alice", "");
    stream.send(&events).await.unwrap();
    stream.head().await.unwrap();
    let asked = request("GET /deaf", "alice", "");
    poll.send(&asked).await.unwrap();
    eventually("both are there", || world.old.seen.count() == 2).await;
    world.fence();
    assert_eq!(stream.chunk().await.unwrap(), b"data: 1\n\n");
    assert_eq!(stream.chunk().await.unwrap(), b"", "its proper end");
    assert_eq!(poll.message().await.unwrap().status(), 503);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    assert_eq!(count(&world.old.seen.ended), 0, "the server has not heard");
    world.flip();
    stream.send(events).await.unwrap();
    stream.head().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap(), b"data: 1\n\n");
    let mut poll = world.client().await;
    poll.send(asked).await.unwrap();
    eventually("both are at the new server", || world.new.seen.count() == 2).await;
}

#[tokio::test]
async fn a_ping_by_post_is_ended_like_a_poll_and_a_sync_waited_for() {
    let mut plan = Plan::default();
    plan.limits.relay.close = Duration::from_millis(300);
    let world = World::with(plan);
    let line = "POST /Microsoft-Server-ActiveSync?Cmd=Ping&User=alice";
    let mut client = fenced_at(&world, line, "Content-Length: 4\r\n\r\nping").await;
    let told = Instant::now();
    let ended = client.message().await.unwrap();
    assert_eq!(
        (ended.status(), ended.field("retry-after")),
        (503, Some("5"))
    );
    assert!(
        told.elapsed() < world.services.limits.relay.drain,
        "at once"
    );
    assert_eq!(world.routed(), 1, "its server is waited for");
    let world = impatient();
    let line = "POST /Microsoft-Server-ActiveSync?Cmd=Sync&User=alice";
    let mut client = fenced_at(&world, line, "Content-Length: 4\r\n\r\nsync").await;
    assert_eq!(client.message().await.unwrap().status(), 503);
    eventually("it is given up", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 1);
}

#[tokio::test]
async fn a_web_socket_may_write_though_it_was_asked_for_by_get() {
    let world = impatient();
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut client = fenced_at(&world, "GET /deaf", handshake).await;
    assert_eq!(client.message().await.unwrap().status(), 503);
    eventually("it is given up", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_its_server_does_not_end_has_nothing_to_be_waited_for() {
    let world = impatient();
    let mut client = world.client().await;
    client.ask("GET /then-deaf", "alice", "").await;
    world.fence();
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_fence_does_not_wait_for_other_accounts_on_the_same_connection() {
    let world = World::new();
    let mut client = world.client().await;
    client.ask("GET /", "alice", "").await;
    client.ask("GET /", "carol", "").await;
    world.fence();
    eventually("alice's connection is closed", || world.routed() == 0).await;
    assert_eq!(client.ask("GET /", "carol", "").await.text(), "old /");
    assert_eq!(count(&world.old.seen.connections), 2, "carol's is the same");
}

#[tokio::test]
async fn what_may_write_to_anybody_at_a_server_is_held_while_somebody_there_is_fenced() {
    let world = World::new();
    let mut client = world.client().await;
    assert_eq!(client.ask("GET /web/a", "", "").await.text(), "old /web/a");
    world.fence();
    eventually("what was kept for it is closed", || world.registered() == 0).await;
    assert_eq!(
        client.ask("GET /login/", "", "").await.text(),
        "old /login/"
    );
    client.send(request("GET /web/b", "", "")).await.unwrap();
    eventually("it is held", || world.held() == 1).await;
    world.flip();
    assert_eq!(client.message().await.unwrap().text(), "old /web/b");
}
