//! What a name resolves to.

use ferrypost_proto::{AccountId, DestinationId, Epoch, MigrationId, NoRoute};

/// The answer to a look-up. There is no "look-up failed": tables are memory, and while there is none at
/// all, nobody can ask (rule 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Served there.
    Route(Route),
    /// Held: a move is in its window, or this data plane could not take the account's entry over.
    Fenced(Fenced),
    /// Goes nowhere, as a configured fact.
    Refused(NoRoute),
}

/// Where a session goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The server.
    pub destination: DestinationId,
    /// The account, if the name has one.
    pub account: Option<AccountId>,
    /// The epoch of its record.
    pub epoch: Option<Epoch>,
    /// What decided.
    pub rule: Rule,
}

/// What decided a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The account's record.
    Placement,
    /// The default destination of the name's domain.
    DomainDefault,
    /// The installation's default destination.
    Default,
    /// Nothing of the table's: the server was asked for by its id.
    Named,
}

impl Rule {
    /// As logs and `/stats` say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::DomainDefault => "domain_default",
            Self::Default => "default",
            Self::Named => "named",
        }
    }
}

/// A name that nobody is admitted under now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    /// Whose; `None` if the entry's account id could not be read.
    pub account: Option<AccountId>,
    /// The move. `None` for an entry that was rejected.
    pub migration: Option<MigrationId>,
    /// The epoch of the FENCING write. `None` for an entry that was rejected.
    pub fence: Option<Epoch>,
}

impl Fenced {
    /// True if the entry was rejected: no move is under way, the table could not be trusted here.
    pub const fn is_rejected(&self) -> bool {
        self.fence.is_none()
    }
}
