//! The addresses of a server: the next one is tried as long as no secret was sent, and the last ones serve
//! while nobody knows others.

use std::{net::SocketAddr, time::Duration};

use ferrypost_runtime::shutdown::Shutdown;
use ferrypost_wire::{LineProtocol, imap::Imap};

use super::{
    backend::{Backend, Judges, Manners},
    world::{Plan, Way, World},
};
use crate::{
    backend::open::{Caller, OpenFailure, Opened, open},
    limits::BackendLimits,
    net::{
        dial::{Dialer, tests::endpoint},
        resolver::{
            Resolver,
            tests::{Answer, Book},
        },
        tls_client::ClientTls,
    },
};

const HOST: &str = "mail.example.org";

/// Opens a connection to a host with these addresses, which have one port.
async fn opened(
    addresses: &[SocketAddr],
) -> Result<Opened<<Imap as LineProtocol>::Back>, OpenFailure> {
    let names = addresses.iter().map(SocketAddr::ip).collect();
    let names = Book::saying(Answer::Addresses(names));
    let resolver = Resolver::new(names, Shutdown::new());
    let dialer = Dialer::new(ClientTls::new(), BackendLimits::default(), resolver);
    let endpoint = endpoint(HOST, addresses[0].port());
    open(&dialer, &endpoint, Caller::Probe, Imap::back).await
}

/// Servers with these greetings, at one port of 127.0.`network`.1 and those behind it.
fn greeting<const N: usize>(network: u8, greetings: [&[u8]; N]) -> [Backend; N] {
    let mut port = 0;
    let mut host = 0;
    greetings.map(|greeting| {
        host += 1;
        let manners = Manners {
            greeting: greeting.to_vec(),
            ..Manners::default()
        };
        let backend = Backend::start_at(([127, 0, network, host], port).into(), manners);
        port = backend.address.port();
        backend
    })
}

#[tokio::test]
async fn an_address_that_refuses_or_is_busy_is_passed_over() {
    let [busy, well] = greeting(1, [b"* BYE too many\r\n", b"* OK ready\r\n"]);
    let refusing = ([127, 0, 1, 9], well.address.port()).into();
    let opened = opened(&[refusing, busy.address, well.address]).await;
    assert_eq!(opened.ok().unwrap().address, well.address);
    let connections = |backend: &Backend| backend.seen.count(&backend.seen.connections);
    assert_eq!((connections(&busy), connections(&well)), (1, 1));
}

#[tokio::test]
async fn a_server_that_breaks_the_rules_breaks_them_at_all_its_addresses() {
    let [foreign, well] = greeting(2, [b"220 smtp\r\n", b"* OK ready\r\n"]);
    let failure = opened(&[foreign.address, well.address])
        .await
        .err()
        .unwrap();
    assert_eq!(failure.address, Some(foreign.address));
    assert_eq!(well.seen.count(&well.seen.connections), 0);
}

#[tokio::test]
async fn each_address_is_tried_once() {
    let busy = greeting(3, [b"* BYE too many\r\n"; 2]);
    let addresses = busy.each_ref().map(|backend| backend.address);
    let failure = opened(&addresses).await.err().unwrap();
    assert_eq!(failure.address, Some(addresses[1]));
    for backend in &busy {
        assert_eq!(backend.seen.count(&backend.seen.connections), 1);
    }
}

#[tokio::test]
async fn an_address_that_has_been_given_the_password_is_the_last_one() {
    let hanging_up = Manners {
        judges: Judges::HangsUp,
        ..Manners::default()
    };
    let first = Backend::start_at("127.0.4.1:0".parse().unwrap(), hanging_up);
    let second = ([127, 0, 4, 2], first.address.port()).into();
    let second = Backend::start_at(second, Manners::default());
    let addresses = [first.address, second.address];
    let world = World::with(Plan {
        way: Way {
            host: Some(HOST),
            at: [Some(first.address); 2],
            ..Way::default()
        },
        names: Book::saying(Answer::Addresses(
            addresses.iter().map(SocketAddr::ip).collect(),
        )),
        ..Plan::default()
    });
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    assert_eq!(first.seen.count(&first.seen.logins), 1);
    assert_eq!(second.seen.count(&second.seen.connections), 0);
}

#[tokio::test]
async fn a_resolver_that_is_away_for_a_minute_costs_no_login() {
    for away in [Answer::Silence, Answer::Failure] {
        let names = Book::saying(Answer::addresses(&["127.0.0.1"]));
        let world = World::with(Plan {
            way: Way {
                host: Some(HOST),
                ..Way::default()
            },
            names: names.clone(),
            ..Plan::default()
        });
        world.client().await.login("alice@example.org").await;
        names.say(away);
        for _ in 0..12 {
            pass(Duration::from_secs(5)).await;
            world.client().await.login("alice@example.org").await;
        }
        assert!(names.asked() > 1, "nobody noticed that it was away");
    }
}

/// Lets time go by for everything at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_server_whose_name_never_resolved_is_a_temporary_failure_with_its_reason() {
    let names = Book::saying(Answer::Failure);
    let resolver = Resolver::new(names, Shutdown::new());
    let dialer = Dialer::new(ClientTls::new(), BackendLimits::default(), resolver);
    let failure = open(&dialer, &endpoint(HOST, 143), Caller::Probe, Imap::back).await;
    let failure = failure.err().unwrap();
    assert_eq!(
        failure.to_string(),
        "the host cannot be resolved: Name or service not known"
    );
}
