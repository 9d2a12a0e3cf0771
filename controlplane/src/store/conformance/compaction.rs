//! Compaction, and what it leaves of reads and watches.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::{LIMIT, commit, events_up_to, next, put, told};
use crate::store::{Store, StoreError, Txn, WatchError};

fn is_compacted<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Compacted { .. }))
}

pub(super) async fn compacted_revisions_cannot_be_read_and_later_ones_can(store: Arc<dyn Store>) {
    let before = put(&store, "a", "1").await;
    let deleted = commit(&store, Txn::new().delete("a").put("b", "1")).await;
    let floor = put(&store, "b", "2").await;
    let after = put(&store, "a", "2").await;
    let at_floor = store.range(b"", Some(floor)).await.unwrap();
    let at_present = store.range(b"", Some(after)).await.unwrap();

    store.compact(floor).await.unwrap();
    assert!(is_compacted(&store.range(b"", Some(before)).await));
    assert!(is_compacted(&store.range(b"", Some(deleted)).await));
    assert!(is_compacted(&store.range(b"", Some(0)).await));
    assert_eq!(store.range(b"", Some(floor)).await.unwrap(), at_floor);
    assert_eq!(store.range(b"", Some(after)).await.unwrap(), at_present);
    assert_eq!(store.range(b"", None).await.unwrap(), at_present);
}

/// The load must fail, rather than put buckets of different revisions together.
pub(super) async fn compaction_in_the_middle_of_a_load_is_noticed(store: Arc<dyn Store>) {
    commit(&store, Txn::new().put("0/a", "1").put("1/a", "1")).await;
    let pin = store.revision().await.unwrap();
    assert!(store.range(b"0/", Some(pin)).await.is_ok());
    let floor = put(&store, "1/a", "2").await;
    store.compact(floor).await.unwrap();
    assert!(is_compacted(&store.range(b"1/", Some(pin)).await));

    let again = store.range(b"0/", None).await.unwrap();
    assert_eq!(
        store
            .range(b"1/", Some(again.revision))
            .await
            .unwrap()
            .entries[0]
            .value,
        "2"
    );
}

pub(super) async fn compacting_twice_or_too_far_is_no_error(store: Arc<dyn Store>) {
    let before = put(&store, "a", "1").await;
    let present = put(&store, "a", "2").await;
    store.compact(0).await.unwrap();
    assert!(store.range(b"", Some(before)).await.is_ok());
    for _ in 0..2 {
        store.compact(present + 1000).await.unwrap();
    }
    store.compact(before).await.unwrap();
    assert!(is_compacted(&store.range(b"", Some(before)).await));
    assert_eq!(
        store.range(b"", Some(present)).await.unwrap().entries[0].value,
        "2"
    );
}

/// From the floor itself there may be deletions that nobody remembers.
pub(super) async fn a_compacted_past_ends_the_watch(store: Arc<dyn Store>) {
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(put(&store, "a", &number.to_string()).await);
    }
    let floor = revisions[5];
    store.compact(floor).await.unwrap();
    for from in [0, 1, revisions[0], revisions[4], floor] {
        let mut watch = store.watch(from).await.unwrap();
        let error = next(&mut watch).await.unwrap_err();
        assert!(
            matches!(error, WatchError::Compacted { .. }),
            "{from}: {error:?}"
        );
        let end = timeout(LIMIT, watch.next()).await.unwrap();
        assert!(end.is_none(), "a watch ends with its error");
    }
    let mut watch = store.watch(floor + 1).await.unwrap();
    let events = events_up_to(&mut watch, revisions[9]).await;
    assert_eq!(told(&events), ["a=6", "a=7", "a=8", "a=9"]);
}

pub(super) async fn compaction_does_not_disturb_a_watch_that_keeps_up(store: Arc<dyn Store>) {
    let start = put(&store, "a", "0").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    for number in 1..10 {
        let revision = put(&store, "a", &number.to_string()).await;
        assert_eq!(
            told(&events_up_to(&mut watch, revision).await),
            [format!("a={number}")]
        );
        store.compact(revision).await.unwrap();
    }
}
