#![no_main]

#[path = "../shared/mod.rs"]
#[expect(dead_code, reason = "shared with the targets of the other machines")]
mod shared;

use ferrypost_wire::smtp::SubmissionFollower;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shared::follow::<SubmissionFollower>(data));
