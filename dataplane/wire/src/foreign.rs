//! Clients that speak another protocol than their port's.

use crate::buf::WireBuf;

/// What a TLS connection begins with (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Whether what was sent first is TLS: a client that is set to implicit TLS on a port without. It would wait
/// for an answer until its user gives up.
pub(crate) fn begins_tls(input: &WireBuf) -> bool {
    input.filled().first() == Some(&TLS_HANDSHAKE)
}

/// Whether a line is the start of an HTTP request: the only way in which a browser could be made
/// to carry somebody else's commands here.
pub(crate) fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
        b"PRI ",
    ];
    METHODS.iter().any(|method| line.starts_with(method))
}
