//! Connections without hyper: here it goes as soon as nothing is asked.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    backend::count,
    web_sockets::open,
    world::{Plan, World, request},
};
use crate::session::tests::eventually;

fn world() -> World {
    let mut plan = Plan::default();
    plan.limits.web.rest = Duration::ZERO;
    World::with(plan)
}

#[tokio::test]
async fn both_connections_are_of_use_for_as_many_requests_as_ever() {
    let world = world();
    let mut client = world.client().await;
    for n in 0..5 {
        let answer = client.ask(&format!("GET /{n}"), "alice", "").await;
        assert_eq!(answer.text(), format!("old /{n}"));
        eventually("it is kept", || world.registered() == 1).await;
    }
    let answer = client
        .ask("POST /a", "alice", "Content-Length: 4\r\n\r\nbody")
        .await;
    assert_eq!(answer.text(), "old /a");
    assert_eq!(count(&world.old.seen.connections), 1);
    assert_eq!(count(&world.old.seen.octets), 4);
}

#[tokio::test]
async fn a_head_in_pieces_and_two_at_once_are_read_as_ever() {
    let world = world();
    let mut client = world.client().await;
    let text = request("GET /a", "alice", "");
    for piece in text.as_bytes().chunks(9) {
        client.send(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(client.message().await.unwrap().text(), "old /a");
    let two = [request("GET /b", "alice", ""), request("GET /c", "bob", "")];
    client.send(two.concat()).await.unwrap();
    assert_eq!(client.message().await.unwrap().text(), "old /b");
    assert_eq!(client.message().await.unwrap().text(), "new /c");
}

#[tokio::test]
async fn a_fence_ends_a_connection_to_a_server_that_rests() {
    let world = world();
    let mut client = world.client().await;
    client.ask("GET /a", "alice", "").await;
    world.fence();
    eventually("the server has seen its end", || {
        count(&world.old.seen.ended) == 1
    })
    .await;
    eventually("nothing is at the old server", || world.routed() == 0).await;
    world.flip();
    assert_eq!(client.ask("GET /b", "alice", "").await.text(), "new /b");
}

#[tokio::test]
async fn a_client_that_rests_is_told_to_go_when_the_process_stops() {
    let world = world();
    let mut client = world.client().await;
    client.ask("GET /a", "alice", "").await;
    world.stop();
    assert!(client.head().await.is_none(), "it is closed");
    eventually("nobody is left", || world.registered() == 0).await;
}

#[tokio::test]
async fn a_client_that_wants_no_more_is_closed() {
    let world = world();
    let mut client = world.client().await;
    let answer = client.ask("GET /a", "alice", "Connection: close\r\n").await;
    assert_eq!(answer.text(), "old /a");
    assert!(client.head().await.is_none(), "it is closed");
}

/// What a server says that was asked nothing would be the answer to the next request.
#[tokio::test]
async fn a_server_that_speaks_unasked_is_heard_by_nobody() {
    let world = world();
    let mut client = world.client().await;
    let answer = client.ask("GET /then-more", "alice", "").await;
    assert_eq!(answer.text(), "now");
    world.old.steps.add_permits(1);
    eventually("its connection has ended", || {
        count(&world.old.seen.ended) == 1
    })
    .await;
    assert_eq!(client.ask("GET /b", "alice", "").await.text(), "old /b");
    assert_eq!(count(&world.old.seen.connections), 2);
}

#[tokio::test]
async fn a_web_socket_is_carried_as_ever() {
    let world = world();
    let mut client = world.client().await;
    client.ask("GET /a", "alice", "").await;
    let mut socket = open(&world, "/ws").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.old.steps.add_permits(1);
    assert_eq!(socket.octets(5).await, b"\x81\x03you");
    assert_eq!(client.ask("GET /b", "alice", "").await.text(), "old /b");
}

#[tokio::test]
async fn an_empty_line_is_nothing_that_anybody_waits_for() {
    let world = world();
    let mut client = world.client().await;
    for _ in 0..2 {
        client.send("\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(client.ask("GET /a", "alice", "").await.text(), "old /a");
    }
    client.send("\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.stop();
    assert!(client.head().await.is_none(), "it is closed");
}

/// A server that answers before it has read the request: what hyper still has of that must come before the next one.
/// How much that is depends on what kernels take, so there are many sizes.
#[tokio::test]
async fn a_connection_whose_server_has_not_taken_all_does_not_rest() {
    let world = Arc::new(world());
    let sizes = (1..=40_usize).map(|n| n * (96 << 10));
    let asked = sizes.map(|size| {
        let world = Arc::clone(&world);
        async move {
            let mut client = world.client().await;
            let length = format!("Content-Length: {size}\r\n");
            let head = request("PUT /missing-late", "alice", &length);
            client.send(head).await.unwrap();
            assert_eq!(client.message().await.unwrap().status(), 404);
            let later = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                world.old.steps.add_permits(1);
            };
            let body = vec![b'x'; size];
            let (sent, ()) = tokio::join!(client.send(body), later);
            sent.unwrap();
            assert_eq!(client.ask("GET /b", "alice", "").await.text(), "old /b");
        }
    });
    join_all(asked).await;
    let paths: BTreeSet<_> = world
        .old
        .seen
        .requests()
        .into_iter()
        .map(|(_, it)| it.target().to_owned())
        .collect();
    assert_eq!(
        paths,
        BTreeSet::from(["/b".to_owned(), "/missing-late".to_owned()])
    );
}
