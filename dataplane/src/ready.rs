//! Readiness: named blockers, released on drop.
//!
//! Whoever must be done before clients may come holds a [`Blocker`]; the data plane is ready while there
//! is none. A blocker may return later: a data plane that was expelled blocks itself again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// What stands between this process and its clients. Cheap to clone; clones share one state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blockers: Mutex<Blockers>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Blockers {
    next: u64,
    /// In the order in which they came: the first is what is waited for.
    reasons: BTreeMap<u64, String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Ready until something blocks. Take all blockers before the first one can be released.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            blockers: Mutex::default(),
            ready: watch::Sender::new(true),
        }))
    }

    /// Blocks readiness until the blocker is dropped. `reason` is for people, as `/stats` shows it:
    /// "not registered with the control plane".
    pub fn block(&self, reason: impl Into<String>) -> Blocker {
        let id = self.0.update(|blockers| {
            let id = blockers.next;
            blockers.next += 1;
            blockers.reasons.insert(id, reason.into());
            id
        });
        Blocker {
            inner: Arc::clone(&self.0),
            id,
        }
    }

    /// True while nothing blocks.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// What blocks, in the order in which it came. Empty when ready.
    pub fn reasons(&self) -> Vec<String> {
        self.0.lock().reasons.values().cloned().collect()
    }

    /// Follows readiness as it changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Blockers> {
        self.blockers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes under the lock, so that the flag never lags behind a later change.
    fn update<R>(&self, change: impl FnOnce(&mut Blockers) -> R) -> R {
        let mut blockers = self.lock();
        let result = change(&mut blockers);
        let ready = blockers.reasons.is_empty();
        self.ready
            .send_if_modified(|was| std::mem::replace(was, ready) != ready);
        result
    }
}

/// Holds readiness back while it lives.
#[derive(Debug)]
#[must_use = "dropping a blocker releases it"]
pub struct Blocker {
    inner: Arc<Inner>,
    id: u64,
}

impl Blocker {
    /// Says more exactly why.
    pub fn because(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.inner.update(|blockers| {
            blockers.reasons.insert(self.id, reason);
        });
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.inner.update(|blockers| {
            blockers.reasons.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_blocker_is_gone() {
        let readiness = Readiness::new();
        let table = readiness.block("no table yet");
        let listeners = readiness.block("listeners are not bound");
        assert_eq!(
            readiness.reasons(),
            ["no table yet", "listeners are not bound"]
        );
        drop(listeners);
        assert!(!readiness.is_ready());
        table.because("the control plane cannot be reached");
        assert_eq!(readiness.reasons(), ["the control plane cannot be reached"]);
        drop(table);
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn a_blocker_that_returns_is_seen_by_watchers() {
        let readiness = Readiness::new();
        let mut watch = readiness.watch();
        let expelled = readiness.block("expelled");
        watch.changed().await.expect("the sender lives");
        assert!(!*watch.borrow_and_update());
        drop(expelled);
        watch.changed().await.expect("the sender lives");
        assert!(*watch.borrow_and_update());
    }
}
