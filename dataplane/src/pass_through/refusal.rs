//! Why a connection is not passed on, whose fault that is, and what the mail system hears.

use ferrypost_proto::NoRoute;

use crate::{
    backend::stranger::Unfit,
    metrics::words::{Blame, SessionEnd},
    net::dial::DialError,
    registry::CloseReason,
};

/// Why a connection is not passed on. Whatever it is, the mail system keeps its message and comes again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// As many are connected as may be.
    #[error("too many connections")]
    NoRoom,
    /// This data plane has no table yet.
    #[error("no routing table yet")]
    NoTable,
    /// The routing configuration has no such destination.
    #[error("nothing is passed through: {0}")]
    NoRoute(NoRoute),
    /// The destination has no endpoint for SMTP.
    #[error("the destination has no endpoint for smtp")]
    NoEndpoint,
    /// Its endpoint is not one for what is passed through.
    #[error("nothing is passed through: {0}")]
    Unfit(#[from] Unfit),
    /// The last probe found that it believes strangers.
    #[error(
        "nothing is passed through: the server offers XCLIENT or XFORWARD to whoever connects through us, who could then \
         say that he is somebody else; take our clients off smtpd_authorized_xclient_hosts (and _xforward_hosts)"
    )]
    BelievesStrangers,
    /// Data planes send it round in circles.
    #[error("too many data planes have passed it on: their endpoints lead in a circle")]
    GoneRound,
    /// The server could not be reached for one client after the other.
    #[error("the server fails one client after the other, and was not tried (limits.breaker)")]
    BreakerOpen,
    /// The server was not reached.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// It was told to end.
    #[error("told to end: {reason}", reason = .0.word())]
    Told(CloseReason),
}

impl Refusal {
    /// The greeting that says it (RFC 5321 §3.1, §4.2.3; RFC 3463): all of them say to come again.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::NoRoom => "421 4.7.0 Too many connections.\r\n",
            Self::NoRoute(_) | Self::NoEndpoint | Self::Unfit(_) | Self::BelievesStrangers => {
                MISTAKEN
            }
            Self::Dial(DialError::Ourselves) | Self::GoneRound => {
                "421 4.4.6 This connection has gone round in a circle.\r\n"
            }
            Self::NoTable | Self::BreakerOpen | Self::Dial(_) => AWAY,
            Self::Told(_) => "421 4.3.2 The server is shutting down, connect again.\r\n",
        }
    }

    /// As metrics and the log have it.
    pub(super) fn end(&self) -> SessionEnd {
        match self {
            Self::Told(reason) => (*reason).into(),
            _ => SessionEnd::NotPassedOn,
        }
    }

    /// Whose fault it was.
    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::NoTable
            | Self::NoRoute(_)
            | Self::NoEndpoint
            | Self::Unfit(_)
            | Self::GoneRound
            | Self::Dial(DialError::Ourselves) => Blame::ControlPlane,
            Self::NoRoom | Self::Dial(DialError::Source { .. }) | Self::Told(_) => Blame::Us,
            Self::BelievesStrangers | Self::BreakerOpen | Self::Dial(_) => Blame::Backend,
        }
    }
}

const AWAY: &str = "421 4.3.0 The mail server is not available, try again later.\r\n";
const MISTAKEN: &str = "421 4.3.5 The mail system is not set up for this, try again later.\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_is_the_mail_system_is_to_come_again() {
        for refusal in [
            Refusal::NoRoom,
            Refusal::NoTable,
            Refusal::NoRoute(NoRoute::UnknownDestination),
            Refusal::NoEndpoint,
            Refusal::Unfit(Unfit::ImplicitTls),
            Refusal::BelievesStrangers,
            Refusal::GoneRound,
            Refusal::BreakerOpen,
            Refusal::Dial(DialError::ConnectTimeout),
            Refusal::Dial(DialError::Ourselves),
            Refusal::Told(CloseReason::Stopping),
        ] {
            let words = refusal.words();
            assert!(words.starts_with("421 4.") && words.ends_with(".\r\n"));
        }
    }
}
