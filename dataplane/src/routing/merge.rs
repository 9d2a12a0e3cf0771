//! Merging the overlay into a new base, beside the table.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ferrypost_proto::Record;

use super::{
    RoutingTable,
    account_key::AccountKey,
    base::{Base, BaseBuilder},
    overlay::{Exact, Overlay},
};

/// Accounts in the overlay from which on a merge is worth its while. Below it, a part of the overlay that
/// a delta copies has some sixty entries.
const MERGE_AT: usize = 1 << 14;

/// A new base, and what of an overlay it holds.
#[derive(Debug)]
pub struct Merge {
    /// What it was made from.
    of: Arc<Base>,
    base: Base,
    merged: HashMap<AccountKey, Exact>,
}

impl RoutingTable {
    /// True when the overlay has grown so far that it should be merged.
    pub fn wants_merge(&self) -> bool {
        self.overlay.mergeable() >= MERGE_AT
    }

    /// Builds the base for [`with_merged`](Self::with_merged). Takes about a second for ten million
    /// accounts, so run it where that does not matter.
    pub fn merge(&self) -> Merge {
        let mut builder = BaseBuilder::from_base(&self.base, |key| !self.overlay.masks(key));
        let mut merged = HashMap::new();
        let mut added = HashSet::new();
        for (key, exact) in self.overlay.accounts() {
            let into_base = match exact {
                Exact::Gone => true,
                Exact::Record(record) => {
                    record.fence.is_none()
                        && self.hashes_are_free(record, &mut added)
                        && builder.push(record)
                }
            };
            if into_base {
                merged.insert(key, exact.clone());
            }
        }
        Merge {
            of: Arc::clone(&self.base),
            base: builder.finish_merge(),
            merged,
        }
    }

    /// The same table on a new base; what changed since the merge began stays in the overlay. `None` if
    /// the table has another base by now, from a snapshot: then there is nothing to merge into.
    pub fn with_merged(&self, merge: Merge) -> Option<Self> {
        if !Arc::ptr_eq(&self.base, &merge.of) {
            return None;
        }
        let mut overlay = Overlay::new(&self.hash);
        for (key, exact) in self.overlay.accounts() {
            if merge
                .merged
                .get(&key)
                .is_some_and(|merged| merged.is(exact))
            {
                continue;
            }
            match exact {
                Exact::Record(record) => overlay.insert(Arc::clone(record)),
                Exact::Gone => overlay.mask(key),
            }
        }
        for key in merge.merged.keys() {
            // Merged as a record, and taken away by a delta since.
            if !self.overlay.masks(*key) && merge.base.find(*key).is_some() {
                overlay.mask(*key);
            }
        }
        Some(Self {
            position: self.position.clone(),
            config: Arc::clone(&self.config),
            base: Arc::new(merge.base),
            overlay,
            rejections: Arc::clone(&self.rejections),
            hash: self.hash.clone(),
        })
    }

    /// False if one of the names would share its hash with another account's, which could not be told
    /// apart in a base: such a record stays where its names are exact.
    fn hashes_are_free(&self, record: &Record, added: &mut HashSet<u64>) -> bool {
        let hashes: Vec<_> = record
            .names
            .iter()
            .map(|name| self.base.key().hash(name))
            .collect();
        let free = hashes.iter().all(|hash| {
            !added.contains(&hash.hash)
                && self
                    .base
                    .claims(*hash)
                    .all(|packed| self.overlay.masks(packed.key))
        });
        if free {
            added.extend(hashes.iter().map(|hash| hash.hash));
        }
        free
    }
}
