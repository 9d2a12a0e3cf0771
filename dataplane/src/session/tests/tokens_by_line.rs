//! Logins by bearer token in POP3, `ManageSieve` and submission, with servers that the test plays by hand.

use std::time::Duration;

use ferrypost_proto::v1::AuthorizationIdentity::{Honoured, Ignored};
use ferrypost_wire::{LineProtocol, pop3::Pop3, sieve::Sieve, smtp::Submission};
use tracing::level_filters::LevelFilter;

use super::{
    by_hand::{Server, servers},
    client::Client,
    eventually,
    log::Log,
    tokens::{ALICE, BOB, INVALID, known, xoauth2},
    world::{Plan, Way, World},
};
use crate::net;

/// The same tests for each protocol.
macro_rules! in_each {
    ($($test:ident),+ $(,)?) => {
        in_each! { @ pop3: Pop3 = POP3; $($test),+ }
        in_each! { @ managesieve: Sieve = MANAGESIEVE; $($test),+ }
        in_each! { @ submission: Submission = SUBMISSION; $($test),+ }
    };
    (@ $protocol:ident: $type:ident = $words:ident; $($test:ident),+) => {
        mod $protocol {
            $(#[tokio::test]
            async fn $test() {
                super::$test::<super::$type>(&super::$words).await;
            })+
        }
    };
}

in_each! {
    a_token_goes_where_its_owner_lives_whatever_name_is_beside_it,
    a_refused_token_is_explained_in_the_servers_own_words_and_the_next_one_is_routed_afresh,
    a_token_that_its_issuer_does_not_know_is_refused_as_a_server_would,
    while_the_issuer_is_away_a_token_gets_a_temporary_error_and_goes_nowhere,
    a_token_of_six_kilobytes_reaches_its_server,
    a_held_token_lands_on_the_new_server_with_what_came_in_the_same_write,
    an_explanation_that_is_none_is_left_out,
    a_refusal_that_never_comes_behind_its_explanation_is_a_temporary_error,
    nothing_of_a_token_is_in_the_log,
}

/// How a protocol says it.
struct Words {
    /// What both servers are said to offer.
    offered: &'static [&'static str],
    /// How the last line of our greeting begins.
    greeted: &'static str,
    /// A server up to where a login comes: what it hears, and what it says then.
    server: &'static [(&'static str, &'static str)],
    /// What stands around a message that comes with its command.
    command: [&'static str; 2],
    /// How one that is too long for that comes: the command's line, and the leave that it waits for.
    long: (fn(&str) -> String, &'static str),
    yes: &'static str,
    /// What stands around a challenge.
    challenge: [&'static str; 2],
    /// That it has been read.
    read: &'static str,
    /// A server's no, and what the client hears of it.
    no: &'static str,
    /// The same as we say it ourselves.
    unknown: &'static str,
    unavailable: &'static str,
    /// Any command for after the login.
    next: &'static str,
}

const POP3: Words = Words {
    offered: &["USER", "SASL PLAIN XOAUTH2"],
    greeted: "+OK",
    server: &[
        ("", "+OK ready\r\n"),
        ("CAPA\r\n", "+OK\r\nSASL PLAIN XOAUTH2\r\n.\r\n"),
    ],
    command: ["AUTH XOAUTH2 ", ""],
    long: (|_| "AUTH XOAUTH2".to_owned(), "+ \r\n"),
    yes: "+OK in",
    challenge: ["+ ", ""],
    read: "",
    no: "-ERR [AUTH] The token has expired",
    unknown: "-ERR [AUTH] The token is not valid, or no longer.",
    unavailable: "-ERR [SYS/TEMP] The login is not possible for now, try again later.",
    next: "STAT",
};

const MANAGESIEVE: Words = Words {
    offered: &["SASL PLAIN XOAUTH2", "SIEVE fileinto"],
    greeted: "OK ",
    server: &[("", "\"SASL\" \"PLAIN XOAUTH2\"\r\nOK\r\n")],
    command: ["AUTHENTICATE \"XOAUTH2\" \"", "\""],
    long: (
        |message| format!("AUTHENTICATE \"XOAUTH2\" {{{}+}}", message.len()),
        "",
    ),
    yes: "OK \"in\"",
    challenge: ["\"", "\""],
    read: "\"\"",
    no: "NO \"The token has expired\"",
    unknown: "NO \"The token is not valid, or no longer.\"",
    unavailable: "NO (TRYLATER) \"The login is not possible for now, try again later.\"",
    next: "LISTSCRIPTS",
};

const SUBMISSION: Words = Words {
    offered: &["AUTH PLAIN XOAUTH2"],
    greeted: "220 ",
    server: &[
        ("", "220 mx.example.org ESMTP\r\n"),
        (
            "EHLO [127.0.0.1]\r\n",
            "250-mx.example.org\r\n250 AUTH PLAIN XOAUTH2\r\n",
        ),
    ],
    command: ["AUTH XOAUTH2 ", ""],
    long: (|_| "AUTH XOAUTH2".to_owned(), "334 \r\n"),
    yes: "235 2.7.0 in",
    challenge: ["334 ", ""],
    read: "",
    no: "535 5.7.8 The token has expired",
    unknown: "535 5.7.8 The token is not valid, or no longer.",
    unavailable: "454 4.7.0 The login is not possible for now, try again later.",
    next: "NOOP",
};

impl Words {
    fn login(&self, user: &str, token: &str) -> String {
        around(self.command, &xoauth2(user, token))
    }

    /// The next connection, up to where a login comes.
    async fn greets(&self, server: &Server) -> Client {
        Client::over(Box::new(server.speaks(self.server).await))
    }

    /// The next connection, up to this login.
    async fn asked(&self, server: &Server, user: &str, token: &str) -> Client {
        let mut server = self.greets(server).await;
        assert_eq!(server.line().await, self.login(user, token));
        server
    }

    /// A client under TLS that has been greeted.
    async fn client(&self, world: &World) -> Client {
        let stream = net::connect(world.address).await.unwrap();
        let connected = Client::handshake(Box::new(stream), &world.root, &[]).await;
        let mut client = connected.unwrap();
        client.answer(self.greeted).await;
        client
    }

    /// A world in which tokens are known, with servers that go by the token.
    fn plan(&self) -> (Server, Server, Plan) {
        let (old, new, plan) = servers();
        let plan = Plan {
            way: Way {
                at: plan.way.at,
                authorization: [Ignored; 2],
                offered: self.offered,
                ..Way::default()
            },
            tokens: known(),
            ..plan
        };
        (old, new, plan)
    }
}

fn around([before, behind]: [&str; 2], message: &str) -> String {
    format!("{before}{message}{behind}")
}

async fn say(to: &mut Client, line: &str) {
    to.send(format!("{line}\r\n")).await;
}

async fn a_token_goes_where_its_owner_lives_whatever_name_is_beside_it<P: LineProtocol>(
    words: &Words,
) {
    let (old, new, plan) = words.plan();
    let world = World::speaking::<P>(plan);
    for (user, token, server) in [
        ("", "secret-alice", &old),
        (BOB, "secret-alice", &old),
        (ALICE, "secret-bob", &new),
    ] {
        let mut client = words.client(&world).await;
        say(&mut client, &words.login(user, token)).await;
        let mut server = words.asked(server, user, token).await;
        say(&mut server, words.yes).await;
        assert_eq!(client.line().await, words.yes);
    }
}

async fn a_refused_token_is_explained_in_the_servers_own_words_and_the_next_one_is_routed_afresh<
    P: LineProtocol,
>(
    words: &Words,
) {
    let (old, new, plan) = words.plan();
    let world = World::speaking::<P>(plan);
    let mut client = words.client(&world).await;
    say(&mut client, &words.login("", "expired-alice")).await;
    let mut server = words.asked(&old, "", "expired-alice").await;
    let explained = around(words.challenge, INVALID);
    say(&mut server, &explained).await;
    assert_eq!(server.line().await, words.read);
    say(&mut server, words.no).await;
    assert_eq!(client.line().await, explained);
    // Its last word in the exchange, and the next login, in one write.
    let next = words.login("", "secret-bob");
    say(&mut client, &format!("{}\r\n{next}", words.read)).await;
    assert_eq!(client.line().await, words.no);
    let mut server = words.asked(&new, "", "secret-bob").await;
    say(&mut server, words.yes).await;
    assert_eq!(client.line().await, words.yes);
}

async fn a_token_that_its_issuer_does_not_know_is_refused_as_a_server_would<P: LineProtocol>(
    words: &Words,
) {
    let (old, new, plan) = words.plan();
    let world = World::speaking::<P>(plan);
    let mut client = words.client(&world).await;
    say(&mut client, &words.login(ALICE, "forged")).await;
    assert_eq!(client.line().await, around(words.challenge, INVALID));
    say(&mut client, words.read).await;
    assert_eq!(client.line().await, words.unknown);
    old.is_not_asked().await;
    new.is_not_asked().await;
}

async fn while_the_issuer_is_away_a_token_gets_a_temporary_error_and_goes_nowhere<
    P: LineProtocol,
>(
    words: &Words,
) {
    let (old, new, plan) = words.plan();
    let world = World::speaking::<P>(plan);
    let mut client = words.client(&world).await;
    for _ in 0..5 {
        say(&mut client, &words.login(ALICE, "secret-away")).await;
        assert_eq!(client.line().await, words.unavailable);
    }
    old.is_not_asked().await;
    new.is_not_asked().await;
    say(&mut client, &words.login(ALICE, "secret-alice")).await;
    let mut server = words.asked(&old, ALICE, "secret-alice").await;
    say(&mut server, words.yes).await;
    assert_eq!(client.line().await, words.yes);
}

async fn a_token_of_six_kilobytes_reaches_its_server<P: LineProtocol>(words: &Words) {
    let (old, _new, mut plan) = words.plan();
    plan.way.authorization = [Honoured; 2];
    let world = World::speaking::<P>(plan);
    let token = "secret".repeat(1000);
    let message = xoauth2(ALICE, &token);
    let mut client = words.client(&world).await;
    say(&mut client, &words.login(ALICE, &token)).await;
    let mut server = words.greets(&old).await;
    let (command, leave) = words.long;
    assert_eq!(server.line().await, command(&message));
    server.send(leave).await;
    assert_eq!(server.line().await, message);
    say(&mut server, words.yes).await;
    assert_eq!(client.line().await, words.yes);
}

async fn a_held_token_lands_on_the_new_server_with_what_came_in_the_same_write<P: LineProtocol>(
    words: &Words,
) {
    let (old, new, plan) = words.plan();
    let world = World::speaking::<P>(plan);
    world.fence();
    let mut client = words.client(&world).await;
    let login = words.login("", "secret-alice");
    say(&mut client, &format!("{login}\r\n{}", words.next)).await;
    eventually("the login is held", || world.registry.counts().held == 1).await;
    world.flip();
    let mut server = words.asked(&new, "", "secret-alice").await;
    say(&mut server, words.yes).await;
    assert_eq!(client.line().await, words.yes);
    assert_eq!(server.line().await, words.next);
    old.is_not_asked().await;
}

/// A client that is asked without a word takes it for a question, and answers with its token once more.
async fn an_explanation_that_is_none_is_left_out<P: LineProtocol>(words: &Words) {
    let (old, _new, mut plan) = words.plan();
    plan.limits.preauth.failures = 10;
    let world = World::speaking::<P>(plan);
    let mut client = words.client(&world).await;
    for none in ["", "!!!", "e30", "e3 0="] {
        say(&mut client, &words.login("", "expired-alice")).await;
        let mut server = words.asked(&old, "", "expired-alice").await;
        say(&mut server, &around(words.challenge, none)).await;
        assert_eq!(server.line().await, words.read);
        say(&mut server, words.no).await;
        assert_eq!(client.line().await, words.no, "{none}");
    }
}

async fn a_refusal_that_never_comes_behind_its_explanation_is_a_temporary_error<P: LineProtocol>(
    words: &Words,
) {
    let (old, _new, mut plan) = words.plan();
    plan.limits.backend.login = Duration::from_millis(200);
    let world = World::speaking::<P>(plan);
    let mut client = words.client(&world).await;
    say(&mut client, &words.login("", "expired-alice")).await;
    let mut server = words.asked(&old, "", "expired-alice").await;
    say(&mut server, &around(words.challenge, INVALID)).await;
    assert_eq!(client.line().await, words.unavailable);
}

async fn nothing_of_a_token_is_in_the_log<P: LineProtocol>(words: &Words) {
    let (log, _guard) = Log::at(LevelFilter::TRACE);
    let (old, _new, plan) = words.plan();
    let world = World::speaking::<P>(plan);
    let mut client = words.client(&world).await;
    let tokens = ["expired-alice", "secret-away", "secret-alice"];
    let [refused, away, good] = tokens;
    say(&mut client, &words.login(ALICE, refused)).await;
    let mut server = words.asked(&old, ALICE, refused).await;
    say(&mut server, words.no).await;
    assert_eq!(client.line().await, words.no);
    say(&mut client, &words.login(ALICE, away)).await;
    assert_eq!(client.line().await, words.unavailable);
    say(&mut client, &words.login(ALICE, good)).await;
    let mut server = words.asked(&old, ALICE, good).await;
    say(&mut server, words.yes).await;
    assert_eq!(client.line().await, words.yes);
    log.logins(3).await;
    let text = log.text();
    for token in tokens {
        assert!(!text.contains(token), "{token}");
        assert!(!text.contains(&xoauth2(ALICE, token)), "{token} in base64");
    }
}
