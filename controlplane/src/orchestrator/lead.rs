//! What the leader does while it leads.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use ferrypost_proto::MigrationId;
use ferrypost_runtime::Backoff;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    OrchestratorOptions,
    cookie_keys::keep_cookie_keys,
    driver::Driver,
    prune::prune,
    settle::{Seen, settle},
    sweep::sweep,
};
use crate::{
    domain::{
        evidence::Notes,
        queue::{Means, due},
        transition::TransitionWriter,
    },
    leader::Leadership,
    mirror::Mirror,
    store::{Rev, StoreError, Txn, TxnOutcome},
    wall_clock,
};

/// How long to wait for the mirror before looking at what it has.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Pauses between attempts when the store does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What everything that the leader runs stands on.
pub(super) struct DriverContext {
    pub(super) mirror: Mirror,
    pub(super) options: Arc<OrchestratorOptions>,
    pub(super) leadership: Leadership,
    /// Fences begin one after another, each seeing the one before: so the budget holds.
    pub(super) fence_turn: Mutex<()>,
    seen: std::sync::Mutex<Seen>,
}

/// What became of a write, with the mirror caught up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is in the store.
    Yes,
    /// It is not, or nobody knows: the records say what is.
    Unknown,
}

/// Leads until it is dropped.
pub(super) async fn lead(
    mirror: Mirror,
    options: Arc<OrchestratorOptions>,
    leadership: Leadership,
) {
    let term = Arc::new(DriverContext {
        mirror,
        options,
        leadership,
        fence_turn: Mutex::new(()),
        seen: std::sync::Mutex::default(),
    });
    // What happened before this replica led must be in the mirror before it decides anything.
    term.catch_up().await;
    tokio::join!(
        drive(&term),
        settle(&term),
        sweep(&term),
        prune(&term),
        keep_cookie_keys(&term)
    );
}

/// Keeps a driver for every migration that is due, and none for those that wait behind others.
async fn drive(term: &Arc<DriverContext>) {
    let mut drivers = JoinSet::new();
    let mut driven: HashSet<MigrationId> = HashSet::new();
    let mut changed = term.mirror.changed();
    // Whatever hook is not a driver's own was started before.
    let mut began = term.leadership.since();
    loop {
        changed.borrow_and_update();
        let due = due(&term.mirror.read(), term.means());
        term.count_looks(due.len());
        for id in due {
            if driven.insert(id.clone()) {
                let new = Driver::new(term.clone(), id.clone(), began);
                drivers.spawn(async move {
                    new.drive().await;
                    id
                });
            }
        }
        tokio::select! {
            () = wait_changed(&mut changed) => {}
            Some(ended) = drivers.join_next() => match ended {
                Ok(id) => drop(driven.remove(&id)),
                Err(error) => {
                    // Which one is not known, and the others are fine where they are: all begin again.
                    tracing::error!(%error, "a driver of migrations failed");
                    drivers.shutdown().await;
                    driven.clear();
                    began = Instant::now();
                    time::sleep(PAUSES.1).await;
                }
            },
        }
    }
}

/// Ends at the next change of the mirror; never, when there is no mirror any more.
pub(super) async fn wait_changed(changed: &mut watch::Receiver<Rev>) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl DriverContext {
    /// What is given to all moves.
    fn means(&self) -> Means {
        Means {
            budget: self.options.fence_budget,
            hook: self.options.hook.is_some(),
        }
    }

    /// What this leader has seen of ends that nobody saw. Never held across a wait.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic leaves it whole: it is only ever looked at and added to.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts looks at moves: see [`OrchestratorOptions::looks`].
    pub(super) fn count_looks(&self, looks: usize) {
        self.options
            .looks
            .fetch_add(looks as u64, Ordering::Relaxed);
    }

    /// What the leader's transitions are written with.
    pub(super) fn pen<'a>(&'a self, notes: &'a Notes) -> TransitionWriter<'a> {
        TransitionWriter {
            random: &self.options.random,
            token: self.leadership.token(),
            now: wall_clock::now(),
            notes,
        }
    }

    /// Writes, and waits until the mirror has what became of it.
    pub(super) async fn write(&self, txn: Txn) -> Written {
        if !self.leadership.is_valid() {
            // Another one may lead; our guards would say so.
            std::future::pending::<()>().await;
        }
        match self.mirror.store().transact(txn).await {
            Ok(TxnOutcome::Committed(revision)) => {
                if self.mirror.at_least(revision, CATCH_UP).await.is_err() {
                    self.catch_up().await;
                }
                Written::Yes
            }
            Ok(TxnOutcome::Conflict { .. }) => {
                self.catch_up().await;
                Written::Unknown
            }
            Err(error) => {
                log(&error);
                self.catch_up().await;
                Written::Unknown
            }
        }
    }

    /// Waits, as long as it takes, until the mirror holds everything that is in the store by now.
    pub(super) async fn catch_up(&self) {
        let random = self.options.random.clone();
        let mut backoff = Backoff::new(random, PAUSES.0, PAUSES.1);
        while self.mirror.catch_up(CATCH_UP).await.is_err() {
            time::sleep(backoff.pause()).await;
        }
    }
}

fn log(error: &StoreError) {
    match error {
        StoreError::Unavailable(_) | StoreError::UnknownOutcome(_) => {
            tracing::warn!(%error, "a step of a move could not be written");
        }
        other => tracing::error!(error = %other, "a step of a move could not be written"),
    }
}
