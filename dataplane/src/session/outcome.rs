//! How a login attempt and a session end: what happened, whose fault it was, and what the client hears.

use ferrypost_proto::{NameError, NoRoute, SecondName};
use ferrypost_wire::{
    BackendViolation, ClientReply, ClientViolation, Farewell, InvalidCredentials, Rejection,
    RejectionKind,
};

use super::relay::{Cause, RelayEnd};
use crate::{
    backend::open::{OpenError, OpenFailure},
    metrics::words::{Blame, LoginOutcome, SessionEnd},
    net::{leg::LegError, tls_server::HandshakeError},
    registry::{CloseReason, HoldLimit, Recheck},
    tokens::{IssuerError, NoOwner},
};

/// Why a login did not lead to a relay. The client may try again unless its reply closes the session.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The client offered what cannot be credentials.
    #[error("not credentials: {0}")]
    Unfit(InvalidCredentials),
    /// The login has no canonical name.
    #[error("no name: {0}")]
    NoName(#[from] NameError),
    /// It names two people, and its endpoint is not known to log in the one that we route and fence by.
    #[error("two names: {0}; the endpoint is not known to heed that ({key})", key = .0.key())]
    SecondName(SecondName),
    /// The same where the endpoint says that its server heeds an authorization identity, and the server is seen
    /// to be one that does not.
    #[error("two names: {0}; the server is of a kind that does not heed that, whatever {key} says", key = .0.key())]
    Unheeded(SecondName),
    /// Nobody here can tell whose token it is.
    #[error("nobody can tell whose token it is")]
    TokenUnread,
    /// Whoever issued the token does not know it.
    #[error("the token's issuer does not know it")]
    TokenRefused,
    /// Who could tell whose token it is cannot be asked.
    #[error("the tokens' issuer: {0}")]
    IssuerAway(IssuerError),
    /// The name goes nowhere, as configured.
    #[error("refused: {0}")]
    Refused(NoRoute),
    /// This data plane has no table yet.
    #[error("no routing table yet")]
    NoTable,
    /// Too many logins are held.
    #[error("too many logins are held (limits.hold.{})", .0.key())]
    TooManyHeld(HoldLimit),
    /// The name stayed fenced for as long as a login is held.
    #[error("held for too long")]
    HeldTooLong,
    /// The destination has no endpoint for this protocol.
    #[error("the destination has no endpoint for this protocol")]
    NoEndpoint,
    /// Data planes send it round in circles: each takes another one for the way to its account.
    #[error("too many data planes have passed it on: their endpoints lead in a circle")]
    GoneRound,
    /// The same client's login is on its way here already, and a server of ours has sent it back.
    #[error("its client's login is on its way here already: a server on it leads back to us")]
    CameRound,
    /// So many clients' logins have failed there that this one was not tried.
    #[error(
        "the backend fails one client after the other, and this login was not tried (limits.breaker)"
    )]
    BreakerOpen,
    /// The backend was not brought to take a login.
    #[error("{0}")]
    Open(Box<OpenFailure>),
    /// The backend is well and will not have this client, whatever its login.
    #[error("the backend turned the client away ({code})", code = .0.server_code().unwrap_or("no code"))]
    TurnedAway(Rejection),
    /// The backend gave no verdict.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The backend said no.
    #[error("the backend refused the login ({code})", code = .0.server_code().unwrap_or("no code"))]
    Rejected(Rejection),
    /// The name goes elsewhere, or is fenced, since it was routed (G2b).
    #[error("the route changed during the login")]
    RouteChanged,
    /// The registry ended it.
    #[error("told to end: {reason}", reason = .0.word())]
    Told(CloseReason),
    /// The client went away meanwhile.
    #[error("the client: {0}")]
    Client(LegError),
}

/// Why there is no verdict on a login. Credentials may have been sent, so it is tried again only where a fence
/// has overtaken it (decision 0024).
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The backend broke the rules.
    #[error(transparent)]
    Violation(#[from] BackendViolation),
    /// Its connection failed.
    #[error("the backend: {0}")]
    Leg(#[from] LegError),
    /// It took too long.
    #[error("the backend gave no verdict within the limit")]
    Timeout,
}

impl From<NoOwner> for AttemptError {
    fn from(none: NoOwner) -> Self {
        match none {
            NoOwner::Unread => Self::TokenUnread,
            NoOwner::Refused => Self::TokenRefused,
            NoOwner::Away(error) => Self::IssuerAway(error),
        }
    }
}

impl From<Recheck> for AttemptError {
    fn from(recheck: Recheck) -> Self {
        match recheck {
            Recheck::Closing(reason) => Self::Told(reason),
            Recheck::Changed => Self::RouteChanged,
        }
    }
}

impl From<OpenFailure> for AttemptError {
    fn from(failure: OpenFailure) -> Self {
        match failure.error {
            OpenError::Refused(rejection) => Self::TurnedAway(rejection),
            _ => Self::Open(Box::new(failure)),
        }
    }
}

impl AttemptError {
    /// The label of metrics and logs.
    pub fn outcome(&self) -> LoginOutcome {
        match self {
            Self::Unfit(_) => LoginOutcome::Malformed,
            Self::NoName(_) => LoginOutcome::NoName,
            Self::SecondName(_) | Self::Unheeded(_) => LoginOutcome::SecondName,
            Self::TokenUnread => LoginOutcome::TokenUnread,
            Self::TokenRefused => LoginOutcome::TokenRefused,
            Self::IssuerAway(_) => LoginOutcome::IssuerAway,
            Self::Refused(_) => LoginOutcome::Refused,
            Self::NoTable => LoginOutcome::NoTable,
            Self::TooManyHeld(_) => LoginOutcome::TooManyHeld,
            Self::HeldTooLong => LoginOutcome::HeldTooLong,
            Self::NoEndpoint => LoginOutcome::NoEndpoint,
            Self::GoneRound | Self::CameRound => LoginOutcome::GoneRound,
            Self::Open(failure) if failure.error.is_ourselves() => LoginOutcome::GoneRound,
            Self::BreakerOpen => LoginOutcome::BreakerOpen,
            Self::Open(_) => LoginOutcome::BackendUnavailable,
            Self::Replay(_) => LoginOutcome::NoVerdict,
            Self::Rejected(rejection) if rejection.is_about_the_login() => LoginOutcome::Rejected,
            Self::Rejected(_) | Self::TurnedAway(_) => LoginOutcome::ServerRefused,
            Self::RouteChanged => LoginOutcome::RouteChanged,
            Self::Told(CloseReason::Moved) => LoginOutcome::Moved,
            Self::Told(CloseReason::Kicked) => LoginOutcome::Kicked,
            Self::Told(CloseReason::Stopping) => LoginOutcome::Stopping,
            Self::Told(CloseReason::Expelled) => LoginOutcome::Expelled,
            Self::Client(_) => LoginOutcome::ClientGone,
        }
    }

    /// Whose fault it was.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unfit(_)
            | Self::NoName(_)
            | Self::SecondName(_)
            | Self::Unheeded(_)
            | Self::TokenRefused
            | Self::Refused(_)
            | Self::TurnedAway(_)
            | Self::Client(_) => Blame::Client,
            Self::Rejected(rejection) if rejection.is_about_the_login() => Blame::Client,
            Self::NoTable
            | Self::HeldTooLong
            | Self::NoEndpoint
            | Self::GoneRound
            | Self::CameRound => Blame::ControlPlane,
            Self::Open(failure) if failure.error.is_ourselves() => Blame::ControlPlane,
            Self::Open(failure) if failure.error.is_ours() => Blame::Us,
            Self::BreakerOpen | Self::Open(_) | Self::Replay(_) | Self::Rejected(_) => {
                Blame::Backend
            }
            Self::TokenUnread
            | Self::IssuerAway(_)
            | Self::TooManyHeld(_)
            | Self::RouteChanged
            | Self::Told(_) => Blame::Us,
        }
    }

    /// What the client hears. Never an authentication failure unless that is what it is: clients ask for
    /// a new password then.
    pub fn client_reply(&self) -> ClientReply {
        match self {
            Self::Unfit(invalid) => ClientReply::Unfit(*invalid),
            // Whether there is such an account is not said.
            Self::NoName(_) | Self::SecondName(_) | Self::Unheeded(_) | Self::Refused(_) => {
                ClientReply::AuthFailed
            }
            Self::Rejected(rejection) | Self::TurnedAway(rejection) => {
                ClientReply::Rejected(rejection.clone())
            }
            Self::TokenRefused => ClientReply::Rejected(token_refused()),
            Self::TokenUnread
            | Self::IssuerAway(_)
            | Self::NoTable
            | Self::TooManyHeld(_)
            | Self::HeldTooLong
            | Self::NoEndpoint
            | Self::GoneRound
            | Self::CameRound
            | Self::BreakerOpen
            | Self::Open(_)
            | Self::Replay(_)
            | Self::Client(_) => ClientReply::Unavailable,
            // It has been sent often enough; on a new connection the login is held, and served.
            Self::RouteChanged => ClientReply::Closing(Farewell::Moved),
            Self::Told(reason) => ClientReply::Closing(farewell(*reason)),
        }
    }

    /// Whether it counts as a failed login, and so is answered no sooner than any other.
    pub fn is_failed_login(&self) -> bool {
        match self {
            Self::Unfit(_)
            | Self::NoName(_)
            | Self::SecondName(_)
            | Self::Unheeded(_)
            | Self::TokenRefused
            | Self::Refused(_) => true,
            Self::Rejected(rejection) => rejection.kind() != RejectionKind::Temporary,
            _ => false,
        }
    }

    /// The code by which the backend refused, if it gave one.
    pub fn server_code(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) | Self::TurnedAway(rejection) => rejection.server_code(),
            _ => None,
        }
    }
}

/// A token that is not good, in the way in which a server says it (RFC 7628 §3.2.2): the client fetches a new one
/// and does not ask for a password.
fn token_refused() -> Rejection {
    Rejection::credentials()
        .in_words(b"The token is not valid, or no longer.")
        .with_challenge(br#"{"status":"invalid_token"}"#.to_vec())
}

/// Why a session ended before it was relayed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The TLS handshake did not succeed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It did not end in time.
    #[error("no TLS handshake within the limit")]
    HandshakeTimeout,
    /// The client's connection failed or ended.
    #[error("the client: {0}")]
    Client(#[from] LegError),
    /// The client broke the protocol.
    #[error(transparent)]
    Violation(#[from] ClientViolation),
    /// The client logged out without ever having logged in.
    #[error("the client left")]
    Left,
    /// Nobody logged in in time.
    #[error("no login within the limit")]
    LoginTimeout,
    /// Too many logins failed.
    #[error("too many failed logins")]
    TooManyFailures,
    /// Our own machine asked for what has no place where it asked.
    #[error("the protocol's machine asked for what has no place there")]
    Machine,
    /// The registry ended it.
    #[error("told to end: {reason}", reason = .0.word())]
    Told(CloseReason),
}

impl SessionError {
    /// The label of metrics and logs.
    pub fn end(&self) -> SessionEnd {
        match self {
            Self::Handshake(HandshakeError::TooOld(_)) => SessionEnd::TlsTooOld,
            Self::Handshake(_) => SessionEnd::HandshakeFailed,
            Self::HandshakeTimeout => SessionEnd::HandshakeTimeout,
            Self::Client(LegError::Ended) => SessionEnd::ClientEnded,
            Self::Client(_) => SessionEnd::ClientFailed,
            Self::Violation(_) => SessionEnd::ProtocolError,
            Self::Left => SessionEnd::ClientLeft,
            Self::LoginTimeout => SessionEnd::LoginTimeout,
            Self::TooManyFailures => SessionEnd::TooManyFailures,
            Self::Machine => SessionEnd::MachineError,
            Self::Told(reason) => (*reason).into(),
        }
    }

    /// Whose fault it was.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Client(LegError::Ended) | Self::Left => Blame::Nobody,
            Self::Machine | Self::Told(_) => Blame::Us,
            Self::Handshake(_)
            | Self::HandshakeTimeout
            | Self::Client(_)
            | Self::Violation(_)
            | Self::LoginTimeout
            | Self::TooManyFailures => Blame::Client,
        }
    }

    /// What the client hears, if it can hear anything and has not been told by its machine already.
    pub const fn farewell(&self) -> Option<Farewell> {
        match self {
            Self::LoginTimeout => Some(Farewell::LoginTimeout),
            Self::TooManyFailures => Some(Farewell::TooManyFailures),
            Self::Told(reason) => Some(farewell(*reason)),
            Self::Handshake(_)
            | Self::HandshakeTimeout
            | Self::Client(_)
            | Self::Violation(_)
            | Self::Left
            | Self::Machine => None,
        }
    }
}

/// What a client hears when the registry ends its session.
pub const fn farewell(reason: CloseReason) -> Farewell {
    match reason {
        CloseReason::Moved => Farewell::Moved,
        CloseReason::Kicked => Farewell::Kicked,
        CloseReason::Stopping | CloseReason::Expelled => Farewell::ShuttingDown,
    }
}

/// The label of a relay's end, and whose fault it was.
pub fn of_relay(end: &RelayEnd) -> (SessionEnd, Blame) {
    match end.cause {
        Cause::ClientEnded => (SessionEnd::ClientEnded, Blame::Nobody),
        Cause::BackendEnded => (SessionEnd::BackendEnded, Blame::Nobody),
        Cause::ClientFailed(_) => (SessionEnd::ClientFailed, Blame::Client),
        Cause::BackendFailed(_) => (SessionEnd::BackendFailed, Blame::Backend),
        Cause::Idle => (SessionEnd::Idle, Blame::Client),
        Cause::ClientStuck => (SessionEnd::ClientStuck, Blame::Client),
        Cause::BackendStuck => (SessionEnd::BackendStuck, Blame::Backend),
        Cause::NoRoom => (SessionEnd::NoRoom, Blame::Us),
        Cause::Refused(_) => (SessionEnd::RefusedCommand, Blame::Client),
        Cause::Told { reason, .. } => (reason.into(), Blame::Us),
    }
}

impl From<CloseReason> for SessionEnd {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Moved => Self::Moved,
            CloseReason::Kicked => Self::Kicked,
            CloseReason::Stopping => Self::Stopping,
            CloseReason::Expelled => Self::Expelled,
        }
    }
}
