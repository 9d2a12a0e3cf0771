#![no_main]

use ferrypost_http::Refusal;
use ferrypost_http::guard::{Guard, Step};
use libfuzzer_sys::fuzz_target;

const MAX_HEAD: usize = 512;

// The first octet says in which pieces the rest comes.
fuzz_target!(|data: &[u8]| {
    if let [piece, input @ ..] = data {
        let (whole, by_piece) = (pass(input, input.len()), pass(input, usize::from(*piece)));
        assert_eq!(whole.refusal, by_piece.refusal);
        assert!(input.starts_with(&by_piece.octets));
        // Of a body that turns out to be malformed, some may have passed before.
        assert!(by_piece.octets.starts_with(&whole.octets));
        if whole.refusal.is_none() {
            assert_eq!(whole.octets, by_piece.octets);
        }
    }
});

struct Passed {
    octets: Vec<u8>,
    refusal: Option<Refusal>,
}

fn pass(input: &[u8], piece: usize) -> Passed {
    let mut guard = Guard::new(MAX_HEAD);
    let (mut held, mut octets) = (Vec::new(), Vec::new());
    for piece in input.chunks(piece.max(1)) {
        held.extend_from_slice(piece);
        loop {
            match guard.step(&held) {
                Ok(Step::Pass(count) | Step::Skip(count)) => {
                    assert!(count > 0);
                    octets.extend(held.drain(..count));
                }
                Ok(Step::NeedMore) => break,
                Err(refusal) => {
                    let refusal = Some(refusal);
                    return Passed { octets, refusal };
                }
            }
        }
        assert!(held.len() <= MAX_HEAD);
    }
    Passed {
        octets,
        refusal: None,
    }
}
