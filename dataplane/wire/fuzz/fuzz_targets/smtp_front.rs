#![no_main]

#[path = "../../tests/delivery/mod.rs"]
#[expect(dead_code, reason = "shared with tests and the other target")]
mod delivery;

use ferrypost_wire::Channel;
use libfuzzer_sys::fuzz_target;

// The first octet says how the rest is cut.
fuzz_target!(|data: &[u8]| {
    if let [piece, input @ ..] = data {
        delivery::front(delivery::serve_smtp, Channel::Secure, input, &[usize::from(*piece)]);
    }
});
