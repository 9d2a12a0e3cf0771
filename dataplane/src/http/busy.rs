//! Whether a client's connection has a request, and since when not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How often it is looked whether one that takes long is over: event streams take hours, and there are many.
const LOOK: Duration = Duration::from_secs(2);

/// How many requests of a connection are being answered.
#[derive(Debug)]
pub(super) struct Busy {
    count: AtomicUsize,
    begun: Instant,
    /// When the last one was over, in milliseconds since the beginning.
    rested: AtomicU64,
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct InProgress(Arc<Busy>);

impl Busy {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            begun: Instant::now(),
            rested: AtomicU64::new(0),
        })
    }

    /// Counts a request.
    pub(super) fn enter(self: &Arc<Self>) -> InProgress {
        self.count.fetch_add(1, Ordering::Relaxed);
        InProgress(Arc::clone(self))
    }

    /// Whether there is one.
    pub(super) fn is_busy(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Resolves when there has been none for so long, or a little later.
    pub(super) async fn rested_for(&self, limit: Duration) {
        loop {
            let due = if self.is_busy() {
                Instant::now() + limit.max(LOOK)
            } else {
                self.begun + Duration::from_millis(self.rested.load(Ordering::Relaxed)) + limit
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.rested.store(now, Ordering::Relaxed);
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}
