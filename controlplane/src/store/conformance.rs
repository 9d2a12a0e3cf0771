//! One suite for every store: what the trait promises, each promise a test by its name.
//!
//! A case is an async function that is given an empty store. [`conformance!`] makes a module of
//! tests of all of them for one kind of store; what only one kind can show is beside that kind.

mod compaction;
mod leases;
mod reads;
mod transactions;
mod watches;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tempfile::TempDir;
use tokio::time::timeout;

use super::embedded::{EmbeddedConfig, EmbeddedStore};
use super::testing::EtcdServer;
use super::{Event, Rev, Store, Txn, TxnOutcome, WatchBatch, WatchError, WatchStream};

/// How long anything may take that must happen. Only failing tests wait so long.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// A kind of store, as an empty one of it.
pub(super) trait Subject: Send + Sync + Sized {
    async fn start() -> Self;
    fn store(&self) -> Arc<dyn Store>;
}

pub(super) struct Embedded {
    store: Arc<EmbeddedStore>,
    _directory: TempDir,
}

impl Subject for Embedded {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(directory.path().join("store"));
        let store = Arc::new(EmbeddedStore::open(config).await.unwrap());
        Self {
            store,
            _directory: directory,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }
}

/// A server that nobody else uses meanwhile, and others have used before.
pub(super) struct Etcd {
    store: Arc<dyn Store>,
    server: Option<EtcdServer>,
}

/// Servers that wait for the next case.
static IDLE: Mutex<Vec<EtcdServer>> = Mutex::new(Vec::new());

impl Subject for Etcd {
    async fn start() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("conformance-{}", CASES.fetch_add(1, Ordering::Relaxed));
        let idle = IDLE.lock().unwrap().pop();
        let server = match idle {
            Some(server) => server,
            None => EtcdServer::start_static().await,
        };
        Self {
            store: Arc::new(server.store(&prefix).await),
            server: Some(server),
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            IDLE.lock().unwrap().extend(self.server.take());
        }
    }
}

/// A server of its own, for cases that change its history or leave something behind that changes it later.
pub(super) struct OwnEtcd {
    store: Arc<dyn Store>,
    _server: EtcdServer,
}

impl Subject for OwnEtcd {
    async fn start() -> Self {
        let server = EtcdServer::start().await;
        Self {
            store: Arc::new(server.store("conformance").await),
            _server: server,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }
}

macro_rules! conformance {
    ($kind:ident, $subject:ty, [$($group:ident { $($case:ident,)* })*]) => {
        mod $kind {
            use super::*;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let subject = <$subject>::start().await;
                    $group::$case(subject.store()).await;
                }
            )*)*
        }
    };
}

macro_rules! conformance_of_both {
    (alone: [$($alone:tt)*] $($cases:tt)*) => {
        conformance!(embedded, Embedded, [$($alone)* $($cases)*]);
        conformance!(etcd, Etcd, [$($cases)*]);
        conformance!(etcd_alone, OwnEtcd, [$($alone)*]);
    };
}

conformance_of_both! {
    alone: [
        compaction {
            compacted_revisions_cannot_be_read_and_later_ones_can,
            compaction_in_the_middle_of_a_load_is_noticed,
            compacting_twice_or_too_far_is_no_error,
            a_compacted_past_ends_the_watch,
            compaction_does_not_disturb_a_watch_that_keeps_up,
        }
        leases {
            a_lease_that_nobody_keeps_ends_and_takes_its_keys,
            a_lease_that_is_kept_stays,
            a_revoked_lease_takes_its_keys_at_once,
            a_lost_lease_cannot_be_kept_or_used,
            a_key_that_is_written_without_its_lease_is_free_of_it,
            a_lease_moves_with_the_last_write,
            the_end_of_a_lease_is_one_revision_of_the_watch,
            a_failed_guard_goes_before_a_lost_lease,
        }
    ]
    transactions {
        a_put_is_read_back_with_its_revisions,
        a_key_that_comes_back_is_created_again,
        revisions_rise_with_every_change_and_only_then,
        all_writes_of_a_transaction_have_one_revision,
        guards_hold_exactly_when_they_should,
        one_failed_guard_stops_everything,
        a_transaction_without_writes_only_judges,
        of_many_that_compare_and_swap_one_wins,
        increments_under_contention_are_all_counted,
        the_largest_transactions_are_taken,
        one_past_a_limit_is_too_large,
        malformed_transactions_are_refused,
        keys_and_values_may_hold_any_bytes,
    }
    reads {
        a_new_store_is_empty_and_above_revision_zero,
        a_range_is_what_starts_with_the_prefix_in_order,
        a_store_is_read_whole_unless_it_is_too_large,
        a_pinned_load_is_one_picture_while_writes_go_on,
        a_pinned_read_sees_what_was_deleted_since,
        the_future_cannot_be_read,
        reads_see_what_was_acknowledged_before,
    }
    watches {
        the_past_is_told_from_the_asked_revision_on,
        revision_zero_is_the_beginning,
        what_happens_is_told_as_it_happens,
        a_transaction_is_told_whole,
        many_writers_leave_no_gap_and_no_repetition,
        a_watch_goes_on_where_another_stopped,
        two_watches_are_told_the_same,
        an_idle_watch_reports_progress,
        progress_never_overtakes_an_event,
        deletions_of_absent_keys_are_not_told,
        a_load_and_a_watch_from_it_miss_nothing,
        a_watch_from_the_future_waits_for_it,
        a_long_history_comes_in_whole_revisions,
    }
}

/// Commits, and says at which revision.
pub(super) async fn commit(store: &Arc<dyn Store>, txn: Txn) -> Rev {
    store
        .transact(txn)
        .await
        .unwrap()
        .committed()
        .expect("no guard can fail")
}

pub(super) async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Rev {
    commit(store, Txn::new().put(key, value.to_owned())).await
}

pub(super) fn is_conflict(outcome: TxnOutcome) -> bool {
    matches!(outcome, TxnOutcome::Conflict { .. })
}

/// The next item of a watch, which must come.
pub(super) async fn next(watch: &mut WatchStream) -> Result<WatchBatch, WatchError> {
    timeout(LIMIT, watch.next())
        .await
        .expect("the watch is silent")
        .expect("the watch has ended")
}

/// Follows a watch until it has told everything up to `revision`, and checks on the way that it
/// keeps its promises.
pub(super) async fn events_up_to(watch: &mut WatchStream, revision: Rev) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut told = 0;
    while told < revision {
        let batch = next(watch).await.unwrap();
        assert!(
            batch.revision >= told,
            "a watch fell from {told} to {}",
            batch.revision
        );
        for event in batch.events {
            let at = event.mod_revision();
            assert!(at > told || told == 0, "{at} was told after {told}");
            assert!(
                at <= batch.revision,
                "{at} lies beyond its batch of {}",
                batch.revision
            );
            assert!(
                events.last().is_none_or(|last| last.mod_revision() <= at),
                "out of order"
            );
            events.push(event);
        }
        told = batch.revision;
    }
    events
}

/// Whether a watch has nothing to say at the moment.
pub(super) fn is_silent(watch: &mut WatchStream) -> bool {
    watch.next().now_or_never().is_none()
}

/// `key=value` for a put, `-key` for a deletion: events that are easy to compare.
pub(super) fn told(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::Put(entry) => format!("{}={}", text(&entry.key), text(&entry.value)),
            Event::Delete { key, .. } => format!("-{}", text(key)),
        })
        .collect()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
