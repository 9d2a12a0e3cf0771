//! Why a request has no server's answer, whose fault that is, and what its client hears.

use ferrypost_http::{
    Refusal, answer::answer, fields::BadResponse, rules::Challenge, websocket::BadUpgrade,
};
use ferrypost_proto::{NameError, NoRoute, SecondName};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{body::Download, guarded::Stopped};
use crate::{
    metrics::words::{Blame, ExchangeOutcome},
    net::dial::DialError,
    registry::{CloseReason, HoldLimit},
    tokens::{IssuerError, NoOwner},
};

/// Seconds after which a client may come again: by then most moves are over.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("5");

/// Why a request is not answered by a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It is not one to be passed on.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Servers are still at what its client has asked and reset.
    #[error("servers are still at too much of what the client has reset")]
    TooMuchAsked,
    /// Its head did not come in time.
    #[error("the head of the request did not come in time")]
    SlowHead,
    /// It has to say whose it is.
    #[error("the request says of no account whose it is")]
    Challenged(Vec<Challenge>),
    /// What it says is no name.
    #[error("no name: {0}")]
    NoName(NameError, Option<Challenge>),
    /// The server is not known to serve the one that it is routed by.
    #[error("two names: {0}; the endpoint is not known to heed that ({key})", key = .0.key())]
    SecondName(SecondName, Option<Challenge>),
    /// Nobody here can tell whose token it is.
    #[error("nobody can tell whose token it is")]
    TokenUnread,
    /// Its issuer does not know it.
    #[error("the token's issuer does not know it")]
    TokenRefused,
    /// Its issuer cannot be asked.
    #[error("the tokens' issuer: {0}")]
    IssuerAway(IssuerError),
    /// Its name goes nowhere.
    #[error("refused: {0}")]
    NoRoute(NoRoute, Option<Challenge>),
    /// There is no table yet, or no rules in it.
    #[error("no routing table yet")]
    NoTable,
    /// As many as may be are held.
    #[error("too many are held (limits.hold.{})", .0.key())]
    TooManyHeld(HoldLimit),
    /// The account stayed fenced.
    #[error("held for too long")]
    HeldTooLong,
    /// There is nowhere to send it.
    #[error("the destination has no endpoint for HTTP")]
    NoEndpoint,
    /// It has come round.
    #[error("too many data planes have passed it on: their endpoints lead in a circle")]
    GoneRound,
    /// It was not tried.
    #[error(
        "the backend fails one client after the other, and this request was not tried (limits.breaker)"
    )]
    BreakerOpen,
    /// There is no connection.
    #[error("the backend: {0}")]
    Unreachable(#[from] DialError),
    /// The connection was lost.
    #[error("the backend's connection: {0}")]
    Lost(String),
    /// It takes nothing of the request.
    #[error("the backend took nothing of the request for too long (limits.web.stalled)")]
    ServerStuck,
    /// No answer came in time.
    #[error("the backend did not answer within the endpoint's response_limit")]
    Unanswered,
    /// The answer is none.
    #[error("{0}")]
    BadResponse(#[from] BadResponse),
    /// The server speaks another protocol without having been asked to.
    #[error("the backend changed the protocol unasked")]
    UnaskedUpgrade,
    /// It answers a WebSocket's handshake and does not.
    #[error("{0}")]
    BadUpgrade(#[from] BadUpgrade),
    /// It speaks HTTP/2 and takes no WebSocket by it.
    #[error(
        "the backend's HTTP/2 takes no WebSocket (RFC 8441), and its endpoint has no HTTP/1.1 (versions)"
    )]
    NoWebSocket,
    /// The client's body does not come, or it does not take the server's.
    #[error(
        "the client sent nothing of its request, or took nothing of its response, for too long (limits.web.stalled)"
    )]
    ClientStuck,
    /// The client has gone.
    #[error("the client went away")]
    ClientGone,
    /// The registry ended it.
    #[error("told to end: {reason}", reason = .0.word())]
    Told(CloseReason),
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refusal) => Self::Refused(refusal),
            Stopped::SlowHead => Self::SlowHead,
        }
    }
}

impl From<NoOwner> for Failure {
    fn from(none: NoOwner) -> Self {
        match none {
            NoOwner::Unread => Self::TokenUnread,
            NoOwner::Refused => Self::TokenRefused,
            NoOwner::Away(error) => Self::IssuerAway(error),
        }
    }
}

impl Failure {
    /// Why a request's body comes to no end.
    pub(super) fn of_upload(error: &hyper::Error) -> Self {
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            let inner = io.and_then(|io| io.get_ref());
            if let Some(refusal) = inner.and_then(|it| it.downcast_ref::<Refusal>()) {
                return Self::Refused(*refusal);
            }
            cause = error.source();
        }
        Self::ClientGone
    }

    /// Why a server's answer does not come, or comes to no end.
    pub(super) fn of_response(error: &hyper::Error) -> Self {
        // What it says is about the connection, and never what was on it.
        Self::Lost(error.to_string())
    }

    /// The word for it.
    pub(super) fn outcome(&self) -> ExchangeOutcome {
        match self {
            Self::Refused(_) | Self::SlowHead | Self::TooMuchAsked => ExchangeOutcome::Refused,
            Self::Challenged(_) => ExchangeOutcome::Challenged,
            Self::NoName(..) => ExchangeOutcome::NoName,
            Self::SecondName(..) => ExchangeOutcome::SecondName,
            Self::TokenUnread => ExchangeOutcome::TokenUnread,
            Self::TokenRefused => ExchangeOutcome::TokenRefused,
            Self::IssuerAway(_) => ExchangeOutcome::IssuerAway,
            Self::NoRoute(..) => ExchangeOutcome::NoRoute,
            Self::NoTable => ExchangeOutcome::NoTable,
            Self::TooManyHeld(_) => ExchangeOutcome::TooManyHeld,
            Self::HeldTooLong => ExchangeOutcome::HeldTooLong,
            Self::NoEndpoint => ExchangeOutcome::NoEndpoint,
            Self::GoneRound | Self::Unreachable(DialError::Ourselves) => ExchangeOutcome::GoneRound,
            Self::BreakerOpen => ExchangeOutcome::BreakerOpen,
            Self::Unreachable(_) => ExchangeOutcome::BackendUnavailable,
            Self::Lost(_) | Self::ServerStuck => ExchangeOutcome::Lost,
            Self::Unanswered => ExchangeOutcome::Unanswered,
            Self::BadResponse(_)
            | Self::UnaskedUpgrade
            | Self::BadUpgrade(_)
            | Self::NoWebSocket => ExchangeOutcome::BadResponse,
            Self::ClientStuck => ExchangeOutcome::ClientStuck,
            Self::ClientGone => ExchangeOutcome::ClientGone,
            Self::Told(CloseReason::Moved) => ExchangeOutcome::Moved,
            Self::Told(CloseReason::Kicked) => ExchangeOutcome::Kicked,
            Self::Told(CloseReason::Stopping) => ExchangeOutcome::Stopping,
            Self::Told(CloseReason::Expelled) => ExchangeOutcome::Expelled,
        }
    }

    /// Whose fault it is.
    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::Refused(_)
            | Self::SlowHead
            | Self::TooMuchAsked
            | Self::NoName(..)
            | Self::SecondName(..)
            | Self::TokenUnread
            | Self::TokenRefused
            | Self::NoRoute(..)
            | Self::ClientStuck => Blame::Client,
            Self::Challenged(_) | Self::ClientGone | Self::Told(_) => Blame::Nobody,
            Self::IssuerAway(_)
            | Self::NoEndpoint
            | Self::GoneRound
            | Self::Unreachable(DialError::Ourselves | DialError::Source { .. })
            | Self::TooManyHeld(_) => Blame::Us,
            Self::NoTable | Self::HeldTooLong => Blame::ControlPlane,
            Self::BreakerOpen
            | Self::Unreachable(_)
            | Self::Lost(_)
            | Self::ServerStuck
            | Self::Unanswered
            | Self::BadResponse(_)
            | Self::UnaskedUpgrade
            | Self::BadUpgrade(_)
            | Self::NoWebSocket => Blame::Backend,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::SlowHead | Self::ClientStuck | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::Challenged(_) | Self::TokenUnread | Self::TokenRefused => {
                StatusCode::UNAUTHORIZED
            }
            // A name that nobody has and one that nobody may have look alike.
            Self::NoName(_, challenge)
            | Self::SecondName(_, challenge)
            | Self::NoRoute(_, challenge) => match challenge {
                Some(_) => StatusCode::UNAUTHORIZED,
                None => StatusCode::FORBIDDEN,
            },
            Self::IssuerAway(_)
            | Self::TooMuchAsked
            | Self::NoTable
            | Self::TooManyHeld(_)
            | Self::HeldTooLong
            | Self::BreakerOpen
            | Self::Told(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unanswered
            | Self::Unreachable(DialError::ConnectTimeout | DialError::HandshakeTimeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::NoEndpoint
            | Self::GoneRound
            | Self::Unreachable(_)
            | Self::Lost(_)
            | Self::ServerStuck
            | Self::BadResponse(_)
            | Self::UnaskedUpgrade
            | Self::BadUpgrade(_)
            | Self::NoWebSocket => StatusCode::BAD_GATEWAY,
        }
    }

    /// How the client can say whose a request is.
    fn challenges(&self) -> Vec<Challenge> {
        match self {
            Self::Challenged(challenges) => challenges.clone(),
            Self::TokenUnread | Self::TokenRefused => vec![Challenge::Bearer],
            Self::NoName(_, challenge)
            | Self::SecondName(_, challenge)
            | Self::NoRoute(_, challenge) => challenge.iter().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether nothing may follow on an HTTP/1 connection: it is not known where this request ends, or the rest of it
    /// is not read.
    fn ends_the_connection(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.ends_the_connection(),
            Self::SlowHead | Self::ClientStuck | Self::ClientGone | Self::Told(_) => true,
            _ => false,
        }
    }

    /// What the client hears, in the form that it `accepts`.
    pub(super) fn response(&self, accepts: &HeaderMap) -> Response<Download> {
        let status = self.status();
        let words = answer(status, accepts);
        let mut response = Response::new(Download::own(words.body.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(words.media_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for challenge in self.challenges() {
            headers.append(WWW_AUTHENTICATE, challenge.value());
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, COME_AGAIN);
        }
        if self.ends_the_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
