//! Servers that lead back: each login ends in a temporary error where it comes round.

use std::net::SocketAddr;

use ferrypost_proto::v1::{
    self,
    endpoint_tls::{Mode, Verification},
};
use tokio::io::AsyncWriteExt as _;

use super::{
    client::Client,
    world::{Authority, Plan, Way, World},
};
use crate::{metrics::LOGINS, net};

const UNAVAILABLE: &str = "l NO [UNAVAILABLE] ";

/// Behind what says who the client is, in front of servers that are told.
fn plan(way: Way) -> Plan {
    Plan {
        way: Way {
            announcement: v1::Announcement::ProxyV2,
            ..way
        },
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    }
}

/// A client, behind this header.
async fn behind(header: &[u8], world: &World) -> Client {
    let mut stream = net::connect(world.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    let client = Client::handshake(Box::new(stream), &world.root, &[]);
    let mut client = client.await.unwrap();
    client.answer("* OK").await;
    client
}

fn gone_round(world: &World) -> u64 {
    let counter = world
        .metrics
        .counter(&LOGINS, &["imap", "gone_round", "control_plane"]);
    counter.value()
}

/// Where a server can be reached that does not run yet: an address of the test's own, at a port that was free.
fn to_come(host: u8) -> SocketAddr {
    let listener = net::listen(([127, 0, 41, host], 0).into()).unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_login_that_two_data_planes_send_to_each_other_ends_where_it_comes_round() {
    let at = [to_come(1), to_come(2)];
    let authorities = [Authority::new(), Authority::new()];
    let trusted = authorities.each_ref().map(|it| it.pem.clone());
    let towards = |n: usize| {
        let tls = Way::tls(Mode::Implicit, Verification::CaPem(trusted[n].clone()));
        plan(Way {
            at: [Some(at[n]); 2],
            ..tls
        })
    };
    let [first, second] = authorities;
    let first = World::with(Plan {
        address: at[0],
        authority: first,
        ..towards(1)
    });
    let second = World::with(Plan {
        address: at[1],
        authority: second,
        ..towards(0)
    });
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.254 4000 993\r\n";
    for rounds in 1..3 {
        let mut client = behind(header, &first).await;
        let answer = client.try_login("alice@example.org", "secret").await;
        assert!(answer.starts_with(UNAVAILABLE), "{answer}");
        assert_eq!((gone_round(&first), gone_round(&second)), (rounds, 0));
    }
}

#[tokio::test]
async fn what_a_client_says_of_its_hops_can_only_shorten_its_way() {
    let mut plan = Plan::default();
    plan.way.announcement = v1::Announcement::ImapId;
    let world = World::with(plan);
    let login = async |hops: &str| {
        let mut client = world.client().await;
        client
            .send(format!("i ID (\"X-Proxy-TTL\" \"{hops}\")\r\n"))
            .await;
        client.answer("i OK").await;
        client.try_login("alice@example.org", "secret").await
    };
    assert!(login("1").await.starts_with(UNAVAILABLE));
    assert_eq!(gone_round(&world), 1);
    assert_eq!(world.old.seen.count(&world.old.seen.connections), 0);
    for (said, passed_on) in [("3", "2"), ("255", "5")] {
        assert!(login(said).await.starts_with("l OK"));
        let told = format!("\"x-proxy-ttl\" \"{passed_on}\"");
        assert!(world.old.seen.has(&told), "{:?}", world.old.seen.lines());
    }
}

#[tokio::test]
async fn a_balancer_that_leaves_the_port_out_is_not_taken_for_a_circle() {
    let world = World::with(Plan {
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    });
    world.fence();
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.254 0 993\r\n";
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = behind(header, &world).await;
        client.send("l LOGIN alice@example.org secret\r\n").await;
        clients.push(client);
    }
    super::eventually("both are held", || world.registry.counts().held == 2).await;
    world.flip();
    for mut client in clients {
        client.answer("l OK").await;
    }
    assert_eq!(gone_round(&world), 0);
}
