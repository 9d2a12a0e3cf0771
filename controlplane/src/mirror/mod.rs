//! The store in memory: one state, fed by one watch, that everything in a replica reads.
//!
//! ```text
//!   store ── load (pinned ranges) ──┐
//!         └─ watch from load + 1 ───┴─▶ State (immutable, shared) ─▶ read(), changed(), at_least()
//!                                       ChangeLog                 ─▶ feed()
//! ```
//!
//! The orchestrator, the services and the streams read this and nothing else, so they behave alike on
//! every replica. It never goes backwards, with one exception that is proof of a restored store (G16):
//! then `/meta/rewound` is written first, and nothing is served from the older state but the fact.

pub mod changelog;
mod follow;
mod load;
#[cfg(test)]
mod tests;
mod waiters;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ferrypost_proto::{MigrationId, ReplicaId};
use ferrypost_runtime::Random;
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use changelog::{ChangeLog, Entry, History};
pub use waiters::MigrationChanges;
use waiters::Waiters;

use crate::{
    domain::state::State,
    store::{Rev, Store, StoreError},
};

/// What a mirror needs beside its store.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// This replica, for the proof of a restore.
    pub replica: ReplicaId,
    /// For the jitter of retries.
    pub random: Random,
    /// Changes of routing that are kept; see [`changelog::CAPACITY`].
    pub changes: usize,
    /// A store of no more keys is loaded in one go.
    pub in_one_go: usize,
}

impl MirrorOptions {
    /// What a replica runs with.
    pub fn new(replica: ReplicaId, random: Random) -> Self {
        Self {
            replica,
            random,
            changes: changelog::CAPACITY,
            in_one_go: load::IN_ONE_GO,
        }
    }
}

/// How the mirror stands to its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is loaded yet.
    Loading,
    /// It follows.
    Following,
    /// The store has been silent for longer than it should. What was read last is still shown.
    Interrupted,
}

/// A handle of the mirror; clones share it.
#[derive(Clone)]
pub struct Mirror(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    options: MirrorOptions,
    published: RwLock<Published>,
    revision: watch::Sender<Rev>,
    standing: watch::Sender<Standing>,
    waiters: Waiters,
}

/// Changed together, so that a state and the log that leads to it are always of one revision.
struct Published {
    state: Arc<State>,
    log: ChangeLog,
}

/// What a subscriber that holds a table at some revision is sent next.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The state that it is at afterwards.
    pub state: Arc<State>,
    /// The transactions in between, oldest first; `None` when some are forgotten, and a snapshot of
    /// `state` is needed.
    pub entries: Option<Vec<Arc<Entry>>>,
}

/// The mirror did not come as far as was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BehindError {
    /// Not in time.
    #[error("the mirror has not caught up with the store in time")]
    Late,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Mirror {
    /// Starts to load and follow `store`, in a task of `tasks` that ends with `cancel`. It does not wait
    /// for the store, which may be away for now: see [`Self::at_least`].
    pub fn start(
        store: Arc<dyn Store>,
        options: MirrorOptions,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let log = ChangeLog::new(0, State::default().head().clone(), options.changes);
        let mirror = Self(Arc::new(Shared {
            store,
            options,
            published: RwLock::new(Published {
                state: Arc::default(),
                log,
            }),
            revision: watch::Sender::new(0),
            standing: watch::Sender::new(Standing::Loading),
            waiters: Waiters::default(),
        }));
        let follower = mirror.clone();
        tasks.spawn(async move {
            cancel.run_until_cancelled(follow::follow(follower)).await;
        });
        mirror
    }

    /// The present state. It stays as it is however long it is held.
    pub fn read(&self) -> Arc<State> {
        self.published(|published| published.state.clone())
    }

    /// What a subscriber at `revision` is sent next, with the state that it leads to.
    pub fn feed(&self, revision: Rev) -> Feed {
        self.published(|published| Feed {
            state: published.state.clone(),
            entries: published.log.since(revision),
        })
    }

    /// Whether a subscriber's head is a change of this store's history. Ask after the mirror has come up
    /// to the head's revision.
    pub fn history(&self, head: &ferrypost_proto::Head) -> History {
        self.published(|published| published.log.history(head))
    }

    /// Announces every revision that the state reaches, also when nothing changed.
    pub fn changed(&self) -> watch::Receiver<Rev> {
        self.0.revision.subscribe()
    }

    /// The changes of one migration from now on, whatever else changes.
    pub fn changes_of(&self, migration: &MigrationId) -> MigrationChanges {
        MigrationChanges::of(self, migration)
    }

    /// How the mirror stands to its store.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    /// Waits until the state has reached `revision`, and gives it back. 1: until it is loaded.
    pub async fn at_least(
        &self,
        revision: Rev,
        within: Duration,
    ) -> Result<Arc<State>, BehindError> {
        let mut changed = self.changed();
        time::timeout(within, changed.wait_for(|reached| *reached >= revision))
            .await
            .map_err(|_| BehindError::Late)?
            .map_err(|_| BehindError::Late)?;
        Ok(self.read())
    }

    /// Waits until the state holds everything that was acknowledged to anyone before this call.
    pub async fn catch_up(&self, within: Duration) -> Result<Arc<State>, BehindError> {
        let caught_up = async {
            let revision = self.0.store.revision().await?;
            self.at_least(revision, within).await
        };
        time::timeout(within, caught_up)
            .await
            .map_err(|_| BehindError::Late)?
    }

    /// The store that is mirrored.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    fn published<T>(&self, read: impl FnOnce(&Published) -> T) -> T {
        read(
            &self
                .0
                .published
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Changes the state and the log in one step, then tells everybody.
    fn publish(&self, change: impl FnOnce(&mut Published)) {
        let revision = {
            let mut published = self
                .0
                .published
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            change(&mut published);
            published.state.revision()
        };
        self.0.revision.send_replace(revision);
    }

    fn set_standing(&self, standing: Standing) {
        self.0
            .standing
            .send_if_modified(|before| std::mem::replace(before, standing) != standing);
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("revision", &self.read().revision())
            .finish_non_exhaustive()
    }
}
