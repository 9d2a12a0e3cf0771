#![no_main]

#[path = "../../tests/delivery/mod.rs"]
#[expect(dead_code, reason = "shared with tests and the other target")]
mod delivery;

use libfuzzer_sys::fuzz_target;

// The first octet says what the server offers and how the rest is cut.
fuzz_target!(|data: &[u8]| {
    if let [choice, said @ ..] = data {
        let extensions = if choice & 1 == 0 {
            "PIPELINING|DSN"
        } else {
            "SIZE 1"
        };
        delivery::back(delivery::deliver, extensions, said, &[usize::from(choice >> 1)]);
    }
});
