//! The driver for `ManageSieve`, with servers that the test plays by hand: what they say when, and what they never
//! see.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::v1::{
    self,
    endpoint_tls::{Mode, Verification},
};
use ferrypost_wire::sieve::Sieve;
use rustls::ServerConfig;
use tokio::time::timeout;

use super::{
    client::{Client, PATIENCE},
    eventually,
    world::{Plan, Way, World},
};
use crate::{
    config::ListenerTls,
    net::{self, TcpListener},
    registry::Stage,
};

/// `\0alice@example.org\0secret` and the same for bob.
const ALICE: &str = "AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==";
const BOB: &str = "AGJvYkBleGFtcGxlLm9yZwBzZWNyZXQ=";

/// What is offered while no destination is known.
const SASL: &str = "\"SASL\" \"PLAIN LOGIN\"";
const WRONG: &str = "NO \"The name or the password is wrong, or the account may not log in here.\"";
const UNAVAILABLE: &str = "NO (TRYLATER) \"The login is not possible for now, try again later.\"";

/// A server that is played by hand.
struct Server(TcpListener);

impl Server {
    fn start() -> Self {
        Self(net::listen("127.0.0.1:0".parse().unwrap()).unwrap())
    }

    /// The next connection, before anything is said.
    async fn visited(&self) -> Client {
        let accepted = timeout(PATIENCE, net::accept(&self.0)).await;
        Client::over(Box::new(accepted.expect("nobody came").unwrap().0))
    }

    /// The next connection, up to this login.
    async fn asked(&self, login: &str) -> Client {
        let mut server = self.visited().await;
        server.send("\"SASL\" \"PLAIN\"\r\nOK \"Ready.\"\r\n").await;
        assert_eq!(server.line().await, authenticate(login));
        server
    }

    async fn is_not_asked(&self) {
        let nobody = timeout(Duration::ZERO, net::accept(&self.0)).await;
        assert!(nobody.is_err(), "the server was asked");
    }
}

fn authenticate(login: &str) -> String {
    format!("AUTHENTICATE \"PLAIN\" \"{login}\"")
}

/// The old and the new server, and the plan of a world in front of them.
fn servers() -> (Server, Server, Plan) {
    let (old, new) = (Server::start(), Server::start());
    let at = |server: &Server| Some(server.0.local_addr().unwrap());
    let plan = Plan {
        way: Way {
            at: [at(&old), at(&new)],
            ..Way::default()
        },
        ..Plan::default()
    };
    (old, new, plan)
}

/// The same, with the old one reached by STARTTLS.
fn servers_with_starttls() -> (Server, Arc<ServerConfig>, Plan) {
    let (old, _, mut plan) = servers();
    let identity = plan.authority.sign("localhost").server();
    let trust = Verification::CaPem(plan.authority.pem.clone());
    plan.way.tls = Way::tls(Mode::Starttls, trust).tls;
    (old, identity, plan)
}

/// A client under TLS, which has read what is offered.
async fn client(world: &World) -> Client {
    let stream = net::connect(world.address).await.unwrap();
    let handshake = Client::handshake(Box::new(stream), &world.root, &[b"managesieve"]);
    let mut client = handshake.await.unwrap();
    let offered = client.until("OK").await;
    assert!(offered.contains(&SASL.to_owned()), "{offered:?}");
    client
}

/// A client that asks to be logged in so.
async fn asking(world: &World, login: &str) -> Client {
    let mut client = client(world).await;
    client.send(format!("{}\r\n", authenticate(login))).await;
    client
}

/// Alice, and the server that she is relayed to.
async fn relayed(world: &World, old: &Server) -> (Client, Client) {
    let mut client = asking(world, ALICE).await;
    let mut server = old.asked(ALICE).await;
    server.send("OK \"Hello.\"\r\n").await;
    assert_eq!(client.line().await, "OK \"Hello.\"");
    (client, server)
}

#[tokio::test]
async fn the_list_comes_unasked_behind_tls_on_both_legs_and_behind_no_login() {
    let (old, identity, plan) = servers_with_starttls();
    let world = World::speaking::<Sieve>(Plan {
        listener: ListenerTls::StartTls,
        ..plan
    });
    let mut client = Client::plain(world.address).await;
    let in_clear = client.until("OK").await;
    assert!(
        in_clear.contains(&"\"SASL\" \"\"".to_owned()),
        "{in_clear:?}"
    );
    client.send(format!("{}\r\n", authenticate(ALICE))).await;
    let answer = client.line().await;
    assert!(answer.starts_with("NO (ENCRYPT-NEEDED) "), "{answer}");
    old.is_not_asked().await;
    client.send("STARTTLS\r\n").await;
    assert_eq!(client.line().await, "OK \"Begin TLS now.\"");
    let mut client = client.upgrade(&world.root).await;
    let unasked = client.until("OK").await;
    assert!(unasked.contains(&SASL.to_owned()), "{unasked:?}");
    assert!(!unasked.contains(&"\"STARTTLS\"".to_owned()));

    client.send(format!("{}\r\n", authenticate(ALICE))).await;
    let mut server = old.visited().await;
    server.send("\"STARTTLS\"\r\nOK\r\n").await;
    assert_eq!(server.line().await, "STARTTLS");
    server.send("OK\r\n").await;
    let mut server = server.accept_tls(identity).await;
    server
        .send("\"SASL\" \"PLAIN\"\r\nOK \"TLS negotiation successful.\"\r\n")
        .await;
    assert_eq!(server.line().await, "NOOP");
    server.send("OK\r\n").await;
    assert_eq!(server.line().await, authenticate(ALICE));
    server.send("OK \"Hello.\"\r\n").await;
    assert_eq!(client.line().await, "OK \"Hello.\"");
    client.send("NOOP \"x\"\r\n").await;
    assert_eq!(server.line().await, "NOOP \"x\"");
    server.send("OK (TAG \"x\")\r\n").await;
    assert_eq!(client.line().await, "OK (TAG \"x\")");
}

#[tokio::test]
async fn what_a_server_says_behind_its_answer_to_starttls_ends_the_connection() {
    let (old, _, plan) = servers_with_starttls();
    let world = World::speaking::<Sieve>(plan);
    let mut client = asking(&world, ALICE).await;
    let mut server = old.visited().await;
    server.send("\"STARTTLS\"\r\nOK\r\n").await;
    assert_eq!(server.line().await, "STARTTLS");
    server
        .send("OK\r\n\"SASL\" \"PLAIN\"\r\nOK\r\nOK\r\n")
        .await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(server.line().await, "", "nothing more is said to it");
}

#[tokio::test]
async fn what_stands_behind_starttls_is_not_even_answered() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Sieve>(Plan {
        listener: ListenerTls::StartTls,
        ..plan
    });
    let mut client = Client::plain(world.address).await;
    client.until("OK").await;
    let command = authenticate(ALICE);
    client.send(format!("STARTTLS\r\n{command}\r\n")).await;
    assert_eq!(client.rest().await, "");
    old.is_not_asked().await;
}

#[tokio::test]
async fn everything_in_one_write_is_answered_in_order_and_reaches_the_server_behind_its_ok() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Sieve>(plan);
    let mut client = client(&world).await;
    let (length, script) = (ALICE.len(), "UNAUTHENTICATE\r\n");
    client
        .send(format!(
            "NOOP \"1\"\r\nAUTHENTICATE \"PLAIN\" {{{length}+}}\r\n{ALICE}\r\n\
             PUTSCRIPT \"a\" {{{}+}}\r\n{script}\r\nLISTSCRIPTS\r\nLOGOUT\r\n",
            script.len(),
        ))
        .await;
    let mut server = old.asked(ALICE).await;
    server.send("OK\r\n").await;
    for line in ["PUTSCRIPT \"a\" {16+}", "UNAUTHENTICATE", ""] {
        assert_eq!(server.line().await, line);
    }
    server.send("NO (QUOTA) {6}\r\nOK\r\nNO\r\n").await;
    assert_eq!(server.line().await, "LISTSCRIPTS");
    server.send("\"OK\" ACTIVE\r\nOK\r\n").await;
    assert_eq!(server.line().await, "LOGOUT");
    server.send("OK\r\n").await;
    drop(server);
    assert_eq!(
        client.rest().await,
        "OK (TAG \"1\") \"Done.\"\r\nOK \"Logged in.\"\r\n\
         NO (QUOTA) {6}\r\nOK\r\nNO\r\n\"OK\" ACTIVE\r\nOK\r\nOK\r\n"
    );
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn reject_then_retry_routes_afresh_and_no_server_sees_what_was_pipelined() {
    let (old, new, plan) = servers();
    let world = World::speaking::<Sieve>(plan);
    let mut client = client(&world).await;
    let trust_word = "XCLIENT ADDR=203.0.113.66\r\n";
    let command = authenticate(ALICE);
    client
        .send(format!(
            "{trust_word}{command}\r\n{trust_word}DELETESCRIPT \"a\"\r\n"
        ))
        .await;
    let mut server = old.asked(ALICE).await;
    server
        .send("NO \"no such user on old.example.org\"\r\n")
        .await;
    assert_eq!(server.line().await, "", "it is left");
    let unknown = "NO \"There is no such command.\"";
    for answer in [unknown, WRONG, unknown, "NO \"Log in first.\""] {
        assert_eq!(client.line().await, answer);
    }
    client.send(format!("{}\r\n", authenticate(BOB))).await;
    new.asked(BOB).await.send("OK\r\n").await;
    assert_eq!(client.line().await, "OK \"Logged in.\"");
}

#[tokio::test]
async fn a_refusal_is_made_no_worse_than_the_server_said() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Sieve>(plan);
    let mut client = client(&world).await;
    let elsewhere = "NO (TRYLATER) \"The account cannot be served for now.\"";
    for (said, heard) in [
        (
            "NO (TRYLATER) \"busy [host:now]\"",
            "NO (TRYLATER) \"busy [host:now]\"",
        ),
        ("NO \"alice has another one\"", WRONG),
        ("NO (REFERRAL \"sieve://new/\") \"there\"", elsewhere),
        ("NO (ENCRYPT-NEEDED) \"on our leg\"", elsewhere),
        ("BYE (REFERRAL \"sieve://new/\") \"there\"", UNAVAILABLE),
        ("\"SIEVE\" \"what is this\"", UNAVAILABLE),
    ] {
        client.send(format!("{}\r\n", authenticate(ALICE))).await;
        let mut server = old.asked(ALICE).await;
        server.send(format!("{said}\r\n")).await;
        assert_eq!(client.line().await, heard);
    }
}

#[tokio::test]
async fn greetings_that_are_none_make_the_server_unavailable() {
    let endless = vec![b'x'; 1 << 20];
    for greeting in [
        &b"BYE \"Too many connections.\"\r\n"[..],
        b"\"OWNER\" \"bob\"\r\n\"SASL\" \"PLAIN\"\r\nOK\r\n",
        b"* OK [CAPABILITY IMAP4rev1] Ready.\r\n",
        b"\"SASL\" \"GSSAPI\"\r\nOK\r\n",
        b"OK {99999999}\r\n",
        &endless,
        &b"\"A\" \"B\"\r\n".repeat(1000),
    ] {
        let (old, _new, plan) = servers();
        let world = World::speaking::<Sieve>(plan);
        let mut client = asking(&world, ALICE).await;
        let mut server = old.visited().await;
        _ = server.try_send(greeting).await;
        assert_eq!(client.line().await, UNAVAILABLE);
        assert_eq!(server.rest().await, "", "it has been sent something");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_temporary_error_within_the_limit() {
    let (old, _new, mut plan) = servers();
    plan.limits.backend.negotiate = Duration::from_millis(200);
    plan.limits.backend.login = Duration::from_millis(200);
    let world = World::speaking::<Sieve>(plan);
    let mut client = asking(&world, ALICE).await;
    let mut silent = old.visited().await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(silent.rest().await, "");
    client.send(format!("{}\r\n", authenticate(ALICE))).await;
    let _undecided = old.asked(ALICE).await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(world.registry.unconfirmed(), 0, "no command came with it");
}

#[tokio::test]
async fn a_client_is_announced_by_xclient_where_that_is_offered_and_not_where_it_is_not() {
    let (old, _new, mut plan) = servers();
    plan.way.announcement = v1::Announcement::Xclient;
    let world = World::speaking::<Sieve>(plan);
    let mut client = asking(&world, ALICE).await;
    let mut server = old.visited().await;
    server
        .send("\"SASL\" \"PLAIN\"\r\n\"XCLIENT\"\r\nOK\r\n")
        .await;
    let announced = server.line().await;
    assert!(
        announced.starts_with("XCLIENT ADDR=127.0.0.1 PORT="),
        "{announced}"
    );
    server.send("OK \"Updated\"\r\n").await;
    assert_eq!(server.line().await, authenticate(ALICE));
    server.send("NO\r\n").await;
    assert_eq!(client.line().await, WRONG);
    client.send(format!("{}\r\n", authenticate(ALICE))).await;
    old.asked(ALICE).await.send("OK\r\n").await;
    assert_eq!(client.line().await, "OK \"Logged in.\"");
}

#[tokio::test]
async fn a_held_login_is_silent_and_lands_on_the_new_server() {
    let (old, new, mut plan) = servers();
    plan.limits.hold.keep_alive = Duration::from_millis(1);
    let world = World::speaking::<Sieve>(plan);
    world.fence();
    let mut client = client(&world).await;
    client
        .send(format!("{}\r\nNOOP\r\n", authenticate(ALICE)))
        .await;
    eventually("it is held", || world.registry.counts().held == 1).await;
    world.flip();
    let mut server = new.asked(ALICE).await;
    server.send("OK\r\n").await;
    let answer = client.line().await;
    assert_eq!(answer, "OK \"Logged in.\"", "it has heard nothing before");
    assert_eq!(server.line().await, "NOOP");
    old.is_not_asked().await;
}

#[tokio::test]
async fn a_login_held_for_too_long_gets_a_temporary_error() {
    let (old, _new, mut plan) = servers();
    plan.limits.hold.timeout = Duration::from_millis(100);
    let world = World::speaking::<Sieve>(plan);
    world.fence();
    let mut client = asking(&world, ALICE).await;
    assert_eq!(client.line().await, UNAVAILABLE);
    old.is_not_asked().await;
}

#[tokio::test]
async fn a_fence_lets_a_script_arrive_and_says_goodbye_behind_its_answer() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Sieve>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send("PUTSCRIPT \"a\" {5+}\r\nke").await;
    assert_eq!(server.line().await, "PUTSCRIPT \"a\" {5+}");
    world.fence();
    eventually("the session is closing", || {
        let session = &world.registry.sessions(&[], 1).sessions[0];
        session.stage == Stage::Closing
    })
    .await;
    client.send("ep;\r\nSETACTIVE \"a\"\r\n").await;
    assert_eq!(server.line().await, "keep;");
    server.send("OK \"Stored.\"\r\n").await;
    assert_eq!(client.line().await, "OK \"Stored.\"");
    let goodbye = "BYE (TRYLATER) \"This account is being moved, connect again.\"";
    assert_eq!(client.line().await, goodbye);
    assert_eq!(server.line().await, "", "the next command never came");
    drop(server);
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_command_that_the_server_must_not_see_ends_the_relay() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Sieve>(plan);
    for (command, goodbye) in [
        (
            "unauthenticate\r\nAUTHENTICATE ",
            "BYE \"One connection serves one account, connect again.\"",
        ),
        (
            "XCLIENT ADDR=203.0.113.66\r\n",
            "BYE \"That was not understood.\"",
        ),
    ] {
        let (mut client, mut server) = relayed(&world, &old).await;
        client.send(command).await;
        assert_eq!(client.line().await, goodbye);
        assert_eq!(server.line().await, "", "the command never came");
    }
}

#[tokio::test]
async fn a_server_that_takes_a_second_login_gets_nothing_more_of_it() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Sieve>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    let again = authenticate(BOB);
    client
        .send(format!("{again}\r\nDELETESCRIPT \"a\"\r\n"))
        .await;
    assert_eq!(server.line().await, again);
    server.send("OK \"Hello bob.\"\r\n").await;
    assert_eq!(client.line().await, "OK \"Hello bob.\"");
    let goodbye = "BYE \"One connection serves one account, connect again.\"";
    assert_eq!(client.line().await, goodbye);
    assert_eq!(server.line().await, "", "what stood behind it never came");
}

#[tokio::test]
async fn a_server_that_does_not_offer_starttls_gets_no_password() {
    let (old, _identity, plan) = servers_with_starttls();
    let world = World::speaking::<Sieve>(plan);
    let mut client = asking(&world, ALICE).await;
    let mut server = old.visited().await;
    server.send("\"SASL\" \"PLAIN\"\r\nOK\r\n").await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(server.rest().await, "");
}
