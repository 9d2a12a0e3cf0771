//! How many clients are connected to a listener, for `/stats`. Nothing is decided by it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::session::{Newcomer, Newcomers};

/// The counts of one listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    open: AtomicUsize,
    newcomers: Newcomers,
}

impl ListenerCounts {
    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Those of them that are not logged in.
    pub fn not_logged_in(&self) -> usize {
        self.newcomers.count()
    }

    /// Counts a connection for as long as this lives.
    pub(super) fn opened(&self) -> Opened<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Opened(&self.open)
    }

    /// Counts a client as not logged in for as long as this lives.
    pub(super) fn newcomer(&self) -> Newcomer {
        self.newcomers.enter()
    }
}

/// An open connection.
pub(super) struct Opened<'a>(&'a AtomicUsize);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
