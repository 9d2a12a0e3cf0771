//! What this data plane holds of the store: takes snapshots and deltas over, and puts tables in force.

use std::sync::Arc;

use ferrypost_proto::{
    Revision, RoutingConfig, TablePosition,
    routing::v1::{
        Delta, Rejected, RejectedEndpoint, RejectedEntry, SnapshotChunk, change::Change,
    },
};
use ferrypost_routing::{Assembly, Merge, RoutingTable, SnapshotError, Touched};
use ferrypost_runtime::Random;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::error::FeedError;
use crate::{fence::Fences, ready::Blocker, tables::Tables};

/// The tables of this data plane, one after the other.
pub(super) struct Replica {
    tables: Tables,
    fences: Arc<Fences>,
    random: Random,
    no_table: Option<Blocker>,
    assembly: Option<Assembly>,
    merging: Option<JoinHandle<Merge>>,
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
        no_table: Blocker,
    ) -> Self {
        Self {
            tables,
            fences,
            random,
            no_table: Some(no_table),
            assembly: None,
            merging: None,
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
        if self.snapshot_wanted {
            return None;
        }
        self.tables.current().map(|table| table.position().clone())
    }

    /// A new stream: what the last one left half done is void, and everything is reported again.
    pub(super) fn begin_stream(&mut self, registered: Revision) {
        self.assembly = None;
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
        let last = chunk.last;
        let assembly = self.add(chunk).await?;
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
        self.snapshot_wanted = false;
        Ok(Some(self.put_in_force(table, &touched)))
    }

    async fn add(&mut self, chunk: SnapshotChunk) -> Result<Assembly, FeedError> {
        let begun = self.assembly.take();
        let held = self
            .tables
            .current()
            .map(|table| table.position().revision)
            .max(Some(self.floor));
        let random = self.random.clone();
        // Checking and hashing a chunk of names takes some ten milliseconds, which no login should wait.
        let added = offload(move || match begun {
            None => Assembly::begin(chunk, held, &random),
            Some(mut assembly) => assembly.push(chunk).map(|()| assembly),
        });
        Ok(added.await?)
    }

    /// Takes a delta over.
    pub(super) fn delta(&mut self, delta: Delta) -> Result<Arc<RoutingTable>, FeedError> {
        let held = self.tables.current();
        // A delta between the chunks of a snapshot follows nothing that is held.
        let Some(held) = held.filter(|_| self.assembly.is_none()) else {
            return Err(SnapshotError::OutOfOrder.into());
        };
        for change in &delta.changes {
            if let Some(Change::Config(config)) = &change.change {
                RoutingConfig::expect_readable(config)?;
            }
        }
        let applied = held.apply(delta)?;
        let table = self.put_in_force(applied.table, &applied.touched);
        self.merge_if_due(&table);
        Ok(table)
    }

    /// Publishes first, closes afterwards: see [`Fences`].
    fn put_in_force(&mut self, table: RoutingTable, touched: &Touched) -> Arc<RoutingTable> {
        let table = Arc::new(table);
        self.tables.publish(Arc::clone(&table));
        self.fences.settle(&table, touched);
        self.no_table = None;
        table
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
