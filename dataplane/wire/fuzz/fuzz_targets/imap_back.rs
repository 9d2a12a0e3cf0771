//! The machine that faces the backend, and the login that it becomes. The first octet says how the leg is and how the rest is cut.
#![no_main]

#[path = "../../tests/invariance/mod.rs"]
#[expect(dead_code, reason = "shared with the targets of the other machines")]
mod invariance;

use ferrypost_wire::Channel;
use ferrypost_wire::imap::Imap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, input)) = data.split_first() else {
        return;
    };
    let channel = match choice & 1 {
        0 => Channel::Clear,
        _ => Channel::Secure,
    };
    invariance::back::<Imap>(channel, input, &[usize::from(choice >> 1)]);
});
