//! The table in force.

use std::sync::Arc;

use ferrypost_routing::RoutingTable;
use tokio::sync::watch;

/// Publishes the table in force. Cheap to clone; clones share one cell.
///
/// One primitive both stores the table and wakes held logins. A reader waits for no more than the swap
/// of one pointer.
#[derive(Clone, Debug, Default)]
pub struct Tables(watch::Sender<Option<Arc<RoutingTable>>>);

impl Tables {
    /// Without a table: nobody can be admitted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table in force; `None` before the first.
    pub fn current(&self) -> Option<Arc<RoutingTable>> {
        self.0.borrow().clone()
    }

    /// Follows the table as it changes. The current one counts as seen.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<RoutingTable>>> {
        self.0.subscribe()
    }

    /// Puts a table in force. Only the feed calls it, and closes after it what the new table fences or
    /// sends elsewhere ([`Fences::settle`](crate::fence::Fences::settle)).
    pub fn publish(&self, table: Arc<RoutingTable>) {
        self.0.send_replace(Some(table));
    }

    /// Takes the table away: nobody is admitted until another is published. Only the feed calls it, and closes
    /// after it whoever is there.
    pub fn withdraw(&self) {
        self.0.send_replace(None);
    }

    /// Puts a table in force that resolves every name as the one before it. Nobody is woken.
    pub fn replace_by_equal(&self, table: Arc<RoutingTable>) {
        self.0.send_if_modified(|now| {
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
        read(self.0.borrow().as_deref())
    }
}
