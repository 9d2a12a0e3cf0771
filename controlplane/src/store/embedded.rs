//! The embedded store: one file, one process, no other server.
//!
//! ```text
//! transact, compact ─┐                       ┌─ get, range: a snapshot each
//! revoke, lease ends ┴─► writer ─► disk.rs ──┤
//!                     one commit,            └─ watch: reads the change log from where it
//!                     one sync for all           stands, whenever the writer says there is more
//!                     that wait
//! ```
//!
//! One task writes. It takes whatever transactions are waiting, judges and applies them one after
//! another, each at a revision of its own, and makes them durable by one commit; only then are
//! they visible and answered. So a busy store syncs once for many transactions, and an
//! acknowledged one survives a `kill -9` and a power cut.
//!
//! After the disk has refused a write or a sync, nobody knows what it holds. The write's outcome is
//! unknown then, and the store refuses all others until it is opened again.
//!
//! The change log is on disk as well and bounded: a watch resumes across a restart, and a watcher
//! that is too far behind is told to load again.

mod disk;
mod leases;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use disk::OpenError;
use disk::{Disk, Fault, Opened, Writer};
use leases::Leases;

use super::{
    KeyValue, LeaseError, LeaseId, Outage, PROGRESS_INTERVAL, Range, Rev, Store, StoreError, Txn,
    TxnOutcome, WatchBatch, WatchError, WatchStream,
};
use crate::kv::check_key;

/// Where the embedded store lies and how much it keeps.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The file. It is created if it does not exist; its directory must exist.
    pub path: PathBuf,
    /// Memory for pages of the file, in bytes. 64 MiB by default: a hundred thousand accounts with
    /// their names; more only helps a load of more.
    pub cache_bytes: usize,
    /// How many changes the log keeps at least, before a compaction. 100,000 by default: a data
    /// plane that was away for a moment gets what changed instead of everything.
    pub history_changes: u64,
}

impl EmbeddedConfig {
    /// A store at `path`, with the defaults for the rest.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 64 * 1024 * 1024,
            history_changes: 100_000,
        }
    }
}

/// The store in a file. See the [module documentation](self).
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Request>,
}

/// What the store's tasks and streams have in common.
struct Shared {
    /// `None` once closed, which lets go of the file's lock.
    disk: Mutex<Option<Arc<Disk>>>,
    leases: Leases,
    history_changes: u64,
    /// The revision of the last commit; every watch waits on it.
    revision: watch::Sender<Rev>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// Something for the writer to do, and where to answer.
struct Request {
    job: Job,
    reply: oneshot::Sender<Result<TxnOutcome, StoreError>>,
}

enum Job {
    Transact(Txn),
    /// Delete the keys of leases that have ended.
    EndLeases(Vec<LeaseId>),
    /// Forget the history before a revision.
    Compact(Rev),
}

/// Requests that may wait for the writer; more wait for a place in the queue.
const QUEUE: usize = 1024;

/// Most requests in one commit. With transactions of the largest size it holds 80 MiB for a
/// moment; with usual ones one commit takes a few milliseconds.
const GROUP: usize = 64;

/// How long to wait before trying again to delete the keys of ended leases from a disk that
/// refuses.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

/// How long to wait for a file that is in use. A process that was killed, or one that was just forked
/// and is about to become another program, holds its locks a moment longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The pause between two attempts at the locks.
const LOCK_RETRY: Duration = Duration::from_millis(20);

impl EmbeddedStore {
    /// Opens the store, or creates it, and takes it for this process alone.
    ///
    /// Must be called within a tokio runtime, which the store's tasks then run on.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; most often [`OpenError::InUse`], after a moment of patience.
    pub async fn open(config: EmbeddedConfig) -> Result<Self, OpenError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let opened = loop {
            let (path, cache_bytes) = (config.path.clone(), config.cache_bytes);
            let opening = tokio::task::spawn_blocking(move || Disk::open(&path, cache_bytes));
            match opening.await.map_err(|_| OpenError::Corrupt)? {
                Err(OpenError::InUse) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                outcome => break outcome?,
            }
        };
        Ok(Self::run(opened, config.history_changes))
    }

    fn run(opened: Opened, history_changes: u64) -> Self {
        let disk = Arc::new(opened.disk);
        let shared = Arc::new(Shared {
            disk: Mutex::new(Some(Arc::clone(&disk))),
            leases: Leases::new(opened.boot),
            history_changes,
            revision: watch::Sender::new(opened.revision),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (jobs, requests) = mpsc::channel(QUEUE);
        shared
            .tasks
            .spawn(write_all(Arc::clone(&shared), disk, requests));
        shared
            .tasks
            .spawn(end_leases(Arc::clone(&shared), jobs.clone()));
        Self { shared, jobs }
    }

    /// Finishes what was begun, ends all watches, and lets go of the file. From then on every call
    /// gets [`StoreError::Closed`].
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    async fn submit(&self, job: Job) -> Result<TxnOutcome, StoreError> {
        submit(&self.jobs, job).await
    }
}

/// A dropped store leaves no task behind, and its file to the next one as soon as the work under
/// way is done.
impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        check_key(key)?;
        let key = key.to_vec();
        self.shared
            .blocking(move |disk| disk.snapshot()?.get(&key))
            .await
    }

    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        let prefix = prefix.to_vec();
        self.shared
            .blocking(move |disk| disk.snapshot()?.range(&prefix, at))
            .await
    }

    async fn whole(&self, most: usize) -> Result<Option<Range>, StoreError> {
        self.shared
            .blocking(move |disk| disk.snapshot()?.whole(most))
            .await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        self.submit(Job::Transact(txn)).await
    }

    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError> {
        self.shared.disk()?;
        let watcher = Watcher {
            shared: Arc::clone(&self.shared),
            committed: self.shared.revision.subscribe(),
            next: from.max(disk::FIRST_REVISION + 1),
            ended: false,
        };
        Ok(stream::unfold(watcher, Watcher::step).boxed())
    }

    async fn revision(&self) -> Result<Rev, StoreError> {
        self.shared.disk()?;
        Ok(*self.shared.revision.borrow())
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.shared.disk()?;
        Ok(self.shared.leases.grant(ttl))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        self.shared.disk()?;
        if self.shared.leases.keep_alive(lease) {
            Ok(())
        } else {
            Err(LeaseError::Lost)
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.leases.remove(lease);
        self.submit(Job::EndLeases(vec![lease])).await.map(drop)
    }

    async fn compact(&self, to: Rev) -> Result<(), StoreError> {
        self.submit(Job::Compact(to)).await.map(drop)
    }
}

impl Shared {
    /// The open file, unless the store is closed.
    fn disk(&self) -> Result<Arc<Disk>, StoreError> {
        if self.closing.is_cancelled() {
            return Err(StoreError::Closed);
        }
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.clone().ok_or(StoreError::Closed)
    }

    fn take_disk(&self) -> Option<Arc<Disk>> {
        self.disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Reads the file on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = self.disk()?;
        match self.tasks.spawn_blocking(move || read(&disk)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down.
            Err(_) => Err(StoreError::Closed),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("revision", &*self.revision.borrow())
            .finish_non_exhaustive()
    }
}

async fn submit(jobs: &mpsc::Sender<Request>, job: Job) -> Result<TxnOutcome, StoreError> {
    let (reply, answer) = oneshot::channel();
    jobs.send(Request { job, reply })
        .await
        .map_err(|_| StoreError::Closed)?;
    // The writer answers everything that it took, unless it died over it.
    answer
        .await
        .unwrap_or(Err(StoreError::UnknownOutcome(Outage::Unexpected)))
}

/// The writer: commits groups of requests until the store closes and the queue is empty; then lets
/// go of the file.
async fn write_all(shared: Arc<Shared>, disk: Arc<Disk>, mut requests: mpsc::Receiver<Request>) {
    loop {
        let mut group = Vec::new();
        let taken = tokio::select! {
            taken = requests.recv_many(&mut group, GROUP) => taken,
            () = shared.closing.cancelled(), if !requests.is_closed() => {
                requests.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
        let (shared, disk) = (Arc::clone(&shared), Arc::clone(&disk));
        let commit = tokio::task::spawn_blocking(move || commit(&shared, &disk, group));
        if commit.await.is_err() {
            break;
        }
    }
    // Nobody may go on waiting for a writer that is gone, for whatever reason.
    shared.closing.cancel();
    let disks = (shared.take_disk(), disk);
    // Closing the file writes and syncs.
    let _ = tokio::task::spawn_blocking(move || drop(disks)).await;
}

/// Applies a group of requests, makes it durable, and only then answers.
fn commit(shared: &Shared, disk: &Disk, group: Vec<Request>) {
    let (jobs, replies): (Vec<_>, Vec<_>) = group
        .into_iter()
        .map(|request| (request.job, request.reply))
        .unzip();
    let outcomes = match apply(shared, disk, &jobs) {
        Ok(outcomes) => outcomes,
        Err(error) => vec![Err(error); jobs.len()],
    };
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        // Nobody may be waiting any more, which changes nothing.
        let _ = reply.send(outcome);
    }
}

fn apply(
    shared: &Shared,
    disk: &Disk,
    jobs: &[Job],
) -> Result<Vec<Result<TxnOutcome, StoreError>>, StoreError> {
    let transaction = disk.begin()?;
    let mut writer = Writer::open(&transaction)?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        outcomes.push(perform(shared, &mut writer, job)?);
    }
    writer.bound_history(shared.history_changes)?;
    let Some(revision) = writer.finish()? else {
        // Nothing but refusals: nothing to sync for.
        return Ok(outcomes);
    };
    // From here on the disk may hold it whatever the answer is.
    transaction
        .commit()
        .map_err(|error| StoreError::UnknownOutcome(Fault::from(error).outage()))?;
    shared.revision.send_replace(revision);
    Ok(outcomes)
}

fn perform(
    shared: &Shared,
    writer: &mut Writer<'_>,
    job: &Job,
) -> Result<Result<TxnOutcome, StoreError>, Fault> {
    match job {
        Job::Transact(txn) => {
            return writer.transact(txn, |lease| shared.leases.is_alive(lease));
        }
        Job::EndLeases(leases) => writer.delete_leased(|lease| leases.contains(&lease))?,
        Job::Compact(to) => writer.forget_before(*to)?,
    }
    Ok(Ok(TxnOutcome::Committed(writer.revision())))
}

/// Deletes the keys of leases that nobody kept alive.
async fn end_leases(shared: Arc<Shared>, jobs: mpsc::Sender<Request>) {
    let end = async {
        loop {
            let ended = shared.leases.ended().await;
            while submit(&jobs, Job::EndLeases(ended.clone())).await.is_err() {
                tokio::time::sleep(EXPIRY_RETRY).await;
            }
        }
    };
    shared.closing.run_until_cancelled(end).await;
}

/// One watch: where it stands in the change log.
struct Watcher {
    shared: Arc<Shared>,
    committed: watch::Receiver<Rev>,
    /// Everything below was delivered.
    next: Rev,
    ended: bool,
}

impl Watcher {
    async fn step(mut self) -> Option<(Result<WatchBatch, WatchError>, Self)> {
        if self.ended {
            return None;
        }
        let batch = self.next_batch().await;
        self.ended = batch.is_err();
        Some((batch, self))
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, WatchError> {
        const CLOSED: WatchError = WatchError::Store(StoreError::Closed);
        loop {
            let committed = *self.committed.borrow_and_update();
            if committed >= self.next {
                return self.changes().await;
            }
            tokio::select! {
                () = self.shared.closing.cancelled() => return Err(CLOSED),
                changed = self.committed.changed() => changed.map_err(|_| CLOSED)?,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                    return Ok(WatchBatch { revision: committed, events: Vec::new() });
                }
            }
        }
    }

    async fn changes(&mut self) -> Result<WatchBatch, WatchError> {
        let next = self.next;
        let read = self
            .shared
            .blocking(move |disk| disk.snapshot()?.changes_from(next))
            .await;
        match read {
            Ok(batch) => {
                self.next = batch.revision + 1;
                Ok(batch)
            }
            Err(StoreError::Compacted { floor }) => Err(WatchError::Compacted { floor }),
            Err(error) => Err(WatchError::Store(error)),
        }
    }
}
