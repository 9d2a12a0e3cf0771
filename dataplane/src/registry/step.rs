//! The two steps that race: an admission, and the close after a new table.
//!
//! Both look at the table in force *while they hold the shard's lock*. The publisher swaps the table first
//! and closes afterwards, so of an admission and a close under one subject, whichever takes the lock second
//! sees what the first did: either the close finds the entry, or the admission finds the new table. With
//! the look-up before the lock neither might.
//!
//! Generic over both primitives, so that the model below runs this very code.

use std::sync::{Mutex, PoisonError};

use ferrypost_routing::Resolution;

use super::{Subject, entry::CloseReason, shard::Shard};
use crate::tables::Published;

/// A lock around a `T`.
pub(super) trait Lock<T> {
    /// Runs `work` with the lock held. Short, and never I/O.
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R;
}

impl<T> Lock<T> for Mutex<T> {
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // A panic ends one session; its shard is still consistent, for no step leaves an entry half done.
        work(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Resolves a subject and lets `enter` insert the entry that goes with the answer.
pub(super) fn admit<R>(
    shard: &impl Lock<Shard>,
    tables: &impl Published,
    subject: &Subject,
    enter: impl FnOnce(&mut Shard, Option<Resolution>) -> R,
) -> R {
    shard.with(|shard| {
        let resolution = tables.with_current(|table| table.map(|table| subject.resolve(table)));
        enter(shard, resolution)
    })
}

/// Closes what the table in force no longer allows under a subject. `before` runs first, under the same
/// lock.
pub(super) fn close_changed(
    shard: &impl Lock<Shard>,
    tables: &impl Published,
    subject: &Subject,
    before: impl FnOnce(&mut Shard),
) {
    shard.with(|shard| {
        before(shard);
        if let Some(now) = tables.with_current(|table| table.map(|table| subject.resolve(table))) {
            shard.close_changed(subject, &now);
        }
    });
}

/// The same for every subject of the shard. Without a table nobody may stay.
pub(super) fn sweep(shard: &impl Lock<Shard>, tables: &impl Published) {
    shard.with(|shard| {
        tables.with_current(|table| match table {
            Some(table) => shard.sweep(|subject| subject.resolve(table)),
            None => shard.close_all(CloseReason::Moved),
        });
    });
}

#[cfg(test)]
mod model {
    //! Every interleaving of an admission with a new table and its close, under loom. The very steps above
    //! run on loom's primitives; two threads share nothing else.

    use std::panic::catch_unwind;

    use ferrypost_proto::{Phase, v1::Protocol};
    use loom::{
        sync::{Arc, Mutex, RwLock},
        thread,
    };
    use tokio::{sync::Notify, time::Instant};

    use super::*;
    use crate::registry::{AdmitRequest, OnFence, SessionKind, entry::Entry, ledger::Ledger};
    use ferrypost_routing::{KeyedState, RoutingTable, testing};

    struct LoomLock(Mutex<Shard>);

    impl Lock<Shard> for LoomLock {
        fn with<R>(&self, work: impl FnOnce(&mut Shard) -> R) -> R {
            work(&mut self.0.lock().expect("no panic under the lock"))
        }
    }

    struct LoomTables(RwLock<std::sync::Arc<RoutingTable>>);

    impl Published for LoomTables {
        fn with_current<R>(&self, read: impl FnOnce(Option<&RoutingTable>) -> R) -> R {
            read(Some(&**self.0.read().expect("no panic under the lock")))
        }
    }

    impl LoomTables {
        fn publish(&self, table: std::sync::Arc<RoutingTable>) {
            *self.0.write().expect("no panic under the lock") = table;
        }
    }

    type Step = fn(&LoomLock, &LoomTables);

    fn alice() -> Subject {
        Subject::Name(testing::name("alice"))
    }

    fn enter(shard: &mut Shard, resolution: Option<Resolution>) {
        if let Some(Resolution::Route(route)) = resolution {
            let request = AdmitRequest {
                subject: alice(),
                kind: SessionKind::Session,
                on_fence: OnFence::Hold,
                protocol: Protocol::Imap,
                client: None,
                reference: String::new(),
            };
            let entry = Entry::new(request, Some(route), Instant::now());
            shard.insert(std::sync::Arc::new(entry));
        }
    }

    fn tables() -> [std::sync::Arc<RoutingTable>; 2] {
        let settled = testing::entry(1, &["alice"], "source", 5);
        let fenced = testing::moving(settled.clone(), Phase::Fencing, None);
        [settled, fenced].map(|entry| std::sync::Arc::new(testing::table(5, vec![entry])))
    }

    /// Lets an admission race with the publication of a fence and its close, in every way, and looks for
    /// a session that survived.
    fn race(admission: Step, publication: Step) {
        let [open, _] = tables();
        let hash = KeyedState::new(&testing::random());
        loom::model(move || {
            let shard = Arc::new(LoomLock(Mutex::new(Shard::new(hash.clone()))));
            let tables = Arc::new(LoomTables(RwLock::new(std::sync::Arc::clone(&open))));
            let admitting = {
                let (shard, tables) = (Arc::clone(&shard), Arc::clone(&tables));
                thread::spawn(move || admission(&shard, &tables))
            };
            publication(&shard, &tables);
            admitting.join().expect("the admission does not panic");
            let alice = alice();
            shard.with(|shard| {
                let survivors = shard
                    .under(&alice)
                    .filter(|entry| entry.close_reason().is_none());
                assert_eq!(survivors.count(), 0, "a session survived the fence");
            });
        });
    }

    fn the_admission(shard: &LoomLock, tables: &LoomTables) {
        admit(shard, tables, &alice(), enter);
    }

    fn the_publication(shard: &LoomLock, now: &LoomTables) {
        let [_, fenced] = tables();
        now.publish(fenced);
        close_changed(shard, now, &alice(), |_| ());
    }

    #[test]
    fn no_session_survives_a_fence() {
        race(the_admission, the_publication);
    }

    #[test]
    fn no_session_survives_a_sweep() {
        race(the_admission, |shard, now| {
            let [_, fenced] = tables();
            now.publish(fenced);
            sweep(shard, now);
        });
    }

    #[test]
    fn registering_after_the_look_up_is_caught() {
        let broken: Step = |shard, tables| {
            let resolution = tables.with_current(|table| table.map(|table| alice().resolve(table)));
            shard.with(|shard| enter(shard, resolution));
        };
        assert!(catch_unwind(|| race(broken, the_publication)).is_err());
    }

    #[test]
    fn closing_before_the_publication_is_caught() {
        let broken: Step = |shard, now| {
            let [open, fenced] = tables();
            now.publish(open);
            close_changed(shard, now, &alice(), |_| ());
            now.publish(fenced);
        };
        assert!(catch_unwind(|| race(the_admission, broken)).is_err());
    }

    #[test]
    fn whoever_counts_no_session_left_reads_final_numbers() {
        let [open, _] = tables();
        let hash = KeyedState::new(&testing::random());
        loom::model(move || {
            let shard = Arc::new(LoomLock(Mutex::new(Shard::new(hash.clone()))));
            let now = LoomTables(RwLock::new(std::sync::Arc::clone(&open)));
            let ledger = std::sync::Arc::new(Ledger::new(std::sync::Arc::new(Notify::new())));
            the_admission(&shard, &now);
            let entry = shard.with(|shard| {
                shard.count_on(&alice(), &ledger, None);
                std::sync::Arc::clone(shard.under(&alice()).next().expect("a session"))
            });
            let leaving = {
                let shard = Arc::clone(&shard);
                thread::spawn(move || {
                    shard.with(|shard| shard.remove(&entry, Some(Instant::now())));
                })
            };
            if shard.with(|shard| shard.routed(&alice())) == 0 {
                assert_eq!((ledger.closed(), ledger.unconfirmed()), (1, 1));
            }
            leaving.join().expect("the end does not panic");
        });
    }
}
