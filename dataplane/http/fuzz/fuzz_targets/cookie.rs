#![no_main]

use ferrypost_http::cookie::{Envelope, Ticket};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(envelope) = str::from_utf8(data).ok().and_then(|it| Envelope::parse(it).ok()) {
        assert_eq!(envelope.encode().as_bytes(), data);
    }
    if let Ok(ticket) = Ticket::parse(data) {
        assert_eq!(ticket.encode().as_deref(), Some(data));
    }
});
