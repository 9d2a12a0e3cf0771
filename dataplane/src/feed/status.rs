//! What `/stats` shows of the control connection.

use ferrypost_proto::{InstallationId, Speaks, TablePosition};
use tokio::time::Instant;

/// The control connection as it is now.
#[derive(Debug, Clone)]
pub struct FeedStatus {
    /// How the connection stands.
    pub connection: ConnectionState,
    /// Since when it stands so.
    pub since: Instant,
    /// The replica that answered last.
    pub replica: Option<String>,
    /// The version of the contract that is spoken with it.
    pub contract: Option<u32>,
    /// The installation that is pinned.
    pub installation: Option<InstallationId>,
    /// The store was restored: this data plane keeps what it has (rule 11).
    pub rewound: bool,
    /// The table in force and when it, or a heartbeat after it, came: until then it was the truth.
    pub table: Option<(TablePosition, Instant)>,
    /// Entries of that table that this data plane could not take over.
    pub rejected: usize,
    /// Why the last connection ended or was not made, for people.
    pub problem: Option<String>,
}

/// How the control connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Being made, or between two attempts.
    Connecting,
    /// Welcome came, the table is not up to date yet.
    Syncing,
    /// The table is up to date.
    Live,
    /// The control plane refuses this data plane; tried again, slowly.
    Refused(StreamRefused),
    /// Over for good.
    Ended(FeedEnd),
}

/// Refusals that a retry alone does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefused {
    /// Another data plane lives under this instance id.
    #[error("the instance id is in use by another data plane")]
    InstanceInUse,
    /// Either side belongs to another installation.
    #[error("the control plane belongs to another installation")]
    OtherInstallation,
    /// The control plane speaks no contract that we do.
    #[error(
        "the control plane speaks no contract that this data plane does, which is {}: upgrade the older",
        Speaks::here().contracts
    )]
    Contract,
    /// The routing configuration in force is of a version that we do not read.
    #[error(
        "the routing configuration in force needs a later schema than this data plane reads, which is \
         {}: upgrade it",
        Speaks::here().schemas
    )]
    Schema,
    /// Our certificate is not that of our instance id.
    #[error("the control plane wants a client certificate with the instance id as a DNS name")]
    Identity,
}

/// Why the feed is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedEnd {
    /// The goodbye was accepted: the registration has ended.
    #[error("said goodbye")]
    Goodbye,
    /// An operator expelled this data plane. It serves nobody any more.
    #[error("expelled by an operator; restart it to register anew")]
    Expelled,
    /// Another process has taken over this instance and its state directory.
    #[error("superseded by another process with the same instance id")]
    Superseded,
}

impl FeedStatus {
    pub(super) fn new(installation: Option<InstallationId>) -> Self {
        Self {
            connection: ConnectionState::Connecting,
            since: Instant::now(),
            replica: None,
            contract: None,
            installation,
            rewound: false,
            table: None,
            rejected: 0,
            problem: None,
        }
    }
}
