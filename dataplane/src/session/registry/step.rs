//! The two steps that race: an admission, and the close after a new table.
//!
//! Both look at the table in force *while they hold the shard's lock*. The publisher swaps the table first
//! and closes afterwards, so of an admission and a close under one name, whichever takes the lock second
//! sees what the first did: either the close finds the entry, or the admission finds the new table. With
//! the look-up before the lock neither might.
//!
//! Generic over both primitives, so that the model below runs this very code.

use std::sync::{Mutex, PoisonError};

use ferrypost_proto::Name;

use super::shard::Shard;
use crate::routing::{Published, Resolution};

/// A lock around a `T`.
pub(super) trait Lock<T> {
    /// Runs `work` with the lock held. Short, and never I/O.
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R;
}

impl<T> Lock<T> for Mutex<T> {
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // A panic ends one session; its shard is still consistent, for no step leaves an entry half done.
        work(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Resolves a name and lets `enter` insert the entry that goes with the answer.
pub(super) fn admit<R>(
    shard: &impl Lock<Shard>,
    tables: &impl Published,
    name: &Name,
    enter: impl FnOnce(&mut Shard, Option<Resolution>) -> R,
) -> R {
    shard.with(|shard| {
        let resolution = tables.with_current(|table| table.map(|table| table.resolve(name)));
        enter(shard, resolution)
    })
}

/// Closes what the table in force no longer allows under a name. `before` runs first, under the same
/// lock.
pub(super) fn close_changed(
    shard: &impl Lock<Shard>,
    tables: &impl Published,
    name: &Name,
    before: impl FnOnce(&mut Shard),
) {
    shard.with(|shard| {
        before(shard);
        if let Some(now) = tables.with_current(|table| table.map(|table| table.resolve(name))) {
            shard.close_changed(name, &now);
        }
    });
}

/// The same for every name of the shard.
pub(super) fn sweep(shard: &impl Lock<Shard>, tables: &impl Published) {
    shard.with(|shard| {
        tables.with_current(|table| {
            if let Some(table) = table {
                shard.sweep(|name| table.resolve(name));
            }
        });
    });
}
