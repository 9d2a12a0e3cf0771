#![no_main]

use ferrypost_http::websocket::{Frames, Sender};
use libfuzzer_sys::fuzz_target;

// The first octet says whose frames the rest is and in which pieces it comes.
fuzz_target!(|data: &[u8]| {
    if let [choice, input @ ..] = data {
        let sender = if choice & 1 == 0 {
            Sender::Client
        } else {
            Sender::Server
        };
        let (mut whole, mut pieces) = (Frames::of(sender), Frames::of(sender));
        whole.follow(input);
        for piece in input.chunks(usize::from(choice >> 1).max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                let count = pieces.follow_one(rest);
                assert!(count > 0);
                rest = &rest[count..];
                let is_left_over = !rest.is_empty();
                assert!(!is_left_over || pieces.is_between_frames() || pieces.is_closed());
            }
        }
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
    }
});
