//! What must hold for any input at all, tried with inputs that are nearly right.

#[path = "../asking/mod.rs"]
mod asking;
mod imap;
#[path = "../invariance/mod.rs"]
mod invariance;
mod managesieve;
mod pop3;
mod socketmap;
mod submission;

use ferrypost_wire::Channel;
use invariance::Side;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What a peer says, in pieces that can be put together wrongly.
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

/// The sizes of the pieces in which something comes.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), vec(1..20usize, 1..10)]
}

/// Who says what in a relay.
fn turns(
    client: &'static [&'static str],
    server: &'static [&'static str],
) -> impl Strategy<Value = Vec<(Side, Vec<u8>)>> {
    let client = saying(client).prop_map(|bytes| (Side::Client, bytes));
    let server = saying(server).prop_map(|bytes| (Side::Server, bytes));
    vec(prop_oneof![client, server], 0..8)
}
