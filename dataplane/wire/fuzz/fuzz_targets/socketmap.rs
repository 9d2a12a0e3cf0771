#![no_main]

#[path = "../../tests/asking/mod.rs"]
mod asking;

use libfuzzer_sys::fuzz_target;

// The first octet says how the rest is cut.
fuzz_target!(|data: &[u8]| {
    if let [piece, input @ ..] = data {
        asking::check(input, &[usize::from(*piece)]);
    }
});
