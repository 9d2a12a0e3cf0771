//! What this data plane holds of the store: takes snapshots and deltas over, and puts tables in force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrypost_proto::{
    Revision, RoutingConfig, TablePosition,
    routing::v1::{
        Delta, Doubts, HeldDoubts, HoldDoubts, ListDoubts, Rejected, RejectedEndpoint,
        RejectedEntry, SnapshotChunk, change::Change,
    },
};
use ferrypost_routing::{Assembly, Merge, RoutingTable, SnapshotError, Touched};
use ferrypost_runtime::Random;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{
    doubt::{Elsewhere, Standstill},
    error::FeedError,
};
use crate::{
    fence::Fences,
    ready::Blocker,
    state_dir::{Acknowledged, StateDirError, Witness},
    tables::Tables,
};

/// The tables of this data plane, one after the other.
pub(super) struct Replica {
    tables: Tables,
    fences: Arc<Fences>,
    random: Random,
    witness: Arc<Mutex<Witness>>,
    /// The witness holds the table in force, and ends with it: it may be acknowledged, and so may its fences. It is
    /// written first: after a power cut right behind a flip somebody must remember where users have been.
    witnessed: bool,
    no_table: Option<Blocker>,
    assembly: Option<Assembly>,
    merging: Option<JoinHandle<Merge>>,
    /// What a restored store holds, as far as it has come.
    stored: Option<Acknowledged>,
    /// What comparing with it came to.
    standstill: Option<Standstill>,
    /// What other data planes have in doubt, until the restore is resolved.
    elsewhere: Elsewhere,
    /// The table in force serves only what the restored store and this data plane agree on.
    holding: bool,
    /// Only a snapshot helps: the next Hello hides what is held.
    snapshot_wanted: bool,
    /// No snapshot below it is taken over: the registration's revision on this stream.
    floor: Revision,
}

impl Replica {
    pub(super) fn new(
        tables: Tables,
        fences: Arc<Fences>,
        random: Random,
        witness: Arc<Mutex<Witness>>,
        no_table: Blocker,
    ) -> Self {
        Self {
            tables,
            fences,
            random,
            witness,
            witnessed: false,
            no_table: Some(no_table),
            assembly: None,
            merging: None,
            stored: None,
            standstill: None,
            elsewhere: Elsewhere::default(),
            holding: false,
            snapshot_wanted: false,
            floor: Revision::ZERO,
        }
    }

    pub(super) fn fences(&self) -> &Arc<Fences> {
        &self.fences
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn ask_for_snapshot(&mut self) {
        self.snapshot_wanted = true;
    }

    /// What Hello says is applied.
    pub(super) fn resume_from(&self) -> Option<TablePosition> {
        if self.snapshot_wanted || !self.witnessed {
            return None;
        }
        self.tables.current().map(|table| table.position().clone())
    }

    /// How far the table reaches that is in force, or was last acknowledged in an earlier life; and whether no
    /// move can have been missed since.
    pub(super) fn held(&self) -> (Option<TablePosition>, bool) {
        let witness = lock(&self.witness);
        let in_force = self.tables.current().filter(|_| !self.holding);
        let in_force = in_force.map(|table| table.position().clone());
        let held = in_force.or_else(|| witness.position().cloned());
        (held, witness.is_current())
    }

    /// True if what is said of the table in force can be told from a restored store for good.
    pub(super) const fn is_witnessed(&self) -> bool {
        self.witnessed
    }

    /// The registration is about to end. Waits for the disk.
    pub(super) async fn leave(&self) -> Result<(), FeedError> {
        self.write(Witness::leave).await
    }

    /// A new stream: what the last one left half done is void, and everything is reported again.
    pub(super) fn begin_stream(&mut self, registered: Revision) {
        self.assembly = None;
        self.stored = None;
        self.standstill = None;
        self.floor = registered;
        self.fences.reconnected();
    }

    /// Takes a chunk over. Returns the table that its last one put in force.
    pub(super) async fn chunk(
        &mut self,
        chunk: SnapshotChunk,
    ) -> Result<Option<Arc<RoutingTable>>, FeedError> {
        if let Some(config) = &chunk.config {
            RoutingConfig::expect_readable(config)?;
        }
        if chunk.comparison {
            self.compare(&chunk).await?;
            return Ok(None);
        }
        let last = chunk.last;
        let (assembly, chunk) = self.add(chunk).await?;
        self.write(move |witness| witness.chunk(&chunk)).await?;
        if !last {
            self.assembly = Some(assembly);
            return Ok(None);
        }
        let previous = self.tables.current();
        let table = offload(move || assembly.finish(previous.as_deref())).await?;
        let touched = Touched {
            all: true,
            ..Touched::default()
        };
        info!(position = %table.position().revision, "snapshot applied");
        let position = table.position().clone();
        self.witnessed = false;
        self.write(move |witness| witness.complete(position))
            .await?;
        let table = self.put_in_force(Arc::new(table), &touched);
        self.witnessed = true;
        self.snapshot_wanted = false;
        // If there was a restore, it is resolved.
        self.elsewhere = Elsewhere::default();
        Ok(Some(table))
    }

    /// Gives the chunk back, which the witness wants too.
    async fn add(&mut self, chunk: SnapshotChunk) -> Result<(Assembly, SnapshotChunk), FeedError> {
        let begun = self.assembly.take();
        let held = self
            .tables
            .current()
            .map(|table| table.position().revision)
            .max(Some(self.floor));
        let random = self.random.clone();
        // Checking and hashing a chunk of names takes some ten milliseconds, which no login should wait.
        let added = offload(move || {
            let kept = chunk.clone();
            let assembly = match begun {
                None => Assembly::begin(chunk, held, &random),
                Some(mut assembly) => assembly.push(chunk).map(|()| assembly),
            };
            assembly.map(|assembly| (assembly, kept))
        });
        Ok(added.await?)
    }

    /// Takes a delta over.
    pub(super) async fn delta(&mut self, delta: Delta) -> Result<Arc<RoutingTable>, FeedError> {
        let held = self.tables.current();
        // A delta between the chunks of a snapshot follows nothing that is held, nor does one to what is in force
        // only while doubts are held.
        let Some(held) = held.filter(|_| self.assembly.is_none() && self.witnessed) else {
            return Err(SnapshotError::OutOfOrder.into());
        };
        for change in &delta.changes {
            if let Some(Change::Config(config)) = &change.change {
                RoutingConfig::expect_readable(config)?;
            }
        }
        let kept = delta.clone();
        let applied = held.apply(delta)?;
        // If that fails, only a snapshot makes the witness whole again.
        self.witnessed = false;
        self.write(move |witness| witness.delta(&kept)).await?;
        let table = self.put_in_force(Arc::new(applied.table), &applied.touched);
        self.witnessed = true;
        self.merge_if_due(&table);
        Ok(table)
    }

    /// Publishes first, closes afterwards: see [`Fences`].
    fn put_in_force(&mut self, table: Arc<RoutingTable>, touched: &Touched) -> Arc<RoutingTable> {
        self.witnessed = false;
        self.holding = false;
        self.tables.publish(Arc::clone(&table));
        self.fences.settle(&table, touched);
        self.no_table = None;
        table
    }

    /// Takes in what a restored store holds. Complete, it is compared with what was acknowledged; a data plane
    /// without a table then serves what both agree on, if it can have missed no move.
    async fn compare(&mut self, chunk: &SnapshotChunk) -> Result<(), FeedError> {
        if chunk.index == 0 {
            self.stored = Some(Acknowledged::default());
        }
        let stored = self.stored.as_mut().ok_or(SnapshotError::OutOfOrder)?;
        stored.chunk(chunk);
        let Some(stored) = self.stored.take_if(|_| chunk.last) else {
            return Ok(());
        };
        let (witness, random) = (Arc::clone(&self.witness), self.random.clone());
        let elsewhere = self.elsewhere.clone();
        let compared = offload(move || -> Result<Option<Standstill>, FeedError> {
            let witness = lock(&witness);
            let Some(ours) = witness.read()? else {
                return Ok(None);
            };
            let ours = (&ours, witness.is_current());
            let compared = Standstill::between(ours, stored, &elsewhere, &random)?;
            Ok(Some(compared))
        });
        self.standstill = compared.await?;
        if let Some(standstill) = &self.standstill {
            warn!(
                accounts = standstill.len(),
                current = standstill.is_current(),
                "the restored store says something else of some accounts"
            );
        }
        self.serve_what_is_agreed().await;
        Ok(())
    }

    async fn serve_what_is_agreed(&mut self) {
        let has_table = self.tables.current().is_some() && !self.holding;
        let is_current = self.standstill.as_ref().is_some_and(Standstill::is_current);
        if !has_table && is_current && self.holds_what_is_agreed().await {
            return;
        }
        if let Some(blocker) = &self.no_table {
            blocker.because(
                "the store was restored to an older state, and this data plane may have missed moves: \
                 ResolveRewound settles it",
            );
        }
    }

    /// Serves what is agreed on, if anything is.
    async fn holds_what_is_agreed(&mut self) -> bool {
        let agreed = self.standstill.as_ref().and_then(Standstill::agreed);
        agreed.is_some() && self.hold_doubts(HoldDoubts::default()).await.is_some()
    }

    /// Serves from now on only what the restored store and this data plane agree on, without what is in doubt
    /// elsewhere. What is left to close; `None` when that is not known.
    pub(super) async fn hold_doubts(&mut self, hold: HoldDoubts) -> Option<HeldDoubts> {
        let mut standstill = self.standstill.take()?;
        self.elsewhere.add(hold.also);
        if hold.more {
            self.standstill = Some(standstill);
            return Some(HeldDoubts::default());
        }
        let more = self.elsewhere.is_to_be_held();
        if more {
            let elsewhere = std::mem::take(&mut self.elsewhere);
            let random = self.random.clone();
            (standstill, self.elsewhere) = offload(move || {
                standstill.hold(&elsewhere, &random);
                (standstill, elsewhere)
            })
            .await;
        }
        let left = self.hold_all_but_agreed(&standstill, more);
        self.standstill = Some(standstill);
        Some(left)
    }

    /// Puts in force what is agreed on. `more`: it is less than before.
    fn hold_all_but_agreed(&mut self, standstill: &Standstill, more: bool) -> HeldDoubts {
        // Who has left may have missed moves, also such as nobody has in doubt who is asked.
        let agreed = standstill.agreed().filter(|_| standstill.is_current());
        let Some(agreed) = agreed else {
            return self.hold_everybody();
        };
        if !self.holding || more {
            let everything = Touched {
                all: true,
                ..Touched::default()
            };
            self.put_in_force(Arc::clone(agreed), &everything);
            self.holding = true;
        }
        left(self.fences.left_under(standstill.names()))
    }

    fn hold_everybody(&mut self) -> HeldDoubts {
        self.witnessed = false;
        self.holding = true;
        self.tables.withdraw();
        self.fences.close_everybody();
        left(self.fences.left())
    }

    /// What the restored store says otherwise; `None` while that is not known.
    pub(super) fn list_doubts(&self, asked: &ListDoubts) -> Option<Doubts> {
        self.standstill
            .as_ref()
            .map(|standstill| standstill.list(asked))
    }

    /// Has the witness write, where no task waits for the disk.
    async fn write(
        &self,
        write: impl FnOnce(&mut Witness) -> Result<(), StateDirError> + Send + 'static,
    ) -> Result<(), FeedError> {
        let witness = Arc::clone(&self.witness);
        Ok(offload(move || write(&mut lock(&witness))).await?)
    }

    fn merge_if_due(&mut self, table: &Arc<RoutingTable>) {
        if self.merging.is_none() && table.wants_merge() {
            let table = Arc::clone(table);
            self.merging = Some(tokio::task::spawn_blocking(move || table.merge()));
        }
    }

    /// Waits for a merge and swaps its result in. Pending while there is none. Cancel-safe.
    pub(super) async fn merged(&mut self) {
        let Some(merging) = &mut self.merging else {
            return std::future::pending().await;
        };
        let merge = merging.await;
        self.merging = None;
        match merge {
            Ok(merge) => {
                if let Some(table) = self.tables.current().and_then(|now| now.with_merged(merge)) {
                    self.tables.replace_by_equal(Arc::new(table));
                }
            }
            Err(panic) => warn!(%panic, "merging the route table failed; it goes on unmerged"),
        }
    }

    /// True if there is a table and no snapshot is on its way.
    pub(super) fn is_whole(&self) -> bool {
        self.assembly.is_none() && !self.snapshot_wanted && self.tables.current().is_some()
    }

    /// What of the table in force could not be taken over, as the control plane is told: entries, and the
    /// endpoints that a data plane of `group` would use.
    pub(super) fn rejected(&self, group: &str) -> Option<Rejected> {
        let table = self.tables.current()?;
        let entries: Vec<RejectedEntry> = table.rejected();
        Some(Rejected {
            revision: Some(table.position().revision.into()),
            entries,
            endpoints: disabled(table.config(), group),
        })
    }
}

fn left(sessions: usize) -> HeldDoubts {
    HeldDoubts {
        sessions_left: u32::try_from(sessions).unwrap_or(u32::MAX),
    }
}

fn lock(witness: &Mutex<Witness>) -> MutexGuard<'_, Witness> {
    witness.lock().unwrap_or_else(PoisonError::into_inner)
}

fn disabled(config: &RoutingConfig, group: &str) -> Vec<RejectedEndpoint> {
    let all = config.destinations().iter();
    all.flat_map(|(id, destination)| destination.disabled(group).map(move |it| (id, it)))
        .map(|(id, disabled)| RejectedEndpoint {
            destination: id.as_str().to_owned(),
            protocol: disabled.protocol,
            field: disabled.field.to_owned(),
        })
        .collect()
}

/// Runs work that takes long where no task waits for it.
async fn offload<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
