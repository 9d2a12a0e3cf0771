//! Peers that do not take what there is for them: what that makes us keep. It is told by the budget's own count, which
//! covers all that a relay and its TLS hold; the kernel's buffers are not in it.

use std::{cell::Cell, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use rustls::pki_types::CertificateDer;
use socket2::SockRef;

use super::{
    backend::Manners,
    client::Client,
    eventually,
    world::{Plan, World},
};
use crate::{
    descriptors,
    net::scratch::PIECE,
    session::relay::{LENT, STUCK},
};

/// Octets of the message: more than all the kernel's buffers on its way hold.
const MESSAGE: usize = 8 << 20;

fn plan() -> Plan {
    let mut plan = Plan {
        old: Manners {
            flood: MESSAGE,
            // So that thousands may be stuck without taking the machine's memory.
            send_buffer: Some(16 * 1024),
            ..Manners::default()
        },
        ..Plan::default()
    };
    plan.limits.connections.per_address = 3000;
    plan
}

/// A client for which the kernel holds little, that has asked for the message.
async fn asking(address: SocketAddr, root: &CertificateDer<'static>) -> Client {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is to connect with options that nobody else has"
    )]
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    // The other side's send buffer is made for so many segments.
    SockRef::from(&socket).set_tcp_mss(1000).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let mut client = Client::handshake(Box::new(stream), root, &[])
        .await
        .unwrap();
    client.login("alice@example.org").await;
    client.send("f FLOOD\r\n").await;
    client
}

/// Waits until nothing moves any more.
async fn all_stuck(world: &World, sessions: usize) {
    let (last, still) = (Cell::new((0, 0)), Cell::new(0));
    eventually("nothing moves any more", || {
        let flooded = world.old.seen.flooded.load(Ordering::SeqCst);
        let now = (flooded, world.registry.counts().sessions);
        still.set(if last.replace(now) == now {
            still.get() + 1
        } else {
            0
        });
        still.get() >= 50 && now.1 <= sessions
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_fetch_and_never_read_keep_little_of_our_memory() {
    const CLIENTS: usize = 2000;
    descriptors::allow_for(2 * CLIENTS, 0);
    let world = World::with(plan());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (address, root) = (world.address, world.root.clone());
            tokio::spawn(async move {
                let mut clients = Vec::new();
                for _ in 0..CLIENTS / 4 {
                    clients.push(asking(address, &root).await);
                }
                clients
            })
        })
        .collect();
    let mut clients = Vec::new();
    for task in tasks {
        clients.extend(task.await.unwrap());
    }
    all_stuck(&world, CLIENTS).await;
    assert_eq!(world.registry.counts().sessions, CLIENTS);
    let flooded = world.old.seen.flooded.load(Ordering::SeqCst);
    assert!(flooded < CLIENTS * MESSAGE / 2, "they are not stuck");
    let (kept, lent) = (world.budget.kept(), world.budget.lent());
    assert!(
        kept >= CLIENTS,
        "they are stuck in the kernel alone: {kept}"
    );
    assert!(lent <= LENT, "{lent} pieces are lent");
    let most = CLIENTS * STUCK + lent * PIECE;
    assert!(kept <= most, "{kept} octets are kept, {lent} pieces lent");
    drop(clients);
    eventually("all is given back", || world.budget.kept() == 0).await;
    assert_eq!(world.budget.lent(), 0);
}

#[tokio::test]
async fn a_session_that_would_keep_more_than_there_is_room_for_is_ended_and_others_are_not() {
    const LIMIT: usize = 48 * 1024;
    let mut plan = plan();
    plan.limits.connections.kept = LIMIT;
    // The server's end comes behind the rest of its message, which is read to the last octet.
    plan.limits.relay.close = Duration::from_mins(1);
    let world = World::with(plan);
    let mut quiet = world.client().await;
    quiet.login("alice@example.org").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(asking(world.address, &world.root).await);
    }
    all_stuck(&world, 10).await;
    assert!(world.budget.kept() <= LIMIT);
    // They were ended as any other session is: with the server's own end.
    assert_eq!(world.registry.unconfirmed(), 0);
    quiet.send("n NOOP\r\n").await;
    quiet.answer("n OK").await;
}

#[tokio::test]
async fn what_a_client_sends_ahead_is_kept_up_to_the_same_limit() {
    let world = World::with(Plan {
        old: Manners {
            mute: true,
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    // What comes behind depends on an answer that never comes.
    client.send("i IDLE\r\n").await;
    let ahead = vec![b'x'; 8 << 20];
    let sending = tokio::spawn(async move { client.try_send(&ahead).await });
    eventually("it is kept", || world.budget.kept() > 0).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
        assert!(world.budget.kept() <= STUCK, "{}", world.budget.kept());
    }
    sending.abort();
}
