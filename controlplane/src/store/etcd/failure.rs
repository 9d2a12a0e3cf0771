//! What an answer of etcd's that is not the one hoped for means for the caller.
//!
//! etcd says most of it in the text of a gRPC status. The texts are part of its interface (they
//! are the constants of its `rpctypes` package, which its own client compares too) and are looked
//! at here and nowhere else.

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::store::{Outage, StoreError};

/// Why a call did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It certainly had no effect, and another member of the cluster, or this one in a moment, may
    /// do it.
    NotDone(Outage),
    /// A write may or may not have happened, or may still happen.
    Unknown(Outage),
    /// It certainly had no effect, and trying again is useless.
    Refused(StoreError),
}

impl Failure {
    /// As the error of a call that changes nothing, or whose repetition does no harm.
    pub(super) fn of_read(self) -> StoreError {
        match self {
            Self::NotDone(outage) | Self::Unknown(outage) => StoreError::Unavailable(outage),
            Self::Refused(error) => error,
        }
    }

    /// As the error of a call that writes.
    pub(super) fn of_write(self) -> StoreError {
        match self {
            Self::NotDone(outage) => StoreError::Unavailable(outage),
            Self::Unknown(outage) => StoreError::UnknownOutcome(outage),
            Self::Refused(error) => error,
        }
    }

    /// Whether another attempt is harmless and may succeed at once, on another member.
    pub(super) fn is_worth_another_member(&self) -> bool {
        matches!(self, Self::NotDone(Outage::Connection | Outage::NoQuorum))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => of_status(&status),
            Error::IoError(_) | Error::TransportError(_) => Self::Unknown(Outage::Connection),
            // What is left are mistakes in the configuration, found before anything is sent, and
            // streams that end before their time.
            Error::WatchError(_) | Error::LeaseKeepAliveError(_) => {
                Self::Unknown(Outage::Connection)
            }
            _ => Self::Unknown(Outage::Unexpected),
        }
    }
}

fn of_status(status: &Status) -> Failure {
    if never_sent(status) {
        return Failure::NotDone(Outage::Connection);
    }
    of_text(status.message()).unwrap_or_else(|| of_code(status.code(), status.message()))
}

/// What a text of etcd's means, whatever it comes with: a status of any code, or the reason for
/// which a watch was taken away.
pub(super) fn of_text(text: &str) -> Option<Failure> {
    TEXTS
        .iter()
        .find(|(part, _)| text.contains(part))
        .map(|(_, failure)| failure.clone())
}

const TEXTS: [(&str, Failure); 14] = [
    (
        "revision has been compacted",
        Failure::Refused(StoreError::Compacted { floor: None }),
    ),
    (
        "revision is a future revision",
        Failure::Refused(StoreError::Future),
    ),
    ("database space exceeded", Failure::NotDone(Outage::NoSpace)),
    (
        "etcdserver: too many requests",
        Failure::NotDone(Outage::Overloaded),
    ),
    // Said by the interceptor, before the request is looked at.
    ("etcdserver: no leader", Failure::NotDone(Outage::NoQuorum)),
    (
        "requested lease not found",
        Failure::Refused(StoreError::LeaseLost),
    ),
    (
        "request is too large",
        Failure::Refused(StoreError::TooLarge),
    ),
    (
        "too many operations in txn",
        Failure::Refused(StoreError::TooLarge),
    ),
    (
        "duplicate key given in txn",
        Failure::Refused(StoreError::Malformed),
    ),
    (
        "etcdserver: permission denied",
        Failure::Refused(StoreError::Denied),
    ),
    (
        "etcdserver: invalid auth token",
        Failure::Refused(StoreError::Denied),
    ),
    (
        "etcdserver: authentication failed",
        Failure::Refused(StoreError::Denied),
    ),
    (
        "etcdserver: user name is empty",
        Failure::Refused(StoreError::Denied),
    ),
    (
        "etcdserver: corrupt cluster",
        Failure::Refused(StoreError::Corrupt),
    ),
];

/// Whether no connection was made, so that no member can have seen the request.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn of_code(code: Code, text: &str) -> Failure {
    match code {
        Code::PermissionDenied | Code::Unauthenticated => Failure::Refused(StoreError::Denied),
        Code::DataLoss => Failure::Refused(StoreError::Corrupt),
        Code::OutOfRange if !text.starts_with("etcdserver") => {
            // tonic's own, for an answer above the limit of this side.
            Failure::Refused(StoreError::TooLarge)
        }
        Code::DeadlineExceeded => Failure::Unknown(Outage::Timeout),
        Code::Unavailable if text.contains("timed out") => Failure::Unknown(Outage::Timeout),
        // Among others "leader changed": the old one may have passed the write on.
        Code::Unavailable if text.starts_with("etcdserver") => Failure::Unknown(Outage::NoQuorum),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => {
            Failure::Unknown(Outage::Connection)
        }
        _ => Failure::Unknown(Outage::Unexpected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_text_decides_whatever_its_code() {
        // tikv/pd met compaction as a plain status text with an unexpected code.
        for code in [Code::OutOfRange, Code::Unknown, Code::Unavailable] {
            let status = Status::new(
                code,
                "etcdserver: mvcc: required revision has been compacted",
            );
            assert_eq!(
                of_status(&status),
                Failure::Refused(StoreError::Compacted { floor: None }),
                "{code:?}"
            );
        }
    }

    #[test]
    fn only_what_certainly_did_not_happen_is_called_not_done() {
        let cases = [
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                true,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                true,
            ),
            (Code::Unavailable, "etcdserver: no leader", true),
            (Code::Unavailable, "etcdserver: leader changed", false),
            (Code::Unavailable, "etcdserver: request timed out", false),
            (Code::Unavailable, "etcdserver: server stopped", false),
            (
                Code::Unavailable,
                "error reading a body from connection",
                false,
            ),
            (Code::Unknown, "transport error", false),
            (Code::Cancelled, "operation was canceled", false),
            (Code::DeadlineExceeded, "context deadline exceeded", false),
            (Code::FailedPrecondition, "etcdserver: something new", false),
        ];
        for (code, text, certain) in cases {
            let error = of_status(&Status::new(code, text)).of_write();
            match error {
                StoreError::Unavailable(_) => assert!(certain, "{text}"),
                StoreError::UnknownOutcome(_) => assert!(!certain, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_connection_that_was_never_made_carried_nothing() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error: Box<dyn std::error::Error + Send + Sync> =
            Box::new(ConnectError(refused.into()));
        assert_eq!(
            of_status(&Status::from_error(error)),
            Failure::NotDone(Outage::Connection)
        );
    }
}
