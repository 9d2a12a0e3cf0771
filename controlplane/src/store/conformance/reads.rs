//! Ranges, pinned and not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{commit, put, text};
use crate::store::{Range, Rev, Store, StoreError, Txn};

pub(super) async fn a_new_store_is_empty_and_above_revision_zero(store: Arc<dyn Store>) {
    let range = store.range(b"", None).await.unwrap();
    assert_eq!(range.entries, []);
    assert!(range.revision > 0);
    assert_eq!(store.revision().await.unwrap(), range.revision);
    assert_eq!(store.range(b"", Some(range.revision)).await.unwrap(), range);
    assert_eq!(store.get(b"a").await.unwrap(), (None, range.revision));
}

pub(super) async fn a_range_is_what_starts_with_the_prefix_in_order(store: Arc<dyn Store>) {
    let txn = ["b/2", "b/1", "a/1", "b", "b/10", "c/1", "b0"]
        .into_iter()
        .fold(Txn::new(), |txn, key| txn.put(key, "value"));
    let revision = commit(&store, txn).await;
    let keys = |range: Range| -> Vec<_> {
        assert_eq!(range.revision, revision);
        range.entries.iter().map(|entry| text(&entry.key)).collect()
    };
    let range = async |prefix: &str| keys(store.range(prefix.as_bytes(), None).await.unwrap());
    assert_eq!(range("b/").await, ["b/1", "b/10", "b/2"]);
    assert_eq!(range("b").await, ["b", "b/1", "b/10", "b/2", "b0"]);
    assert_eq!(range("").await.len(), 7);
    assert_eq!(range("d").await, [] as [&str; 0]);
}

/// What a control plane does when it starts: bucket by bucket, at one revision.
pub(super) async fn a_pinned_load_is_one_picture_while_writes_go_on(store: Arc<dyn Store>) {
    const BUCKETS: usize = 8;
    // Every transaction writes the same number into all buckets, so that a load that mixed two
    // revisions would show.
    let everywhere = |number: u32| {
        (0..BUCKETS).fold(Txn::new(), |txn, bucket| {
            txn.put(format!("{bucket}/a"), number.to_string())
        })
    };
    commit(&store, everywhere(0)).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                commit(&store, everywhere(number)).await;
            }
            number
        }
    });
    for _ in 0..20 {
        let pin = store.revision().await.unwrap();
        let mut numbers = Vec::new();
        for bucket in 0..BUCKETS {
            let range = store
                .range(format!("{bucket}/").as_bytes(), Some(pin))
                .await
                .unwrap();
            assert_eq!(range.revision, pin);
            assert!(range.entries.iter().all(|entry| entry.mod_revision <= pin));
            numbers.extend(range.entries.into_iter().map(|entry| entry.value));
        }
        assert_eq!(numbers.len(), BUCKETS);
        assert!(
            numbers.iter().all(|number| *number == numbers[0]),
            "{numbers:?}"
        );
    }
    done.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0, "nothing was written meanwhile");
}

pub(super) async fn a_store_is_read_whole_unless_it_is_too_large(store: Arc<dyn Store>) {
    for number in 0..10 {
        put(&store, &number.to_string(), "1").await;
        put(&store, &number.to_string(), "2").await;
    }
    commit(&store, Txn::new().delete("3").delete("9")).await;
    let all = store.range(b"", None).await.unwrap();
    for most in [8, 9, usize::MAX] {
        assert_eq!(store.whole(most).await, Ok(Some(all.clone())), "{most}");
    }
    for most in [0, 1, 7] {
        assert_eq!(store.whole(most).await, Ok(None), "{most}");
    }
}

pub(super) async fn a_pinned_read_sees_what_was_deleted_since(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    let second = commit(&store, Txn::new().put("a", "2").put("b", "1")).await;
    let third = commit(&store, Txn::new().delete("a")).await;
    let fourth = put(&store, "a", "3").await;
    let mut seen = Vec::new();
    for at in [first, second, third, fourth] {
        let entries = store.range(b"", Some(at)).await.unwrap().entries;
        let texts = entries.iter().map(|entry| {
            format!(
                "{}={}@{}",
                text(&entry.key),
                text(&entry.value),
                entry.create_revision
            )
        });
        seen.push(texts.collect::<Vec<_>>().join(" "));
    }
    let expected = [
        format!("a=1@{first}"),
        format!("a=2@{first} b=1@{second}"),
        format!("b=1@{second}"),
        format!("a=3@{fourth} b=1@{second}"),
    ];
    assert_eq!(seen, expected);
}

pub(super) async fn the_future_cannot_be_read(store: Arc<dyn Store>) {
    let revision = put(&store, "a", "1").await;
    assert!(store.range(b"", Some(revision)).await.is_ok());
    assert_eq!(
        store.range(b"", Some(revision + 1)).await,
        Err(StoreError::Future)
    );
    assert_eq!(
        store.range(b"", Some(Rev::MAX)).await,
        Err(StoreError::Future)
    );
}

/// Through another task and back: what is acknowledged to one is seen by all.
pub(super) async fn reads_see_what_was_acknowledged_before(store: Arc<dyn Store>) {
    for number in 0..100 {
        let committed = put(&store, "a", &number.to_string()).await;
        let reader = Arc::clone(&store);
        let seen = tokio::spawn(async move {
            let revision = reader.revision().await.unwrap();
            let (entry, at) = reader.get(b"a").await.unwrap();
            let range = reader.range(b"", None).await.unwrap();
            (revision.min(at).min(range.revision), entry.unwrap().value)
        });
        let (revision, value) = seen.await.unwrap();
        assert!(revision >= committed);
        assert_eq!(value, number.to_string());
    }
}
