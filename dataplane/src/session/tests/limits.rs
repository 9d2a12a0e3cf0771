//! What a client sees that is one too many.

use tokio::io::AsyncWriteExt as _;

use super::{
    client::Client,
    eventually,
    world::{Plan, World},
};
use crate::{config::ListenerTls, limits::KnownNetwork, net};

/// A listener that takes everybody's word for where a client comes from.
fn plan(listener: ListenerTls) -> Plan {
    Plan {
        listener,
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    }
}

async fn stream(world: &World, client: &str) -> net::TcpStream {
    let mut stream = net::connect(world.address).await.unwrap();
    let header = format!("PROXY TCP4 {client} 192.0.2.250 4000 993\r\n");
    stream.write_all(header.as_bytes()).await.unwrap();
    stream
}

/// In clear, with the greeting or the farewell still to be read.
async fn in_clear(world: &World, client: &str) -> Client {
    Client::over(Box::new(stream(world, client).await))
}

async fn under_tls(world: &World, client: &str) -> std::io::Result<Client> {
    let stream = stream(world, client).await;
    Client::handshake(Box::new(stream), &world.root, &[]).await
}

/// Connects as each of them; the last one is turned away with a temporary farewell.
async fn last_is_turned_away(world: &World, clients: &[&str]) {
    let (last, others) = clients.split_last().unwrap();
    let mut served = Vec::new();
    for client in others {
        let mut client = in_clear(world, client).await;
        let greeting = client.line().await;
        assert!(greeting.starts_with("* OK"), "{greeting}");
        served.push(client);
    }
    let farewell = in_clear(world, last).await.rest().await;
    assert!(farewell.starts_with("* BYE [LIMIT]"), "{farewell}");
}

#[tokio::test]
async fn one_connection_too_many_reads_a_temporary_farewell_whichever_limit_it_hit() {
    let limited = |total, per_address, per_network| {
        let mut plan = plan(ListenerTls::StartTls);
        plan.limits.connections.total = total;
        plan.limits.connections.per_address = per_address;
        plan.limits.connections.per_network = per_network;
        plan.known_networks = vec![KnownNetwork {
            network: "198.51.100.7".parse().unwrap(),
            connections: 2,
        }];
        World::with(plan)
    };
    last_is_turned_away(&limited(1, 9, 9), &["192.0.2.1", "203.0.113.1"]).await;
    last_is_turned_away(&limited(9, 1, 9), &["192.0.2.1", "192.0.2.1"]).await;
    last_is_turned_away(&limited(9, 1, 2), &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    last_is_turned_away(&limited(9, 1, 1), &["198.51.100.7"; 3]).await;
}

#[tokio::test]
async fn under_implicit_tls_one_connection_too_many_is_closed_at_once() {
    let mut plan = plan(ListenerTls::Implicit);
    plan.limits.connections.per_address = 1;
    let world = World::with(plan);
    let _first = under_tls(&world, "192.0.2.1").await.unwrap();
    assert!(under_tls(&world, "192.0.2.1").await.is_err());
    assert!(under_tls(&world, "192.0.2.2").await.is_ok());
}

#[tokio::test]
async fn a_host_that_fills_its_held_places_is_refused_for_now_and_the_owner_is_held() {
    let mut plan = plan(ListenerTls::Implicit);
    plan.limits.hold.per_name_and_address = 2;
    let world = World::with(plan);
    world.fence();
    let login = "l LOGIN alice@example.org secret\r\n";
    let mut host = Vec::new();
    for _ in 0..2 {
        let mut client = under_tls(&world, "192.0.2.66").await.unwrap();
        client.send(login).await;
        host.push(client);
    }
    eventually("both are held", || world.registry.counts().held == 2).await;
    let mut third = under_tls(&world, "192.0.2.66").await.unwrap();
    let answer = third.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    let mut owner = under_tls(&world, "192.0.2.1").await.unwrap();
    owner.send(login).await;
    eventually("the owner is held", || world.registry.counts().held == 3).await;
    world.flip();
    owner.answer("l OK").await;
}
