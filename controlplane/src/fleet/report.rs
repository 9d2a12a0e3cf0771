//! What a data plane says, on its way into the store.
//!
//! The stream puts down what should be there; one task writes the difference, again and again until
//! the store takes it. So a store that is away holds up no heartbeat, and what was said twice is
//! written once. At every heartbeat it looks whether what it wrote is still there: a write of an
//! earlier stream may come late, and a data plane says most things only once.

use std::{collections::BTreeMap, time::Duration};

use ferrypost_proto::{MigrationId, Revision, store::v1 as stored, v1};
use ferrypost_runtime::Backoff;
use tokio::{sync::watch, time};

use super::{Fleet, join::Joined};
use crate::{
    domain::state::State,
    store::{LeaseId, Rev, StoreError, Txn, TxnOutcome, keys, value::Stored},
};

/// What the store should hold for one data plane.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlaneReport {
    /// `/live`, while it answers.
    pub(super) live: Option<stored::Live>,
    /// What it has applied. It goes into `/live` when a migration waits for it.
    pub(super) applied: Option<Revision>,
    /// Its reports on fences.
    pub(super) drained: BTreeMap<MigrationId, stored::DrainedReport>,
}

/// What it holds, as far as this stream has written it.
#[derive(Default)]
struct Written {
    live: Option<(stored::Live, LeaseId, Rev)>,
    /// With the revision of the write; `None` when it was refused, since its word does not count.
    drained: BTreeMap<MigrationId, (stored::DrainedReport, Option<Rev>)>,
}

impl Written {
    /// False if `/live`, as this stream wrote it, was removed or written over by an older stream of this
    /// replica. What another replica writes is its own: see [`is_taken_over`].
    fn live_stands(&self, state: &State, joined: &Joined, replica: &str) -> bool {
        let Some((_, _, revision)) = self.live else {
            return false;
        };
        state.revision() < revision
            || state
                .live()
                .get(&joined.instance)
                .is_some_and(|live| live.revision == revision || live.value.replica != replica)
    }

    /// False if a report is not in the store as it should be, while its fence lasts.
    fn drained_stands(
        &self,
        state: &State,
        joined: &Joined,
        migration: &MigrationId,
        report: &stored::DrainedReport,
    ) -> bool {
        match self.drained.get(migration) {
            Some((written, revision)) if written == report => {
                revision.is_none_or(|revision| state.revision() < revision)
                    || !is_running(state, migration)
                    || state
                        .drained(migration)
                        .and_then(|reports| reports.get(&joined.instance))
                        .is_some_and(|there| {
                            // A late write of an earlier stream may be about an earlier fence.
                            there.value.boot == report.boot
                                && there.value.accounts == report.accounts
                        })
            }
            _ => false,
        }
    }
}

impl Fleet {
    /// Writes reports until the stream is dropped, then removes `/live`.
    pub(super) async fn write_reports(
        &self,
        joined: &Joined,
        mut reports: watch::Receiver<PlaneReport>,
    ) {
        let mut written = Written::default();
        let mut lease = self.0.lease.clone();
        let mut backoff = Backoff::new(
            self.0.options.random.clone(),
            Duration::from_millis(50),
            Duration::from_secs(1),
        );
        loop {
            let report = reports.borrow_and_update().clone();
            let current = *lease.borrow_and_update();
            match self
                .write_difference(joined, &report, current, &mut written)
                .await
            {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::warn!(instance = %joined.instance, %error, "a report is not written yet");
                    time::sleep(backoff.pause()).await;
                    if reports.has_changed().is_err() {
                        break;
                    }
                    continue;
                }
            }
            tokio::select! {
                changed = reports.changed() => if changed.is_err() { break },
                // The keeper lives as long as the fleet.
                _ = lease.changed() => {}
            }
        }
        self.remove_live(joined, &mut written).await;
    }

    async fn write_difference(
        &self,
        joined: &Joined,
        report: &PlaneReport,
        lease: Option<LeaseId>,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let state = self.mirror().read();
        for (migration, drained) in &report.drained {
            if !written.drained_stands(&state, joined, migration, drained) {
                let revision = self.write_drained(joined, migration, drained).await?;
                let drained = (drained.clone(), revision);
                written.drained.insert(migration.clone(), drained);
            }
        }
        written
            .drained
            .retain(|migration, _| report.drained.contains_key(migration));
        match (&report.live, lease) {
            (Some(live), Some(lease)) => {
                let live = with_applied(live, report.applied, written, &state);
                let replica = self.0.options.replica.as_str();
                let same = written
                    .live
                    .as_ref()
                    .is_some_and(|(before, under, _)| *before == live && *under == lease);
                if !same || !written.live_stands(&state, joined, replica) {
                    self.write_live(joined, live, lease, written).await?;
                }
            }
            (None, _) => self.remove_live(joined, written).await,
            // Without a lease nobody may count on it.
            (Some(_), None) => written.live = None,
        }
        Ok(())
    }

    async fn write_drained(
        &self,
        joined: &Joined,
        migration: &MigrationId,
        report: &stored::DrainedReport,
    ) -> Result<Option<Rev>, StoreError> {
        self.reach("drained.before").await;
        let bytes = Stored::new(report.clone()).bytes();
        let txn = Txn::new()
            .exists(keys::registration(&joined.instance))
            .exists(keys::migration(migration))
            .put(keys::drained(migration, &joined.instance), bytes);
        // A conflict: it is not registered any more, so its word counts for nothing.
        let outcome: TxnOutcome = self.mirror().store().transact(txn).await?;
        self.reach("drained.after").await;
        Ok(outcome.committed())
    }

    async fn write_live(
        &self,
        joined: &Joined,
        live: stored::Live,
        lease: LeaseId,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let bytes = Stored::new(live.clone()).bytes();
        let txn = Txn::new()
            .exists(keys::registration(&joined.instance))
            .put_leased(keys::live(&joined.instance), bytes, lease);
        let outcome = self.mirror().store().transact(txn).await?;
        written.live = outcome.committed().map(|revision| (live, lease, revision));
        Ok(())
    }

    /// Takes `/live` away, unless another stream has written it meanwhile.
    async fn remove_live(&self, joined: &Joined, written: &mut Written) {
        if let Some((_, _, revision)) = written.live.take() {
            let key = keys::live(&joined.instance);
            let txn = Txn::new().at(key.clone(), revision).delete(key);
            if let Err(error) = self.mirror().store().transact(txn).await {
                // It ends with the lease or is written over by the next stream.
                tracing::debug!(instance = %joined.instance, %error, "/live is not removed");
            }
        }
    }
}

/// Adds what was applied, at or above every record that somebody waits for: a new revision is worth a
/// write only then.
fn with_applied(
    live: &stored::Live,
    applied: Option<Revision>,
    written: &Written,
    state: &State,
) -> stored::Live {
    let before = written
        .live
        .as_ref()
        .and_then(|(live, ..)| live.applied)
        .map(Revision::from);
    let wanted = match (before, applied) {
        (Some(before), Some(applied)) if !state.awaits(before, applied) => Some(before),
        _ => applied,
    };
    stored::Live {
        applied: wanted.map(Into::into),
        ..live.clone()
    }
}

/// The first report of a stream.
pub(super) fn first(joined: &Joined, replica: &str) -> PlaneReport {
    PlaneReport {
        live: Some(stored::Live {
            boot: joined.boot.as_str().to_owned(),
            replica: replica.to_owned(),
            ..stored::Live::default()
        }),
        applied: joined.position.as_ref().map(|position| position.revision),
        drained: BTreeMap::new(),
    }
}

/// Drops what is said about fences that are over, so that nothing is kept for ever.
pub(super) fn prune(report: &mut PlaneReport, state: &State) {
    report
        .drained
        .retain(|migration, _| is_running(state, migration));
}

fn is_running(state: &State, migration: &MigrationId) -> bool {
    state
        .migration(migration)
        .is_some_and(|migration| migration.value.state() == v1::MigrationState::Running)
}

/// Whether another stream has taken over: one of another replica has said so in `/live` since this one
/// joined.
pub(super) fn is_taken_over(state: &State, joined: &Joined, replica: &str) -> bool {
    state
        .live()
        .get(&joined.instance)
        .is_some_and(|live| live.revision > joined.seen && live.value.replica != replica)
}
