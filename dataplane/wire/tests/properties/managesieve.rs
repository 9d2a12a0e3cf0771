//! `ManageSieve`.

use ferrypost_wire::sieve::{Sieve, SieveFollower};
use ferrypost_wire::{Follower, Safety, Then};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{channel, invariance, pieces, saying, turns};

/// What clients say, in pieces that can be put together wrongly.
const CLIENT: &[&str] = &[
    "AUTHENTICATE ",
    "authenticate ",
    "\"PLAIN\" ",
    "\"LOGIN\"",
    "\"OAUTHBEARER\" ",
    "{5+}\r\nPLAIN",
    "\"AGFsaWNlAHNlY3JldA==\"",
    "{20+}\r\nAGFsaWNlAHNlY3JldA==",
    "\"YWxpY2U=\"",
    "\"*\"",
    "\"\"",
    "\"a\\\"b\"",
    "\"",
    "\\",
    "{3}",
    "{3+}",
    "{101+}",
    "{0+}",
    "{4294967295+}",
    "{4294967296+}",
    "CAPABILITY",
    "NOOP ",
    "LOGOUT",
    "STARTTLS\r\n",
    "PUTSCRIPT \"a\" ",
    "HAVESPACE \"a\" 1",
    "UNAUTHENTICATE",
    "GET / HTTP/1.1",
    "xyz",
    " ",
    "\t",
    "(",
    ")",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "\0",
];

/// What servers say.
const SERVER: &[&str] = &[
    "OK",
    "NO",
    "BYE",
    " (TRYLATER)",
    " (REFERRAL \"sieve://x/\")",
    " (TAG {2}\r\n))",
    " \"text\"",
    " text",
    "\"SASL\" \"PLAIN LOGIN\"\r\n",
    "\"SASL\" {5}\r\nPLAIN",
    "\"STARTTLS\"\r\n",
    "\"XCLIENT\"\r\n",
    "\"OWNER\" \"x\"\r\n",
    "\"SIEVE\" \"a b\"\r\n",
    "\"SASL\" \"PLAIN\"\r\nOK\r\n",
    "\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n",
    "OK\r\n",
    "NO\r\n",
    "\"\"\r\n",
    "{0}\r\n",
    "{3}\r\n",
    "{4294967296}\r\n",
    "xyz",
    "\"",
    "\\",
    " ",
    "(",
    ")",
    "\r\n",
    "\n",
    "\r",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_front_keeps_to_the_rules(
        channel in channel(), input in saying(CLIENT), pieces in pieces()
    ) {
        invariance::front::<Sieve>(channel, &input, &pieces);
    }

    #[test]
    fn the_back_keeps_to_the_rules(
        channel in channel(), input in saying(SERVER), pieces in pieces()
    ) {
        invariance::back::<Sieve>(channel, &input, &pieces);
    }

    #[test]
    fn the_follower_keeps_to_the_rules(
        turns in turns(CLIENT, SERVER), pieces in pieces(), drain in 0..10usize
    ) {
        invariance::follow::<SieveFollower>(&turns, &pieces, drain);
    }

    #[test]
    fn a_well_behaved_session_is_followed_exactly(
        session in vec(exchange(), 0..20), drain in any::<bool>()
    ) {
        follow_exactly(&session, drain);
    }
}

/// Commands that are sent at once and answered in order.
type Exchange = Vec<(Text, Answer)>;

/// A script, as it is sent.
#[derive(Debug, Clone)]
enum Text {
    Quoted(String),
    Literal(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Answer {
    data: Vec<Vec<u8>>,
    status: &'static str,
    text: Vec<u8>,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    const PARTS: &[&[u8]] = &[b"\r\n", b"OK\r\n", b"NO", b"\"", b"{3}", b"BYE\r\n"];
    let octets = || {
        let part = prop_oneof![
            select(PARTS).prop_map(<[u8]>::to_vec),
            vec(any::<u8>(), 0..10),
        ];
        vec(part, 0..5).prop_map(|parts| parts.concat())
    };
    let text = prop_oneof![
        "[ -~]{0,20}".prop_map(Text::Quoted),
        octets().prop_map(Text::Literal),
    ];
    let answer = (vec(octets(), 0..3), select(&["OK", "NO"][..]), octets());
    let answer = answer.prop_map(|(data, status, text)| Answer { data, status, text });
    vec((text, answer), 1..5)
}

/// Plays a session and compares what the follower says with what is so by construction.
fn follow_exactly(session: &[Exchange], drain: bool) {
    let mut follow = SieveFollower::default();
    for exchange in session {
        assert_eq!(follow.safety(), Safety::Safe);
        let commands: Vec<u8> = exchange
            .iter()
            .flat_map(|(text, _)| command(text))
            .collect();
        let verdict = follow.client(&commands, false);
        assert_eq!(
            (verdict.forward, verdict.then),
            (commands.len(), Then::Continue)
        );
        for (_, answer) in exchange {
            for data in &answer.data {
                follow.server(&literal(data, ""));
                follow.server(b"\r\n");
                assert_eq!(follow.safety(), Safety::Busy);
            }
            follow.server(answer.status.as_bytes());
            follow.server(b" (WARNINGS) ");
            assert_eq!(follow.safety(), Safety::Busy);
            follow.server(&literal(&answer.text, ""));
            follow.server(b"\r\n");
        }
    }
    assert_eq!(follow.safety(), Safety::Safe);
    if drain {
        let verdict = follow.client(b"NOOP\r\n", true);
        assert_eq!((verdict.forward, verdict.then), (0, Then::Stop));
    }
}

fn command(text: &Text) -> Vec<u8> {
    let text = match text {
        Text::Quoted(text) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\"").into_bytes()
        }
        Text::Literal(octets) => literal(octets, "+"),
    };
    [b"PUTSCRIPT \"{3+}\" ", &text[..], b"\r\n"].concat()
}

fn literal(octets: &[u8], plus: &str) -> Vec<u8> {
    let head = format!("{{{}{plus}}}\r\n", octets.len());
    [head.as_bytes(), octets].concat()
}
