//! The data planes: who they are, what they hold, what they say, what they are told.
//!
//! ```text
//!   Hello ─▶ join ─▶ registration in the store, Welcome
//!              └─▶ talk    mirror ─▶ snapshot or deltas, in order, as fast as it takes them
//!              └─▶ listen  applied, drained, health ─▶ Report ─▶ /live, /drained
//!   ask ──▶ commands, here or by way of the store on the replica that serves the stream
//! ```
//!
//! What decisions rest on is written to the store (decision 0006), because any replica may serve a
//! stream and one leader decides. What only somebody who looks wants to know stays here.

mod ask;
mod bounds;
mod claimable;
mod cookie_keys;
mod dialogue;
mod join;
mod lease;
mod registration;
mod report;
mod stream;
mod view;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ferrypost_proto::{InstanceId, ReplicaId};
use ferrypost_runtime::Random;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use ask::Asked;
pub(crate) use claimable::Claimable;
pub use view::View;

use crate::{failpoint::Failpoints, mirror::Mirror, store::LeaseId};

/// What the fleet needs beside the mirror.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// This replica.
    pub replica: ReplicaId,
    /// For identifiers and jitter.
    pub random: Random,
    /// How often a data plane is asked whether it is there. After two silent intervals it counts as
    /// silent, after three its stream ends.
    pub heartbeat: Duration,
    /// How long a server whose close nobody saw may still be at work: data planes count by it too.
    pub settle: Duration,
    /// What a test has armed.
    pub failpoints: Failpoints,
}

/// A handle of the fleet; clones share it.
#[derive(Clone)]
pub struct Fleet(Arc<Shared>);

struct Shared {
    mirror: Mirror,
    options: FleetOptions,
    /// The streams that this replica serves. At most one an instance.
    streams: Mutex<BTreeMap<InstanceId, stream::Handle>>,
    /// The lease that `/live`, commands and results live under.
    lease: watch::Receiver<Option<LeaseId>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Fleet {
    /// Starts what a replica needs to serve streams, in `tasks`; all of it ends with `cancel`.
    pub fn start(
        mirror: Mirror,
        options: FleetOptions,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let store = mirror.store().clone();
        let lease = lease::keep(store, options.random.clone(), tasks, cancel.clone());
        let fleet = Self(Arc::new(Shared {
            mirror,
            options,
            streams: Mutex::default(),
            lease,
            tasks: tasks.clone(),
            cancel: cancel.clone(),
        }));
        let serving = fleet.clone();
        tasks.spawn(async move {
            cancel.run_until_cancelled(ask::serve(serving)).await;
        });
        fleet
    }

    /// What is known of the data planes whose streams this replica serves.
    pub fn views(&self) -> BTreeMap<InstanceId, View> {
        self.with_streams(|streams| {
            streams
                .iter()
                .map(|(instance, stream)| (instance.clone(), stream.view()))
                .collect()
        })
    }

    /// How often a data plane is asked whether it is there.
    pub fn heartbeat(&self) -> Duration {
        self.0.options.heartbeat
    }

    /// Reaches a failpoint where nothing can fail: `error` does nothing here.
    async fn reach(&self, name: &'static str) {
        let _ = self.0.options.failpoints.reach(name).await;
    }

    fn mirror(&self) -> &Mirror {
        &self.0.mirror
    }

    fn with_streams<T>(
        &self,
        use_them: impl FnOnce(&mut BTreeMap<InstanceId, stream::Handle>) -> T,
    ) -> T {
        use_them(
            &mut self
                .0
                .streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}
