//! Whom a registration is for.

use ferrypost_proto::{DestinationId, DomainName, Name, Recipient};
use ferrypost_routing::{Resolution, RoutingTable};

/// Whom a registration is for: it is routed by this, and ended when this goes elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An account, by one of its canonical names: what its fence holds and waits for.
    Name(Name),
    /// Recipients of a domain that can be no account's: no fence reaches them, and the domain's rule does.
    Domain(DomainName),
    /// A server, whoever is served there: a connection that is passed through as a whole. No fence reaches it.
    Destination(DestinationId),
    /// Any account at a server, and nobody can tell which: a request that a rule sends there and that can write. While
    /// any account that lives there is fenced it is held, and no fence waits for it.
    SomebodyAt(DestinationId),
}

impl Subject {
    /// The name, if it is an account's.
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::Name(name) => Some(name),
            Self::Domain(_) | Self::Destination(_) | Self::SomebodyAt(_) => None,
        }
    }

    /// Where it goes under a table.
    pub(super) fn resolve(&self, table: &RoutingTable) -> Resolution {
        match self {
            Self::Name(name) => table.resolve(name),
            Self::Domain(domain) => table.resolve_unlisted_in(domain),
            Self::Destination(destination) => table.resolve_destination(destination),
            Self::SomebodyAt(destination) => table.resolve_somebody_at(destination),
        }
    }

    /// What it is found by among the shards.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Name(name) => name.as_str().as_bytes(),
            Self::Domain(domain) => domain.as_str().as_bytes(),
            Self::Destination(destination) | Self::SomebodyAt(destination) => {
                destination.as_str().as_bytes()
            }
        }
    }
}

impl From<&Name> for Subject {
    fn from(name: &Name) -> Self {
        Self::Name(name.clone())
    }
}

impl From<Recipient> for Subject {
    fn from(recipient: Recipient) -> Self {
        match recipient {
            Recipient::Name(name) => Self::Name(name),
            Recipient::Domain(domain) => Self::Domain(domain),
        }
    }
}
