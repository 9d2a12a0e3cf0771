//! Removes ended migrations and request ids some time after the end, so that nothing grows for ever. An
//! account's last migration stays for as long as its record.
//!
//! Each transaction stands for itself: it deletes a few keys over the revisions that were seen, so a leader
//! that dies in between leaves the rest to the next one. Request ids go first: none is left that points to
//! a migration that is gone.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{MigrationId, store::v1::RequestEntry};
use tokio::time;

use super::lead::DriverContext;
use crate::{
    domain::state::{Past, State},
    store::{KeyValue, Rev, StoreError, Txn, keys, value::Stored},
};

/// Keys that are removed at once.
const AT_ONCE: usize = 32;

/// A key and the revision at which it was seen.
type Seen = (Vec<u8>, Rev);

/// Prunes for ever.
pub(super) async fn prune(term: &Arc<DriverContext>) {
    loop {
        if let Err(error) = round(term).await {
            tracing::warn!(%error, "old migrations are not pruned yet");
        }
        time::sleep(term.options.prune_every).await;
    }
}

async fn round(term: &DriverContext) -> Result<(), StoreError> {
    let before = ends_before(term.options.clock.now().seconds, term.options.keep);
    for slice in keys::request_slices() {
        let range = term.mirror.store().range(&slice, None).await?;
        let state = term.mirror.read();
        let old = |entry: &&KeyValue| is_old_request(&state, entry, before);
        let seen = |entry: &KeyValue| (entry.key.clone(), entry.mod_revision);
        remove(term, range.entries.iter().filter(old).map(seen).collect()).await;
    }
    remove(term, old_migrations(&term.mirror.read(), before)).await;
    Ok(())
}

/// The moment before which what has ended is old, in seconds of the Unix epoch.
fn ends_before(now: i64, keep: Duration) -> i64 {
    now.saturating_sub_unsigned(keep.as_secs())
}

/// True if its migration is gone or has ended long ago. One that cannot be read is nobody's to judge, and one that
/// is newer than the mirror is judged the next time: its migration was written with it or before it.
fn is_old_request(state: &State, entry: &KeyValue, before: i64) -> bool {
    if entry.mod_revision > state.revision() {
        return false;
    }
    let Ok(request) = Stored::<RequestEntry>::read(&entry.value) else {
        return false;
    };
    let Ok(id) = MigrationId::parse(&request.migration_id) else {
        return false;
    };
    match state.past_migration(&id) {
        Some(past) => is_old(past, before),
        None => state.migration(&id).is_none(),
    }
}

fn is_old(past: &Past, before: i64) -> bool {
    past.ended_at.is_some_and(|ended| ended < before)
}

fn old_migrations(state: &State, before: i64) -> Vec<Seen> {
    state
        .past()
        .filter(|(id, past)| is_old(past, before) && !is_last(state, id, past))
        .map(|(id, past)| (keys::migration(id), past.revision))
        .collect()
}

/// True if a record names it as its account's last move, or cannot be read. A record that has gone on to
/// another migration never comes back to this one.
fn is_last(state: &State, id: &MigrationId, past: &Past) -> bool {
    let mut records = past
        .accounts
        .iter()
        .filter_map(|account| state.account(account));
    records.any(|record| {
        record
            .placement()
            .is_none_or(|placement| placement.migration_id.as_ref() == Some(id))
    })
}

/// Removes keys, if they are still as they were seen.
async fn remove(term: &DriverContext, old: Vec<Seen>) {
    if !old.is_empty() {
        tracing::info!(keys = old.len(), "what ended long ago is pruned");
    }
    for few in old.chunks(AT_ONCE) {
        let txn = Txn::new()
            .absent(keys::REWOUND)
            .at(keys::LEADER, term.leadership.token());
        let txn = few.iter().fold(txn, |txn, (key, revision)| {
            txn.at(key.clone(), *revision).delete(key.clone())
        });
        term.write(txn).await;
    }
}
