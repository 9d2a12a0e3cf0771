//! The machine that watches a relay. The first octet says how turns are cut, the second when to
//! drain; turns are separated by 0xff and alternate between the client and the server.
#![no_main]

#[path = "../../tests/invariance/mod.rs"]
#[expect(dead_code, reason = "shared with the targets of the other machines")]
mod invariance;

use ferrypost_wire::imap::ImapFollower;
use invariance::Side;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [piece, drain, input @ ..] = data else {
        return;
    };
    let turns: Vec<_> = input
        .split(|&octet| octet == 0xff)
        .zip([Side::Client, Side::Server].into_iter().cycle())
        .map(|(bytes, side)| (side, bytes.to_vec()))
        .collect();
    invariance::follow::<ImapFollower>(&turns, &[usize::from(*piece)], usize::from(*drain));
});
