//! The store: the one durable, linearizable, watchable map that the control plane stands on.
//!
//! Everything that must survive a restart or be agreed on by several replicas is a key here:
//! account records, names, registrations, drained reports, migrations, the routing configuration,
//! the leader. The trait is small on purpose, so that two very different implementations can keep
//! every promise of it:
//!
//! ```text
//!            get  range  transact  watch  revision      grant  keep_alive  revoke
//!                              │                                  │
//!                        trait Store  (Arc<dyn Store>)  ──────────┘
//!                    ┌─────────┴──────────┐
//!              embedded.rs             etcd.rs
//!          one file, one process    a cluster, many replicas
//!                    └─────────┬──────────┘
//!                   conformance.rs, model.rs    the same tests for both
//! ```
//!
//! # What is promised
//!
//! * **One order.** Every committed transaction that changes something has a [`Rev`] of its own,
//!   higher than all before it. A key's `mod_revision` is the revision of the transaction that
//!   wrote it last; guards compare it, and an account's *epoch* is nothing else.
//! * **Linearizable.** [`Store::get`], [`Store::revision`] and an unpinned [`Store::range`] see
//!   every transaction that was acknowledged, to anyone, before they were called.
//! * **All or nothing.** The guards of a transaction are judged and its writes applied in one step.
//! * **Acknowledged is durable.** `Committed` survives a `kill -9` and a power cut.
//! * **Unknown is said.** When a connection is lost after a write was sent, nobody knows whether
//!   it happened: [`StoreError::UnknownOutcome`]. It is never retried here, because only the
//!   caller's guards can make a repetition harmless.
//! * **A watch misses nothing.** Whole revisions, each once, in order; or the stream ends and
//!   says why. It survives the loss of the connection. When the history it needs is gone it ends
//!   with [`WatchError::Compacted`], and the watcher must load again *before* it watches again.
//!
//! # Keys
//!
//! Keys are byte strings of 1 to [`MAX_KEY_BYTES`] bytes, ordered bytewise; how they are laid out
//! is not known here. An installation sees only its own keys: the etcd store adds and removes the
//! configured prefix, the embedded store's file belongs to one installation.

#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod etcd;
pub mod metered;
#[cfg(test)]
mod model;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use crate::kv::{
    Event, Guard, InvalidTxn, KeyValue, LeaseId, MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS, Rev,
    Txn, Write, keys, value,
};

/// How long a watch may stay silent, in the best case: an idle watch reports progress this often.
///
/// A watcher that hears nothing for several times as long knows that its store is out of reach.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A watch: see [`Store::watch`]. It ends after its first error.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, WatchError>>;

/// A store. Shared as `Arc<dyn Store>`; every method may be called concurrently.
///
/// Dropping the future of a read is harmless. Dropping the future of [`Store::transact`] leaves
/// its outcome unknown, as [`StoreError::UnknownOutcome`] does.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key, linearizably, and the revision at which the answer is true.
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError>;

    /// Reads every key that starts with `prefix` (all keys, if it is empty), in key order.
    ///
    /// With `at` the answer is the state at exactly that revision, so that several ranges read at
    /// one revision are one consistent picture, whatever is written meanwhile. Without it the read
    /// is linearizable, and [`Range::revision`] can pin the next ones.
    ///
    /// The whole answer is held in memory, and etcd spends time in proportion to it: load by
    /// prefixes that are small in themselves.
    ///
    /// # Errors
    ///
    /// [`StoreError::Compacted`] when the history of `at` is gone: begin again, unpinned.
    /// [`StoreError::Future`] when the store has never reached `at`.
    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError>;

    /// Reads every key there is, linearizably, if there are no more than `most`.
    async fn whole(&self, most: usize) -> Result<Option<Range>, StoreError> {
        let range = self.range(b"", None).await?;
        Ok((range.entries.len() <= most).then_some(range))
    }

    /// Judges all guards of `txn` and, if all hold, applies all its writes, in one step.
    ///
    /// A transaction that changes nothing (no writes, or only deletions of absent keys) commits
    /// at the present revision without raising it.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownOutcome`] when the writes may or may not have been applied. After any
    /// other error, they have not been.
    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Everything written with a `mod_revision` of at least `from`, then everything as it happens.
    ///
    /// A batch holds whole revisions; batches follow each other without gap or repetition. To
    /// follow a loaded state, watch from its revision plus one; `from` 0 is the same as 1. While
    /// nothing happens, empty batches report progress about every [`PROGRESS_INTERVAL`]. A lost
    /// connection is restored without the watcher's doing; meanwhile there is no progress.
    ///
    /// # Errors
    ///
    /// Those of the watch itself come as the last item of the stream.
    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError>;

    /// The present revision, by a linearizable read.
    async fn revision(&self) -> Result<Rev, StoreError>;

    /// Grants a lease that ends, and takes its keys with it, when nobody keeps it alive for `ttl`.
    ///
    /// It may last longer than asked for (etcd counts whole seconds and has a minimum), never
    /// shorter, counted from before the call. A lease of the embedded store ends with its process.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Lets a lease run for its whole time to live again.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Lost`] when it has ended. After [`LeaseError::Store`] nobody knows: the holder
    /// must count on its end a time to live after it *called* for the last renewal that was
    /// answered.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError>;

    /// Ends a lease and deletes its keys, now. One that has ended already is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Allows the store to forget what happened before `to`; see [`StoreError::Compacted`].
    ///
    /// The state at `to` stays readable. A `to` that lies above the present revision means the
    /// present one; a `to` that is forgotten already is no error. With etcd the history is that of
    /// the cluster, with everybody who shares it.
    async fn compact(&self, to: Rev) -> Result<(), StoreError>;
}

/// The answer of [`Store::range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The keys of the range, in key order.
    pub entries: Vec<KeyValue>,
    /// The revision at which this is the whole truth: the pinned one, if one was given.
    pub revision: Rev,
}

/// What became of a transaction whose outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a transaction may have been refused by its guards"]
pub enum TxnOutcome {
    /// All guards held and all writes are durable, at this revision.
    Committed(Rev),
    /// A guard failed and nothing was written.
    Conflict {
        /// The revision at which the guards were judged.
        revision: Rev,
    },
}

impl TxnOutcome {
    /// The revision of the commit, if there was one.
    pub fn committed(self) -> Option<Rev> {
        match self {
            Self::Committed(revision) => Some(revision),
            Self::Conflict { .. } => None,
        }
    }
}

/// What a watch has to tell: all events of one or more whole revisions, in order of revision.
///
/// After it the watcher knows everything up to `revision`. Without events it reports progress:
/// nothing that the watcher has not been told happened at or before `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// Nothing at or below this revision will follow. It never falls from batch to batch.
    pub revision: Rev,
    /// The events; empty for progress.
    pub events: Vec<Event>,
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The history that the watch needs is gone. Going on from a later revision would leave what
    /// was deleted meanwhile in place for ever: load everything again, delete what the load lacks,
    /// watch from the load's revision plus one.
    #[error("the history that the watch needs is compacted away")]
    Compacted {
        /// The oldest revision that can still be read, if the store said it.
        floor: Option<Rev>,
    },
    /// The store refused in a way that trying again does not heal.
    #[error("the watch ended: {0}")]
    Store(#[source] StoreError),
}

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot serve now. A write was *not* applied. Trying again later is right.
    #[error("the store is unavailable: {0}")]
    Unavailable(Outage),
    /// The store stopped answering while a write was under way, which may or may not have been
    /// applied, and may even be applied later. Read before deciding anything.
    #[error("the outcome of the write is unknown: {0}")]
    UnknownOutcome(Outage),
    /// The pinned revision is older than the history that the store keeps.
    #[error("the revision is compacted away")]
    Compacted {
        /// The oldest revision that can still be read, if the store said it. A watch can begin at
        /// the revision after it.
        floor: Option<Rev>,
    },
    /// The pinned revision lies above the store's present one: it was not read from this store, or
    /// the store was restored from a backup.
    #[error("the store has not reached the revision")]
    Future,
    /// A transaction or an answer exceeds a limit of the store.
    #[error("the transaction or the answer is too large for the store")]
    TooLarge,
    /// A key is empty or written twice: a mistake of ours, not of the moment.
    #[error("the transaction is malformed")]
    Malformed,
    /// The lease that a key was to be attached to does not exist (any more). Nothing was written.
    #[error("the lease has ended")]
    LeaseLost,
    /// The store does not accept our credentials, or they do not allow this.
    #[error("the store refuses our credentials")]
    Denied,
    /// What the store holds cannot be read. A person must look at it.
    #[error("the store is corrupt")]
    Corrupt,
    /// This handle of the store was closed.
    #[error("the store is closed")]
    Closed,
}

impl From<InvalidTxn> for StoreError {
    fn from(invalid: InvalidTxn) -> Self {
        match invalid {
            InvalidTxn::TooLarge => Self::TooLarge,
            InvalidTxn::Malformed => Self::Malformed,
        }
    }
}

/// Why a store cannot serve: for people and metrics; no caller needs to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Outage {
    /// Nobody could be reached, or the connection broke.
    #[error("no connection")]
    Connection,
    /// No answer within the time limit.
    #[error("no answer in time")]
    Timeout,
    /// The cluster has no leader, or is changing it.
    #[error("no quorum")]
    NoQuorum,
    /// The store or its disk is full.
    #[error("no space left")]
    NoSpace,
    /// The file system or the disk refuses.
    #[error("input or output error")]
    Io,
    /// The store has more to do than it takes on.
    #[error("overloaded")]
    Overloaded,
    /// The store answered with an error that is not known here.
    #[error("unexpected answer")]
    Unexpected,
}

/// Why a lease could not be kept alive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It has ended; its keys are gone or going.
    #[error("the lease has ended")]
    Lost,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
