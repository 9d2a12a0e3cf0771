//! Guards and writes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{commit, is_conflict, put};
use crate::store::{MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS, Store, StoreError, Txn, TxnOutcome};

pub(super) async fn a_put_is_read_back_with_its_revisions(store: Arc<dyn Store>) {
    let created = put(&store, "a", "1").await;
    let changed = put(&store, "a", "2").await;
    assert!(changed > created);

    let (entry, revision) = store.get(b"a").await.unwrap();
    let entry = entry.unwrap();
    assert_eq!(entry.key, b"a");
    assert_eq!(entry.value, "2");
    assert_eq!(
        (entry.create_revision, entry.mod_revision),
        (created, changed)
    );
    assert_eq!(revision, changed);

    let (absent, revision) = store.get(b"b").await.unwrap();
    assert_eq!((absent, revision), (None, changed));
}

pub(super) async fn a_key_that_comes_back_is_created_again(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let deleted = commit(&store, Txn::new().delete("a")).await;
    assert_eq!(store.get(b"a").await.unwrap(), (None, deleted));
    let again = put(&store, "a", "2").await;
    let entry = store.get(b"a").await.unwrap().0.unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
}

pub(super) async fn revisions_rise_with_every_change_and_only_then(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    assert_eq!(store.revision().await.unwrap(), first);
    let second = put(&store, "a", "1").await;
    assert!(second > first, "writing the same value again is a change");
    assert_eq!(commit(&store, Txn::new().delete("b")).await, second);
    assert_eq!(commit(&store, Txn::new()).await, second);
    let conflict = store
        .transact(Txn::new().absent("a").put("b", "1"))
        .await
        .unwrap();
    assert_eq!(conflict, TxnOutcome::Conflict { revision: second });
    assert_eq!(store.revision().await.unwrap(), second);
}

pub(super) async fn all_writes_of_a_transaction_have_one_revision(store: Arc<dyn Store>) {
    put(&store, "old", "1").await;
    let revision = commit(&store, Txn::new().put("a", "1").put("b", "2").delete("old")).await;
    for key in ["a", "b"] {
        let entry = store.get(key.as_bytes()).await.unwrap().0.unwrap();
        assert_eq!(
            (entry.create_revision, entry.mod_revision),
            (revision, revision)
        );
    }
    assert_eq!(store.get(b"old").await.unwrap().0, None);
}

pub(super) async fn guards_hold_exactly_when_they_should(store: Arc<dyn Store>) {
    let created = put(&store, "a", "1").await;
    let changed = put(&store, "a", "2").await;
    let cases = [
        (Txn::new().at("a", changed), true),
        (Txn::new().at("a", created), false),
        (Txn::new().at("a", changed + 1), false),
        (Txn::new().at("a", u64::MAX), false),
        (Txn::new().absent("a"), false),
        (Txn::new().exists("a"), true),
        (Txn::new().absent("b"), true),
        (Txn::new().exists("b"), false),
        (Txn::new().at("b", changed), false),
    ];
    for (guarded, holds) in cases {
        let outcome = store
            .transact(guarded.clone().put("witness", "1"))
            .await
            .unwrap();
        assert_eq!(outcome.committed().is_some(), holds, "{guarded:?}");
    }
    commit(&store, Txn::new().delete("a")).await;
    for (guarded, holds) in [
        (Txn::new().absent("a"), true),
        (Txn::new().exists("a"), false),
    ] {
        let outcome = store
            .transact(guarded.clone().put("witness", "2"))
            .await
            .unwrap();
        assert_eq!(
            outcome.committed().is_some(),
            holds,
            "{guarded:?} after a deletion"
        );
    }
}

/// The flip of a move compares the record, the leader, the registrations and the drained keys.
pub(super) async fn one_failed_guard_stops_everything(store: Arc<dyn Store>) {
    let keys = ["record", "leader", "registrations", "drained"];
    let start = commit(
        &store,
        keys.iter().fold(Txn::new(), |txn, key| txn.put(*key, "0")),
    )
    .await;
    let flip = || {
        let guarded = keys
            .iter()
            .fold(Txn::new().absent("other"), |txn, key| txn.at(*key, start));
        guarded
            .put("record", "flipped")
            .put("log", "flipped")
            .delete("drained")
    };
    for key in keys {
        let before = store.range(b"", None).await.unwrap();
        let mut spoiled = flip();
        for guard in &mut spoiled.guards {
            if let crate::store::Guard::Revision { key: guarded, is } = guard
                && guarded == key.as_bytes()
            {
                *is += 1;
            }
        }
        assert!(is_conflict(store.transact(spoiled).await.unwrap()), "{key}");
        assert_eq!(store.range(b"", None).await.unwrap(), before, "{key}");
    }
    commit(&store, flip()).await;
    assert!(
        is_conflict(store.transact(flip()).await.unwrap()),
        "it happens once"
    );
}

pub(super) async fn a_transaction_without_writes_only_judges(store: Arc<dyn Store>) {
    let revision = put(&store, "a", "1").await;
    let holds = store.transact(Txn::new().at("a", revision)).await.unwrap();
    assert_eq!(holds, TxnOutcome::Committed(revision));
    let fails = store.transact(Txn::new().absent("a")).await.unwrap();
    assert_eq!(fails, TxnOutcome::Conflict { revision });
}

pub(super) async fn of_many_that_compare_and_swap_one_wins(store: Arc<dyn Store>) {
    let mut revision = put(&store, "leader", "nobody").await;
    for _ in 0..20 {
        let candidates = (0..16).map(|candidate: u32| {
            let store = Arc::clone(&store);
            let txn = Txn::new()
                .at("leader", revision)
                .put("leader", candidate.to_string());
            tokio::spawn(async move { (candidate, store.transact(txn).await.unwrap()) })
        });
        let outcomes = join_all(candidates).await;
        let winners: Vec<_> = outcomes
            .into_iter()
            .filter_map(|outcome| {
                let (candidate, outcome) = outcome.unwrap();
                outcome.committed().map(|revision| (candidate, revision))
            })
            .collect();
        let [(winner, won_at)] = winners[..] else {
            panic!("winners: {winners:?}")
        };
        let entry = store.get(b"leader").await.unwrap().0.unwrap();
        assert_eq!(entry.value, winner.to_string());
        assert_eq!(entry.mod_revision, won_at);
        revision = won_at;
    }
}

pub(super) async fn increments_under_contention_are_all_counted(store: Arc<dyn Store>) {
    const TASKS: usize = 8;
    const EACH: usize = 10;
    put(&store, "counter", "0").await;
    let tasks = (0..TASKS).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..EACH {
                while !increment(&store).await {}
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let entry = store.get(b"counter").await.unwrap().0.unwrap();
    assert_eq!(entry.value, (TASKS * EACH).to_string());
}

async fn increment(store: &Arc<dyn Store>) -> bool {
    let entry = store.get(b"counter").await.unwrap().0.unwrap();
    let count: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
    let txn = Txn::new()
        .at("counter", entry.mod_revision)
        .put("counter", (count + 1).to_string());
    store.transact(txn).await.unwrap().committed().is_some()
}

pub(super) async fn the_largest_transactions_are_taken(store: Arc<dyn Store>) {
    let wide = (0..MAX_TXN_OPS).fold(Txn::new(), |txn, index| {
        txn.absent(format!("wide/{index:03}"))
            .put(format!("wide/{index:03}"), "value")
    });
    let revision = commit(&store, wide).await;
    let range = store.range(b"wide/", None).await.unwrap();
    assert_eq!(range.entries.len(), MAX_TXN_OPS);
    assert!(
        range
            .entries
            .iter()
            .all(|entry| entry.mod_revision == revision)
    );

    let big = Bytes::from(vec![7; MAX_TXN_BYTES - "big".len()]);
    commit(&store, Txn::new().put("big", big.clone())).await;
    assert_eq!(store.get(b"big").await.unwrap().0.unwrap().value, big);

    let long = vec![b'k'; MAX_KEY_BYTES];
    commit(&store, Txn::new().put(long.clone(), "value")).await;
    assert_eq!(store.get(&long).await.unwrap().0.unwrap().key, long);
}

pub(super) async fn one_past_a_limit_is_too_large(store: Arc<dyn Store>) {
    let before = store.revision().await.unwrap();
    let indices = 0..=MAX_TXN_OPS;
    let too_large = [
        indices.clone().fold(Txn::new(), |txn, index| {
            txn.put(format!("{index}"), "value")
        }),
        indices.fold(Txn::new(), |txn, index| txn.absent(format!("{index}"))),
        Txn::new().put("big", vec![7; MAX_TXN_BYTES - "big".len() + 1]),
        Txn::new().put(vec![b'k'; MAX_KEY_BYTES + 1], "value"),
        Txn::new().exists(vec![b'k'; MAX_KEY_BYTES + 1]),
    ];
    for txn in too_large {
        assert_eq!(store.transact(txn).await, Err(StoreError::TooLarge));
    }
    assert_eq!(store.revision().await.unwrap(), before);
}

pub(super) async fn malformed_transactions_are_refused(store: Arc<dyn Store>) {
    let malformed = [
        Txn::new().put("", "value"),
        Txn::new().delete(""),
        Txn::new().absent("").put("a", "1"),
        Txn::new().put("a", "1").put("a", "2"),
        Txn::new().put("a", "1").delete("a"),
    ];
    for txn in malformed {
        assert_eq!(store.transact(txn).await, Err(StoreError::Malformed));
    }
    assert_eq!(store.get(b"").await, Err(StoreError::Malformed));
}

pub(super) async fn keys_and_values_may_hold_any_bytes(store: Arc<dyn Store>) {
    let keys: [&[u8]; 6] = [b"\0", b"\0\0", b"a\0b", b"a\xff", b"\xff", b"\xff\xff"];
    let values: [&[u8]; 6] = [b"", b"\0", b"\xff\xfe", b"\r\n", b"'\"", b"\x80"];
    let txn = keys
        .iter()
        .zip(values)
        .fold(Txn::new(), |txn, (key, value)| {
            txn.put(*key, Bytes::from_static(value))
        });
    commit(&store, txn).await;
    let entries = store.range(b"", None).await.unwrap().entries;
    let read: Vec<_> = entries
        .iter()
        .map(|entry| (&entry.key[..], &entry.value[..]))
        .collect();
    let written: Vec<_> = keys.into_iter().zip(values).collect();
    assert_eq!(read, written);
    assert_eq!(store.range(b"\xff", None).await.unwrap().entries.len(), 2);
    assert_eq!(store.range(b"a", None).await.unwrap().entries.len(), 2);
}
