//! What is remembered of a migration that has ended, for as long as it is in the store.

use ferrypost_proto::{AccountId, store::v1::MigrationRecord, v1};

use super::Versioned;
use crate::kv::Rev;

/// An ended migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// How it ended.
    pub state: v1::MigrationState,
    /// When, in seconds of the Unix epoch; `None` if nobody wrote it down.
    pub ended_at: Option<i64>,
    /// The revision of its record.
    pub revision: Rev,
    /// Whose it was.
    pub accounts: Box<[AccountId]>,
}

impl Past {
    pub(super) fn of(migration: &Versioned<MigrationRecord>) -> Self {
        let record = &migration.value;
        let accounts = record.accounts.iter();
        Self {
            state: record.state(),
            ended_at: record.ended_at.map(|at| at.seconds),
            revision: migration.revision,
            accounts: accounts
                .filter_map(|account| AccountId::parse(&account.account_id).ok())
                .collect(),
        }
    }
}
