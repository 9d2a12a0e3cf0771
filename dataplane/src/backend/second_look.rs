//! Why a server says nothing that we understand: whether it is for the PROXY header.
//!
//! ```text
//!                          the server wants a header           the server knows none
//!   we send one            all is well                         TLS: the handshake fails
//!                                                              in clear: it complains of no command
//!   we send none           it hangs up, says goodbye or        all is well
//!                          waits for one
//! ```
//!
//! All but the complaint look like any other failure. So whoever got not a word out of a server asks it once
//! more and does the opposite: if that is answered, the header is what is wrong.

use ferrypost_proto::{Announcement, Endpoint};
use ferrypost_wire::{BackSettings, BackendViolation, Open};

use super::{
    Problem,
    open::{Caller, OpenError, OpenFailure, open},
};
use crate::net::{
    dial::{DialError, Dialer},
    leg::LegError,
    tls_client::TlsError,
};

/// Whether the header is at fault for a probe that failed like this. Asks the server again.
pub(super) async fn about_the_header<B: Open>(
    dialer: &Dialer,
    endpoint: &Endpoint,
    (failure, machine): (&OpenFailure, fn(BackSettings) -> B),
) -> Option<Problem> {
    if !not_a_word(failure) {
        return None;
    }
    let answered = match open(dialer, endpoint, Caller::Contrary, machine).await {
        Ok(_) => true,
        Err(failure) => spoke(&failure),
    };
    answered.then_some(about_the_header_of(endpoint))
}

/// What is wrong with the header, where that is wrong.
pub(super) const fn about_the_header_of(endpoint: &Endpoint) -> Problem {
    match endpoint.announcement {
        Announcement::ProxyV2 => Problem::ProxyUnexpected,
        Announcement::None
        | Announcement::ImapId
        | Announcement::Xclient
        | Announcement::Forwarded
        | Announcement::XForwarded => Problem::ProxyMissing,
    }
}

/// Whether a server was reached by a connection and had nothing to say.
pub(super) const fn is_silent(error: &DialError) -> bool {
    match error {
        DialError::Tls(TlsError::Handshake(_) | TlsError::Io(_))
        | DialError::HandshakeTimeout
        | DialError::Io(_) => true,
        DialError::Tls(_)
        | DialError::Resolve(_)
        | DialError::Connect(_)
        | DialError::Source { .. }
        | DialError::Ourselves
        | DialError::ConnectTimeout
        | DialError::NoHttp2 => false,
    }
}

/// Whether the server was reached and said nothing of its protocol or of TLS.
fn not_a_word(failure: &OpenFailure) -> bool {
    let silent = match &failure.error {
        OpenError::Dial(error) => is_silent(error),
        // Postfix that has waited for a header says that it has a problem of its own.
        OpenError::Violation(BackendViolation::Bye)
        | OpenError::Leg(LegError::Ended | LegError::Io(_))
        | OpenError::Timeout => true,
        OpenError::Leg(LegError::Full)
        | OpenError::Violation(_)
        | OpenError::Refused(_)
        | OpenError::Tls(_) => false,
    };
    silent && failure.address.is_some() && failure.tls.is_none() && failure.greeting.is_empty()
}

/// Whether it understood the opposite, however little came of it.
fn spoke(failure: &OpenFailure) -> bool {
    match &failure.error {
        OpenError::Violation(BackendViolation::PrefaceRefused) => false,
        OpenError::Refused(_) | OpenError::Dial(DialError::Tls(TlsError::Certificate(_))) => true,
        _ => failure.tls.is_some() || !failure.greeting.is_empty(),
    }
}
