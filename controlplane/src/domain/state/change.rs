//! A change of routing: what data planes are told.

use std::sync::Arc;

use ferrypost_proto::{AccountId, routing::v1 as wire};

use super::{Account, Config};

/// One change of routing.
#[derive(Debug, Clone)]
pub enum Change {
    /// The record was written.
    Account(Arc<Account>),
    /// The record is gone.
    Removed(AccountId),
    /// The routing configuration was replaced.
    Config(Arc<Config>),
}

impl Change {
    /// As data planes are told.
    pub fn to_wire(&self, base: u64) -> wire::Change {
        use wire::change::Change as Wire;
        wire::Change {
            change: Some(match self {
                Self::Account(account) => Wire::Account(account.entry(base)),
                Self::Removed(id) => Wire::AccountRemoved(id.as_str().to_owned()),
                Self::Config(config) => Wire::Config(config.raw.clone()),
            }),
        }
    }
}
