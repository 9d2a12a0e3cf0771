//! Submission's machines.

use ferrypost_wire::smtp::{Submission, SubmissionFollower};
use ferrypost_wire::{Follower, Safety, Then};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{channel, invariance, pieces, saying, turns};

/// What clients say, in pieces that can be put together wrongly.
const CLIENT: &[&str] = &[
    "EHLO ",
    "HELO c\r\n",
    "client.example.org",
    "AUTH ",
    "auth plain ",
    "PLAIN",
    "LOGIN",
    "XOAUTH2 ",
    "AGFsaWNlAHNlY3JldA==",
    "YWxpY2U=",
    "=",
    "*",
    " ",
    "\t",
    "\r\n",
    "\n",
    "\r",
    ".",
    ".\r\n",
    "\r\n.\r\n",
    "STARTTLS\r\n",
    "NOOP\r\n",
    "RSET\r\n",
    "QUIT",
    "MAIL FROM:<>\r\n",
    "DATA\r\n",
    "BDAT ",
    "3",
    "99999",
    " LAST\r\n",
    "BURL x LAST\r\n",
    "XCLIENT",
    "XFORWARD ADDR=x\r\n",
    "GET / HTTP/1.1\r\n",
    "\x16",
    "\0",
];

/// What servers say.
const SERVER: &[&str] = &[
    "220 mx\r\n",
    "220-",
    "221 ",
    "250 ",
    "250-",
    "250",
    "235 2.7.0 in\r\n",
    "235 ",
    "334 ",
    "354 go\r\n",
    "421 ",
    "432 4.7.12 x\r\n",
    "454 4.7.0 later\r\n",
    "500 5.5.1 what\r\n",
    "534-5.7.9 x\r\n",
    "535 5.7.8 no\r\n",
    "535 no\r\n",
    "550 ",
    "5.7.1 ",
    "AUTH PLAIN LOGIN\r\n",
    "AUTH=PLAIN",
    "STARTTLS\r\n",
    "XCLIENT ADDR HELO\r\n",
    "SIZE 10\r\n",
    "CHUNKING\r\n",
    "220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n",
    "220 mx\r\n250-mx\r\n250 AUTH LOGIN\r\n334 \r\n334 \r\n",
    "eyJ9",
    "\r\n",
    "\n",
    "x",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_front_keeps_to_the_rules(
        channel in channel(), input in saying(CLIENT), pieces in pieces()
    ) {
        invariance::front::<Submission>(channel, &input, &pieces);
    }

    #[test]
    fn the_back_keeps_to_the_rules(
        channel in channel(), input in saying(SERVER), pieces in pieces()
    ) {
        invariance::back::<Submission>(channel, &input, &pieces);
    }

    #[test]
    fn the_follower_keeps_to_the_rules(
        turns in turns(CLIENT, SERVER), pieces in pieces(), drain in 0..10usize
    ) {
        invariance::follow::<SubmissionFollower>(&turns, &pieces, drain);
    }

    #[test]
    fn a_well_behaved_session_is_followed_exactly(session in vec(exchange(), 0..20)) {
        let mut play = Play::default();
        for exchange in &session {
            play.exchange(exchange);
            assert_eq!(play.follow.safety(), Safety::Safe);
        }
    }

    #[test]
    fn no_lie_about_replies_makes_a_session_safe(acts in vec(act(), 0..30)) {
        let mut model = Model::default();
        for act in acts {
            model.act(act);
            model.check();
        }
    }
}

/// Commands and what comes of them, by peers that keep to the protocol.
#[derive(Debug, Clone)]
enum Exchange {
    Pipelined(u8),
    Refused(u8),
    Message {
        before: u8,
        text: Vec<u8>,
        behind: u8,
    },
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let text = vec(select(&b"\r\n.x"[..]), 0..40);
    prop_oneof![
        (1..5u8).prop_map(Exchange::Pipelined),
        (0..3u8).prop_map(Exchange::Refused),
        (0..3u8, text, 0..3u8).prop_map(|(before, text, behind)| Exchange::Message {
            before,
            text: stuffed(&text),
            behind,
        }),
    ]
}

/// A text as a message, without what would end it (RFC 5321 §4.5.2).
fn stuffed(text: &[u8]) -> Vec<u8> {
    let text = [b"\r\n", text].concat();
    let mut message = Vec::new();
    for (at, octet) in text.iter().enumerate() {
        message.push(*octet);
        if *octet == b'.' && text[..at].ends_with(b"\r\n") {
            message.push(b'.');
        }
    }
    message.split_off(2)
}

/// Plays a session and compares what the follower says with what is so by construction.
#[derive(Default)]
struct Play {
    follow: SubmissionFollower,
}

impl Play {
    fn exchange(&mut self, exchange: &Exchange) {
        match exchange {
            Exchange::Pipelined(count) => {
                self.client(
                    "NOOP\r\n".repeat((*count).into()).as_bytes(),
                    Then::Continue,
                );
                self.replies(*count, Safety::Busy);
            }
            Exchange::Refused(before) => {
                self.data(*before);
                self.follow.server(b"503-5.5.1 no\r\n503 5.5.1 no\r\n");
            }
            Exchange::Message {
                before,
                text,
                behind,
            } => {
                self.data(*before);
                self.follow.server(b"354 go\r\n");
                self.is(Safety::Busy);
                self.client(text, Then::Continue);
                self.is(Safety::Busy);
                let end: &[u8] = if text.is_empty() || text.ends_with(b"\r\n") {
                    b".\r\n"
                } else {
                    b"\r\n.\r\n"
                };
                self.client(end, Then::Continue);
                self.client(
                    "RSET\r\n".repeat((*behind).into()).as_bytes(),
                    Then::Continue,
                );
                self.is(Safety::Committed);
                self.follow.server(b"250 queued\r\n");
                self.replies(*behind, Safety::Busy);
            }
        }
    }

    fn data(&mut self, before: u8) {
        let group = "RCPT TO:<x>\r\n".repeat(before.into()) + "DATA\r\n";
        self.client(group.as_bytes(), Then::Hold);
        self.is(Safety::Busy);
        self.replies(before, Safety::Busy);
    }

    fn replies(&mut self, count: u8, meanwhile: Safety) {
        for _ in 0..count {
            self.is(meanwhile);
            self.follow.server(b"250-x\r\n");
            self.is(meanwhile);
            self.follow.server(b"250 ok\r\n");
        }
    }

    fn client(&mut self, bytes: &[u8], then: Then) {
        let verdict = self.follow.client(bytes, false);
        assert_eq!((verdict.forward, verdict.then), (bytes.len(), then));
    }

    fn is(&self, safety: Safety) {
        assert_eq!(self.follow.safety(), safety);
    }
}

/// What an honest client and a server that may lie do next.
#[derive(Debug, Clone, Copy)]
enum Act {
    Command,
    Data,
    /// The client sends its message, if it believes that it may.
    Message,
    Reply(&'static str),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Command),
        Just(Act::Data),
        Just(Act::Message),
        select(&["250", "354", "354", "503", "451"][..]).prop_map(Act::Reply),
    ]
}

/// What a reply is owed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Command,
    Data,
    Message,
}

/// The truth, as the client has it: its commands in their order, and the replies to them.
#[derive(Default)]
struct Model {
    follow: SubmissionFollower,
    owed: Vec<Owed>,
    may_send_message: bool,
    lied: bool,
}

impl Model {
    fn act(&mut self, act: Act) {
        let waits = self.owed.contains(&Owed::Data) || self.may_send_message;
        match act {
            Act::Command if !waits => self.say(b"NOOP\r\n", Owed::Command),
            Act::Data if !waits => self.say(b"DATA\r\n", Owed::Data),
            Act::Message if self.may_send_message => {
                self.may_send_message = false;
                self.say(b"x\r\n.\r\n", Owed::Message);
            }
            Act::Reply(code) => self.reply(code),
            Act::Command | Act::Data | Act::Message => {}
        }
    }

    fn say(&mut self, bytes: &[u8], owed: Owed) {
        let verdict = self.follow.client(bytes, false);
        assert!(self.lied || verdict.forward == bytes.len());
        self.owed.push(owed);
    }

    fn reply(&mut self, code: &str) {
        self.follow.server(format!("{code} x\r\n").as_bytes());
        if self.owed.is_empty() {
            self.lied = true;
            return;
        }
        let owed = self.owed.remove(0);
        self.lied |= (code == "354") != (owed == Owed::Data) && code != "503" && code != "451";
        self.may_send_message |= owed == Owed::Data && code == "354";
    }

    fn check(&self) {
        let safety = self.follow.safety();
        if self.lied || !self.owed.is_empty() || self.may_send_message {
            assert_ne!(safety, Safety::Safe);
        } else {
            assert_eq!(safety, Safety::Safe);
        }
        if self.owed.contains(&Owed::Message) && !self.lied {
            assert_eq!(safety, Safety::Committed);
        }
    }
}
