//! The leases of the embedded store: in memory, on the monotonic clock, as long as the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::store::LeaseId;

/// Which leases there are, and when each ends.
///
/// A lease leaves this table *before* the deletion of its keys is queued at the writer. The writer
/// asks [`Leases::is_alive`] before it attaches a key. So a key is either refused, or attached
/// before the deletion and caught by it.
#[derive(Debug)]
pub(super) struct Leases {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug)]
struct Table {
    next: i64,
    leases: HashMap<LeaseId, Lease>,
}

#[derive(Debug)]
struct Lease {
    time_to_live: Duration,
    ends: Instant,
}

impl Leases {
    /// Leases of the process that opened the store for the `boot`th time. Their numbers are not
    /// those of any process before it, so that nobody holds on to a lease across a restart.
    pub(super) fn new(boot: u64) -> Self {
        let next = i64::try_from(boot << 32).expect("nobody opens a store two billion times");
        let table = Table {
            next,
            leases: HashMap::new(),
        };
        Self {
            table: Mutex::new(table),
            changed: Notify::new(),
        }
    }

    pub(super) fn grant(&self, time_to_live: Duration) -> LeaseId {
        let mut table = self.lock();
        let id = LeaseId(table.next);
        table.next += 1;
        table.leases.insert(
            id,
            Lease {
                time_to_live,
                ends: Instant::now() + time_to_live,
            },
        );
        self.changed.notify_one();
        id
    }

    /// Whether the lease was still there and now runs for its whole time again.
    pub(super) fn keep_alive(&self, id: LeaseId) -> bool {
        let now = Instant::now();
        match self.lock().leases.get_mut(&id) {
            // A lease that is past its end is lost even if nobody has come to take it away yet.
            Some(lease) if now < lease.ends => {
                lease.ends = now + lease.time_to_live;
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_alive(&self, id: LeaseId) -> bool {
        self.lock().leases.contains_key(&id)
    }

    pub(super) fn remove(&self, id: LeaseId) {
        self.lock().leases.remove(&id);
    }

    /// Waits until some leases have ended, removes them and names them.
    pub(super) async fn ended(&self) -> Vec<LeaseId> {
        loop {
            let next = self.lock().leases.values().map(|lease| lease.ends).min();
            match next {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
            let ended = self.take_ended();
            if !ended.is_empty() {
                return ended;
            }
        }
    }

    fn take_ended(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let mut table = self.lock();
        table
            .leases
            .extract_if(|_, lease| lease.ends <= now)
            .map(|(id, _)| id)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is a single step, so a panic elsewhere leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
