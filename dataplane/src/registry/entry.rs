//! One session in the registry, and how it is told to end.

use std::{
    fmt::Debug,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ferrypost_routing::Route;
use strum::{IntoStaticStr, VariantNames};
use tokio::{sync::Notify, time::Instant};

use super::AdmitRequest;

/// Why the registry ends a session. Written once: the first reason is the one that the client hears and
/// the log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The name is fenced, or goes elsewhere now.
    Moved,
    /// An operator ended it.
    Kicked,
    /// This process ends.
    Stopping,
    /// This data plane was expelled or superseded and may serve nobody.
    Expelled,
}

impl CloseReason {
    /// As logs say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Kicked => "kicked",
            Self::Stopping => "stopping",
            Self::Expelled => "expelled",
        }
    }
}

/// How far a session has come, in the words of `ListSessions`, `/stats` and `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Stage {
    /// A login without a route: its name is fenced.
    Held,
    /// Dialled, negotiated, logged in.
    Connecting,
    /// Bytes go both ways.
    Relaying,
    /// Told to end.
    Closing,
}

/// Whoever hears of a session's end at once, and need not be polled for it.
pub trait Told: Debug + Send + Sync {
    /// The session is to end. It is said under a lock of the registry's: nothing here may wait, or drop a guard.
    fn told(self: Arc<Self>, reason: CloseReason);
}

/// What registry and guard share.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place in lists: a later one of this process has a higher number.
    pub(super) serial: u64,
    pub(super) request: AdmitRequest,
    /// `None` while held.
    pub(super) route: Option<Route>,
    pub(super) since: Instant,
    relaying: AtomicBool,
    reason: OnceLock<CloseReason>,
    told: Notify,
    alarm: OnceLock<Arc<dyn Told>>,
}

impl Entry {
    pub(super) fn new(request: AdmitRequest, route: Option<Route>, since: Instant) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            request,
            route,
            since,
            relaying: AtomicBool::new(false),
            reason: OnceLock::new(),
            told: Notify::new(),
            alarm: OnceLock::new(),
        }
    }

    /// Tells the session to end. False if it had been told before. Under the lock of its shard.
    pub(super) fn close(&self, reason: CloseReason) -> bool {
        let first = self.reason.set(reason).is_ok();
        self.told.notify_waiters();
        if first && let Some(alarm) = self.alarm.get() {
            Arc::clone(alarm).told(reason);
        }
        first
    }

    /// Tells somebody of the end as well. Under the same lock, so that he is not missed.
    pub(super) fn alarm(&self, whom: Arc<dyn Told>) {
        if let Some(reason) = self.close_reason() {
            Arc::clone(&whom).told(reason);
        }
        _ = self.alarm.set(whom);
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.reason.get().copied()
    }

    pub(super) async fn closing(&self) -> CloseReason {
        loop {
            // Taken before the look, so that a reason written in between is not missed.
            let told = self.told.notified();
            if let Some(reason) = self.close_reason() {
                return reason;
            }
            told.await;
        }
    }

    pub(super) fn relaying(&self) {
        self.relaying.store(true, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> Stage {
        if self.reason.get().is_some() {
            Stage::Closing
        } else if self.route.is_none() {
            Stage::Held
        } else if self.relaying.load(Ordering::Relaxed) {
            Stage::Relaying
        } else {
            Stage::Connecting
        }
    }
}
