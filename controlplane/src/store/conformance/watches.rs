//! Watches: nothing missed, nothing twice, in order, whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::{commit, events_up_to, is_silent, next, put, told};
use crate::store::{Event, MAX_TXN_OPS, Rev, Store, Txn};

pub(super) async fn the_past_is_told_from_the_asked_revision_on(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    put(&store, "b", "1").await;
    let last = commit(&store, Txn::new().delete("a")).await;

    let mut watch = store.watch(second).await.unwrap();
    let events = events_up_to(&mut watch, last).await;
    assert_eq!(told(&events), ["a=2", "b=1", "-a"]);
    assert_eq!(events[0].mod_revision(), second);
    assert_eq!(events[2].mod_revision(), last);
    let Event::Put(entry) = &events[0] else {
        panic!("{events:?}")
    };
    assert!(entry.create_revision < second);
}

pub(super) async fn revision_zero_is_the_beginning(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let last = put(&store, "a", "2").await;
    for from in [0, 1] {
        let mut watch = store.watch(from).await.unwrap();
        assert_eq!(told(&events_up_to(&mut watch, last).await), ["a=1", "a=2"]);
    }
}

pub(super) async fn what_happens_is_told_as_it_happens(store: Arc<dyn Store>) {
    let start = put(&store, "a", "0").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    for number in 1..50 {
        let revision = put(&store, "a", &number.to_string()).await;
        assert_eq!(
            told(&events_up_to(&mut watch, revision).await),
            [format!("a={number}")]
        );
    }
}

pub(super) async fn a_transaction_is_told_whole(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(start + 1).await.unwrap();
    for round in 0..10 {
        let txn = (0..MAX_TXN_OPS).fold(Txn::new(), |txn, index| {
            txn.put(format!("{index:03}"), format!("{round}"))
        });
        let revision = commit(&store, txn).await;
        let batch = loop {
            let batch = next(&mut watch).await.unwrap();
            if !batch.events.is_empty() {
                break batch;
            }
        };
        assert_eq!(batch.revision, revision);
        assert_eq!(batch.events.len(), MAX_TXN_OPS);
        assert!(
            batch
                .events
                .iter()
                .all(|event| event.mod_revision() == revision)
        );
    }
}

pub(super) async fn many_writers_leave_no_gap_and_no_repetition(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const EACH: usize = 50;
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(start + 1).await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut written = Vec::new();
            for number in 0..EACH {
                let key = format!("{writer}/{}", number % 5);
                written.push((put(&store, &key, &number.to_string()).await, key));
            }
            written
        })
    });
    let mut written: Vec<(Rev, String)> = Vec::new();
    for writer in join_all(writers).await {
        written.extend(writer.unwrap());
    }
    written.sort();
    let last = written.last().unwrap().0;
    let events = events_up_to(&mut watch, last).await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.mod_revision(), super::text(event.key())))
        .collect();
    assert_eq!(seen, written);
}

pub(super) async fn a_watch_goes_on_where_another_stopped(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut last = start;
    for number in 0..30 {
        last = put(&store, "a", &number.to_string()).await;
    }
    let mut from = start + 1;
    let mut seen = Vec::new();
    while from <= last {
        // Each watch is left after its first batch, as by a process that restarts.
        let mut watch = store.watch(from).await.unwrap();
        let batch = next(&mut watch).await.unwrap();
        seen.extend(told(&batch.events));
        from = batch.revision + 1;
    }
    assert_eq!(
        seen,
        (0..30)
            .map(|number| format!("a={number}"))
            .collect::<Vec<_>>()
    );
}

pub(super) async fn two_watches_are_told_the_same(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut early = store.watch(start + 1).await.unwrap();
    let mut last = start;
    for number in 0..20 {
        last = put(&store, &format!("{}", number % 3), &number.to_string()).await;
    }
    let mut late = store.watch(start + 1).await.unwrap();
    assert_eq!(
        events_up_to(&mut early, last).await,
        events_up_to(&mut late, last).await
    );
}

pub(super) async fn an_idle_watch_reports_progress(store: Arc<dyn Store>) {
    let last = put(&store, "a", "1").await;
    let mut watch = store.watch(last + 1).await.unwrap();
    for _ in 0..3 {
        let batch = next(&mut watch).await.unwrap();
        assert_eq!(batch.events, []);
        assert_eq!(batch.revision, last);
    }
}

/// What a watch says it has told must include everything acknowledged up to there. Servers of
/// etcd before 3.4.25 and 3.5.8 answer questions about progress too early.
pub(super) async fn progress_never_overtakes_an_event(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, written, done) = (Arc::clone(&store), Arc::clone(&written), Arc::clone(&done));
        async move {
            let mut revisions = Vec::new();
            // Pauses about as long as the interval of progress, so that both meet.
            for pause in [0, 990, 1000, 1010, 0, 995, 1005, 0] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                for number in 0..20 {
                    revisions.push(put(&store, "a", &number.to_string()).await);
                    written.fetch_add(1, Ordering::SeqCst);
                }
            }
            done.store(true, Ordering::SeqCst);
            revisions
        }
    });
    let mut watch = store.watch(start + 1).await.unwrap();
    let mut batches = Vec::new();
    while !done.load(Ordering::SeqCst) {
        batches.push(next(&mut watch).await.unwrap());
    }
    let revisions = writer.await.unwrap();
    let mut seen = 0;
    let mut progress = 0;
    for batch in &batches {
        seen += batch.events.len();
        progress += usize::from(batch.events.is_empty());
        let acknowledged = revisions
            .iter()
            .filter(|revision| **revision <= batch.revision)
            .count();
        assert_eq!(seen, acknowledged, "at {}", batch.revision);
    }
    assert!(progress > 0, "there was no progress to judge");
}

pub(super) async fn deletions_of_absent_keys_are_not_told(store: Arc<dyn Store>) {
    let start = put(&store, "a", "1").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    let last = commit(&store, Txn::new().delete("b").put("c", "1").delete("d")).await;
    assert_eq!(told(&events_up_to(&mut watch, last).await), ["c=1"]);
}

/// The pattern of everybody above: load pinned, watch from the next revision, apply.
pub(super) async fn a_load_and_a_watch_from_it_miss_nothing(store: Arc<dyn Store>) {
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let mut number = 0_u32;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                let key = format!("{}", number % 7);
                let txn = if number.is_multiple_of(5) {
                    Txn::new().delete(key)
                } else {
                    Txn::new().put(key, number.to_string())
                };
                commit(&store, txn).await;
            }
        }
    });
    let mut copies = Vec::new();
    for _ in 0..10 {
        let load = store.range(b"", None).await.unwrap();
        let watch = store.watch(load.revision + 1).await.unwrap();
        let copy: BTreeMap<_, _> = load
            .entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        copies.push((copy, watch));
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let truth = store.range(b"", None).await.unwrap();
    for (mut copy, mut watch) in copies {
        for event in events_up_to(&mut watch, truth.revision).await {
            match event {
                Event::Put(entry) => copy.insert(entry.key.clone(), entry),
                Event::Delete { key, .. } => copy.remove(&key),
            };
        }
        assert_eq!(copy.into_values().collect::<Vec<_>>(), truth.entries);
    }
}

pub(super) async fn a_watch_from_the_future_waits_for_it(store: Arc<dyn Store>) {
    let present = put(&store, "a", "0").await;
    let mut watch = store.watch(present + 3).await.unwrap();
    assert!(is_silent(&mut watch));
    let mut last = present;
    for number in 1..5 {
        last = put(&store, "a", &number.to_string()).await;
    }
    assert_eq!(told(&events_up_to(&mut watch, last).await), ["a=3", "a=4"]);
}

pub(super) async fn a_long_history_comes_in_whole_revisions(store: Arc<dyn Store>) {
    const TXNS: usize = 60;
    const WIDTH: usize = 100;
    let start = store.revision().await.unwrap();
    let mut last = start;
    for round in 0..TXNS {
        let txn = (0..WIDTH).fold(Txn::new(), |txn, index| {
            txn.put(format!("{index}"), format!("{round}"))
        });
        last = commit(&store, txn).await;
    }
    let mut watch = store.watch(start + 1).await.unwrap();
    let mut seen = 0;
    while seen < TXNS * WIDTH {
        let batch = next(&mut watch).await.unwrap();
        seen += batch.events.len();
        assert_eq!(
            seen % WIDTH,
            0,
            "a transaction was cut at {}",
            batch.revision
        );
        if let Some(event) = batch.events.last() {
            assert_eq!(event.mod_revision(), batch.revision);
        }
    }
    assert!(store.revision().await.unwrap() >= last);
}
