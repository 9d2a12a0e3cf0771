//! The last changes of routing, in the store's order: what a data plane that comes back is sent in place of
//! a snapshot, and how its history is compared with the store's.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use ferrypost_proto::Head;

use crate::{domain::state::Change, kv::Rev};

/// Changes that are kept. A data plane that was away for longer is sent a snapshot.
pub const CAPACITY: usize = 50_000;

/// All changes of routing of one transaction.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The store revision of the transaction.
    pub revision: Rev,
    /// The nonce that it wrote to `/meta/head`.
    pub nonce: Bytes,
    /// In the store's order. Empty for a head that was moved alone.
    pub changes: Vec<Change>,
}

/// What the log knows about a subscriber's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The head is one of this store's.
    Ours,
    /// This store's history has no such change: the store was restored (G16).
    Foreign,
    /// The log does not reach back so far.
    Forgotten,
}

/// The log. Everything above its *floor* is in it.
#[derive(Debug)]
pub struct ChangeLog {
    entries: VecDeque<Arc<Entry>>,
    changes: usize,
    capacity: usize,
    floor: Rev,
    floor_head: Head,
}

impl ChangeLog {
    /// An empty log that goes on from a loaded state at `floor`, whose last change was `head`.
    pub fn new(floor: Rev, head: Head, capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            changes: 0,
            capacity,
            floor,
            floor_head: head,
        }
    }

    /// Adds the changes of the next transaction and forgets the oldest ones beyond the capacity.
    pub fn append(&mut self, entry: Entry) {
        assert!(entry.revision > self.last(), "the store's order is kept");
        self.changes += weight(&entry);
        self.entries.push_back(Arc::new(entry));
        while self.changes > self.capacity {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.changes -= weight(&oldest);
            self.floor = oldest.revision;
            self.floor_head = Head {
                store: oldest.revision,
                nonce: oldest.nonce.to_vec(),
            };
        }
    }

    /// The transactions after `revision`, oldest first; `None` when some of them are forgotten.
    pub fn since(&self, revision: Rev) -> Option<Vec<Arc<Entry>>> {
        if revision < self.floor {
            return None;
        }
        let start = self.entries.partition_point(|e| e.revision <= revision);
        Some(self.entries.range(start..).cloned().collect())
    }

    /// Whether `head` is a change of this store's history. The caller has made sure that the log reaches
    /// up to it.
    pub fn history(&self, head: &Head) -> History {
        let ours = |nonce: &[u8]| {
            if nonce == head.nonce {
                History::Ours
            } else {
                History::Foreign
            }
        };
        if head.store == self.floor_head.store {
            return ours(&self.floor_head.nonce);
        }
        if head.store < self.floor_head.store {
            return History::Forgotten;
        }
        match self
            .entries
            .binary_search_by_key(&head.store, |e| e.revision)
        {
            Ok(at) => ours(&self.entries[at].nonce),
            // Above the floor's head every change is in the log.
            Err(_) => History::Foreign,
        }
    }

    /// The last change at or below `revision`; `None` when it is forgotten.
    pub fn head_at(&self, revision: Rev) -> Option<Head> {
        if revision < self.floor {
            return None;
        }
        let end = self.entries.partition_point(|e| e.revision <= revision);
        Some(match end.checked_sub(1).map(|last| &self.entries[last]) {
            Some(entry) => Head {
                store: entry.revision,
                nonce: entry.nonce.to_vec(),
            },
            None => self.floor_head.clone(),
        })
    }

    fn last(&self) -> Rev {
        self.entries.back().map_or(self.floor, |e| e.revision)
    }
}

/// An entry without changes takes room too.
fn weight(entry: &Entry) -> usize {
    entry.changes.len().max(1)
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::AccountId;
    use ferrypost_runtime::Random;
    use proptest::prelude::*;

    use super::*;

    fn head(store: Rev) -> Head {
        Head {
            store,
            nonce: store.to_be_bytes().to_vec(),
        }
    }

    fn entry(revision: Rev, changes: usize) -> Entry {
        let random = Random::seeded(revision);
        Entry {
            revision,
            nonce: revision.to_be_bytes().to_vec().into(),
            changes: (0..changes)
                .map(|_| Change::Removed(AccountId::generate(random.bytes())))
                .collect(),
        }
    }

    fn revisions(log: &ChangeLog, since: Rev) -> Option<Vec<Rev>> {
        log.since(since)
            .map(|entries| entries.iter().map(|e| e.revision).collect())
    }

    #[test]
    fn deltas_reach_back_to_the_floor_and_no_further() {
        let mut log = ChangeLog::new(5, head(3), 3);
        for revision in [7, 8, 11] {
            log.append(entry(revision, 1));
        }
        assert_eq!(revisions(&log, 5), Some(vec![7, 8, 11]));
        assert_eq!(revisions(&log, 9), Some(vec![11]));
        assert_eq!(revisions(&log, 11), Some(vec![]));
        assert_eq!(revisions(&log, 4), None);
        log.append(entry(12, 2));
        assert_eq!(revisions(&log, 7), None, "two were forgotten for two");
        assert_eq!(revisions(&log, 8), Some(vec![11, 12]));
    }

    #[test]
    fn a_history_is_told_from_another_by_its_nonces() {
        let mut log = ChangeLog::new(5, head(3), 10);
        log.append(entry(7, 1));
        assert_eq!(log.history(&head(3)), History::Ours);
        assert_eq!(log.history(&head(7)), History::Ours);
        assert_eq!(log.history(&head(2)), History::Forgotten);
        assert_eq!(
            log.history(&head(4)),
            History::Foreign,
            "nothing was changed at 4"
        );
        assert_eq!(log.history(&head(6)), History::Foreign);
        let other = Head {
            store: 7,
            nonce: b"other".to_vec(),
        };
        assert_eq!(log.history(&other), History::Foreign);
        let other = Head {
            store: 3,
            nonce: b"other".to_vec(),
        };
        assert_eq!(log.history(&other), History::Foreign);
    }

    proptest! {
        /// Whatever is forgotten, what is answered is complete.
        #[test]
        fn an_answer_has_every_change(
            steps in prop::collection::vec((1_u64..4, 0_usize..4), 1..40),
            capacity in 1_usize..20,
        ) {
            let mut log = ChangeLog::new(1, head(1), capacity);
            let mut all = Vec::new();
            let mut revision = 1;
            for (step, changes) in steps {
                revision += step;
                log.append(entry(revision, changes));
                all.push(revision);
            }
            for since in 0..=revision {
                if let Some(got) = revisions(&log, since) {
                    let want: Vec<_> = all.iter().copied().filter(|r| *r > since).collect();
                    prop_assert_eq!(got, want);
                    let last = all.iter().copied().filter(|r| *r <= since).max();
                    prop_assert_eq!(log.head_at(since), Some(head(last.unwrap_or(1))));
                }
            }
        }
    }
}
