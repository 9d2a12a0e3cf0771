//! Clients and servers that mean harm.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    backend::count,
    h2,
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

/// A client of HTTP/2 that takes nothing of any response's body.
async fn that_takes_nothing(world: &World) -> SendRequest<Full<Bytes>> {
    let stream = world.secured(&[b"h2"]).await;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(0);
    let (sender, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn a_client_that_takes_nothing_keeps_no_account_from_moving() {
    let world = hasty();
    let mut client = that_takes_nothing(&world).await;
    let asked = client.send_request(h2::request("GET", "/trailers", "alice", b""));
    let answer = asked.await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(world.routed(), 1);
    world.fence();
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    drop(answer);
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_no_server_for_ever() {
    let mut plan = Plan::default();
    plan.limits.web.stalled = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = that_takes_nothing(&world).await;
    let asked = client.send_request(h2::request("GET", "/trailers", "alice", b""));
    let answer = asked.await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    eventually("its server is left", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    drop(answer);
}

/// Nor a place among our clients: once it has asked nothing for long enough, its connection is over.
#[tokio::test]
async fn a_client_that_takes_nothing_is_not_busy_for_ever() {
    let mut plan = Plan::default();
    plan.limits.web.stalled = Duration::from_millis(300);
    plan.limits.web.idle = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = that_takes_nothing(&world).await;
    let asked = client.send_request(h2::request("GET", "/trailers", "alice", b""));
    let answer = asked.await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    eventually("its connection is closed", || client.is_closed()).await;
    drop(answer);
}

/// Somebody whose request is answered, and who goes on with its body.
async fn that_goes_on(world: &World) -> Wire {
    let mut client = world.client().await;
    let put = request("PUT /denied-first", "alice", "Content-Length: 1000\r\n");
    client.send(put).await.unwrap();
    assert_eq!(client.message().await.unwrap().status(), 401);
    client.send("some of it").await.unwrap();
    client
}

#[tokio::test]
async fn a_body_goes_on_behind_its_answer() {
    let world = World::new();
    let mut client = that_goes_on(&world).await;
    client.send([b'x'; 990]).await.unwrap();
    eventually("it was read", || count(&world.old.seen.executed) == 1).await;
    assert_eq!(client.ask("GET /", "alice", "").await.text(), "old /");
}

#[tokio::test]
async fn a_body_that_goes_on_behind_its_answer_keeps_no_account_from_moving() {
    let world = hasty();
    let mut client = that_goes_on(&world).await;
    assert_eq!(world.routed(), 1, "the server is reading it");
    world.fence();
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    assert!(client.has_ended().await);
    assert_eq!(count(&world.old.seen.executed), 0);
}

#[tokio::test]
async fn a_body_reaches_its_server_whatever_the_method() {
    let world = World::new();
    let mut client = world.client().await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    for method in ["GET", "POST"] {
        let answer = client.ask(&format!("{method} /"), "alice", chunked).await;
        assert_eq!(answer.text(), "old /", "{method}");
    }
    assert_eq!(count(&world.old.seen.octets), 8);
    assert_eq!(count(&world.old.seen.connections), 1);
}

#[tokio::test]
async fn a_field_that_only_a_server_would_read_is_refused() {
    let world = World::new();
    let mut client = h2::client(&world).await;
    let mut asked = h2::request("GET", "/mailbox/1", "alice", b"");
    let said = asked.headers()["authorization"].to_str().unwrap();
    let hidden = format!(" {said}").parse().unwrap();
    asked.headers_mut().insert("authorization", hidden);
    let refused = client.send_request(asked).await.unwrap();
    assert_eq!(refused.status().as_u16(), 400);
    assert_eq!(world.old.seen.count(), 0);
}

#[tokio::test]
async fn nobody_was_let_in_by_an_answer_that_says_nothing_of_it() {
    let world = World::new();
    let mut client = world.client().await;
    let names = || world.registry.unlisted(|_| true, "", 9).0;
    for line in ["GET /missing", "GET /denied"] {
        client.ask(line, "ghost", "").await;
    }
    client.ask("GET /redirect", "ghost", "X-To: /\r\n").await;
    assert_eq!(names(), []);
    client.ask("GET /", "ghost", "").await;
    assert_eq!(names().len(), 1);
}

#[tokio::test]
async fn a_name_that_leads_nowhere_looks_like_a_wrong_password() {
    let world = World::new();
    let mut client = world.client().await;
    // ghost@elsewhere.example:secret
    let elsewhere = "Authorization: Basic Z2hvc3RAZWxzZXdoZXJlLmV4YW1wbGU6c2VjcmV0\r\n";
    let refused = client.ask("GET /", "", elsewhere).await;
    assert_eq!(refused.status(), 401);
    let challenge = refused.field("www-authenticate").unwrap();
    assert!(challenge.starts_with("Basic "), "{challenge}");
}
