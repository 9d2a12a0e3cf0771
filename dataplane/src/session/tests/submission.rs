//! The driver for submission, with servers that the test plays by hand: what they say when, and what they never see.

use std::time::Duration;

use ferrypost_proto::v1::{
    self,
    endpoint_tls::{Mode, Verification},
};
use ferrypost_wire::smtp::Submission;
use tokio_rustls::TlsAcceptor;

use super::{
    by_hand::{Server, servers},
    client::Client,
    eventually,
    log::Log,
    world::{Authority, Plan, Way, World},
};
use crate::{config::ListenerTls, net};

/// `\0alice@example.org\0secret` and the same for bob.
const ALICE: &str = "AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==";
const BOB: &str = "AGJvYkBleGFtcGxlLm9yZwBzZWNyZXQ=";

const UNAVAILABLE: &str = "454 4.7.0 The login is not possible for now, try again later.";
const WRONG: &str = "535 5.7.8 The name or the password is wrong.";
const MOVED: &str = "421 4.3.2 This account is being moved, connect again.";

/// The next connection, up to the answer to EHLO, which lists `extensions`.
async fn greets(server: &Server, extensions: &str) -> Client {
    let mut server = server.visited().await;
    server.send("220 mx.example.org ESMTP\r\n").await;
    hello(&mut server, extensions).await;
    server
}

/// The next connection, up to alice's login.
async fn asked_for_alice(server: &Server) -> Client {
    let mut server = greets(server, "AUTH PLAIN").await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {ALICE}"));
    server
}

/// Hears the client's own name and says what it can do.
async fn hello(server: &mut Client, extensions: &str) {
    assert_eq!(server.line().await, "EHLO client.example.org");
    server
        .send(format!("250-mx.example.org\r\n250 {extensions}\r\n"))
        .await;
}

/// A client under TLS that has introduced itself.
async fn client(world: &World) -> Client {
    let stream = net::connect(world.address).await.unwrap();
    let connected = Client::handshake(Box::new(stream), &world.root, &[]).await;
    let mut client = connected.unwrap();
    assert_eq!(client.line().await, "220 ferrypost ESMTP is ready.");
    client.send("EHLO client.example.org\r\n").await;
    client.answer("250 ").await;
    client
}

/// Alice logged in, and the server that she is relayed to.
async fn relayed(world: &World, old: &Server) -> (Client, Client) {
    let mut client = client(world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = asked_for_alice(old).await;
    server.send("235 2.7.0 in\r\n").await;
    assert_eq!(client.line().await, "235 2.7.0 in");
    (client, server)
}

/// The same with a message on its way, whose end the server has read and not answered.
async fn committed(world: &World, old: &Server) -> (Client, Client) {
    let (mut client, mut server) = relayed(world, old).await;
    begin_message(&mut client, &mut server).await;
    client.send(".\r\n").await;
    assert_eq!(server.line().await, ".");
    (client, server)
}

async fn begin_message(client: &mut Client, server: &mut Client) {
    client.send("DATA\r\n").await;
    assert_eq!(server.line().await, "DATA");
    server.send("354 go on\r\n").await;
    assert_eq!(client.line().await, "354 go on");
    client.send("Subject: x\r\n").await;
    assert_eq!(server.line().await, "Subject: x");
}

#[tokio::test]
async fn ehlo_auth_and_quit_in_one_write_are_answered_in_order() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let stream = net::connect(world.address).await.unwrap();
    let connected = Client::handshake(Box::new(stream), &world.root, &[]).await;
    let mut client = connected.unwrap();
    client
        .send(format!(
            "EHLO client.example.org\r\nAUTH PLAIN {ALICE}\r\nQUIT\r\n"
        ))
        .await;
    let mut server = asked_for_alice(&old).await;
    server.send("235 2.7.0 in\r\n").await;
    assert_eq!(server.line().await, "QUIT");
    server.send("221 2.0.0 bye\r\n").await;
    drop(server);
    assert_eq!(
        client.rest().await,
        "220 ferrypost ESMTP is ready.\r\n250-ferrypost\r\n250 AUTH PLAIN LOGIN\r\n\
         235 2.7.0 in\r\n221 2.0.0 bye\r\n"
    );
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn reject_then_retry_routes_afresh_and_no_server_sees_what_was_pipelined() {
    let (old, new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    let trust_word = "XCLIENT ADDR=203.0.113.66\r\n";
    client
        .send(format!(
            "{trust_word}AUTH PLAIN {ALICE}\r\n{trust_word}MAIL FROM:<a@example.org>\r\n"
        ))
        .await;
    let mut server = asked_for_alice(&old).await;
    server.send("535 5.7.8 no such user\r\n").await;
    assert_eq!(server.line().await, "", "it is left");
    let not_yours = "550 5.7.0 This command is not for you.";
    for answer in [not_yours, WRONG, not_yours, "530 5.7.0 Log in first."] {
        assert_eq!(client.line().await, answer);
    }
    client.send(format!("AUTH PLAIN {BOB}\r\n")).await;
    let mut server = greets(&new, "AUTH PLAIN").await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {BOB}"));
    server.send("235 2.7.0 in\r\n").await;
    assert_eq!(client.line().await, "235 2.7.0 in");
}

#[tokio::test]
async fn a_refusal_is_made_no_worse_than_the_server_said() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    for (said, heard) in [
        ("454 4.7.0 come back", "454 4.7.0 come back"),
        ("451 4.3.0 busy", "454 4.7.0 busy"),
        ("421 4.3.2 shutting down", UNAVAILABLE),
        ("501 5.5.2 what", UNAVAILABLE),
        ("* BYE", UNAVAILABLE),
        ("550 no", "554 5.7.0 The server said no without reason."),
        ("535 alice has another one", WRONG),
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
        &b"421 4.3.2 too busy\r\n"[..],
        b"554 5.3.2 no service here\r\n",
        b"* OK [CAPABILITY IMAP4rev1] ready\r\n",
        b"250 hello\r\n",
        b"\0\x01\x02\r\n",
        &endless,
    ] {
        let (old, _new, plan) = servers();
        let world = World::speaking::<Submission>(plan);
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
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut silent = old.visited().await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(silent.rest().await, "");
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let _undecided = asked_for_alice(&old).await;
    assert_eq!(client.line().await, UNAVAILABLE);
}

#[tokio::test]
async fn a_password_of_six_kilobytes_waits_to_be_asked_for() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    // 6000 octets behind `\0alice@example.org\0s`: all whole groups of three.
    let long = format!("AGFsaWNlQGV4YW1wbGUub3JnAHNz{}", "c3Nz".repeat(2000));
    client.send(format!("AUTH PLAIN {long}\r\n")).await;
    let mut server = greets(&old, "AUTH PLAIN").await;
    assert_eq!(server.line().await, "AUTH PLAIN");
    server.send("334 \r\n").await;
    assert_eq!(server.line().await, long);
    server.send("235 2.7.0 in\r\n").await;
    assert_eq!(client.line().await, "235 2.7.0 in");
}

#[tokio::test]
async fn what_stands_behind_starttls_is_not_even_answered() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(Plan {
        listener: ListenerTls::StartTls,
        ..plan
    });
    let mut client = Client::plain(world.address).await;
    assert_eq!(client.line().await, "220 ferrypost ESMTP is ready.");
    client
        .send(format!("STARTTLS\r\nAUTH PLAIN {ALICE}\r\n"))
        .await;
    assert_eq!(client.rest().await, "");
    old.is_not_asked().await;
}

#[tokio::test]
async fn nobody_logs_in_before_starttls_and_everybody_can_after_it() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(Plan {
        listener: ListenerTls::StartTls,
        ..plan
    });
    let mut client = Client::plain(world.address).await;
    assert_eq!(client.line().await, "220 ferrypost ESMTP is ready.");
    client
        .send(format!("EHLO in.clear\r\nAUTH PLAIN {ALICE}\r\n"))
        .await;
    let said = client.until("250 ").await;
    assert_eq!(said, ["250-ferrypost", "250 STARTTLS"]);
    assert!(client.line().await.starts_with("538 5.7.11 "));
    old.is_not_asked().await;
    client.send("STARTTLS\r\n").await;
    assert_eq!(client.line().await, "220 2.0.0 Begin TLS now.");
    let mut client = client.upgrade(&world.root).await;
    client
        .send(format!("EHLO client.example.org\r\nAUTH PLAIN {ALICE}\r\n"))
        .await;
    asked_for_alice(&old).await.send("235 2.7.0 in\r\n").await;
    client.answer("235 2.7.0 in").await;
}

/// A server that is reached by STARTTLS, and the acceptor of its handshakes.
fn server_with_starttls() -> (Server, TlsAcceptor, Plan) {
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
async fn what_a_server_says_behind_its_answer_to_starttls_ends_the_connection() {
    let (old, _, plan) = server_with_starttls();
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = greets(&old, "STARTTLS").await;
    assert_eq!(server.line().await, "STARTTLS");
    server
        .send("220 begin\r\n250-mx\r\n250 AUTH PLAIN\r\n")
        .await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(server.line().await, "", "nothing more is said to it");
}

#[tokio::test]
async fn a_server_that_does_not_offer_starttls_gets_no_password() {
    let (old, _, plan) = server_with_starttls();
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = greets(&old, "AUTH PLAIN").await;
    assert_eq!(client.line().await, UNAVAILABLE);
    assert_eq!(server.rest().await, "");
}

#[tokio::test]
async fn a_servers_list_and_the_clients_name_are_said_again_under_tls() {
    let (old, acceptor, plan) = server_with_starttls();
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let stream = old
        .speaks(&[
            ("", "220 mx.example.org ESMTP\r\n"),
            (
                "EHLO client.example.org\r\n",
                "250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
            ),
            ("STARTTLS\r\n", "220 begin\r\n"),
        ])
        .await;
    let mut server = Client::over(Box::new(acceptor.accept(stream).await.unwrap()));
    hello(&mut server, "AUTH LOGIN").await;
    assert_eq!(server.line().await, "AUTH LOGIN");
    server.send("334 VXNlcm5hbWU6\r\n").await;
    assert_eq!(server.line().await, "YWxpY2VAZXhhbXBsZS5vcmc=");
    server.send("334 UGFzc3dvcmQ6\r\n").await;
    assert_eq!(server.line().await, "c2VjcmV0");
    server.send("235 2.7.0 in\r\n").await;
    assert_eq!(client.line().await, "235 2.7.0 in");
}

#[tokio::test]
async fn a_client_is_announced_by_xclient_and_named_again_behind_it() {
    let (old, _new, mut plan) = servers();
    plan.way.announcement = v1::Announcement::Xclient;
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = greets(&old, "XCLIENT NAME ADDR PORT HELO LOGIN").await;
    let announced = server.line().await;
    let start = "XCLIENT HELO=client.example.org NAME=[UNAVAILABLE] PORT=";
    assert!(announced.starts_with(start), "{announced}");
    assert!(announced.ends_with(" ADDR=127.0.0.1"), "{announced}");
    server.send("220 mx.example.org ESMTP\r\n").await;
    hello(&mut server, "AUTH PLAIN").await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {ALICE}"));
    server.send("235 2.7.0 in\r\n").await;
    assert_eq!(client.line().await, "235 2.7.0 in");
}

#[tokio::test]
async fn a_server_without_xclient_is_told_nothing_and_serves() {
    let (log, _guard) = Log::begin();
    let (old, _new, mut plan) = servers();
    plan.way.announcement = v1::Announcement::Xclient;
    let world = World::speaking::<Submission>(plan);
    let (_client, _server) = relayed(&world, &old).await;
    let login = log.logins(1).await.remove(0);
    assert_eq!(login["caution"], "announcement_unread", "{login}");
}

#[tokio::test]
async fn what_a_server_says_of_an_announced_client_is_the_clients_to_hear() {
    let (old, _new, mut plan) = servers();
    plan.way.announcement = v1::Announcement::Xclient;
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    for said in ["550 5.7.1 blocked", "421 4.7.0 too many of you"] {
        client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
        let mut server = greets(&old, "XCLIENT ADDR").await;
        assert_eq!(server.line().await, "XCLIENT ADDR=127.0.0.1");
        server.send(format!("{said}\r\n")).await;
        let text = said.splitn(3, ' ').last().unwrap();
        assert_eq!(client.line().await, format!("454 4.7.0 {text}"));
        assert_eq!(server.rest().await, "", "it was given no password");
    }
}

#[tokio::test]
async fn a_proxy_header_comes_first_and_its_refusal_is_the_clients() {
    let (old, _new, mut plan) = servers();
    plan.way.announcement = v1::Announcement::ProxyV2;
    let world = World::speaking::<Submission>(plan);
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\n")).await;
    let mut server = old.visited().await;
    let header = server.read_exact(16).await;
    assert_eq!(header[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    let rest = server.read_exact(rest).await;
    assert_eq!(rest[..4], [127, 0, 0, 1], "the client's address");
    server.send("554 5.7.1 not from there\r\n").await;
    assert_eq!(client.line().await, "454 4.7.0 not from there");
}

#[tokio::test]
async fn a_held_login_is_silent_and_lands_on_the_new_server() {
    let (old, new, mut plan) = servers();
    plan.limits.hold.keep_alive = Duration::from_millis(1);
    let world = World::speaking::<Submission>(plan);
    world.fence();
    let mut client = client(&world).await;
    client.send(format!("AUTH PLAIN {ALICE}\r\nNOOP\r\n")).await;
    eventually("the login is held", || world.registry.counts().held == 1).await;
    world.flip();
    let mut server = asked_for_alice(&new).await;
    server.send("235 2.7.0 in\r\n").await;
    let said = client.line().await;
    assert_eq!(said, "235 2.7.0 in", "it has heard nothing before");
    assert_eq!(server.line().await, "NOOP");
    old.is_not_asked().await;
}

#[tokio::test]
async fn no_limit_cuts_between_the_end_of_a_message_and_its_reply() {
    let (old, _new, mut plan) = servers();
    plan.limits.relay.drain = Duration::from_millis(50);
    // Long enough for a busy machine to get from one line to the next.
    plan.limits.relay.idle = Duration::from_secs(2);
    let world = World::speaking::<Submission>(plan);
    let (mut client, mut server) = committed(&world, &old).await;
    world.fence();
    client.send("MAIL FROM:<a@example.org>\r\n").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(world.registry.counts().sessions, 1, "both limits are past");
    server.send("250 2.0.0 queued\r\n").await;
    for line in ["250 2.0.0 queued", MOVED] {
        assert_eq!(client.line().await, line);
    }
    assert_eq!(server.line().await, "", "nothing came behind the message");
    drop(server);
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_message_that_is_on_its_way_is_cut_at_the_limit_and_so_never_taken() {
    let (old, _new, mut plan) = servers();
    plan.limits.relay.drain = Duration::from_millis(100);
    let world = World::speaking::<Submission>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    begin_message(&mut client, &mut server).await;
    world.fence();
    assert_eq!(client.line().await, MOVED);
    assert_eq!(server.line().await, "", "its end never came");
}

#[tokio::test]
async fn a_server_that_replied_too_often_is_given_the_drains_whole_time() {
    let (old, _new, mut plan) = servers();
    plan.limits.relay.drain = Duration::from_millis(100);
    let world = World::speaking::<Submission>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    server.send("250 2.0.0 what\r\n").await;
    assert_eq!(client.line().await, "250 2.0.0 what");
    begin_message(&mut client, &mut server).await;
    client.send(".\r\n").await;
    assert_eq!(server.line().await, ".");
    world.fence();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        world.registry.counts().sessions,
        1,
        "the message is not cut"
    );
    server.send("250 2.0.0 queued\r\n").await;
    assert_eq!(client.line().await, "250 2.0.0 queued");
    assert_eq!(client.line().await, MOVED);
}

#[tokio::test]
async fn a_stopping_process_says_so_to_an_idle_client() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let (mut client, _server) = relayed(&world, &old).await;
    world.stop();
    let said = client.line().await;
    assert_eq!(
        said,
        "421 4.3.2 The server is shutting down, connect again."
    );
}

#[tokio::test]
async fn words_by_which_only_proxies_speak_end_a_relay() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send("XCLIENT ADDR=203.0.113.66\r\n").await;
    assert_eq!(client.line().await, "421 4.7.0 That was not understood.");
    assert_eq!(server.line().await, "", "the command never came");
}

#[tokio::test]
async fn a_server_that_takes_a_second_login_gets_nothing_more_of_it() {
    let (old, _new, plan) = servers();
    let world = World::speaking::<Submission>(plan);
    let (mut client, mut server) = relayed(&world, &old).await;
    client.send(format!("AUTH PLAIN {BOB}\r\nNOOP\r\n")).await;
    assert_eq!(server.line().await, format!("AUTH PLAIN {BOB}"));
    server.send("235 2.7.0 hello bob\r\n").await;
    assert_eq!(client.line().await, "235 2.7.0 hello bob");
    let goodbye = "421 4.3.2 One connection serves one account, connect again.";
    assert_eq!(client.line().await, goodbye);
    assert_eq!(server.line().await, "", "what stood behind it never came");
}
