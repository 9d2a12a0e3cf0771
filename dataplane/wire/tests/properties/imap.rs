//! IMAP's machines.

use std::sync::Arc;

use ferrypost_wire::imap::{Imap, ImapFollower};
use ferrypost_wire::{
    Channel, Follower, Front, FrontLimits, FrontSettings, FrontStep, LineProtocol, Safety, Then,
    Tokens, WireBuf,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{channel, invariance, pieces, saying, turns};

/// What clients say, in pieces that can be put together wrongly.
const CLIENT: &[&str] = &[
    "a ",
    "b ",
    "+ ",
    "LOGIN ",
    "login",
    "AUTHENTICATE PLAIN",
    "AUTHENTICATE LOGIN",
    "AUTHENTICATE OAUTHBEARER",
    "AUTHENTICATE XOAUTH2",
    " ",
    "alice",
    "\"al\\\"ice\"",
    "{3}",
    "{3+}",
    "{101+}",
    "~{2+}",
    "\r\n",
    "\n",
    "\r",
    "xyz",
    "CAPABILITY\r\n",
    "ID (\"name\" \"x\")",
    "ID NIL",
    "NOOP\r\n",
    "LOGOUT",
    "STARTTLS\r\n",
    "ENABLE x",
    "IDLE\r\n",
    "DONE\r\n",
    "COMPRESS DEFLATE\r\n",
    "UNAUTHENTICATE",
    "APPEND x ",
    "AGFsaWNlAHNlY3JldA==",
    "YWxpY2U=",
    "biwsAWF1dGg9QmVhcmVyIHQBAQ==",
    "dXNlcj1hAWF1dGg9QmVhcmVyIHQBAQ==",
    "AQ==",
    "=",
    "*",
    "(",
    ")",
    "\0",
    "\"",
];

/// What servers say.
const SERVER: &[&str] = &[
    "* ",
    "+ ",
    "+\r\n",
    "F1 ",
    "F2 ",
    "F3 ",
    "a ",
    "b ",
    "OK",
    "NO",
    "BAD",
    "BYE",
    "PREAUTH",
    " ",
    "[CAPABILITY ",
    "IMAP4rev1 ",
    "STARTTLS ",
    "AUTH=PLAIN ",
    "AUTH=OAUTHBEARER ",
    "e30=",
    "SASL-IR ",
    "LITERAL+ ",
    "LOGINDISABLED",
    "] ",
    "[UNAVAILABLE] ",
    "[REFERRAL imap://x/] ",
    "[ALERT] ",
    "CAPABILITY ",
    "\r\n",
    "\n",
    "text",
    "1 FETCH (BODY[] {3}",
    "{3}\r\n",
    "xyz",
    ")",
    "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n",
    "* OK [CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER SASL-IR] hi\r\n",
    "F1 OK\r\n",
    "F2 OK [CAPABILITY IMAP4rev1] in\r\n",
    "a OK\r\n",
    "b OK\r\n",
    "\0",
];

/// Logins that are refused, and clients that do not wait for that.
const REFUSED: &[&str] = &[
    "AUTHENTICATE",
    "AUTHENTICATE FOO",
    "AUTHENTICATE (PLAIN)",
    "AUTHENTICATE PLAIN x y",
    "AUTHENTICATE PLAIN {3}",
    "AUTHENTICATE {5+}\r\nPLAIN",
    "LOGIN {20000}",
    "LOGIN alice {20000}",
];

/// What a client reads that sends this.
fn answers(channel: Channel, input: &str) -> String {
    let mut front = Imap::front(FrontSettings {
        channel,
        offer: Arc::new(Imap::offer(&[], Tokens::Readable)),
        limits: FrontLimits::default(),
    });
    let mut buffer = WireBuf::new(input.len() + 1);
    buffer.extend(input.as_bytes()).expect("there is room");
    let mut said = Vec::new();
    let step = front.step(&mut buffer, &mut said);
    assert!(
        matches!(step, Ok(FrontStep::NeedMore)),
        "nobody is logged in"
    );
    String::from_utf8(said).expect("our words and a tag")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_front_keeps_to_the_rules(
        channel in channel(), input in saying(CLIENT), pieces in pieces()
    ) {
        invariance::front::<Imap>(channel, &input, &pieces);
    }

    #[test]
    fn no_response_to_a_refused_login_is_echoed(
        channel in channel(),
        refused in select(REFUSED),
        secret in "[A-Za-z0-9/]{8,64}={0,2}",
    ) {
        let said = answers(channel, &format!("a {refused}\r\n{secret}\r\nz NOOP\r\n"));
        prop_assert!(!said.contains(&secret), "{said}");
        prop_assert!(said.ends_with("z OK Done.\r\n"), "{said}");
    }

    #[test]
    fn the_back_keeps_to_the_rules(
        channel in channel(), input in saying(SERVER), pieces in pieces()
    ) {
        invariance::back::<Imap>(channel, &input, &pieces);
    }

    #[test]
    fn the_follower_keeps_to_the_rules(
        turns in turns(CLIENT, SERVER), pieces in pieces(), drain in 0..10usize
    ) {
        invariance::follow::<ImapFollower>(&turns, &pieces, drain);
    }

    #[test]
    fn a_well_behaved_session_is_followed_exactly(
        session in vec(exchange(), 0..20), drain in any::<bool>()
    ) {
        follow_exactly(&session, drain);
    }
}

/// A command and what comes of it, by peers that keep to the protocol.
#[derive(Debug, Clone)]
enum Exchange {
    /// Commands sent at once, answered in order, with data in literals.
    Pipelined(Vec<Vec<u8>>),
    /// A literal for which the client waits, and whether the server wants it.
    Waiting(Vec<u8>, bool),
    /// An IDLE with news in it.
    Idle(u8),
    /// Something that belongs to no command.
    News,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let literal = || vec(any::<u8>(), 0..40);
    prop_oneof![
        vec(literal(), 1..5).prop_map(Exchange::Pipelined),
        (literal(), any::<bool>()).prop_map(|(literal, wanted)| Exchange::Waiting(literal, wanted)),
        (0..3u8).prop_map(Exchange::Idle),
        Just(Exchange::News),
    ]
}

/// Plays a session and compares what the follower says with what is so by construction.
fn follow_exactly(session: &[Exchange], drain: bool) {
    let mut play = Play(ImapFollower::default());
    for (number, exchange) in session.iter().enumerate() {
        play.is(Safety::Safe);
        match exchange {
            Exchange::News => play.server(b"* 1 EXISTS\r\n"),
            Exchange::Pipelined(literals) => play.pipelined(number, literals),
            Exchange::Waiting(literal, wanted) => play.waiting(number, literal, *wanted),
            Exchange::Idle(news) => play.idle(number, *news),
        }
        play.is(Safety::Safe);
    }
    if drain {
        let verdict = play.0.client(b"z NOOP\r\n", true);
        assert_eq!((verdict.forward, verdict.then), (0, Then::Stop));
    }
}

struct Play(ImapFollower);

impl Play {
    fn pipelined(&mut self, number: usize, literals: &[Vec<u8>]) {
        let mut commands = Vec::new();
        for (index, literal) in literals.iter().enumerate() {
            let length = literal.len();
            commands.extend(format!("t{number}.{index} X (y) {{{length}+}}\r\n").bytes());
            commands.extend(literal);
            commands.extend(b"\r\n");
        }
        self.client(&commands);
        for (index, literal) in literals.iter().enumerate() {
            self.is(Safety::Busy);
            self.server(format!("* {index} FETCH (BODY[] {{{}}}\r\n", literal.len()).as_bytes());
            self.server(literal);
            self.server(b" FLAGS (\\Seen))\r\n");
            self.is(Safety::Busy);
            self.server(format!("t{number}.{index} OK done\r\n").as_bytes());
        }
    }

    fn waiting(&mut self, number: usize, literal: &[u8], wanted: bool) {
        let length = literal.len();
        let command = format!("t{number} APPEND x {{{length}}}\r\n");
        let verdict = self.0.client(command.as_bytes(), false);
        assert_eq!((verdict.forward, verdict.then), (command.len(), Then::Hold));
        self.is(Safety::Busy);
        if wanted {
            self.server(b"+ go on\r\n");
            self.client(literal);
            self.client(b"\r\n");
            self.is(Safety::Busy);
            self.server(format!("t{number} OK done\r\n").as_bytes());
        } else {
            self.server(format!("t{number} NO never\r\n").as_bytes());
        }
    }

    fn idle(&mut self, number: usize, news: u8) {
        let command = format!("t{number} IDLE\r\n");
        let verdict = self.0.client(command.as_bytes(), false);
        assert_eq!((verdict.forward, verdict.then), (command.len(), Then::Hold));
        self.is(Safety::Busy);
        self.server(b"+ idling\r\n");
        for _ in 0..news {
            self.is(Safety::Safe);
            self.server(b"* 2 EXP");
            self.is(Safety::Busy);
            self.server(b"UNGE\r\n");
        }
        self.is(Safety::Safe);
        self.client(b"DONE\r\n");
        self.is(Safety::Busy);
        self.server(format!("t{number} OK done\r\n").as_bytes());
    }

    fn client(&mut self, bytes: &[u8]) {
        let verdict = self.0.client(bytes, false);
        assert_eq!(
            (verdict.forward, verdict.then),
            (bytes.len(), Then::Continue)
        );
    }

    fn server(&mut self, bytes: &[u8]) {
        self.0.server(bytes);
    }

    fn is(&self, safety: Safety) {
        assert_eq!(self.0.safety(), safety);
    }
}
