//! The same driver for a protocol that is not IMAP: it knows no protocol's words.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::Endpoint;
use ferrypost_wire::Bearer;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{
    client::{Client, PATIENCE},
    eventually,
    toy_protocol::Toy,
    world::{Plan, Way, World},
};
use crate::{
    config::ListenerTls,
    net::{self, TcpListener},
    tokens::{NoOwner, Owner, Proof, TokenOwner},
};

/// `n,a=alice@example.org,` and a token, and what a server says of it: `{"status":"expired"}`.
const TOKEN: &str = "bixhPWFsaWNlQGV4YW1wbGUub3JnLAFhdXRoPUJlYXJlciB0AQE=";
const CHALLENGE: &str = "eyJzdGF0dXMiOiJleHBpcmVkIn0=";

/// Believes the name beside a token.
struct Believing;

impl TokenOwner for Believing {
    fn tells_at(&self, _: &Endpoint) -> bool {
        true
    }

    fn owner<'a>(&'a self, bearer: &'a Bearer) -> BoxFuture<'a, Result<Owner, NoOwner>> {
        let owner = bearer.name().map(|name| Owner {
            name: name.to_owned(),
            proof: Proof::Issuer,
        });
        Box::pin(async { owner.ok_or(NoOwner::Unread) })
    }
}

/// A server that the test plays by hand, and the plan of a world in front of it.
fn server() -> (TcpListener, Plan) {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let plan = Plan {
        way: Way {
            at: [Some(listener.local_addr().unwrap()); 2],
            ..Way::default()
        },
        listener: ListenerTls::StartTls,
        tokens: Arc::new(Believing),
        ..Plan::default()
    };
    (listener, plan)
}

/// The next connection to it, up to the client's name.
async fn told_a_name(listener: &TcpListener) -> Client {
    let accepted = timeout(PATIENCE, net::accept(listener)).await;
    let mut server = Client::over(Box::new(accepted.expect("nobody came").unwrap().0));
    server.send("+ toy server\r\n").await;
    assert_eq!(server.line().await, "HELLO client.example.org");
    server
}

/// The next connection to it, up to the token.
async fn given_a_token(listener: &TcpListener) -> Client {
    let mut server = told_a_name(listener).await;
    server.send("+ SIZE 100, BEARER\r\n").await;
    assert_eq!(server.line().await, format!("BEARER {TOKEN}"));
    server
}

/// A client under TLS that has introduced itself.
async fn client(world: &World) -> Client {
    let mut client = Client::plain(world.address).await;
    assert_eq!(client.line().await, "+ toy");
    client.send("TLS\r\n").await;
    assert_eq!(client.line().await, "+ go");
    let mut client = client.upgrade(&world.root).await;
    assert_eq!(
        client.line().await,
        "+ BEARER",
        "it speaks unasked after TLS"
    );
    client.send("HELLO client.example.org\r\n").await;
    assert_eq!(client.line().await, "+ BEARER");
    client
}

#[tokio::test]
async fn a_refused_token_takes_one_more_round_on_both_legs() {
    let (listener, plan) = server();
    let world = World::speaking::<Toy>(plan);
    let mut client = client(&world).await;
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    let mut server = given_a_token(&listener).await;
    server.send(format!("? {CHALLENGE}\r\n")).await;
    assert_eq!(server.line().await, "AQ==");
    server.send("- AUTH expired\r\n").await;
    assert_eq!(client.line().await, format!("? {CHALLENGE}"));
    client.send("AQ==\r\n").await;
    assert_eq!(client.line().await, "- AUTH no");
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    let mut server = given_a_token(&listener).await;
    server.send("- 454 4.7.0 busy\r\n").await;
    assert_eq!(client.line().await, "- 454 4.7.0 busy");
}

#[tokio::test]
async fn a_client_that_the_server_turns_away_hears_it_and_may_try_again() {
    let (listener, plan) = server();
    let world = World::speaking::<Toy>(plan);
    let mut client = client(&world).await;
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    let mut server = told_a_name(&listener).await;
    server.send("- 454 4.7.0 not from there\r\n").await;
    assert_eq!(client.line().await, "- 454 4.7.0 not from there");
    assert_eq!(server.line().await, "", "it was given nothing");
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    let mut server = given_a_token(&listener).await;
    server.send("+ welcome\r\n").await;
    assert_eq!(client.line().await, "+ welcome");
}

#[tokio::test]
async fn what_a_server_may_have_taken_over_is_cut_by_no_limit() {
    let (listener, mut plan) = server();
    plan.limits.relay.drain = Duration::from_millis(100);
    // Long enough for a busy machine to get from one line to the next.
    plan.limits.relay.idle = Duration::from_secs(2);
    let world = World::speaking::<Toy>(plan);
    let mut client = client(&world).await;
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    let mut server = given_a_token(&listener).await;
    server.send("+ welcome\r\n").await;
    assert_eq!(client.line().await, "+ welcome");
    client.send("DATA\r\nmessage\r\n.\r\n").await;
    for line in ["DATA", "message", "."] {
        assert_eq!(server.line().await, line);
    }
    world.fence();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(world.registry.counts().sessions, 1, "both limits are past");
    server.send("+ taken\r\n").await;
    assert_eq!(client.line().await, "+ taken");
    assert_eq!(client.line().await, "~ moved");
    assert_eq!(server.line().await, "", "it is at its end");
    drop(server);
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
}

#[tokio::test]
async fn a_refused_command_ends_the_session_in_the_protocols_own_words() {
    let (listener, plan) = server();
    let world = World::speaking::<Toy>(plan);
    let mut client = client(&world).await;
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    let mut server = given_a_token(&listener).await;
    server.send("+ welcome\r\n").await;
    assert_eq!(client.line().await, "+ welcome");
    client.send("AGAIN\r\n").await;
    assert_eq!(client.line().await, "~ bye");
    assert_eq!(server.line().await, "", "the command never came");
}

#[tokio::test]
async fn a_token_whose_owner_nobody_can_tell_goes_nowhere() {
    let (listener, plan) = server();
    let plan = Plan {
        tokens: Plan::default().tokens,
        ..plan
    };
    let world = World::speaking::<Toy>(plan);
    let mut client = client(&world).await;
    client.send(format!("BEARER {TOKEN}\r\n")).await;
    assert_eq!(client.line().await, "- 454 4.7.0 later");
    let nobody = timeout(Duration::ZERO, net::accept(&listener)).await;
    assert!(nobody.is_err(), "the server was asked");
}
