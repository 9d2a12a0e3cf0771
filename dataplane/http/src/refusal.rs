//! Why a request is not forwarded, and what its client hears.

use http::StatusCode;

/// Why a request is refused before a server sees any of it. It never says what stood in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The octets are not a request of HTTP/1.1.
    #[error("the request is malformed")]
    Malformed,
    /// A line ends in LF alone, or has a CR elsewhere: parsers differ about where it ends (RFC 9112 §2.2).
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// White space stands before a field's colon, or a line goes on in the next (RFC 9112 §5.1, §5.2).
    #[error("a header field is folded, or its name is followed by white space")]
    Folded,
    /// The body's length is said in two ways, twice, or not in digits (RFC 9112 §6.3).
    #[error("the length of the body is not clear")]
    Length,
    /// A transfer coding other than `chunked`, once and alone (RFC 9112 §6.1).
    #[error("the transfer coding is not one that is understood here")]
    Coding,
    /// The chunks of a body do not have the form of RFC 9112 §7.1.
    #[error("the body's chunks are malformed")]
    Chunks,
    /// No `Host`, several, or one that is no host (RFC 9112 §3.2).
    #[error("the request does not say one host")]
    Host,
    /// The request line and `Host` name different hosts.
    #[error("the request names two hosts")]
    HostMismatch,
    /// The request's target is no path on this host.
    #[error("the request's target is not valid")]
    Target,
    /// The path means different things to different servers.
    #[error("the path can be read in more than one way")]
    Path,
    /// The target is longer than any may be.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// More header fields, or more octets of them, than any request may have.
    #[error("the header is too large")]
    HeaderTooLarge,
    /// `CONNECT` to somewhere else, or `TRACE`, which echoes what others added.
    #[error("the method is not served")]
    Method,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    #[error("the expectation cannot be met")]
    Expectation,
    /// A field that must stand once stands several times, and servers differ about which counts.
    #[error("a field that decides is said more than once")]
    Repeated,
    /// Two ways to say whose the request is name two accounts: servers differ about which counts.
    #[error("the request names two accounts")]
    TwoAccounts,
    /// Credentials that are not in the form of their scheme.
    #[error("the credentials are malformed")]
    Credentials,
    /// Nothing says whose the request is, and it must be said here.
    #[error("the request says of no account whose it is")]
    Unidentified,
    /// The rule needs to read the body, and it is longer than a body may be that is read.
    #[error("the body is too large to be looked at")]
    BodyTooLarge,
    /// The rule needs to read the body, and it is encoded or not in the form that it says.
    #[error("the body is not in a form that can be looked at")]
    BodyForm,
    /// No rule is for this request.
    #[error("nothing is served here")]
    NoRule,
    /// The `Destination` of a COPY or MOVE is on another server (RFC 4918 §9.8.5).
    #[error("the destination is on another server")]
    Elsewhere,
}

impl Refusal {
    /// The status that the client gets.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed
            | Self::LineEnd
            | Self::Folded
            | Self::Length
            | Self::Chunks
            | Self::Host
            | Self::HostMismatch
            | Self::Target
            | Self::Path
            | Self::Repeated
            | Self::TwoAccounts => StatusCode::BAD_REQUEST,
            // RFC 9112 §6.1.
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Credentials | Self::Unidentified => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoRule => StatusCode::NOT_FOUND,
            Self::Elsewhere => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether it is not known where this request ends, so that nothing behind it may be taken for another.
    pub const fn ends_the_connection(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::LineEnd
                | Self::Folded
                | Self::Length
                | Self::Coding
                | Self::Chunks
                | Self::Host
                | Self::HostMismatch
                | Self::Target
                | Self::TargetTooLong
                | Self::HeaderTooLarge
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_have_smuggled_gets_no_second_request() {
        for refusal in [
            Refusal::Length,
            Refusal::Coding,
            Refusal::LineEnd,
            Refusal::Chunks,
        ] {
            assert!(refusal.ends_the_connection(), "{refusal}");
        }
        assert!(!Refusal::Unidentified.ends_the_connection());
    }
}
