//! Assembling a table from the chunks of a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    sync::Arc,
};

use ferrypost_proto::{
    Epoch, Problems, Revision, RoutingConfig, TablePosition,
    routing::v1::{AccountEntry, SnapshotChunk},
};
use ferrypost_runtime::Random;

use super::{
    KeyedState, RoutingTable, TooManyRejected,
    account_key::AccountKey,
    base::{BaseBuilder, BuildError, Packed},
    draft::{Draft, TakenOut, check_alone},
    overlay::{Exact, Overlay},
    rejections::Rejections,
};

/// Entries of one snapshot that cannot be packed: accounts in their held window, of which the control
/// plane allows some twenty at once, and rejected ones. What exceeds this is no honest snapshot.
const MOST_EXACT: usize = 1 << 16;

/// Chunks that have come so far. Packs them as they come, so that no more than the packed form and one
/// chunk is in memory.
#[derive(Debug)]
pub struct Assembly {
    position: TablePosition,
    config: Arc<RoutingConfig>,
    builder: BaseBuilder,
    exact: Vec<AccountEntry>,
    next: u32,
    hash: KeyedState,
}

/// Why chunks make no table. The whole old table stays (rule 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is below the table that is held (rule 9).
    #[error("a snapshot at {at} would go back behind {held}")]
    Backwards {
        /// The snapshot's revision.
        at: Revision,
        /// The table's.
        held: Revision,
    },
    /// Chunks are missing, out of order or of different snapshots.
    #[error("the chunks of a snapshot do not follow each other")]
    OutOfOrder,
    /// The first chunk says no position or no routing configuration.
    #[error("a snapshot is incomplete")]
    Incomplete,
    /// Its routing configuration is not valid.
    #[error("the routing configuration is not valid: {0}")]
    Config(#[from] Problems),
    /// It contradicts itself.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Too much of it is wrong.
    #[error(transparent)]
    TooManyRejected(#[from] TooManyRejected),
    /// Too many accounts are in their held window or wrong.
    #[error("more than {MOST_EXACT} accounts are not settled")]
    TooManyExact,
}

impl Assembly {
    /// Begins with the first chunk. `held` is the revision of the table in force.
    pub fn begin(
        chunk: SnapshotChunk,
        held: Option<Revision>,
        random: &Random,
    ) -> Result<Self, SnapshotError> {
        let position =
            TablePosition::from(chunk.position.clone().ok_or(SnapshotError::Incomplete)?);
        if let Some(held) = held.filter(|held| position.revision < *held) {
            return Err(SnapshotError::Backwards {
                at: position.revision,
                held,
            });
        }
        let config = chunk.config.as_ref().ok_or(SnapshotError::Incomplete)?;
        let mut assembly = Self {
            position,
            config: Arc::new(RoutingConfig::in_force(config)?),
            builder: BaseBuilder::new(random),
            exact: Vec::new(),
            next: 0,
            hash: KeyedState::new(random),
        };
        assembly.push(chunk)?;
        Ok(assembly)
    }

    /// Adds the next chunk.
    pub fn push(&mut self, chunk: SnapshotChunk) -> Result<(), SnapshotError> {
        let position = chunk.position.map(TablePosition::from);
        if chunk.index != self.next || position.as_ref() != Some(&self.position) {
            return Err(SnapshotError::OutOfOrder);
        }
        self.next += 1;
        for entry in chunk.accounts {
            let packed = check_alone(&entry, &self.config)
                .is_ok_and(|record| record.fence.is_none() && self.builder.push(&record));
            if packed {
                continue;
            }
            if self.exact.len() == MOST_EXACT {
                return Err(SnapshotError::TooManyExact);
            }
            self.exact.push(entry);
        }
        Ok(())
    }

    /// Packs everything. Takes about a second for ten million accounts, so run it where that does not
    /// matter. `previous` is the table in force, below whose epochs no account is taken over.
    pub fn finish(self, previous: Option<&RoutingTable>) -> Result<RoutingTable, SnapshotError> {
        let mut held = previous.map(HeldEpochs::new);
        let mut floor = |key| held.as_mut().and_then(|held| held.of(key));
        let built = self.builder.finish(&mut floor)?;
        let empty = RoutingTable {
            position: self.position.clone(),
            config: Arc::clone(&self.config),
            base: Arc::new(built.base),
            overlay: Overlay::new(&self.hash),
            rejections: Arc::new(Rejections::new(BTreeMap::new(), self.hash.clone())),
            hash: self.hash,
        };
        let mut draft = Draft::new(&empty, self.position, self.config);
        for (key, reason) in built.rejected {
            draft.reject_packed(key, reason);
        }
        let mut seen = BTreeSet::new();
        for entry in self.exact {
            let key = AccountKey::parse(&entry.account_id);
            let twice = !seen.insert(entry.account_id.clone())
                || key.is_some_and(|key| empty.base.find(key).is_some());
            if twice {
                return Err(BuildError::AccountTwice.into());
            }
            let floor = key.and_then(|key| previous?.epoch(key));
            draft.claim(entry, &TakenOut::at(floor));
        }
        Ok(draft.finish()?.0)
    }
}

/// The epochs of a table, asked for in ascending order of the accounts: one walk instead of a search for
/// each.
struct HeldEpochs<'a> {
    table: &'a RoutingTable,
    base: Peekable<Box<dyn Iterator<Item = Packed<'a>> + 'a>>,
}

impl<'a> HeldEpochs<'a> {
    fn new(table: &'a RoutingTable) -> Self {
        let base: Box<dyn Iterator<Item = Packed<'a>>> = Box::new(table.base.accounts());
        Self {
            table,
            base: base.peekable(),
        }
    }

    fn of(&mut self, key: AccountKey) -> Option<Epoch> {
        while self.base.next_if(|packed| packed.key < key).is_some() {}
        match self.table.overlay.account(key) {
            Some(Exact::Record(record)) => Some(record.epoch),
            Some(Exact::Gone) => self.table.rejections.floor(key),
            None => match self.base.peek() {
                Some(packed) if packed.key == key => Some(packed.epoch),
                _ => self.table.rejections.floor(key),
            },
        }
    }
}
