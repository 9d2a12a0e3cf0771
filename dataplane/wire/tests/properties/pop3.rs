//! POP3's machines.

use ferrypost_wire::pop3::{Pop3, Pop3Follower};
use ferrypost_wire::{Follower, Safety, Then};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{channel, invariance, pieces, saying, turns};

/// What clients say, in pieces that can be put together wrongly.
const CLIENT: &[&str] = &[
    "USER ",
    "PASS ",
    "user alice\r\n",
    "pass secret\r\n",
    "AUTH",
    " PLAIN",
    " LOGIN",
    " XOAUTH2",
    " OAUTHBEARER ",
    " ",
    "alice",
    "=",
    "*",
    "\r\n",
    "\n",
    "\r",
    "CAPA\r\n",
    "STLS\r\n",
    "UTF8\r\n",
    "QUIT",
    "XCLIENT ADDR=192.0.2.1",
    "RETR 1\r\n",
    "TOP 1 0\r\n",
    "LIST\r\n",
    "LIST 1\r\n",
    "UIDL",
    "DELE 1\r\n",
    "STAT\r\n",
    "XTND\r\n",
    "AGFsaWNlAHNlY3JldA==",
    "YWxpY2U=",
    "biwsAWF1dGg9QmVhcmVyIHQBAQ==",
    "AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIHQBAQ==\r\n",
    "AQ==",
    "\0",
    "\u{e4}",
];

/// What servers say.
const SERVER: &[&str] = &[
    "+OK",
    "-ERR",
    "+ ",
    "+\r\n",
    " ",
    "[XCLIENT] ",
    "[AUTH] ",
    "[SYS/TEMP] ",
    "[IN-USE] ",
    "\r\n",
    "\n",
    "\r",
    ".\r\n",
    "..\r\n",
    ".",
    "text",
    "USER\r\n",
    "SASL PLAIN LOGIN\r\n",
    "SASL LOGIN\r\n",
    "STLS\r\n",
    "UTF8\r\n",
    "AUTH-RESP-CODE\r\n",
    "+OK hi\r\n",
    "+OK hi\r\n+OK\r\nUSER\r\n.\r\n",
    "+OK hi\r\n+OK\r\nUTF8\r\nSASL PLAIN\r\n.\r\n-ERR\r\n",
    "+OK hi\r\n+OK\r\nSASL OAUTHBEARER\r\n.\r\n+ e30=\r\n",
    "+OK in\r\n",
    "* OK imap\r\n",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_front_keeps_to_the_rules(
        channel in channel(), input in saying(CLIENT), pieces in pieces()
    ) {
        invariance::front::<Pop3>(channel, &input, &pieces);
    }

    #[test]
    fn the_back_keeps_to_the_rules(
        channel in channel(), input in saying(SERVER), pieces in pieces()
    ) {
        invariance::back::<Pop3>(channel, &input, &pieces);
    }

    #[test]
    fn the_follower_keeps_to_the_rules(
        turns in turns(CLIENT, SERVER), pieces in pieces(), drain in 0..10usize
    ) {
        invariance::follow::<Pop3Follower>(&turns, &pieces, drain);
    }

    #[test]
    fn a_well_behaved_session_is_followed_exactly(
        session in vec(vec(command(), 1..5), 0..20), drain in any::<bool>()
    ) {
        follow_exactly(&session, drain);
    }

    #[test]
    fn a_list_is_over_where_its_reader_thinks(
        message in "([a-z.]|\r\n|\r|\n|\r\n\\.){0,40}", pieces in pieces()
    ) {
        list_ends(&message, &pieces);
    }
}

/// A command, and the answer that it gets.
#[derive(Debug, Clone)]
enum Command {
    /// One line, yes or no.
    Line(&'static str, bool),
    /// A list of these lines, which may begin with full stops; or no.
    List(&'static str, Option<Vec<String>>),
}

fn command() -> impl Strategy<Value = Command> {
    let line = prop_oneof![
        Just("STAT"),
        Just("dele 1"),
        Just("NOOP"),
        Just("LIST 1"),
        Just("UIDL 2")
    ];
    let list = prop_oneof![
        Just("RETR 1"),
        Just("top 1 2"),
        Just("LIST"),
        Just("UIDL "),
        Just("CAPA")
    ];
    let lines = proptest::option::weighted(0.8, vec("[.a-z+\\-]{0,5}", 0..6));
    prop_oneof![
        (line, any::<bool>()).prop_map(|(line, agreed)| Command::Line(line, agreed)),
        (list, lines).prop_map(|(list, lines)| Command::List(list, lines)),
    ]
}

/// Plays a session, of commands that are sent together, and compares what the follower says with what is so by
/// construction.
fn follow_exactly(session: &[Vec<Command>], drain: bool) {
    let mut follow = Pop3Follower::default();
    for together in session {
        assert_eq!(follow.safety(), Safety::Safe);
        let texts = together.iter();
        let texts = texts.map(|(Command::Line(text, _) | Command::List(text, _))| [text, "\r\n"]);
        let commands: String = texts.flatten().collect();
        let verdict = follow.client(commands.as_bytes(), false);
        assert_eq!(
            (verdict.forward, verdict.then),
            (commands.len(), Then::Continue)
        );
        for command in together {
            assert_eq!(follow.safety(), Safety::Busy);
            match command {
                Command::Line(_, true) => follow.server(b"+OK 1 2\r\n"),
                Command::Line(_, false) | Command::List(_, None) => follow.server(b"-ERR no\r\n"),
                Command::List(_, Some(lines)) => {
                    follow.server(b"+OK here it comes\r\n");
                    for line in lines {
                        assert_eq!(follow.safety(), Safety::Busy);
                        let stuffing = if line.starts_with('.') { "." } else { "" };
                        follow.server(format!("{stuffing}{line}\r\n").as_bytes());
                    }
                    assert_eq!(follow.safety(), Safety::Busy);
                    follow.server(b".\r\n");
                }
            }
        }
    }
    assert_eq!(follow.safety(), Safety::Safe);
    if drain {
        let verdict = follow.client(b"NOOP\r\n", true);
        assert_eq!((verdict.forward, verdict.then), (0, Then::Stop));
    }
}

/// A client reads lines up to one that is a full stop, whether they end with CR LF or LF.
fn list_ends(message: &str, pieces: &[usize]) {
    let text = format!("{message}\r\n.\r\n");
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        if line
            .strip_suffix('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            == Some(".")
        {
            break;
        }
    }
    let mut follow = Pop3Follower::default();
    let _forwarded = follow.client(b"RETR 1\r\n", false);
    follow.server(b"+OK\r\n");
    let mut rest = &text.as_bytes()[..end];
    for &piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        assert!(rest.is_empty() || follow.safety() == Safety::Busy);
        follow.server(now);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(follow.safety(), Safety::Safe, "{text:?}");
}
