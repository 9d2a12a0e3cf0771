//! Those who wait for one migration: woken by its changes, and by nobody else's.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ferrypost_proto::MigrationId;
use tokio::sync::watch;

use super::Mirror;

/// Who is woken by which migration.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<MigrationId, watch::Sender<()>>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, HashMap<MigrationId, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake<'a>(&self, migrations: impl IntoIterator<Item = &'a MigrationId>) {
        let waiters = self.lock();
        for id in migrations {
            if let Some(waiting) = waiters.get(id) {
                waiting.send_replace(());
            }
        }
    }

    /// Everything may have changed.
    pub(super) fn wake_all(&self) {
        for waiting in self.lock().values() {
            waiting.send_replace(());
        }
    }
}

/// The changes of one migration.
pub struct MigrationChanges {
    mirror: Mirror,
    id: MigrationId,
    changes: watch::Receiver<()>,
}

impl MigrationChanges {
    pub(super) fn of(mirror: &Mirror, id: &MigrationId) -> Self {
        let mut waiters = mirror.0.waiters.lock();
        let waiting = waiters.entry(id.clone()).or_default();
        Self {
            changes: waiting.subscribe(),
            mirror: mirror.clone(),
            id: id.clone(),
        }
    }

    /// Waits until the migration was written or removed since this was made or last answered.
    pub async fn next(&mut self) {
        if self.changes.changed().await.is_err() {
            // Its sender is there for as long as this is.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for MigrationChanges {
    fn drop(&mut self) {
        let mut waiters = self.mirror.0.waiters.lock();
        let is_last = |waiting: &watch::Sender<()>| waiting.receiver_count() <= 1;
        if waiters.get(&self.id).is_some_and(is_last) {
            waiters.remove(&self.id);
        }
    }
}
