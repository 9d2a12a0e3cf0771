//! Large bodies on their way up.

use std::time::Duration;

use super::{
    backend::count,
    world::{Plan, World, request},
};
use crate::session::tests::eventually;

const PUT: &str = "Content-Length: 1000000\r\n";

#[tokio::test]
async fn a_body_goes_up_as_it_comes() {
    let world = World::new();
    let mut client = world.client().await;
    client.send(request("PUT /a", "alice", PUT)).await.unwrap();
    eventually("the head is there before the body", || {
        world.old.seen.count() == 1
    })
    .await;
    client.send(vec![b'x'; 1_000_000]).await.unwrap();
    assert_eq!(client.message().await.unwrap().status(), 200);
    assert_eq!(count(&world.old.seen.octets), 1_000_000);
}

#[tokio::test]
async fn a_server_that_answers_early_is_heard() {
    let world = World::new();
    let mut client = world.client().await;
    client
        .send(request("PUT /early", "alice", PUT))
        .await
        .unwrap();
    assert_eq!(client.head().await.unwrap().status(), 413);
}

#[tokio::test]
async fn an_upload_that_its_client_cuts_is_none_to_its_server() {
    let world = World::new();
    for more in [PUT, "Transfer-Encoding: chunked\r\n"] {
        let mut client = world.client().await;
        client.send(request("PUT /a", "alice", more)).await.unwrap();
        client.send("5\r\nabcde\r\n").await.unwrap();
        drop(client);
    }
    eventually("both are over", || {
        world.old.seen.count() == 2 && world.routed() == 0
    })
    .await;
    assert_eq!(count(&world.old.seen.executed), 0);
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn an_upload_that_a_fence_cuts_is_no_success_and_none_to_its_server() {
    let mut plan = Plan::default();
    plan.limits.relay.drain = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    client.send(request("PUT /a", "alice", PUT)).await.unwrap();
    client.send(vec![b'x'; 1000]).await.unwrap();
    eventually("it is there", || world.old.seen.count() == 1).await;
    world.fence();
    assert_eq!(client.message().await.unwrap().status(), 503);
    assert!(client.has_ended().await);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.executed), 0);
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn an_upload_within_the_drain_is_finished() {
    let world = World::new();
    let mut client = world.client().await;
    client.send(request("PUT /a", "alice", PUT)).await.unwrap();
    eventually("it is there", || world.old.seen.count() == 1).await;
    world.fence();
    client.send(vec![b'x'; 1_000_000]).await.unwrap();
    assert_eq!(client.message().await.unwrap().text(), "old /a");
    eventually("the fence is drained", || world.routed() == 0).await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_is_408() {
    let mut plan = Plan::default();
    plan.limits.web.stalled = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    client.send(request("PUT /a", "alice", PUT)).await.unwrap();
    assert_eq!(client.message().await.unwrap().status(), 408);
    assert!(client.has_ended().await);
    eventually("its server was left", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.executed), 0);
}

#[tokio::test]
async fn a_server_that_reads_nothing_stops_its_client() {
    const ENOUGH: usize = 256 << 20;
    let world = World::new();
    let mut client = world.client().await;
    let length = format!("Content-Length: {ENOUGH}\r\n");
    client
        .send(request("PUT /unread", "alice", &length))
        .await
        .unwrap();
    let piece = vec![0; 1 << 20];
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_secs(1), client.send(&piece))
        .await
        .is_ok()
    {
        sent += piece.len();
        assert!(sent < ENOUGH, "somebody holds all of it");
    }
}
