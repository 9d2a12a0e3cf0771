//! Leases.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{LIMIT, commit, events_up_to, is_conflict, next, put, told};
use crate::store::{Event, LeaseError, LeaseId, Rev, Store, StoreError, Txn};

/// As short as etcd counts. With its default timers it makes two or three seconds of it.
const SHORT: Duration = Duration::from_secs(1);

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);

async fn leased(store: &Arc<dyn Store>, key: &str, ttl: Duration) -> (LeaseId, Rev) {
    let lease = store.grant(ttl).await.unwrap();
    (
        lease,
        commit(store, Txn::new().put_leased(key, "leased", lease)).await,
    )
}

async fn exists(store: &Arc<dyn Store>, key: &str) -> bool {
    store.get(key.as_bytes()).await.unwrap().0.is_some()
}

/// Waits until the watch tells of a deletion.
async fn deletion(store: &Arc<dyn Store>, from: Rev) -> Vec<Event> {
    let mut watch = store.watch(from).await.unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let batch = next(&mut watch).await.unwrap();
        if batch
            .events
            .iter()
            .any(|event| matches!(event, Event::Delete { .. }))
        {
            return batch.events;
        }
        assert!(Instant::now() < deadline, "the lease does not end");
    }
}

pub(super) async fn a_lease_that_nobody_keeps_ends_and_takes_its_keys(store: Arc<dyn Store>) {
    let before = Instant::now();
    let (lease, revision) = leased(&store, "leader", SHORT).await;
    put(&store, "other", "1").await;
    let events = deletion(&store, revision + 1).await;
    assert!(before.elapsed() >= SHORT, "it ended too early");
    assert_eq!(told(&events), ["-leader"]);
    assert!(!exists(&store, "leader").await);
    assert!(exists(&store, "other").await);
    assert_eq!(store.keep_alive(lease).await, Err(LeaseError::Lost));
}

pub(super) async fn a_lease_that_is_kept_stays(store: Arc<dyn Store>) {
    // Long enough for a busy machine to keep it.
    let ttl = SHORT * 5;
    let (lease, _) = leased(&store, "leader", ttl).await;
    let end = Instant::now() + ttl + SHORT;
    while Instant::now() < end {
        store.keep_alive(lease).await.unwrap();
        assert!(exists(&store, "leader").await);
        sleep(SHORT / 4).await;
    }
}

pub(super) async fn a_revoked_lease_takes_its_keys_at_once(store: Arc<dyn Store>) {
    let (lease, _) = leased(&store, "a", LONG).await;
    commit(
        &store,
        Txn::new().put_leased("b", "leased", lease).put("c", "free"),
    )
    .await;
    store.revoke(lease).await.unwrap();
    assert!(!exists(&store, "a").await);
    assert!(!exists(&store, "b").await);
    assert!(exists(&store, "c").await);
    store.revoke(lease).await.unwrap();
}

pub(super) async fn a_lost_lease_cannot_be_kept_or_used(store: Arc<dyn Store>) {
    let lease = store.grant(LONG).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(store.keep_alive(lease).await, Err(LeaseError::Lost));
    let txn = Txn::new().put("free", "1").put_leased("leased", "1", lease);
    assert_eq!(store.transact(txn).await, Err(StoreError::LeaseLost));
    assert!(!exists(&store, "free").await);
}

pub(super) async fn a_key_that_is_written_without_its_lease_is_free_of_it(store: Arc<dyn Store>) {
    let (lease, _) = leased(&store, "a", LONG).await;
    commit(
        &store,
        Txn::new()
            .put_leased("b", "leased", lease)
            .put_leased("c", "leased", lease),
    )
    .await;
    put(&store, "a", "free").await;
    commit(&store, Txn::new().delete("b")).await;
    put(&store, "b", "free").await;
    store.revoke(lease).await.unwrap();
    assert!(exists(&store, "a").await);
    assert!(exists(&store, "b").await);
    assert!(!exists(&store, "c").await);
}

pub(super) async fn a_lease_moves_with_the_last_write(store: Arc<dyn Store>) {
    let (first, _) = leased(&store, "a", LONG).await;
    let (second, _) = leased(&store, "a", LONG).await;
    store.revoke(first).await.unwrap();
    assert!(exists(&store, "a").await);
    store.revoke(second).await.unwrap();
    assert!(!exists(&store, "a").await);
}

pub(super) async fn the_end_of_a_lease_is_one_revision_of_the_watch(store: Arc<dyn Store>) {
    let lease = store.grant(LONG).await.unwrap();
    let txn = ["a", "b", "c"]
        .into_iter()
        .fold(Txn::new(), |txn, key| txn.put_leased(key, "leased", lease));
    let written = commit(&store, txn).await;
    let mut watch = store.watch(written + 1).await.unwrap();
    store.revoke(lease).await.unwrap();
    let gone = store.revision().await.unwrap();
    let events = events_up_to(&mut watch, gone).await;
    let mut names = told(&events);
    names.sort();
    assert_eq!(names, ["-a", "-b", "-c"]);
    assert!(events.iter().all(|event| event.mod_revision() == gone));
}

pub(super) async fn a_failed_guard_goes_before_a_lost_lease(store: Arc<dyn Store>) {
    let lease = store.grant(LONG).await.unwrap();
    store.revoke(lease).await.unwrap();
    put(&store, "a", "1").await;
    let txn = Txn::new().absent("a").put_leased("b", "1", lease);
    assert!(is_conflict(store.transact(txn).await.unwrap()));
}
