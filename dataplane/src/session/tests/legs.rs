//! TLS on both sides: what is verified, and what is refused around it.

use std::sync::Arc;

use ferrypost_proto::v1::endpoint_tls::{Mode, Verification};
use rustls::ServerConfig;

use super::{
    backend::{Manners, Tls},
    client::Client,
    world::{Authority, Plan, Way, World},
};
use crate::config::ListenerTls;

fn served(authority: &Authority, name: &str) -> Arc<ServerConfig> {
    authority.sign(name).server()
}

fn plan(authority: Authority, tls: Tls, way: Way) -> Plan {
    Plan {
        old: Manners {
            tls,
            ..Manners::default()
        },
        way,
        authority,
        ..Plan::default()
    }
}

#[tokio::test]
async fn a_certificate_of_the_configured_authority_is_accepted() {
    let authority = Authority::new();
    let server = served(&authority, "localhost");
    let trust = || Verification::CaPem(authority.pem.clone());
    for (tls, mode) in [
        (Tls::Implicit(Arc::clone(&server)), Mode::Implicit),
        (Tls::StartTls(Arc::clone(&server)), Mode::Starttls),
    ] {
        let world = World::with(plan(Authority::new(), tls, Way::tls(mode, trust())));
        world.client().await.login("alice@example.org").await;
        assert!(world.old.seen.has("LOGIN") || world.old.seen.has("AUTHENTICATE"));
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_gets_no_password() {
    let authority = Authority::new();
    for (server, trust) in [
        (
            served(&authority, "elsewhere.example"),
            authority.pem.clone(),
        ),
        (
            served(&Authority::new(), "localhost"),
            authority.pem.clone(),
        ),
    ] {
        let way = Way::tls(Mode::Implicit, Verification::CaPem(trust));
        let world = World::with(plan(Authority::new(), Tls::Implicit(server), way));
        let mut client = world.client().await;
        let answer = client.try_login("alice@example.org", "secret").await;
        assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
        assert!(world.old.seen.lines().is_empty());
    }
}

#[tokio::test]
async fn a_pin_is_about_one_certificate_whoever_signed_it() {
    let authority = Authority::new();
    let identity = authority.sign("whatever.example");
    let other = authority.sign("whatever.example").pin();
    for (pin, expected) in [(identity.pin(), "l OK"), (other, "l NO [UNAVAILABLE]")] {
        let way = Way::tls(Mode::Implicit, Verification::PinSha256(pin));
        let tls = Tls::Implicit(identity.server());
        let world = World::with(plan(Authority::new(), tls, way));
        let mut client = world.client().await;
        let answer = client.try_login("alice@example.org", "secret").await;
        assert!(answer.starts_with(expected), "{answer}");
    }
}

/// A server can change its certificate without a login lost.
#[tokio::test]
async fn the_certificate_that_is_to_follow_a_pinned_one_is_taken_beside_it() {
    let authority = Authority::new();
    let identity = authority.sign("whatever.example");
    let [other, third] = [(), ()].map(|()| authority.sign("whatever.example").pin());
    for (pin, next, expected) in [
        (identity.pin(), other.clone(), "l OK"),
        (other.clone(), identity.pin(), "l OK"),
        (other, third, "l NO [UNAVAILABLE]"),
    ] {
        let mut way = Way::tls(Mode::Implicit, Verification::PinSha256(pin));
        way.tls.next_pin_sha256 = next;
        let tls = Tls::Implicit(identity.server());
        let world = World::with(plan(Authority::new(), tls, way));
        let mut client = world.client().await;
        let answer = client.try_login("alice@example.org", "secret").await;
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn what_a_server_says_behind_its_answer_to_starttls_ends_the_connection() {
    let authority = Authority::new();
    let trust = Verification::CaPem(authority.pem.clone());
    let mut plan = plan(
        Authority::new(),
        Tls::StartTls(served(&authority, "localhost")),
        Way::tls(Mode::Starttls, trust),
    );
    plan.old.injected = "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n";
    let world = World::with(plan);
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    assert!(!world.old.seen.has("LOGIN"));
}

#[tokio::test]
async fn a_server_without_starttls_gets_no_password() {
    let trust = Verification::CaPem(Authority::new().pem);
    let world = World::with(plan(
        Authority::new(),
        Tls::None,
        Way::tls(Mode::Starttls, trust),
    ));
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    assert!(!world.old.seen.has("secret"));
}

#[tokio::test]
async fn what_a_client_says_behind_starttls_ends_the_connection_unanswered() {
    let world = World::with(Plan {
        listener: ListenerTls::StartTls,
        ..Plan::default()
    });
    let mut client = Client::plain(world.address).await;
    client.line().await;
    client
        .send("s STARTTLS\r\nx LOGIN mallory secret\r\n")
        .await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_names_another_protocol_is_refused_in_the_handshake() {
    let world = World::new();
    for (alpn, served) in [(&[&b"imap"[..]], true), (&[&b"http/1.1"[..]], false)] {
        let stream = crate::net::connect(world.address).await.unwrap();
        let client = Client::handshake(Box::new(stream), &world.root, alpn).await;
        assert_eq!(client.is_ok(), served, "{alpn:?}");
    }
}

/// The hello of a client of TLS 1.2 that knows one suite: RSA key exchange, AES-128, CBC.
fn old_hello() -> Vec<u8> {
    let extensions = [
        // supported_groups: secp256r1; signature_algorithms: ecdsa_secp256r1_sha256, rsa_pkcs1_sha256.
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 13, 0, 6, 0, 4, 4, 3, 4, 1][..],
    ]
    .concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session; TLS_RSA_WITH_AES_128_CBC_SHA; no compression.
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = |octets: &[u8]| u8::try_from(octets.len()).unwrap();
    let message = [&[1, 0, 0, length(&hello)], &hello[..]].concat();
    [&[22, 3, 1, 0, length(&message)], &message[..]].concat()
}

#[tokio::test]
async fn a_client_whose_tls_is_too_old_is_turned_away_by_an_alert_and_counted() {
    let world = World::new();
    let mut client = Client::plain(world.address).await;
    client.send(old_hello()).await;
    // A fatal handshake_failure.
    assert_eq!(client.read_exact(7).await, [21, 3, 3, 0, 2, 2, 40]);
    assert_eq!(client.rest().await, "");
    // Anything else that fails is not counted.
    let mut client = Client::plain(world.address).await;
    client.send("a LOGIN alice secret\r\n").await;
    client.rest().await;
    assert_eq!(world.too_old(), 1);
}
