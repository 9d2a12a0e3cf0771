//! Tunnels for WebSocket.

use super::{
    backend::count,
    message::Wire,
    world::{World, request},
};
use crate::session::tests::eventually;

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const COME_AGAIN: [u8; 4] = [0x88, 2, 0x03, 0xf4];

pub(super) async fn open(world: &World, path: &str) -> Wire {
    let mut client = world.client().await;
    let asked = request(&format!("GET {path}"), "alice", HANDSHAKE);
    client.send(asked).await.unwrap();
    let answer = client.head().await.unwrap();
    assert_eq!(answer.status(), 101, "{answer:?}");
    let accept = answer.field("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.octets(4).await, b"\x81\x02hi");
    client
}

#[tokio::test]
async fn a_web_socket_is_carried_both_ways_and_registered_while_it_is_open() {
    let world = World::new();
    let mut client = open(&world, "/ws").await;
    client.send(b"\x81\x82\0\0\0\0yo").await.unwrap();
    eventually("it came", || count(&world.old.seen.octets) == 8).await;
    world.old.steps.add_permits(1);
    assert_eq!(client.octets(5).await, b"\x81\x03you");
    assert_eq!(world.routed(), 1);
    client.finish().await;
    assert!(client.has_ended().await);
    eventually("it is over", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.ended), 1);
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_fence_tells_the_client_to_come_again_and_waits_for_the_server() {
    let world = World::new();
    let mut client = open(&world, "/ws").await;
    world.fence();
    assert_eq!(client.octets(4).await, COME_AGAIN);
    assert!(client.has_ended().await);
    eventually("the fence is drained", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.ended), 1);
    assert_eq!(world.registry.unconfirmed(), 0);
    world.flip();
    open(&world, "/ws").await;
    assert_eq!(world.new.seen.count(), 1);
}

#[tokio::test]
async fn no_word_of_ours_is_put_into_a_frame_of_the_servers() {
    let world = World::new();
    let mut client = open(&world, "/ws-in-two").await;
    assert_eq!(client.octets(3).await, b"\x81\x03y");
    world.fence();
    world.old.steps.add_permits(1);
    assert_eq!(client.octets(2).await, b"ou");
    assert_eq!(client.octets(4).await, COME_AGAIN);
}

/// Some clients do not wait for the answer, and a server may read what they sent in trust.
#[tokio::test]
async fn what_comes_in_one_write_with_the_handshake_is_the_tunnels() {
    let world = World::new();
    for rest in [false, true] {
        let mut client = world.client().await;
        if rest {
            assert_eq!(
                client.ask("GET /denied", "alice", HANDSHAKE).await.status(),
                401
            );
        }
        let before = count(&world.old.seen.octets);
        let asked = request("GET /ws", "alice", HANDSHAKE);
        client
            .send([asked.as_bytes(), b"\x81\x82\0\0\0\0yo"].concat())
            .await
            .unwrap();
        assert_eq!(client.head().await.unwrap().status(), 101);
        assert_eq!(client.octets(4).await, b"\x81\x02hi");
        eventually("it came", || count(&world.old.seen.octets) == before + 8).await;
        client.send(b"\x81\x82\0\0\0\0yo").await.unwrap();
        eventually("so does the next", || {
            count(&world.old.seen.octets) == before + 16
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_behind_an_upgrade_that_is_declined_is_answered_in_its_turn() {
    let world = World::new();
    let mut client = world.client().await;
    let requests =
        ["/1", "/denied", "/3"].map(|path| request(&format!("GET {path}"), "alice", HANDSHAKE));
    let with_body = HANDSHAKE.to_owned() + "Content-Length: 2\r\n";
    let last = request("POST /4", "alice", &with_body) + "ab";
    client
        .send(requests.concat() + &last + &requests[0])
        .await
        .unwrap();
    for status in [200, 401, 200, 200, 200] {
        assert_eq!(client.message().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn an_answer_that_proves_no_understanding_opens_nothing() {
    let world = World::new();
    let mut client = world.client().await;
    let wrong = client.ask("GET /ws-wrong", "alice", HANDSHAKE).await;
    assert_eq!(wrong.status(), 502);
    let declined = client.ask("GET /denied", "alice", HANDSHAKE).await;
    assert_eq!(declined.status(), 401);
    let plain = client.ask("GET /plain", "alice", HANDSHAKE).await;
    assert_eq!(plain.text(), "old /plain");
}
