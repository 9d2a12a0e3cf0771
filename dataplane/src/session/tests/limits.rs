//! What a client sees that is one too many, or too slow, whatever it speaks. How long a line or a literal may be, and
//! how many commands and mistakes there may be, is shown of the machines by `limits.txt` among their transcripts.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ferrypost_wire::{
    LineProtocol as _, ProtocolKind, imap::Imap, pop3::Pop3, sieve::Sieve, smtp::Submission,
};
use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::{
    by_hand::{Server, servers},
    client::Client,
    eventually,
    world::{Plan, World},
};
use crate::{
    config::ListenerTls,
    limits::{KnownNetwork, PreauthLimits, RelayLimits},
    net,
};

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
    let port = stream.local_addr().unwrap().port();
    let header = format!("PROXY TCP4 {client} 192.0.2.250 {port} 993\r\n");
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

/// A protocol as its clients and servers speak it.
struct Speech {
    protocol: ProtocolKind,
    world: fn(Plan) -> World,
    /// How the last line of a greeting begins.
    greeting: &'static str,
    /// What a client says before it logs in, and how the last line of the answer begins.
    introduction: Option<(&'static str, &'static str)>,
    /// A login, with `{}` for the response of PLAIN.
    login: &'static str,
    /// How an answer begins that says yes, no, and not now.
    answers: [&'static str; 3],
    /// How a goodbye begins.
    goodbye: &'static str,
    /// What a server hears and says, up to a login.
    server: &'static [(&'static str, &'static str)],
}

const SPEECHES: [Speech; 4] = [
    Speech {
        protocol: Imap::KIND,
        world: World::speaking::<Imap>,
        greeting: "* OK",
        introduction: None,
        login: "l AUTHENTICATE PLAIN {}\r\n",
        answers: ["l OK", "l NO [AUTHENTICATIONFAILED]", "l NO [UNAVAILABLE]"],
        goodbye: "* BYE",
        server: &[],
    },
    Speech {
        protocol: Pop3::KIND,
        world: World::speaking::<Pop3>,
        greeting: "+OK",
        introduction: None,
        login: "AUTH PLAIN {}\r\n",
        answers: ["+OK", "-ERR [AUTH]", "-ERR [SYS/TEMP]"],
        goodbye: "-ERR",
        server: &[
            ("", "+OK ready\r\n"),
            ("CAPA\r\n", "+OK\r\nSASL PLAIN\r\n.\r\n"),
        ],
    },
    Speech {
        protocol: Sieve::KIND,
        world: World::speaking::<Sieve>,
        greeting: "OK",
        introduction: None,
        login: "AUTHENTICATE \"PLAIN\" \"{}\"\r\n",
        answers: ["OK", "NO \"The name or the password", "NO (TRYLATER)"],
        goodbye: "BYE",
        server: &[("", "\"SASL\" \"PLAIN\"\r\nOK\r\n")],
    },
    Speech {
        protocol: Submission::KIND,
        world: World::speaking::<Submission>,
        greeting: "220",
        introduction: Some(("EHLO client.example.org\r\n", "250 ")),
        login: "AUTH PLAIN {}\r\n",
        answers: ["235", "535", "454"],
        goodbye: "421",
        server: &[
            ("", "220 mx.example.org ESMTP\r\n"),
            (
                "EHLO client.example.org\r\n",
                "250-mx.example.org\r\n250 AUTH PLAIN\r\n",
            ),
        ],
    },
];

impl Speech {
    /// A client under TLS that is about to log in.
    async fn client(&self, world: &World) -> Client {
        let mut client = under_tls(world, "192.0.2.1").await.unwrap();
        client.answer(self.greeting).await;
        if let Some((said, answer)) = self.introduction {
            client.send(said).await;
            client.answer(answer).await;
        }
        client
    }

    fn login(&self, name: &str) -> String {
        let response = STANDARD.encode(format!("\0{name}\0secret"));
        self.login.replace("{}", &response)
    }

    /// Alice logged in, and relayed to a server that is played by hand where there is none that plays by itself.
    async fn relayed(&self, world: &World, old: &Server) -> (Client, Option<net::TcpStream>) {
        let mut client = self.client(world).await;
        let login = self.login("alice@example.org");
        client.send(&login).await;
        let [yes, ..] = self.answers;
        let mut server = None;
        if !self.server.is_empty() {
            let mut stream = old.speaks(self.server).await;
            let mut heard = vec![0; login.len()];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut heard)
                .await
                .unwrap();
            let answer = format!("{yes} in\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            server = Some(stream);
        }
        client.answer(yes).await;
        (client, server)
    }

    /// A plan in which only this protocol has something of its own.
    fn plan(&self, preauth: impl FnOnce(&mut PreauthLimits)) -> Plan {
        let mut plan = plan(ListenerTls::Implicit);
        let mut own = plan.limits.preauth;
        preauth(&mut own);
        plan.limits.own[self.protocol as usize].preauth = Some(own);
        plan
    }
}

#[tokio::test]
async fn in_every_protocol_one_connection_too_many_reads_a_goodbye_and_the_one_at_the_limit_is_served()
 {
    for speech in SPEECHES {
        let mut of_address = plan(ListenerTls::StartTls);
        of_address.limits.connections.per_address = 1;
        let mut of_network = plan(ListenerTls::StartTls);
        of_network.limits.connections.per_network = 1;
        let mut of_all = plan(ListenerTls::StartTls);
        of_all.limits.connections.total = 1;
        let mut of_listener = plan(ListenerTls::StartTls);
        of_listener.connections = Some(1);
        for plan in [of_address, of_network, of_all, of_listener] {
            let world = (speech.world)(plan);
            let mut first = in_clear(&world, "192.0.2.1").await;
            first.answer(speech.greeting).await;
            let said = in_clear(&world, "192.0.2.1").await.rest().await;
            assert!(said.starts_with(speech.goodbye), "{said}");
        }
    }
}

#[tokio::test]
async fn in_every_protocol_who_does_not_log_in_in_time_reads_a_goodbye() {
    for speech in SPEECHES {
        let plan = speech.plan(|own| own.login = Duration::from_millis(300));
        let world = (speech.world)(plan);
        let mut client = under_tls(&world, "192.0.2.1").await.unwrap();
        client.answer(speech.greeting).await;
        let said = client.rest().await;
        assert!(said.starts_with(speech.goodbye), "{said}");
    }
}

#[tokio::test]
async fn in_every_protocol_failed_logins_wait_and_the_last_one_ends_the_connection() {
    let floor = Duration::from_millis(50);
    for speech in SPEECHES {
        let mut plan = speech.plan(|own| own.failures = 2);
        plan.limits.preauth.failure_floor = floor;
        let world = (speech.world)(plan);
        let mut client = speech.client(&world).await;
        let [_, no, _] = speech.answers;
        // Whose domain is not served here.
        for _ in 0..2 {
            let began = Instant::now();
            client.send(speech.login("eve@example.net")).await;
            client.answer(no).await;
            assert!(began.elapsed() >= floor, "{:?}", speech.protocol);
        }
        let said = client.rest().await;
        assert!(said.starts_with(speech.goodbye), "{said}");
    }
}

#[tokio::test]
async fn in_every_protocol_a_line_past_the_limit_ends_the_connection() {
    for speech in SPEECHES {
        let world = (speech.world)(speech.plan(|own| own.front.max_line = 100));
        let mut client = speech.client(&world).await;
        client.send([&[b'x'; 101][..], b"\r\n"].concat()).await;
        let said = client.rest().await;
        assert!(said.starts_with(speech.goodbye), "{said}");
    }
}

#[tokio::test]
async fn in_every_protocol_one_login_more_than_may_be_held_is_told_to_come_later() {
    for speech in SPEECHES {
        let mut plan = plan(ListenerTls::Implicit);
        plan.limits.hold.per_name = 1;
        // Nothing is said to who is held, so that nothing is there to be told from the answer.
        plan.limits.hold.keep_alive = Duration::from_hours(1);
        let world = (speech.world)(plan);
        world.fence();
        let login = speech.login("alice@example.org");
        let mut held = speech.client(&world).await;
        held.send(&login).await;
        eventually("one is held", || world.registry.counts().held == 1).await;
        let mut surplus = speech.client(&world).await;
        surplus.send(&login).await;
        let [_, _, later] = speech.answers;
        surplus.answer(later).await;
        assert_eq!(world.registry.counts().held, 1);
    }
}

#[tokio::test]
async fn in_every_protocol_a_session_in_which_nothing_is_said_ends_after_its_own_time() {
    for speech in SPEECHES {
        let (old, _new, by_hand) = servers();
        let mut plan = plan(ListenerTls::Implicit);
        if !speech.server.is_empty() {
            plan.way = by_hand.way;
        }
        plan.limits.own[speech.protocol as usize].relay = Some(RelayLimits {
            idle: Duration::from_millis(300),
            ..plan.limits.relay
        });
        let world = (speech.world)(plan);
        let (mut client, server) = speech.relayed(&world, &old).await;
        let said = client.rest().await;
        assert!(said.starts_with(speech.goodbye), "{said}");
        drop(server);
        eventually("the session is over", || {
            world.registry.counts().sessions == 0
        })
        .await;
        assert_eq!(world.registry.unconfirmed(), 0);
    }
}
