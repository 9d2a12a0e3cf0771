//! Clients that speak HTTP/2.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, Version, header::SEC_WEBSOCKET_VERSION};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
    ext::Protocol,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncReadExt as _, sync::mpsc};

use super::{
    backend::count,
    world::{Plan, World, authorization},
};
use crate::session::tests::eventually;

pub(super) async fn client(world: &World) -> SendRequest<Full<Bytes>> {
    client_of(world, &http2::Builder::new(TokioExecutor::new())).await
}

pub(super) async fn client_of(
    world: &World,
    builder: &http2::Builder<TokioExecutor>,
) -> SendRequest<Full<Bytes>> {
    let stream = world.secured(&[b"h2", b"http/1.1"]).await;
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn request(
    method: &str,
    path: &str,
    user: &str,
    body: &'static [u8],
) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("https://mail.example.org{path}"))
        .version(Version::HTTP_2)
        .header("authorization", authorization(user))
        .body(Full::new(body.into()))
        .unwrap()
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn streams_of_two_accounts_are_two_connections_to_servers_and_none_waits_for_the_other() {
    let world = World::new();
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("GET", "/slow", "alice", b"")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    let fast = client
        .send_request(request("PUT", "/a?b", "bob", b"body"))
        .await
        .unwrap();
    assert_eq!(
        (fast.version(), fast.status().as_u16()),
        (Version::HTTP_2, 200)
    );
    assert_eq!(text(fast).await, "new /a?b");
    let seen = world.new.seen.last();
    assert_eq!(seen.field("host"), Some("mail.example.org"));
    assert_eq!(count(&world.new.seen.octets), 4);
    world.old.steps.add_permits(1);
    assert_eq!(text(slow.await.unwrap().unwrap()).await, "old /slow");
}

#[tokio::test]
async fn held_streams_take_nothing_from_those_of_others() {
    const LARGE: &[u8] = &[b'x'; 1 << 20];
    let world = World::new();
    let mut client = client(&world).await;
    world.fence();
    let held: Vec<_> = (0..50)
        .map(|_| tokio::spawn(client.send_request(request("PUT", "/a", "alice", LARGE))))
        .collect();
    eventually("they are held", || world.held() == 50).await;
    let other = client
        .send_request(request("PUT", "/b", "bob", LARGE))
        .await
        .unwrap();
    assert_eq!(text(other).await, "new /b");
    world.flip();
    for held in held {
        assert_eq!(text(held.await.unwrap().unwrap()).await, "new /a");
    }
    assert_eq!(count(&world.new.seen.octets), 51 * LARGE.len());
}

#[tokio::test]
async fn a_stream_that_its_client_resets_leaves_its_server_to_end_by_itself() {
    let world = World::new();
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("GET", "/slow", "alice", b"")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    slow.abort();
    let other = client
        .send_request(request("GET", "/", "bob", b""))
        .await
        .unwrap();
    assert_eq!(text(other).await, "new /");
    assert_eq!(world.routed(), 1, "the server is still at it");
    world.old.steps.add_permits(1);
    eventually("it is over", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_body_that_a_server_cut_is_no_whole_one() {
    let world = World::new();
    let mut client = client(&world).await;
    let half = client
        .send_request(request("GET", "/half", "alice", b""))
        .await
        .unwrap();
    assert!(half.into_body().collect().await.is_err());
    let next = client
        .send_request(request("GET", "/", "alice", b""))
        .await
        .unwrap();
    assert_eq!(text(next).await, "old /");
}

/// What it is still about to send is no reason to reset its stream, which not every client takes for what it is.
#[tokio::test]
async fn a_client_that_is_refused_may_come_to_the_end_of_what_it_sends() {
    let world = World::new();
    let stream = TokioIo::new(world.secured(&[b"h2"]).await);
    let shaken = http2::handshake(TokioExecutor::new(), stream).await;
    let (mut client, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let (pieces, mut coming) = mpsc::channel(1);
    let body = stream::poll_fn(move |cx| {
        let piece = coming.poll_recv(cx);
        piece.map(|piece: Option<Bytes>| Some(Ok::<_, Infallible>(Frame::data(piece?))))
    });
    let put = Request::put("https://mail.example.org/a");
    let put = put.body(StreamBody::new(body)).unwrap();
    let answer = client.send_request(put).await.unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    let answer = answer.into_body().collect().await.unwrap();
    assert!(!answer.to_bytes().is_empty());
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        pieces.send(Bytes::from_static(b"more")).await.unwrap();
    }
    drop(pieces);
    assert_eq!(world.old.seen.count(), 0);
}

/// The handshake of a WebSocket (RFC 8441).
fn handshake() -> Request<Full<Bytes>> {
    handshake_at("/ws")
}

fn handshake_at(path: &str) -> Request<Full<Bytes>> {
    let mut connect = request("CONNECT", path, "alice", b"");
    let version = "13".parse().unwrap();
    connect.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
    let websocket = Protocol::from_static("websocket");
    connect.extensions_mut().insert(websocket);
    connect
}

#[tokio::test]
async fn a_connection_with_an_open_web_socket_is_in_use() {
    let mut plan = Plan::default();
    plan.limits.web.idle = Duration::from_secs(2);
    let world = World::with(plan);
    let mut client = client(&world).await;
    let first = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(first.await.unwrap()).await, "old /");
    let opened = client.send_request(handshake()).await.unwrap();
    let stream = hyper::upgrade::on(opened).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let next = client.send_request(request("GET", "/b", "alice", b""));
    assert_eq!(text(next.await.unwrap()).await, "old /b");
    drop(stream);
}

#[tokio::test]
async fn a_web_socket_on_a_stream_is_one_to_a_server_that_knows_only_upgrades() {
    let world = World::new();
    let mut client = client(&world).await;
    // Behind the first answer the server's settings are known.
    let first = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(first.await.unwrap()).await, "old /");
    let connect = handshake();
    let opened = client.send_request(connect).await.unwrap();
    assert_eq!(opened.status().as_u16(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(opened).await.unwrap());
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
    assert_eq!(world.old.seen.last().method(), "GET");
    world.fence();
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame, [0x88, 2, 0x03, 0xf4]);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

/// The windows of its other streams say nothing of that.
#[tokio::test]
async fn a_web_socket_that_its_client_does_not_read_ends_and_the_connection_goes_on() {
    let mut plan = Plan::default();
    plan.limits.web.stalled = Duration::from_millis(300);
    let world = World::with(plan);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1024);
    let mut client = client_of(&world, &builder).await;
    let first = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(first.await.unwrap()).await, "old /");
    let opened = client.send_request(handshake_at("/ws-much")).await.unwrap();
    let stream = hyper::upgrade::on(opened).await.unwrap();
    eventually("its server has seen the end", || {
        count(&world.old.seen.ended) == 1
    })
    .await;
    eventually("it is over", || world.registered() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    let next = client.send_request(request("GET", "/b", "alice", b""));
    assert_eq!(text(next.await.unwrap()).await, "old /b");
    drop(stream);
}

#[tokio::test]
async fn who_resets_what_he_asks_gets_no_more_than_servers_are_done_with() {
    let world = World::new();
    let mut client = client(&world).await;
    let mut refused = 0;
    for _ in 0..4 {
        let before = world.old.seen.count();
        let asked: Vec<_> = (0..90)
            .map(|_| tokio::spawn(client.send_request(request("POST", "/slow", "alice", b""))))
            .collect();
        eventually("they are there, or refused", || {
            let answered = asked.iter().filter(|it| it.is_finished()).count();
            world.old.seen.count() - before + answered == 90
        })
        .await;
        for asked in asked {
            if asked.is_finished() {
                assert_eq!(asked.await.unwrap().unwrap().status(), 503);
                refused += 1;
            } else {
                asked.abort();
            }
        }
    }
    assert_eq!((world.old.seen.count(), refused), (200, 160));
    world.old.steps.add_permits(200);
    eventually("its servers are done", || world.registered() == 0).await;
    let next = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(next.await.unwrap()).await, "old /");
}

#[tokio::test]
async fn a_stop_lets_open_streams_come_to_their_ends_and_takes_no_more() {
    let world = World::new();
    let mut client = client(&world).await;
    let slow: Vec<_> = (0..90)
        .map(|_| tokio::spawn(client.send_request(request("POST", "/slow", "alice", b"mail"))))
        .collect();
    eventually("they are there", || world.old.seen.count() == 90).await;
    let waits = client.send_request(request("GET", "/slow", "bob", b""));
    let waits = tokio::spawn(waits);
    eventually("it is there", || world.new.seen.count() == 1).await;
    world.stop();
    assert_eq!(waits.await.unwrap().unwrap().status(), 503, "a poll ends");
    world.old.steps.add_permits(90);
    world.new.steps.add_permits(1);
    for slow in slow {
        assert_eq!(text(slow.await.unwrap().unwrap()).await, "old /slow");
    }
    eventually("all is over", || world.registered() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    let late = client.send_request(request("GET", "/", "alice", b""));
    assert!(late.await.is_err(), "the connection is over");
}
