//! The table in force.

use std::{sync::Arc, time::Duration};

use ferrypost_routing::RoutingTable;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How long logins wait for the first table of a process that has just started: several times as long as it takes to
/// get one. Who has none for longer has none to come, and says so at once.
const FIRST_TABLE: Duration = Duration::from_secs(10);

/// Publishes the table in force. Cheap to clone; clones share one cell.
///
/// One primitive both stores the table and wakes held logins. A reader waits for no more than the swap
/// of one pointer.
#[derive(Clone, Debug)]
pub struct Tables {
    now: watch::Sender<Option<Arc<RoutingTable>>>,
    /// Until when a login may wait for the first one.
    due: Instant,
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

impl Tables {
    /// Without a table: nobody can be admitted yet.
    pub fn new() -> Self {
        Self {
            now: watch::Sender::default(),
            due: Instant::now() + FIRST_TABLE,
        }
    }

    /// Waits for a table while the first one may come, and no longer than `until`. Whether there is one.
    pub async fn first(&self, until: Instant) -> bool {
        let mut tables = self.watch();
        let there = async { tables.wait_for(Option::is_some).await.is_ok() };
        timeout_at(until.min(self.due), there)
            .await
            .unwrap_or(false)
    }

    /// The table in force; `None` before the first.
    pub fn current(&self) -> Option<Arc<RoutingTable>> {
        self.now.borrow().clone()
    }

    /// Follows the table as it changes. The current one counts as seen.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<RoutingTable>>> {
        self.now.subscribe()
    }

    /// Puts a table in force. Only the feed calls it, and closes after it what the new table fences or
    /// sends elsewhere ([`Fences::settle`](crate::fence::Fences::settle)).
    pub fn publish(&self, table: Arc<RoutingTable>) {
        self.now.send_replace(Some(table));
    }

    /// Takes the table away: nobody is admitted until another is published. Only the feed calls it, and closes
    /// after it whoever is there.
    pub fn withdraw(&self) {
        self.now.send_replace(None);
    }

    /// Puts a table in force that resolves every name as the one before it. Nobody is woken.
    pub fn replace_by_equal(&self, table: Arc<RoutingTable>) {
        self.now.send_if_modified(|now| {
            *now = Some(table);
            false
        });
    }
}

/// A place where a table is published. The registry is generic over it, so that a model checker can put
/// its own primitive here.
pub trait Published {
    /// Reads the table in force. `read` runs while it cannot be swapped, so it must be short.
    fn with_current<R>(&self, read: impl FnOnce(Option<&RoutingTable>) -> R) -> R;
}

impl Published for Tables {
    fn with_current<R>(&self, read: impl FnOnce(Option<&RoutingTable>) -> R) -> R {
        read(self.now.borrow().as_deref())
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_routing::testing;
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_process_that_has_just_started_is_waited_for() {
        let tables = Tables::new();
        let far = Instant::now() + 2 * FIRST_TABLE;
        let early = timeout(FIRST_TABLE / 2, tables.first(far)).await;
        assert!(early.is_err(), "it waits");
        assert!(
            !tables.first(Instant::now() + FIRST_TABLE / 4).await,
            "no longer than it may"
        );
        advance(FIRST_TABLE).await;
        let now = Instant::now();
        assert!(!tables.first(far).await);
        assert_eq!(now.elapsed(), Duration::ZERO, "nobody waits any more");
        tables.publish(Arc::new(testing::table(5, vec![])));
        assert!(tables.first(now).await, "what is there is there");
    }
}
