//! Why a connection to the control plane ends, and what follows from it.

use ferrypost_proto::{InstallationId, Speaks, UnreadableSchema, types::IdError};
use ferrypost_routing::{ApplyError, SnapshotError};
use tonic_types::StatusExt as _;

use super::{ConnectError, FeedEnd, StreamRefused};
use crate::state_dir::StateDirError;

/// Why one connection is over, or was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error("no connection: {0}")]
    Connect(#[from] ConnectError),
    #[error("the control plane answered {code:?}{}", in_brackets(.reason.as_ref()))]
    Status {
        code: tonic::Code,
        /// Of its `ErrorInfo`: one of the words of the contract.
        reason: Option<String>,
    },
    #[error("the control plane closed the stream")]
    Closed,
    #[error("no welcome in time")]
    NoWelcome,
    #[error("the first answer was not a welcome")]
    NotWelcome,
    #[error("a message of no known kind, or out of its order")]
    Unexpected,
    #[error("it names itself by an id that is none: {0}")]
    BadId(#[from] IdError),
    #[error("it speaks contract {}, and {} is spoken here", .0, Speaks::here().contracts)]
    Contract(u32),
    #[error(transparent)]
    Schema(#[from] UnreadableSchema),
    #[error("it belongs to installation {offered}, not to {pinned}")]
    OtherInstallation {
        pinned: InstallationId,
        offered: InstallationId,
    },
    #[error(transparent)]
    State(StateDirError),
    #[error("three heartbeat intervals of silence")]
    Silent,
    #[error("it takes nothing that this data plane says")]
    Stuck,
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

fn in_brackets(word: Option<&String>) -> String {
    word.map(|word| format!(" ({word})")).unwrap_or_default()
}

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Try again after a growing pause.
    Retry,
    /// Only an operator can change it: try again slowly.
    Refused(StreamRefused),
    /// Stop serving, for good.
    End(FeedEnd),
}

impl FeedError {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Status { reason, .. } => match reason.as_deref() {
                Some("EXPELLED") => Remedy::End(FeedEnd::Expelled),
                Some("SUPERSEDED") => Remedy::End(FeedEnd::Superseded),
                Some("INSTANCE_IN_USE") => Remedy::Refused(StreamRefused::InstanceInUse),
                Some("INSTALLATION_MISMATCH") => Remedy::Refused(StreamRefused::OtherInstallation),
                Some("CONTRACT_UNSUPPORTED") => Remedy::Refused(StreamRefused::Contract),
                Some("SCHEMA_UNSUPPORTED") => Remedy::Refused(StreamRefused::Schema),
                Some("IDENTITY_MISMATCH") => Remedy::Refused(StreamRefused::Identity),
                _ => Remedy::Retry,
            },
            Self::OtherInstallation { .. } => Remedy::Refused(StreamRefused::OtherInstallation),
            Self::Contract(_) => Remedy::Refused(StreamRefused::Contract),
            Self::Schema(_) => Remedy::Refused(StreamRefused::Schema),
            _ => Remedy::Retry,
        }
    }

    /// True if the same delta would fail again, so that only a snapshot helps.
    pub(super) const fn needs_snapshot(&self) -> bool {
        match self {
            Self::Apply(error) => !matches!(error, ApplyError::Gap { .. }),
            _ => false,
        }
    }
}

impl From<tonic::Status> for FeedError {
    /// Keeps the code and the reason; a peer's free text goes nowhere.
    fn from(status: tonic::Status) -> Self {
        Self::Status {
            code: status.code(),
            reason: status
                .get_details_error_info()
                .map(|info| info.reason)
                .filter(|word| !word.is_empty() && word.len() <= 64)
                .filter(|word| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')),
        }
    }
}

impl From<StateDirError> for FeedError {
    fn from(error: StateDirError) -> Self {
        match error {
            StateDirError::OtherInstallation {
                pinned, offered, ..
            } => Self::OtherInstallation { pinned, offered },
            other => Self::State(other),
        }
    }
}
