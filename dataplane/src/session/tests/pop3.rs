//! The driver for POP3, with servers that the test plays by hand: what they say when, and what they never see.

use std::time::Duration;

use ferrypost_proto::v1::{
    self,
    endpoint_tls::{Mode, Verification},
};
use ferrypost_wire::pop3::Pop3;
use tokio_rustls::TlsAcceptor;

use super::{
    by_hand::{Server, servers},
    client::Client,
    eventually,
    world::{Authority, Plan, Way, World},
};
use crate::{config::ListenerTls, net};

/// `\0alice@example.org\0secret` and the same for bob.
const ALICE: &str = "AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==";
const BOB: &str = "AGJvYkBleGFtcGxlLm9yZwBzZWNyZXQ=";

const UNAVAILABLE: &str = "-ERR [SYS/TEMP] The login is not possible for now, try again later.";
const WRONG: &str = "-ERR [AUTH] The name or the password is wrong.";
const MOVED: &str = "-ERR [SYS/TEMP] This account is being moved, connect again.";

/// The next connection, up to where a login comes.
async fn greets(server: &Server) -> Client {
    let mut server = server.visited().await;
    server.send("+OK ready\r\n").await;
    capabilities(&mut server, "USER\r\nSASL PLAIN\r\n").await;
    server
}

/// The next connection, up to alice's login.
async fn asked_for_alice(server: &Server) -> Client {
    let mut server = greets(server).await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {ALICE}"));
    server
}

/// Says what it can do when it is asked.
async fn capabilities(server: &mut Client, lines: &str) {
    assert_eq!(server.line().await, "CAPA");
    server.send(format!("+OK\r\n{lines}.\r\n")).await;
}

/// A client under TLS that has been greeted.
async fn client(world: &World) -> Client {
    let stream = net::connect(world.address).await.unwrap();
    let connected = Client::handshake(Box::new(stream), &world.root, &[]).await;
    let mut client = connected.unwrap();
    assert_eq!(client.line().await, "+OK Ferrypost is ready.");
    client
}

/// Alice logged in, and the server that she is relayed to.
async fn relayed(world: &World, old: &Server) -> (Client, Client) {
    let mut client = client(world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = asked_for_alice(old).await;
    server.send("+OK in\r\n").await;
    assert_eq!(client.line().await, "+OK in");
    (client, server)
}

#[tokio::test]
async fn everything_in_one_write_is_answered_in_order_and_reaches_the_server_behind_its_ok() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    client
        .send("USER alice@example.org\r\nPASS secret\r\nSTAT\r\nNOOP\r\nQUIT\r\n")
        .await;
    let mut server = asked_for_alice(&old).await;
    server.send("+OK in\r\n").await;
    for (command, answer) in [("STAT", "+OK 0 0"), ("NOOP", "+OK"), ("QUIT", "+OK bye")] {
        assert_eq!(server.line().await, command);
        server.send(format!("{answer}\r\n")).await;
    }
    drop(server);
    let said = client.rest().await;
    assert_eq!(
        said,
        "+OK Now the password.\r\n+OK in\r\n+OK 0 0\r\n+OK\r\n+OK bye\r\n"
    );
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn reject_then_retry_routes_afresh_and_no_server_sees_what_was_pipelined() {
    let (old, new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    let trust_word = "XCLIENT ADDR=203.0.113.66\r\n";
    client
        .send(format!(
            "{trust_word}AUTH PLAIN {ALICE}\r\n{trust_word}DELE 1\r\n"
        ))
        .await;
    let mut server = asked_for_alice(&old).await;
    server.send("-ERR [AUTH] no such user\r\n").await;
    assert_eq!(server.line().await, "", "it is left");
    let unknown = "-ERR Unknown command, or not one to use before the login.";
    for answer in [unknown, WRONG, unknown, unknown] {
        assert_eq!(client.line().await, answer);
    }
    client.send(format!("AUTH PLAIN {BOB}\r\n")).await;
    let mut server = greets(&new).await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {BOB}"));
    server.send("+OK in\r\n").await;
    assert_eq!(client.line().await, "+OK in");
}

#[tokio::test]
async fn a_refusal_is_made_no_worse_than_the_server_said() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    for (said, heard) in [
        (
            "-ERR [SYS/TEMP] backend is busy",
            "-ERR [SYS/TEMP] backend is busy",
        ),
        (
            "-ERR [IN-USE] open elsewhere",
            "-ERR [IN-USE] open elsewhere",
        ),
        ("-ERR [LOGIN-DELAY] too soon", "-ERR [LOGIN-DELAY] too soon"),
        ("-ERR [AUTH] alice has another one", WRONG),
        ("-ERR what could this be but a wrong password", WRONG),
        ("* BYE", UNAVAILABLE),
    ] {
        client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
        let mut server = asked_for_alice(&old).await;
        server.send(format!("{said}\r\n")).await;
        assert_eq!(client.line().await, heard);
    }
}

#[tokio::test]
async fn greetings_that_are_none_make_the_server_unavailable() {
    let endless = vec![b'x'; 1 << 20];
    for greeting in [
        &b"-ERR [SYS/TEMP] too many connections\r\n"[..],
        b"* OK [CAPABILITY IMAP4rev1] ready\r\n",
        b"220 mail.example.org ESMTP\r\n",
        b"\0\x01\x02\r\n",
        &endless,
    ] {
        let (old, _new, plan) = servers();
        let world = World::speaking::<Pop3>(plan);
        let mut client = client(&world).await;
        client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
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
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut silent = old.visited().await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(silent.rest().await, "");
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let _undecided = asked_for_alice(&old).await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(world.registry.unconfirmed(), 0, "no command came with it");
}

#[tokio::test]
async fn what_stands_behind_stls_is_not_even_answered() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(Plan {
        listener: ListenerTls::StartTls,
        ..plan
    });
    let mut client = Client::plain(world.address).await;
    assert_eq!(client.line().await, "+OK Ferrypost is ready.");
    client.send(format!("STLS\r\nAUTH PLAIN {ALICE}\r\n")).await;
    assert_eq!(client.rest().await, "");
    old.is_not_asked().await;
}

#[tokio::test]
async fn nobody_logs_in_before_stls_and_everybody_can_after_it() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(Plan {
        listener: ListenerTls::StartTls,
        ..plan
    });
    let mut client = Client::plain(world.address).await;
    assert_eq!(client.line().await, "+OK Ferrypost is ready.");
    client
        .send(format!(
            "USER alice@example.org\r\nPASS secret\r\nAUTH PLAIN {ALICE}\r\n"
        ))
        .await;
    for _ in 0..3 {
        assert_eq!(client.line().await, "-ERR Use STLS before you log in.");
    }
    old.is_not_asked().await;
    client.send("STLS\r\n").await;
    assert_eq!(client.line().await, "+OK Begin TLS now.");
    let mut client = client.upgrade(&world.root).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    asked_for_alice(&old).await.send("+OK in\r\n").await;
    assert_eq!(client.line().await, "+OK in");
}

/// A server that is reached by STLS, and the acceptor of its handshakes.
fn server_with_stls() -> (Server, TlsAcceptor, Plan) {
    let (old, _, plan) = servers();
    let authority = Authority::new();
    let trust = Verification::CaPem(authority.pem.clone());
    let acceptor = TlsAcceptor::from(authority.sign("localhost").server());
    let plan = Plan {
        way: Way {
            at: plan.way.at,
            ..Way::tls(Mode::Starttls, trust)
        },
        ..plan
    };
    (old, acceptor, plan)
}

#[tokio::test]
async fn what_a_server_says_behind_its_answer_to_stls_ends_the_connection() {
    let (old, _, plan) = server_with_stls();
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = old.visited().await;
    server.send("+OK ready\r\n").await;
    capabilities(&mut server, "STLS\r\n").await;
    assert_eq!(server.line().await, "STLS");
    server.send("+OK begin\r\n+OK\r\nSASL PLAIN\r\n.\r\n").await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(server.line().await, "", "nothing more is said to it");
}

#[tokio::test]
async fn a_server_that_does_not_offer_stls_gets_no_password() {
    let (old, _, plan) = server_with_stls();
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = greets(&old).await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(server.rest().await, "");
}

#[tokio::test]
async fn what_a_server_offered_in_clear_is_forgotten_under_tls() {
    let (old, acceptor, plan) = server_with_stls();
    let world = World::speaking::<Pop3>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let stream = old
        .speaks(&[
            ("", "+OK ready\r\n"),
            ("CAPA\r\n", "+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n"),
            ("STLS\r\n", "+OK begin\r\n"),
        ])
        .await;
    let mut server = Client::over(Box::new(acceptor.accept(stream).await.unwrap()));
    capabilities(&mut server, "USER\r\n").await;
    assert_eq!(server.line().await, "USER alice@example.org");
    server.send("+OK\r\n").await;
    assert_eq!(server.line().await, "PASS secret");
    server.send("+OK in\r\n").await;
    assert_eq!(client.line().await, "+OK in");
}

#[tokio::test]
async fn a_client_is_announced_by_xclient_where_that_is_offered_and_not_where_it_is_not() {
    let (old, _new, mut plan) = servers();
    plan.way.announcement = v1::Announcement::Xclient;
    let world = World::speaking::<Pop3>(plan);
    let stream = net::connect(world.address).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    let connected = Client::handshake(Box::new(stream), &world.root, &[]).await;
    let mut client = connected.unwrap();
    assert_eq!(client.line().await, "+OK Ferrypost is ready.");
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = old.visited().await;
    server.send("+OK [XCLIENT] ready\r\n").await;
    capabilities(&mut server, "SASL PLAIN\r\n").await;
    let announced = server.line().await;
    let start = format!("XCLIENT ADDR=127.0.0.1 PORT={port} DESTADDR=127.0.0.1 DESTPORT=");
    assert!(announced.starts_with(&start), "{announced}");
    assert!(
        announced.contains(" TTL=5 CLIENT-TRANSPORT=TLSv1.3"),
        "{announced}"
    );
    server.send("+OK Updated\r\n").await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {ALICE}"));
    server.send("-ERR [AUTH] no\r\n").await;
    assert_eq!(client.line().await, WRONG);
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    asked_for_alice(&old).await.send("+OK in\r\n").await;
    assert_eq!(client.line().await, "+OK in");
}

#[tokio::test]
async fn a_held_login_is_silent_and_lands_on_the_new_server() {
    let (old, new, mut plan) = servers();
    plan.limits.hold.keep_alive = Duration::from_millis(1);
    let world = World::speaking::<Pop3>(plan);
    world.fence();
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\nSTAT\r\n")).await;
    eventually("the login is held", || world.registry.counts().held == 1).await;
    world.flip();
    let mut server = asked_for_alice(&new).await;
    server.send("+OK in\r\n").await;
    assert_eq!(client.line().await, "+OK in", "it has heard nothing before");
    assert_eq!(server.line().await, "STAT");
    old.is_not_asked().await;
}

#[tokio::test]
async fn a_login_held_for_too_long_gets_a_temporary_error() {
    let (old, _new, mut plan) = servers();
    plan.limits.hold.timeout = Duration::from_millis(100);
    let world = World::speaking::<Pop3>(plan);
    world.fence();
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    assert_eq!(client.line().await, UNAVAILABLE);
    old.is_not_asked().await;
}

#[tokio::test]
async fn a_fence_lets_the_open_command_finish_and_says_goodbye_behind_its_answer() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send("RETR 1\r\n").await;
    assert_eq!(server.line().await, "RETR 1");
    server.send("+OK\r\nSubject: a move\r\n").await;
    assert_eq!(client.line().await, "+OK");
    world.fence();
    client.send("DELE 1\r\n").await;
    server.send("\r\n..\r\n.\r\n").await;
    for line in ["Subject: a move", "", "..", ".", MOVED] {
        assert_eq!(client.line().await, line);
    }
    assert_eq!(
        server.line().await,
        "",
        "what came behind is not let through"
    );
    drop(server);
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn at_the_drains_limit_a_command_is_cut_without_words_that_would_be_its_answer() {
    let (old, _new, mut plan) = servers();
    plan.limits.relay.drain = Duration::from_millis(100);
    let world = World::speaking::<Pop3>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send("QUIT\r\n").await;
    assert_eq!(server.line().await, "QUIT");
    world.fence();
    assert_eq!(client.rest().await, "");
    assert_eq!(server.line().await, "");
}

#[tokio::test]
async fn a_stopping_process_says_so_to_an_idle_client() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let (mut client, _server) = relayed(&world, &old).await;
    world.stop();
    let said = client.line().await;
    assert_eq!(
        said,
        "-ERR [SYS/TEMP] The server is shutting down, connect again."
    );
}

#[tokio::test]
async fn words_by_which_only_proxies_speak_end_a_relay() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send("XCLIENT ADDR=203.0.113.66\r\n").await;
    assert_eq!(client.line().await, "-ERR That was not understood.");
    assert_eq!(server.line().await, "", "the command never came");
}

#[tokio::test]
async fn a_server_that_takes_a_second_login_gets_nothing_more_of_it() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Pop3>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send(format!("AUTH PLAIN {BOB}\r\nDELE 1\r\n")).await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {BOB}"));
    server.send("+OK hello bob\r\n").await;
    assert_eq!(client.line().await, "+OK hello bob");
    let goodbye = "-ERR One connection serves one account, connect again.";
    assert_eq!(client.line().await, goodbye);
    assert_eq!(server.line().await, "", "what stood behind it never came");
}
