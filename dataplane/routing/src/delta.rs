//! Applying a delta.

use std::{collections::HashMap, sync::Arc};

use ferrypost_proto::{
    Problems, Revision, RoutingConfig, TablePosition,
    routing::v1::{AccountEntry, Change, Delta, RejectReason, change},
    v1,
};

use super::{RoutingTable, TooManyRejected, Touched, draft::Draft, overlay::Exact};

/// A new table, and which names may resolve otherwise in it.
#[derive(Debug)]
pub struct Applied {
    /// Not published yet.
    pub table: RoutingTable,
    /// Close what the table changes under these names after it was published.
    pub touched: Touched,
}

/// Why a delta does not apply. The table that it was for stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It begins at another revision than the table's (rule 1).
    #[error("a delta from {from} does not follow {held}")]
    Gap {
        /// Where it begins.
        from: Revision,
        /// Where the table ends.
        held: Revision,
    },
    /// It ends below the table (rule 9).
    #[error("a delta to {to} would go back behind {held}")]
    Backwards {
        /// Where it ends.
        to: Revision,
        /// Where the table ends.
        held: Revision,
    },
    /// It has no position, or a change of no known kind.
    #[error("a delta is incomplete")]
    Incomplete,
    /// Its routing configuration is not valid.
    #[error("the routing configuration is not valid: {0}")]
    Config(#[from] Problems),
    /// Its routing configuration reads names otherwise or lacks a destination that accounts live on.
    /// Settled accounts are packed without the text that would be needed to judge them again: only a
    /// snapshot can tell.
    #[error("the new routing configuration needs a snapshot")]
    NeedsSnapshot,
    /// Too much of it is wrong.
    #[error(transparent)]
    TooManyRejected(#[from] TooManyRejected),
}

/// What a delta does to one account in the end.
enum Fate {
    Entry(AccountEntry),
    Removed,
}

impl RoutingTable {
    /// The table after a delta. Pure; costs the same at any size of the table.
    pub fn apply(&self, delta: Delta) -> Result<Applied, ApplyError> {
        let to = self.destination_of(&delta)?;
        let (config, fates) = split(delta.changes)?;
        let config = match config {
            Some(wire) => self.accept_config(&wire)?,
            None => Arc::clone(&self.config),
        };
        let reconfigured = !Arc::ptr_eq(&config, &self.config);
        let mut draft = Draft::new(self, to, config);
        if reconfigured {
            draft.touch_all();
        }
        // All are released before the first one claims: a name may go from one account to another within
        // one revision, in whichever order the two are listed.
        let released: Vec<_> = fates
            .into_iter()
            .map(|(account, fate)| (draft.release(&account), fate))
            .collect();
        for (former, fate) in released {
            match fate {
                Fate::Entry(entry) => draft.claim(entry, &former),
                Fate::Removed => draft.removed(&former),
            }
        }
        draft.retry(|reason| reconfigured || reason == RejectReason::NameTaken);
        let (table, touched) = draft.finish()?;
        Ok(Applied { table, touched })
    }

    fn destination_of(&self, delta: &Delta) -> Result<TablePosition, ApplyError> {
        let held = self.position.revision;
        let from = Revision::from(delta.from.unwrap_or_default());
        if from != held {
            return Err(ApplyError::Gap { from, held });
        }
        let to = TablePosition::from(delta.to.clone().ok_or(ApplyError::Incomplete)?);
        if to.revision < held {
            return Err(ApplyError::Backwards {
                to: to.revision,
                held,
            });
        }
        Ok(to)
    }

    fn accept_config(&self, wire: &v1::RoutingConfig) -> Result<Arc<RoutingConfig>, ApplyError> {
        let config = RoutingConfig::in_force(wire)?;
        let same_names = config.names() == self.config.names();
        let homes_stay = self
            .base
            .homes()
            .iter()
            .all(|home| config.destination(home).is_some());
        let exact_stay = self.overlay.accounts().all(|(_, exact)| match exact {
            Exact::Gone => true,
            Exact::Record(record) => {
                let known = |id| config.destination(id).is_some();
                known(&record.home) && record.target.as_ref().is_none_or(known)
            }
        });
        if same_names && homes_stay && exact_stay {
            Ok(Arc::new(config))
        } else {
            Err(ApplyError::NeedsSnapshot)
        }
    }
}

/// The last configuration, and what becomes of each account, in the order of the last changes.
#[expect(
    clippy::type_complexity,
    reason = "used once, and both halves are plain"
)]
fn split(
    changes: Vec<Change>,
) -> Result<(Option<v1::RoutingConfig>, Vec<(String, Fate)>), ApplyError> {
    let mut config = None;
    let mut fates: HashMap<String, (usize, Fate)> = HashMap::new();
    for (at, change) in changes.into_iter().enumerate() {
        match change.change.ok_or(ApplyError::Incomplete)? {
            change::Change::Config(wire) => config = Some(wire),
            change::Change::AccountRemoved(account) => {
                fates.insert(account, (at, Fate::Removed));
            }
            change::Change::Account(entry) => {
                fates.insert(entry.account_id.clone(), (at, Fate::Entry(entry)));
            }
        }
    }
    let mut fates: Vec<_> = fates.into_iter().collect();
    fates.sort_unstable_by_key(|(_, (at, _))| *at);
    let fates = fates
        .into_iter()
        .map(|(account, (_, fate))| (account, fate))
        .collect();
    Ok((config, fates))
}
