//! Clients that are not logged in, as their listener counts them. Nothing is decided by it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The newcomers of one listener. Cheap to clone; clones share one count.
#[derive(Debug, Clone, Default)]
pub struct Newcomers(Arc<AtomicUsize>);

impl Newcomers {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts a client for as long as the answer lives.
    pub fn enter(&self) -> Newcomer {
        self.0.fetch_add(1, Ordering::Relaxed);
        Newcomer(Arc::clone(&self.0))
    }
}

/// A client that is not logged in. Dropped with everything else of its login.
pub struct Newcomer(Arc<AtomicUsize>);

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
