//! Servers that fail one client after the other: what the others hear meanwhile, and what they do not.

use std::time::Duration;

use ferrypost_wire::{LineProtocol, imap::Imap, pop3::Pop3, sieve::Sieve, smtp::Submission};
use tokio::io::AsyncWriteExt as _;

use super::{
    backend::{Backend, Judges, Manners},
    client::Client,
    eventually,
    world::{Plan, World},
};
use crate::net;

const UNAVAILABLE: &str = "l NO [UNAVAILABLE] ";

/// A plan of clients from wherever they say, in which two of them open the breaker for as long as `pause`.
fn plan(old: Manners, pause: Duration) -> Plan {
    let mut plan = Plan {
        old,
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    };
    plan.limits.breaker.clients = 2;
    plan.limits.breaker.pause = pause;
    plan
}

/// A client from 192.0.2.`host`, under TLS.
async fn connected(world: &World, host: u8) -> Client {
    let mut stream = net::connect(world.address).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    let header = format!("PROXY TCP4 192.0.2.{host} 192.0.2.254 {port} 993\r\n");
    stream.write_all(header.as_bytes()).await.unwrap();
    let client = Client::handshake(Box::new(stream), &world.root, &[]);
    client.await.unwrap()
}

/// What it hears to alice's login.
async fn login(world: &World, host: u8) -> String {
    let mut client = connected(world, host).await;
    client.answer("* OK").await;
    client.try_login("alice@example.org", "secret").await
}

fn connections(backend: &Backend) -> usize {
    backend.seen.count(&backend.seen.connections)
}

/// A server that says goodbye to everybody, and one that takes the password and hangs up.
fn failing() -> [Manners; 2] {
    let busy = Manners {
        greeting: b"* BYE not now\r\n".to_vec(),
        ..Manners::default()
    };
    let hanging_up = Manners {
        judges: Judges::HangsUp,
        ..Manners::default()
    };
    [busy, hanging_up]
}

#[tokio::test]
async fn where_different_clients_fail_the_next_hears_so_at_once_and_the_other_server_never_sees_him()
 {
    for manners in failing() {
        let world = World::with(plan(manners, Duration::from_hours(1)));
        for host in [1, 1, 1, 2] {
            assert!(!world.breaker_is_open("old"));
            assert!(login(&world, host).await.starts_with(UNAVAILABLE));
        }
        assert!(world.breaker_is_open("old"));
        assert_eq!(connections(&world.old), 4);
        assert!(login(&world, 3).await.starts_with(UNAVAILABLE));
        assert_eq!((connections(&world.old), connections(&world.new)), (4, 0));
        // Who lives elsewhere notices nothing.
        let mut bob = connected(&world, 3).await;
        bob.answer("* OK").await;
        bob.login("bob@example.org").await;
        assert!(!world.breaker_is_open("new"));
    }
}

#[tokio::test]
async fn a_server_that_says_no_has_answered() {
    for refusal in ["[AUTHENTICATIONFAILED] wrong", "[UNAVAILABLE] storage"] {
        let says_no = Manners {
            judges: Judges::RefusesEverybody,
            refusal,
            ..Manners::default()
        };
        let world = World::with(plan(says_no, Duration::from_hours(1)));
        for host in 1..5 {
            let answer = login(&world, host).await;
            assert!(answer.starts_with("l NO ["), "{answer}");
        }
        assert!(!world.breaker_is_open("old"));
        assert_eq!(connections(&world.old), 4);
    }
}

#[tokio::test]
async fn a_session_that_is_relayed_goes_on_and_a_server_that_is_back_serves_everybody() {
    let gone = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = gone.local_addr().unwrap();
    let mut plan = plan(Manners::default(), Duration::ZERO);
    plan.way.at[0] = Some(address);
    let world = World::with(plan);
    drop(gone);
    for host in 1..3 {
        assert!(login(&world, host).await.starts_with(UNAVAILABLE));
    }
    assert!(world.breaker_is_open("old"));
    let back = Backend::start_at(address, Manners::default());
    let mut trial = connected(&world, 3).await;
    trial.answer("* OK").await;
    trial.login("alice@example.org").await;
    assert!(!world.breaker_is_open("old"));
    assert!(login(&world, 1).await.starts_with("l OK"));
    trial.send("n NOOP\r\n").await;
    trial.answer("n OK").await;
    assert_eq!(connections(&back), 2);
}

#[tokio::test]
async fn a_login_that_is_held_is_let_through_by_the_breaker_only_when_it_is_released() {
    let [busy, _] = failing();
    let world = World::with(plan(busy, Duration::from_hours(1)));
    for host in 1..3 {
        assert!(login(&world, host).await.starts_with(UNAVAILABLE));
    }
    assert!(world.breaker_is_open("old"));
    world.fence();
    let mut held = connected(&world, 3).await;
    held.answer("* OK").await;
    held.send("l LOGIN alice@example.org secret\r\n").await;
    eventually("the login is held", || world.registry.counts().held == 1).await;
    world.flip();
    held.answer("l OK").await;
    assert_eq!(connections(&world.old), 2);
}

/// The answer to a login of alice's from 192.0.2.1, in a world where the first failure opens the breaker.
async fn temporary_words<P: LineProtocol>(talk: &[(&str, &str)], answer: &str) {
    let nonsense = Manners {
        greeting: b"? ?\r\n".to_vec(),
        ..Manners::default()
    };
    let mut plan = plan(nonsense, Duration::from_hours(1));
    plan.limits.breaker.clients = 1;
    let world = World::speaking::<P>(plan);
    for _ in 0..2 {
        let mut client = connected(&world, 1).await;
        for (expected, said) in talk {
            client.answer(expected).await;
            client.send(said).await;
        }
        let heard = client.line().await;
        assert!(heard.starts_with(answer), "{heard}");
    }
    assert!(world.breaker_is_open("old"));
    assert_eq!(connections(&world.old), 1);
}

#[tokio::test]
async fn an_open_breaker_speaks_in_the_words_of_each_protocol_s_temporary_error() {
    // `\0alice@example.org\0secret`
    const ALICE: &str = "AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==";
    let auth = format!("AUTH PLAIN {ALICE}\r\n");
    let authenticate = format!("AUTHENTICATE \"PLAIN\" \"{ALICE}\"\r\n");
    let imap = [("* OK", "l LOGIN alice@example.org secret\r\n")];
    temporary_words::<Imap>(&imap, UNAVAILABLE).await;
    temporary_words::<Pop3>(&[("+OK", &auth)], "-ERR [SYS/TEMP] ").await;
    temporary_words::<Sieve>(&[("OK", &authenticate)], "NO (TRYLATER) ").await;
    let submission = [("220", "EHLO client.example.org\r\n"), ("250 ", &*auth)];
    temporary_words::<Submission>(&submission, "454 4.7.0 ").await;
}
