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

#[cfg(test)]
mod tests {
    use ferrypost_proto::Name;

    use super::*;
    use crate::{BuildError, Resolution, hash::NameKey, testing::*};

    fn records(n: u64) -> Vec<ferrypost_proto::routing::v1::AccountEntry> {
        (0..n)
            .map(|n| {
                entry(
                    n,
                    &[&format!("user{n}"), &format!("u{n}@a.example")],
                    "third",
                    5,
                )
            })
            .collect()
    }

    fn home(table: &RoutingTable, name: &Name) -> Option<String> {
        match table.resolve(name) {
            Resolution::Route(route) => route.account.map(|_| route.destination.into()),
            _ => None,
        }
    }

    fn on_base(table: RoutingTable, base: Base) -> RoutingTable {
        RoutingTable {
            base: Arc::new(base),
            ..table
        }
    }

    #[test]
    fn names_that_share_a_hash_stay_exact() {
        let weak = BaseBuilder::with_key(NameKey::weak(&random())).finish_merge();
        let mut followed = on_base(table(5, vec![]), weak);
        // Under a key with 256 hashes most of a thousand names collide. They are inserted exactly, as the
        // table would with a key that does not: the claim check reads hashes too.
        for entry in records(500) {
            let record = crate::draft::check_alone(&entry, &followed.config).unwrap();
            followed.overlay.insert(Arc::new(record));
        }
        let merged = followed
            .with_merged(followed.merge())
            .expect("the same base");
        let exact = merged.overlay.accounts().count();
        assert!((250..500).contains(&exact), "{exact} stayed exact");
        for n in 0..500 {
            for login in [format!("user{n}"), format!("u{n}@a.example")] {
                assert_eq!(
                    home(&merged, &name(&login)).as_deref(),
                    Some("third"),
                    "{login}"
                );
            }
        }
    }

    #[test]
    fn a_snapshot_with_two_names_of_one_hash_asks_for_another_key() {
        let mut builder = BaseBuilder::with_key(NameKey::weak(&random()));
        for entry in records(500) {
            let record = crate::draft::check_alone(
                &entry,
                &ferrypost_proto::RoutingConfig::try_from(&config()).unwrap(),
            );
            builder.push(&record.unwrap());
        }
        assert_eq!(builder.finish(|_| None).err(), Some(BuildError::Collision));
    }

    #[test]
    fn a_merge_empties_the_overlay_and_keeps_what_changed_since() {
        let start = table(5, records(10));
        let grown = start
            .apply(delta(
                5,
                6,
                (10..20).map(|n| put(records(20)[n].clone())).collect(),
            ))
            .expect("applies")
            .table;
        let merge = grown.merge();
        let later = grown
            .apply(delta(
                6,
                7,
                vec![removed(12), put(entry(13, &["user13"], "target", 7))],
            ))
            .expect("applies")
            .table;
        let merged = later.with_merged(merge).expect("the same base");
        assert_eq!(merged.overlay.accounts().count(), 2);
        assert_eq!(home(&merged, &name("user11")).as_deref(), Some("third"));
        assert_eq!(home(&merged, &name("user12")), None);
        assert_eq!(home(&merged, &name("user13")).as_deref(), Some("target"));
        assert_eq!(home(&merged, &name("u13@a.example")), None);
        assert!(start.with_merged(merged.merge()).is_none(), "another base");
    }

    #[test]
    fn a_table_asks_for_a_merge_when_its_overlay_has_grown() {
        let start = table(5, vec![]);
        assert!(!start.wants_merge());
        let many = (0..MERGE_AT as u64)
            .map(|n| put(entry(n, &[&format!("user{n}")], "third", 6)))
            .collect();
        let grown = start.apply(delta(5, 6, many)).expect("applies").table;
        assert!(grown.wants_merge());
        let merged = grown.with_merged(grown.merge()).expect("the same base");
        assert!(!merged.wants_merge());
    }
}
