//! The engine of the data plane's TLS, played against by a peer that knows the keys. It is no machine of the wire
//! crate, but it is as free of I/O, and so it is fuzzed beside them: from its source, without the data plane.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/net"]
mod net {
    pub(crate) mod tls_stream {
        #[expect(dead_code, reason = "the data plane asks it for more")]
        mod engine;
        pub(crate) mod hostile;
    }
}

fuzz_target!(|data: &[u8]| net::tls_stream::hostile::play(data));
