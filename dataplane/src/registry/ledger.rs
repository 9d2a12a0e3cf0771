//! What became of the sessions that one fence closes.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::Notify;

/// Counts for one fence. Written under the lock of the shard that the session leaves, so whoever counts
/// no session left under those locks reads final numbers.
#[derive(Debug)]
pub(crate) struct Ledger {
    closed: AtomicU32,
    unconfirmed: AtomicU32,
    changed: Arc<Notify>,
}

impl Ledger {
    /// Nothing yet. `changed` is notified at every entry.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self {
            closed: AtomicU32::new(0),
            unconfirmed: AtomicU32::new(0),
            changed,
        }
    }

    /// A session of the fence is over.
    pub(super) fn session_ended(&self, unconfirmed: bool) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        if unconfirmed {
            self.unconfirmed.fetch_add(1, Ordering::Relaxed);
        }
        self.changed.notify_one();
    }

    /// These ended before the fence, too lately for their backends to be surely done.
    pub(super) fn ended_before(&self, unconfirmed: u32) {
        self.unconfirmed.fetch_add(unconfirmed, Ordering::Relaxed);
    }

    /// Sessions that the fence closed.
    pub(crate) fn closed(&self) -> u32 {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sessions of the account whose backend's close was not seen.
    pub(crate) fn unconfirmed(&self) -> u32 {
        self.unconfirmed.load(Ordering::Relaxed)
    }
}
