//! Servers that speak HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use ferrypost_proto::v1::{self, HttpVersion};
use http::header::SEC_WEBSOCKET_VERSION;
use http_body_util::BodyExt as _;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    backend::count,
    entrance::{Speaks, Terms, Way},
    h2::{client, client_of, request, text},
    web_sockets::open,
    world::{self, Plan, World},
};
use crate::session::tests::{client::PATIENCE, eventually};

fn world(terms: Terms) -> World {
    World::with(Plan {
        old: Way::h2(terms),
        ..Plan::default()
    })
}

/// With little time for whatever a move ends.
fn impatient() -> World {
    let mut plan = Plan {
        old: Way::h2(Terms::default()),
        ..Plan::default()
    };
    plan.limits.relay.drain = Duration::from_millis(300);
    plan.limits.relay.close = Duration::from_millis(300);
    World::with(plan)
}

/// The connections on which requests came.
fn connections(world: &World) -> Vec<usize> {
    let requests = world.old.seen.requests();
    requests.into_iter().map(|(number, _)| number).collect()
}

#[tokio::test]
async fn streams_of_one_account_share_a_connection_and_those_of_two_do_not() {
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let slow: Vec<_> = (0..3)
        .map(|_| tokio::spawn(client.send_request(request("GET", "/slow", "alice", b""))))
        .collect();
    eventually("they are there", || world.old.seen.count() == 3).await;
    assert_eq!(
        connections(&world),
        [0; 3],
        "one is opened, and the others wait for it"
    );
    let other = client.send_request(request("GET", "/", "carol", b""));
    assert_eq!(text(other.await.unwrap()).await, "old /");
    assert_eq!(connections(&world)[3], 1);
    world.old.steps.add_permits(3);
    for slow in slow {
        assert_eq!(text(slow.await.unwrap().unwrap()).await, "old /slow");
    }
}

#[tokio::test]
async fn more_than_a_server_takes_at_once_go_by_another_connection() {
    let world = world(Terms {
        streams: 1,
        ..Terms::default()
    });
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("GET", "/slow", "alice", b"")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    let other = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(other.await.unwrap()).await, "old /");
    world.old.steps.add_permits(1);
    slow.await.unwrap().unwrap();
    let last = client.send_request(request("GET", "/", "alice", b""));
    last.await.unwrap();
    assert_eq!(
        count(&world.old.seen.connections),
        2,
        "both are of use again"
    );
}

#[tokio::test]
async fn a_client_of_http_1_is_served_by_a_server_of_http_2() {
    let world = world(Terms::default());
    let mut client = world.client().await;
    let answered = client
        .ask("PUT /a?b=c", "alice", "Content-Length: 4\r\n\r\nbody")
        .await;
    assert_eq!(
        (answered.status(), answered.text()),
        (200, "old /a?b=c".into())
    );
    let seen = world.old.seen.last();
    assert_eq!(seen.start, "PUT /a?b=c HTTP/2");
    assert_eq!(seen.field(":authority"), Some("mail.example.org"));
    assert_eq!(seen.field(":scheme"), Some("http"));
    assert_eq!(seen.field("host"), None);
    assert_eq!(seen.field("content-length"), Some("4"));
    assert_eq!(count(&world.old.seen.octets), 4);
    client.ask("GET /", "alice", "").await;
    assert_eq!(count(&world.old.seen.connections), 1);
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_2_is_asked_nothing() {
    let world = World::with(Plan {
        old: Way {
            versions: vec![HttpVersion::H2],
            ..Way::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    assert_eq!(client.ask("GET /", "alice", "").await.status(), 502);
    for (_, request) in world.old.seen.requests() {
        assert_eq!(request.field("authorization"), None, "{request:?}");
    }
}

#[tokio::test]
async fn under_tls_the_server_chooses_the_version() {
    let both = vec![HttpVersion::Http1, HttpVersion::H2];
    let terms = Terms::default();
    for (versions, speaks, version) in [
        (both.clone(), Speaks::Both(terms), "HTTP/2"),
        (both, Speaks::Http1, "HTTP/1.1"),
        (vec![HttpVersion::H2], Speaks::H2(terms), "HTTP/2"),
        (vec![HttpVersion::Http1], Speaks::Both(terms), "HTTP/1.1"),
    ] {
        let world = World::with(Plan {
            old: Way {
                versions,
                speaks,
                has_tls: true,
                is_announced: true,
                is_narrow: false,
            },
            announcement: v1::Announcement::ProxyV2,
            ..Plan::default()
        });
        let mut client = world.client().await;
        assert_eq!(client.ask("GET /a", "alice", "").await.text(), "old /a");
        let seen = world.old.seen.last();
        assert!(seen.start.ends_with(version), "{speaks:?}: {}", seen.start);
        if version == "HTTP/2" {
            assert_eq!(seen.field(":scheme"), Some("https"));
        }
        let announced = world.old.seen.announced.lock().unwrap().clone();
        assert_eq!(announced.len(), 1, "before TLS");
        assert_eq!(announced[0][..4], [127, 0, 0, 1]);
    }
}

#[tokio::test]
async fn a_fence_waits_for_streams_that_write_and_then_the_connection_ends() {
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("POST", "/slow", "alice", b"mail")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    let first = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(first.await.unwrap()).await, "old /");
    world.fence();
    let held = tokio::spawn(client.send_request(request("GET", "/b", "alice", b"")));
    eventually("it is held", || world.held() == 1).await;
    assert_eq!(world.routed(), 1, "what writes");
    world.old.steps.add_permits(1);
    assert_eq!(text(slow.await.unwrap().unwrap()).await, "old /slow");
    eventually("the fence is drained", || world.routed() == 0).await;
    eventually("the connection has ended", || {
        count(&world.old.seen.ended) == 1
    })
    .await;
    world.flip();
    assert_eq!(text(held.await.unwrap().unwrap()).await, "new /b");
    assert_eq!(
        (count(&world.old.seen.resets), world.registry.unconfirmed()),
        (0, 0)
    );
}

#[tokio::test]
async fn what_writes_is_not_reset_at_the_limit_but_waited_for() {
    let mut plan = Plan {
        old: Way::h2(Terms::default()),
        ..Plan::default()
    };
    plan.limits.relay.drain = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("POST", "/slow", "alice", b"mail")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    world.fence();
    assert_eq!(slow.await.unwrap().unwrap().status(), 503);
    assert_eq!(world.routed(), 1, "the server may be executing it");
    world.old.steps.add_permits(1);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.executed), 1);
    assert_eq!(
        (count(&world.old.seen.resets), world.registry.unconfirmed()),
        (0, 0)
    );
}

#[tokio::test]
async fn what_only_asks_keeps_no_move_waiting_and_what_writes_makes_it_abort() {
    let world = impatient();
    let mut client = client(&world).await;
    let poll = tokio::spawn(client.send_request(request("GET", "/deaf", "alice", b"")));
    let events = client.send_request(request("GET", "/events", "alice", b""));
    let mut events = events.await.unwrap().into_body();
    events.frame().await.unwrap().unwrap();
    eventually("both are there", || world.old.seen.count() == 2).await;
    world.fence();
    let rest = events.collect().await.expect("its proper end");
    assert_eq!(rest.to_bytes(), Bytes::new());
    assert_eq!(poll.await.unwrap().unwrap().status(), 503);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
    world.abort();
    let deaf = tokio::spawn(client.send_request(request("POST", "/deaf", "alice", b"")));
    eventually("it is there", || world.old.seen.count() == 3).await;
    world.fence();
    assert_eq!(deaf.await.unwrap().unwrap().status(), 503);
    eventually("it is given up", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_no_request_back_that_may_be_executed() {
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("POST", "/slow", "alice", b"mail")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    slow.abort();
    let other = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(other.await.unwrap()).await, "old /");
    world.fence();
    eventually("only it is waited for", || world.routed() == 1).await;
    world.old.steps.add_permits(1);
    eventually("it is over", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.executed), 2);
    assert_eq!(connections(&world), [0, 0]);
    assert_eq!(
        (count(&world.old.seen.resets), world.registry.unconfirmed()),
        (0, 0)
    );
}

#[tokio::test]
async fn an_upload_that_comes_to_no_end_is_never_taken_for_a_whole_one() {
    let world = world(Terms::default());
    let mut client = world.client().await;
    let begun = world::request("PUT /a", "alice", "Content-Length: 10\r\n\r\nhalf");
    client.send(begun).await.unwrap();
    eventually("it is begun", || count(&world.old.seen.octets) == 4).await;
    drop(client);
    eventually("it is over", || world.registered() == 0).await;
    assert_eq!(
        (
            count(&world.old.seen.executed),
            count(&world.old.seen.resets)
        ),
        (0, 1)
    );
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn what_a_server_does_not_read_stops_no_other_stream() {
    const LARGE: &[u8] = &[b'x'; 512 << 10];
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let unread = tokio::spawn(client.send_request(request("PUT", "/unread", "alice", LARGE)));
    eventually("it is there", || world.old.seen.count() == 1).await;
    let other = client.send_request(request("PUT", "/b", "alice", LARGE));
    assert_eq!(text(other.await.unwrap()).await, "old /b");
    world.old.steps.add_permits(1);
    assert_eq!(text(unread.await.unwrap().unwrap()).await, "old /unread");
    assert_eq!(connections(&world), [0, 0]);
}

#[tokio::test]
async fn a_server_that_reads_nothing_of_a_stream_is_left_and_its_client_told() {
    const LARGE: &[u8] = &[b'x'; 4 << 20];
    let mut plan = Plan {
        old: Way::h2(Terms::default()),
        ..Plan::default()
    };
    plan.limits.web.stalled = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = client(&world).await;
    let unread = client.send_request(request("PUT", "/unread", "alice", LARGE));
    assert_eq!(unread.await.unwrap().status().as_u16(), 502);
    eventually("it is over", || world.registered() == 0).await;
    assert_eq!(
        (
            count(&world.old.seen.executed),
            count(&world.old.seen.resets),
            world.registry.unconfirmed()
        ),
        (0, 1, 0)
    );
    let next = client.send_request(request("GET", "/b", "alice", b""));
    assert_eq!(text(next.await.unwrap()).await, "old /b");
}

#[tokio::test]
async fn a_web_socket_that_its_server_does_not_read_ends() {
    let mut plan = Plan {
        old: Way::h2(Terms::default()),
        ..Plan::default()
    };
    plan.limits.web.stalled = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = open(&world, "/ws-deaf").await;
    let frame = [&b"\x82\xfe\x10\x00\0\0\0\0"[..], &[0; 4096]].concat();
    let until_it_is_closed = async { while client.send(&frame).await.is_ok() {} };
    timeout(PATIENCE, until_it_is_closed).await.unwrap();
    world.old.steps.add_permits(1);
    eventually("it is over", || world.registered() == 0).await;
}

#[tokio::test]
async fn what_a_client_does_not_read_stops_no_other_stream() {
    let world = world(Terms::default());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1024);
    let mut client = client_of(&world, &builder).await;
    let mut unread = Vec::new();
    for _ in 0..60 {
        let large = client.send_request(request("GET", "/large", "alice", b""));
        unread.push(large.await.unwrap());
    }
    let other = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(other.await.unwrap()).await, "old /");
    assert_eq!(connections(&world), [0; 61]);
}

#[tokio::test]
async fn a_connection_that_its_server_ends_is_left_when_its_streams_are_over() {
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let slow = tokio::spawn(client.send_request(request("POST", "/slow", "alice", b"")));
    eventually("it is there", || world.old.seen.count() == 1).await;
    let last = client.send_request(request("GET", "/goes-away", "alice", b""));
    last.await.unwrap();
    // Until it is heard that the server is going.
    while connections(&world).last() == Some(&0) {
        let next = client.send_request(request("GET", "/", "alice", b""));
        assert_eq!(text(next.await.unwrap()).await, "old /");
    }
    world.old.steps.add_permits(1);
    assert_eq!(text(slow.await.unwrap().unwrap()).await, "old /slow");
    eventually("it has ended", || count(&world.old.seen.ended) == 1).await;
}

#[tokio::test]
async fn a_stream_that_its_server_resets_is_502_and_not_sent_again() {
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let reset = client.send_request(request("POST", "/resets", "alice", b""));
    assert_eq!(reset.await.unwrap().status(), 502);
    let next = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(next.await.unwrap()).await, "old /");
    assert_eq!(world.old.seen.count(), 2);
}

fn handshake() -> http::Request<http_body_util::Full<Bytes>> {
    let mut connect = request("CONNECT", "/ws", "alice", b"");
    let version = "13".parse().unwrap();
    connect.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
    let websocket = Protocol::from_static("websocket");
    connect.extensions_mut().insert(websocket);
    connect
}

#[tokio::test]
async fn a_web_socket_is_a_stream_where_the_server_allows_that() {
    let world = world(Terms::default());
    let mut client = client(&world).await;
    let first = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(first.await.unwrap()).await, "old /");
    let opened = client.send_request(handshake()).await.unwrap();
    assert_eq!(opened.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(opened).await.unwrap());
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
    stream.write_all(b"\x81\x82\0\0\0\0yo").await.unwrap();
    eventually("it came", || count(&world.old.seen.octets) == 8).await;
    assert_eq!(world.old.seen.last().start, "CONNECT /ws HTTP/2");
    assert_eq!(connections(&world), [0, 0]);
    world.fence();
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame, [0x88, 2, 0x03, 0xf4]);
    eventually("the fence is drained", || world.routed() == 0).await;
    eventually("the connection has ended", || {
        count(&world.old.seen.ended) == 1
    })
    .await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_server_of_http_2_alone_that_takes_no_web_socket_is_not_asked_for_one() {
    let world = world(Terms {
        web_sockets: false,
        ..Terms::default()
    });
    let mut client = client(&world).await;
    for _ in 0..2 {
        // Behind the first answer our settings are known.
        let first = client.send_request(request("GET", "/", "alice", b""));
        assert_eq!(text(first.await.unwrap()).await, "old /");
        let refused = client.send_request(handshake()).await.unwrap();
        assert_eq!(refused.status(), 502);
    }
    assert_eq!(world.old.seen.count(), 2);
}

#[tokio::test]
async fn a_server_of_both_versions_that_takes_no_web_socket_by_one_is_asked_by_the_other() {
    let world = World::with(Plan {
        old: Way {
            versions: vec![HttpVersion::Http1, HttpVersion::H2],
            speaks: Speaks::Both(Terms {
                web_sockets: false,
                ..Terms::default()
            }),
            has_tls: true,
            is_announced: false,
            is_narrow: false,
        },
        ..Plan::default()
    });
    let mut client = client(&world).await;
    let first = client.send_request(request("GET", "/", "alice", b""));
    assert_eq!(text(first.await.unwrap()).await, "old /");
    let opened = client.send_request(handshake()).await.unwrap();
    assert_eq!(opened.status(), 200);
    assert_eq!(world.old.seen.last().start, "GET /ws HTTP/1.1");
    assert_eq!(connections(&world), [0, 1]);
}
