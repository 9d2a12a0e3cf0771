//! Fences on this data plane: what each published table closes, and when its fences are drained.
//!
//! The order is everything (G2). The table is published first, so that every admission under the lock of a
//! name's shard sees it; then [`Fences::settle`] closes, name by name under the same locks, what the
//! table fences or sends elsewhere. From then on the number of sessions of a fenced account only falls,
//! and the fence is *drained* when it is zero. What their ends were like stands on the fence's ledger.
//!
//! A fence ends with a table that no longer holds it, and in no other way: not by a clock, not by the
//! loss of the control plane (G10).

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_proto::{
    AccountId, DestinationId, Epoch, MigrationId, Name, Record, TraceParent,
    routing::v1::{Drained, DrainedAccount, Draining},
};
use ferrypost_routing::{RoutingTable, Touched};
use ferrypost_runtime::telemetry::Origin;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::debug_span;

use crate::registry::{Ledger, Registry, Subject};
#[cfg(feature = "sabotage")]
use crate::sabotage::sessions_left;

/// Between two reports of one fence's progress.
const DRAINING_EVERY: Duration = Duration::from_secs(1);

/// Between two sweeps for dropped names, so that removing accounts one by one costs no more than
/// removing them at once.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The fences of the table in force. One task settles tables, one (it may be the same) reports.
#[derive(Debug)]
pub struct Fences {
    registry: Arc<Registry>,
    /// Locked before any shard of the registry, never while one is held.
    state: Mutex<FenceState>,
    /// A fence began or ended, or a session of one is over.
    changed: Arc<Notify>,
    /// Names were dropped.
    sweep: Notify,
}

#[derive(Debug, Default)]
struct FenceState {
    fences: BTreeMap<(AccountId, Epoch), Fence>,
    /// Where somebody is fenced.
    at: BTreeSet<DestinationId>,
}

/// One account's fence, from the table that brings it to the table that ends it.
#[derive(Debug)]
struct Fence {
    migration: Option<MigrationId>,
    /// The trace of the move, so that what is done here for it can be found with the rest.
    trace: Option<TraceParent>,
    names: BTreeSet<Name>,
    ledger: Arc<Ledger>,
    begun: Instant,
    /// The span of its draining is written.
    drained: bool,
    /// Drained was said on this connection.
    reported: bool,
    /// Progress is not said before this.
    next_draining: Instant,
}

/// What the control plane is told.
#[derive(Debug, Clone, PartialEq)]
pub enum FenceReport {
    /// No session is left. Every drained account of the migration, each time.
    Drained(Drained),
    /// Some are.
    Draining(Draining),
}

impl Fences {
    /// No fence yet.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            state: Mutex::default(),
            changed: Arc::new(Notify::new()),
            sweep: Notify::new(),
        }
    }

    /// Closes what a table fences or sends elsewhere. The table was published before; tables are settled
    /// one after the other, in the order in which they were published.
    pub fn settle(&self, table: &RoutingTable, touched: &Touched) {
        self.begin_and_end(table);
        for name in &touched.names {
            self.registry.close_changed(&Subject::from(name));
        }
        if touched.all {
            self.registry.sweep();
        }
        if touched.dropped {
            self.sweep.notify_one();
        }
        self.changed.notify_one();
    }

    /// Sweeps up after dropped names, for as long as the data plane runs.
    pub async fn tend(&self) -> Infallible {
        loop {
            self.sweep.notified().await;
            self.registry.sweep();
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    /// A new connection to the control plane: everything is said again (rule 7).
    pub fn reconnected(&self) {
        for fence in self.lock().fences.values_mut() {
            fence.reported = false;
        }
        self.changed.notify_one();
    }

    /// Waits for the next thing to report. Cancel-safe: what was not returned is not lost.
    pub async fn report(&self) -> FenceReport {
        loop {
            match self.due(Instant::now()) {
                Due::Now(report) => return report,
                Due::Never => self.changed.notified().await,
                Due::At(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// Closes everybody: no table is in force any more.
    pub fn close_everybody(&self) {
        self.lock().fences.clear();
        self.registry.sweep();
    }

    /// Sessions that are left under these names.
    pub fn left_under(&self, names: &BTreeSet<Name>) -> usize {
        sessions_left(&self.registry, names)
    }

    /// Sessions that are left under any name.
    pub fn left(&self) -> usize {
        self.registry.counts().sessions
    }

    fn begin_and_end(&self, table: &RoutingTable) {
        let mut state = self.lock();
        let mut ended: BTreeSet<_> = state.fences.keys().cloned().collect();
        for record in table.fenced() {
            let Some(epoch) = record.fence else { continue };
            let key = (record.account.clone(), epoch);
            ended.remove(&key);
            let fence = state
                .fences
                .entry(key)
                .or_insert_with(|| Fence::new(record, Arc::clone(&self.changed)));
            for name in &record.names {
                // Names of a held account do not change; one that is new all the same is fenced too.
                if fence.names.insert(name.clone()) {
                    self.registry.fence(name, &fence.ledger);
                }
            }
        }
        for key in ended {
            if let Some(fence) = state.fences.remove(&key) {
                fence.has_ended();
            }
        }
        let at = table.fenced_at();
        for destination in at.difference(&state.at) {
            let somebody = Subject::SomebodyAt(destination.clone());
            self.registry.close_changed(&somebody);
        }
        state.at = at;
    }

    fn due(&self, now: Instant) -> Due {
        let mut state = self.lock();
        let mut next = None;
        let mut drained = None;
        for ((account, epoch), fence) in &mut state.fences {
            if fence.reported || fence.migration.is_none() {
                continue;
            }
            match sessions_left(&self.registry, &fence.names) {
                0 => drained = drained.or_else(|| fence.migration.clone()),
                left if fence.next_draining <= now => {
                    fence.next_draining = now + DRAINING_EVERY;
                    return Due::Now(FenceReport::Draining(fence.draining(account, *epoch, left)));
                }
                _ => {
                    let at = fence.next_draining;
                    next = Some(next.map_or(at, |next: Instant| next.min(at)));
                }
            }
        }
        match (drained, next) {
            (Some(migration), _) => {
                Due::Now(FenceReport::Drained(self.drained(&mut state, &migration)))
            }
            (None, Some(at)) => Due::At(at),
            (None, None) => Due::Never,
        }
    }

    /// Every drained account of a migration.
    fn drained(&self, state: &mut FenceState, migration: &MigrationId) -> Drained {
        let mut accounts = Vec::new();
        for ((account, epoch), fence) in &mut state.fences {
            if fence.migration.as_ref() == Some(migration)
                && sessions_left(&self.registry, &fence.names) == 0
            {
                fence.reported = true;
                fence.has_drained();
                accounts.push(DrainedAccount {
                    account_id: account.as_str().to_owned(),
                    fence_epoch: Some((*epoch).into()),
                    closed: fence.ledger.closed(),
                    unconfirmed: fence.ledger.unconfirmed(),
                });
            }
        }
        Drained {
            migration_id: migration.as_str().to_owned(),
            accounts,
        }
    }

    fn lock(&self) -> MutexGuard<'_, FenceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many sessions a fence of these names still waits for.
#[cfg(not(feature = "sabotage"))]
fn sessions_left(registry: &Registry, names: &BTreeSet<Name>) -> usize {
    registry.routed_under(names)
}

/// When there is something to report.
enum Due {
    Now(FenceReport),
    At(Instant),
    Never,
}

impl Fence {
    fn new(record: &Record, changed: Arc<Notify>) -> Self {
        let fence = Self {
            migration: record.migration.clone(),
            trace: record.trace,
            names: BTreeSet::new(),
            ledger: Arc::new(Ledger::new(changed)),
            begun: Instant::now(),
            drained: false,
            reported: false,
            next_draining: Instant::now(),
        };
        fence.log("a fence begins");
        fence
    }

    fn log(&self, what: &'static str) {
        let migration = self.migration();
        let trace = self.trace.map(|trace| trace.trace_id());
        let trace = trace.map(tracing::field::display);
        tracing::debug!(migration, trace, closed = self.ledger.closed(), "{what}");
    }

    /// Says so each time that it is reported, and how long it took once.
    fn has_drained(&mut self) {
        if !self.drained {
            self.drained = true;
            drop(self.origin().make(|| {
                debug_span!(
                    "drain",
                    ferrypost.migration.id = self.migration(),
                    ferrypost.fence.closed = self.ledger.closed(),
                    ferrypost.fence.unconfirmed = self.ledger.unconfirmed(),
                )
            }));
        }
        self.log("a fence is drained");
    }

    /// Logins go through again: what was held, was held for so long at most.
    fn has_ended(&self) {
        drop(self.origin().make(|| {
            debug_span!(
                "fence",
                ferrypost.migration.id = self.migration(),
                ferrypost.fence.drained = self.drained,
            )
        }));
    }

    /// In the trace of the move, from the beginning of the fence on.
    fn origin(&self) -> Origin {
        let parent = self.trace.map(|trace| trace.parent());
        Origin::after(parent).begun(self.begun.elapsed())
    }

    fn migration(&self) -> Option<&str> {
        self.migration.as_ref().map(MigrationId::as_str)
    }

    fn draining(&self, account: &AccountId, epoch: Epoch, left: usize) -> Draining {
        Draining {
            migration_id: self
                .migration
                .as_ref()
                .map_or_else(String::new, |id| id.as_str().to_owned()),
            account_id: account.as_str().to_owned(),
            fence_epoch: Some(epoch.into()),
            sessions_left: u32::try_from(left).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
