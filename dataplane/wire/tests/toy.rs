//! A protocol other than IMAP keeps to the same rules, by the same tests.

mod invariance;
#[path = "toy/mod.rs"]
mod toy_protocol;

use std::sync::Arc;

use ferrypost_wire::{
    Channel, ClientReply, Follower, Front, FrontLimits, FrontSettings, FrontStep, LineProtocol,
    Offer as _, Rejection, Safety, Tokens, WireBuf,
};
use invariance::Side;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use toy_protocol::{Abilities, Toy, ToyFollower};

const CLIENT: &[&str] = &[
    "HELLO a",
    "TLS",
    "QUIT",
    "BEARER ",
    "bixhdXRoPQ==",
    "biwsAWF1dGg9QmVhcmVyIHQBAQ==",
    "DATA",
    ".",
    "AGAIN",
    "\r\n",
    "\n",
    "\r",
    "x",
    " ",
];
const SERVER: &[&str] = &[
    "+ ",
    "- ",
    "? ",
    "~ ",
    "toy",
    "SIZE 100",
    ", ",
    "BEARER",
    "454 4.7.0 later",
    "AUTH no",
    "eyJ9",
    "\r\n",
    "\n",
];

fn saying(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        9 => select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
        1 => (0..300usize).prop_map(|length| vec![b'x'; length]),
    ];
    vec(word, 0..30).prop_map(|words| words.concat())
}

fn channel() -> impl Strategy<Value = Channel> {
    select(&[Channel::Clear, Channel::Secure][..])
}

fn turns() -> impl Strategy<Value = Vec<(Side, Vec<u8>)>> {
    let client = saying(CLIENT).prop_map(|bytes| (Side::Client, bytes));
    let server = saying(SERVER).prop_map(|bytes| (Side::Server, bytes));
    vec(prop_oneof![client, server], 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn its_machines_keep_to_the_rules(
        channel in channel(), client in saying(CLIENT), server in saying(SERVER),
        turns in turns(), pieces in vec(1..20usize, 1..10), drain in 0..10usize
    ) {
        invariance::front::<Toy>(channel, &client, &pieces);
        invariance::back::<Toy>(channel, &server, &pieces);
        invariance::follow::<ToyFollower>(&turns, &pieces, drain);
    }
}

/// Feeds a machine and returns what it says.
fn step(front: &mut impl Front, text: &str) -> (FrontStep, String) {
    let mut input = WireBuf::new(1000);
    input.extend(text.as_bytes()).expect("it fits");
    let mut out = Vec::new();
    let step = front
        .step(&mut input, &mut out)
        .expect("the session goes on");
    (step, String::from_utf8(out).expect("text"))
}

#[test]
fn a_server_may_speak_after_tls_and_a_refused_token_takes_one_more_round() {
    let offer = Toy::offer(
        &[
            Abilities {
                size: Some(100),
                bearer: true,
            },
            Abilities {
                size: Some(70),
                bearer: true,
            },
        ],
        Tokens::Readable,
    );
    assert_eq!(offer.items(), ["SIZE 70", "BEARER"]);
    let mut front = Toy::front(FrontSettings {
        channel: Channel::Clear,
        offer: Arc::new(offer),
        limits: FrontLimits::default(),
    });
    assert!(matches!(step(&mut front, "TLS\r\n").0, FrontStep::StartTls));
    let mut out = Vec::new();
    front.secured(&mut out);
    assert_eq!(out, b"+ SIZE 70, BEARER\r\n");
    let token = "BEARER biwsAWF1dGg9QmVhcmVyIHQBAQ==\r\n";
    assert!(matches!(step(&mut front, token).0, FrontStep::Login(_)));
    let rejection = Rejection::credentials().with_challenge(b"{}".to_vec());
    out.clear();
    front.reply(ClientReply::Rejected(rejection), &mut out);
    assert_eq!(out, b"? e30=\r\n");
    let (next, words) = step(&mut front, "AQ==\r\nHELLO me\r\n");
    assert!(matches!(next, FrontStep::NeedMore));
    assert_eq!(words, "- AUTH no\r\n+ SIZE 70, BEARER\r\n");
    assert_eq!(front.introduction().helo.as_deref(), Some("me"));
}

#[test]
fn data_that_was_sent_whole_is_committed_until_its_own_answer() {
    let mut follow = ToyFollower::default();
    _ = follow.client(b"NOOP\r\nDATA\r\nx\r\n", false);
    assert_eq!(follow.safety(), Safety::Busy);
    _ = follow.client(b".\r\n", false);
    assert_eq!(follow.safety(), Safety::Committed);
    follow.server(b"+ noop\r\n");
    assert_eq!(follow.safety(), Safety::Committed);
    follow.server(b"+ taken\r\n");
    assert_eq!(follow.safety(), Safety::Safe);
}
