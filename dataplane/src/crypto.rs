//! The cryptography of all our TLS.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// aws-lc, with AES-128-GCM before its equals. It is a third cheaper in a handshake than AES-256 with
/// SHA-384, and nobody breaks either.
pub(crate) fn crypto() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| match suite.suite().as_str() {
                Some(name) if name.contains("AES_128_GCM") => 0,
                _ => 1,
            });
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}
