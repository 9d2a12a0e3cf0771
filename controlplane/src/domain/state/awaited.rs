//! The records that somebody waits for every data plane to apply.

use std::ops::Bound;

use ferrypost_proto::{Phase, Revision};
use rpds::RedBlackTreeMapSync;

use super::Account;
use crate::kv::Rev;

/// The epochs of records before their fence and after their flip, with how many have each: those of a set
/// share theirs. A clone shares all of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited(RedBlackTreeMapSync<Rev, usize>);

impl Awaited {
    pub(super) fn insert(&mut self, account: &Account) {
        if is_awaited(account) {
            let others = self.0.get(&account.epoch()).copied().unwrap_or_default();
            self.0.insert_mut(account.epoch(), others + 1);
        }
    }

    pub(super) fn remove(&mut self, account: &Account) {
        if !is_awaited(account) {
            return;
        }
        match self.0.get(&account.epoch()).copied() {
            Some(several) if several > 1 => self.0.insert_mut(account.epoch(), several - 1),
            _ => drop(self.0.remove_mut(&account.epoch())),
        }
    }

    /// True if there is one above `before`, up to `applied`, counted from `base`.
    pub(super) fn is_any_between(&self, base: u64, before: Revision, applied: Revision) -> bool {
        if before.base() > base || applied.base() < base || before >= applied {
            return false;
        }
        let above = if before.base() == base {
            Bound::Excluded(before.store())
        } else {
            Bound::Unbounded
        };
        let up_to = if applied.base() == base {
            Bound::Included(applied.store())
        } else {
            Bound::Unbounded
        };
        self.0.range((above, up_to)).next().is_some()
    }
}

fn is_awaited(account: &Account) -> bool {
    matches!(account.phase(), Some(Phase::Copying | Phase::Flipped))
}
