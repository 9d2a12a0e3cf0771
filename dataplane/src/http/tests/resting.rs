//! Connections without hyper: here it goes as soon as nothing is asked.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    backend::{LONG, count},
    web_sockets::open,
    world::{Plan, World, request},
};
use crate::session::tests::eventually;

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.limits.web.rest = Duration::ZERO;
    plan
}

fn world() -> World {
    World::with(plan())
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
    client.ask("GET /a", "alice", "").await;
    client.send("\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.stop();
    assert!(client.head().await.is_none(), "it is closed");
}

#[tokio::test]
async fn one_empty_line_before_each_request_is_forgiven_and_no_second_one_however_late_it_comes() {
    let world = world();
    let mut client = world.client().await;
    for _ in 0..2 {
        client.send("\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(client.ask("GET /a", "alice", "").await.text(), "old /a");
    }
    client.send("\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.send("\r\n").await.unwrap();
    assert_eq!(client.message().await.unwrap().status(), 400);
    assert!(client.head().await.is_none(), "it is closed");
}

#[tokio::test]
async fn a_client_that_rests_is_closed_at_the_end_of_its_time_and_not_before() {
    let mut plan = plan();
    plan.limits.web.idle = Duration::from_millis(300);
    let idle = plan.limits.web.idle;
    let world = World::with(plan);
    let mut client = world.client().await;
    for _ in 0..3 {
        client.ask("GET /a", "alice", "").await;
    }
    let answered = Instant::now();
    assert!(client.head().await.is_none(), "it is closed");
    // The time is counted in milliseconds, from a moment before the answer was here.
    let slack = Duration::from_millis(50);
    assert!(answered.elapsed() + slack >= idle);
}

/// Whether hyper is there or not when its time is over.
#[tokio::test]
async fn a_request_that_meets_the_end_of_a_kept_connection_is_asked_once_and_answered() {
    const REQUESTS: u64 = 50;
    let worlds = [Duration::ZERO, Duration::from_mins(1)].map(|rest| {
        let mut plan = plan();
        plan.limits.web.rest = rest;
        plan.limits.web.upstream_idle = Duration::from_millis(20);
        World::with(plan)
    });
    let asked = worlds.iter().map(async |world| {
        let mut client = world.client().await;
        for n in 0..REQUESTS {
            tokio::time::sleep(Duration::from_millis(15 + n % 10)).await;
            let line = format!("PUT /{n}");
            let answer = client
                .ask(&line, "alice", "Content-Length: 4\r\n\r\nbody")
                .await;
            assert_eq!(answer.text(), format!("old /{n}"));
        }
        assert_eq!(count(&world.old.seen.executed) as u64, REQUESTS);
        assert!(count(&world.old.seen.connections) > 1, "one was closed");
        assert_eq!(world.registry.unconfirmed(), 0);
    });
    join_all(asked).await;
}

/// When it has been read from the server, its end lies with hyper, nothing is asked any more, and the client has not taken
/// it yet.
#[tokio::test]
async fn a_response_that_is_taken_slowly_is_neither_cut_nor_the_last_one() {
    let world = World::with(plan());
    let mut client = world.narrow_client().await;
    let asked = request("GET /long", "alice", "");
    client.send(asked).await.unwrap();
    eventually("all of it has been read", || world.kept() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.message().await.unwrap().body.len(), LONG);
    assert_eq!(client.ask("GET /b", "alice", "").await.text(), "old /b");
}

#[tokio::test]
async fn a_response_that_is_taken_slowly_is_not_cut_when_the_process_stops() {
    for rest in [Duration::ZERO, Duration::from_mins(1)] {
        let mut plan = plan();
        plan.limits.web.rest = rest;
        plan.limits.web.head = Duration::from_millis(20);
        let world = World::with(plan);
        let mut client = world.narrow_client().await;
        let asked = request("GET /long", "alice", "");
        client.send(asked).await.unwrap();
        eventually("all of it has been read", || world.kept() == 1).await;
        world.stop();
        eventually("its server has been left", || world.registered() == 0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(client.message().await.unwrap().body.len(), LONG);
        assert!(client.head().await.is_none(), "it is closed");
    }
}

/// A server that answers before it has read the request: what hyper still has of that must come before the next one. That
/// is at most 128 KiB behind what kernels take, which is not known, so there are many sizes.
#[tokio::test]
async fn a_connection_whose_server_has_not_taken_all_does_not_rest() {
    const STEP: usize = 16 << 10;
    const COUNT: usize = 40;
    let mut plan = plan();
    plan.old.is_narrow = true;
    let world = World::with(plan);
    let uploads = (1..=COUNT).map(async |n| {
        let mut client = world.client().await;
        let size = n * STEP;
        let length = format!("Content-Length: {size}\r\n");
        let head = request("PUT /missing-late", "alice", &length);
        client.send(head).await.unwrap();
        assert_eq!(client.message().await.unwrap().status(), 404);
        client.send(vec![b'x'; size]).await.unwrap();
        client
    });
    let clients = join_all(uploads).await;
    // Of these hyper takes all, whatever the kernels do; of those of more it takes all where they take some.
    let taken = (128 << 10) / STEP;
    eventually("they are answered", || world.kept() >= taken).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.old.steps.add_permits(COUNT);
    let asked = clients.into_iter().map(async |mut client| {
        assert_eq!(client.ask("GET /b", "alice", "").await.text(), "old /b");
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
