//! Unfinished migrations, in the order in which they are looked at: which of them wait for their turn, and
//! which need somebody now.

use ferrypost_proto::{MigrationId, store::v1::MigrationRecord, v1};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::{Versioned, has_ended};
use crate::kv::Rev;

/// What moves that wait for the same things have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The destination that they leave.
    pub source: Box<str>,
    /// The destination that they go to.
    pub target: Box<str>,
    /// They run the delta hook.
    pub delta_hook: bool,
}

impl Lane {
    /// A migration's.
    pub fn of(migration: &MigrationRecord) -> Self {
        Self {
            source: migration.source.as_str().into(),
            target: migration.target.as_str().into(),
            delta_hook: migration.delta_hook,
        }
    }
}

/// Moves that wait, the one that was asked for first at the front. A clone shares all of it.
pub type Waiting = RedBlackTreeSetSync<(Rev, MigrationId)>;

/// The unfinished migrations. A clone shares all of it.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    waiting: RedBlackTreeMapSync<Lane, Waiting>,
    active: RedBlackTreeSetSync<MigrationId>,
}

impl Moves {
    /// Those that wait for their fence, by what they wait for.
    pub fn lanes(&self) -> impl Iterator<Item = (&Lane, &Waiting)> {
        self.waiting.iter()
    }

    /// Those that are or were fenced, or over but for their last bookkeeping, or to be ended by an operator's
    /// word.
    pub fn active(&self) -> impl Iterator<Item = &MigrationId> {
        self.active.iter()
    }

    /// The move at the front of a lane.
    pub fn first(&self, lane: &Lane) -> Option<&MigrationId> {
        self.waiting.get(lane)?.first().map(|(_, id)| id)
    }

    /// True for a move that waits, and not at the front.
    pub fn is_behind(&self, id: &MigrationId, migration: &Versioned<MigrationRecord>) -> bool {
        match Place::of(migration) {
            Place::Waiting(lane, _) => self.first(&lane) != Some(id),
            Place::Active | Place::Ended => false,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.active.size() + self.waiting.values().map(Waiting::size).sum::<usize>()
    }

    /// True when everything has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&mut self, id: &MigrationId, migration: &Versioned<MigrationRecord>) {
        match Place::of(migration) {
            Place::Ended => {}
            Place::Active => self.active.insert_mut(id.clone()),
            Place::Waiting(lane, since) => {
                let mut waiting = self.waiting.get(&lane).cloned().unwrap_or_default();
                waiting.insert_mut((since, id.clone()));
                self.waiting.insert_mut(lane, waiting);
            }
        }
    }

    pub(super) fn remove(&mut self, id: &MigrationId, migration: &Versioned<MigrationRecord>) {
        match Place::of(migration) {
            Place::Ended => {}
            Place::Active => drop(self.active.remove_mut(id)),
            Place::Waiting(lane, since) => {
                let Some(mut waiting) = self.waiting.get(&lane).cloned() else {
                    return;
                };
                waiting.remove_mut(&(since, id.clone()));
                if waiting.is_empty() {
                    self.waiting.remove_mut(&lane);
                } else {
                    self.waiting.insert_mut(lane, waiting);
                }
            }
        }
    }
}

/// Where a migration is kept.
enum Place {
    Ended,
    Active,
    Waiting(Lane, Rev),
}

impl Place {
    fn of(migration: &Versioned<MigrationRecord>) -> Self {
        let record = &migration.value;
        if has_ended(record) {
            Self::Ended
        } else if has_turn_to_come(record) {
            Self::Waiting(Lane::of(record), migration.created)
        } else {
            Self::Active
        }
    }
}

/// One whose fence was withdrawn has had its turn: what it waits for now is its own.
fn has_turn_to_come(record: &MigrationRecord) -> bool {
    record.phase() == v1::Phase::Copying
        && record.attempts == 0
        && record.abort_requested_by.is_empty()
}
