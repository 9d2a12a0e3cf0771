//! Several installations, and others' data, in one cluster.

use std::sync::Arc;

use etcd_client::Client;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::store::conformance::{LIMIT, commit, events_up_to, next, put, told};
use crate::store::etcd::{ConnectError, EtcdConfig, EtcdStore};
use crate::store::testing::{Answers, EtcdServer, Relay};
use crate::store::{PROGRESS_INTERVAL, Range, Rev, Store, Txn, WatchStream};

async fn store(server: &EtcdServer, prefix: &str) -> Arc<dyn Store> {
    Arc::new(server.store(prefix).await)
}

#[tokio::test]
async fn installations_do_not_see_each_other() {
    let server = EtcdServer::start().await;
    let prefixes = ["mail", "mail2", "mai", "other/mail/", "\u{fc}"];
    let mut stores = Vec::new();
    for prefix in prefixes {
        stores.push(store(&server, prefix).await);
    }
    let start = stores[0].revision().await.unwrap();
    let mut last = start;
    for (store, prefix) in stores.iter().zip(prefixes) {
        last = commit(store, Txn::new().absent("account").put("account", prefix)).await;
    }
    for (store, prefix) in stores.iter().zip(prefixes) {
        let entries = store.range(b"", None).await.unwrap().entries;
        assert_eq!(entries.len(), 1, "{prefix}: {entries:?}");
        assert_eq!(
            (&entries[0].key[..], &entries[0].value[..]),
            (&b"account"[..], prefix.as_bytes())
        );
        let mut watch = store.watch(start + 1).await.unwrap();
        let events = told(&events_up_to(&mut watch, last).await);
        assert_eq!(events, [format!("account={prefix}")]);
    }
    commit(&stores[0], Txn::new().delete("account")).await;
    assert!(stores[1].get(b"account").await.unwrap().0.is_some());
}

/// Somebody who writes to the same cluster all the time, as fast as it takes it.
async fn busy_neighbour(server: &EtcdServer) -> AbortOnDropHandle<()> {
    let neighbour = store(server, "neighbour").await;
    put(&neighbour, "a", "first").await;
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            put(&neighbour, "a", "again").await;
        }
    }))
}

/// Follows a watch until it has told everything up to `revision`.
async fn progress_beyond(watch: &mut WatchStream, revision: Rev) {
    timeout(LIMIT, events_up_to(watch, revision))
        .await
        .expect("no progress");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_watch_makes_progress_beside_a_busy_neighbour() {
    let server = EtcdServer::start().await;
    let store = store(&server, "mail").await;
    let start = put(&store, "a", "1").await;
    let _neighbour = busy_neighbour(&server).await;
    let mut watch = store.watch(start + 1).await.unwrap();
    for _ in 0..3 {
        let present = store.revision().await.unwrap();
        progress_beyond(&mut watch, present).await;
    }
    assert_eq!(
        store.range(b"", None).await.unwrap().entries.len(),
        1,
        "the barrier shows"
    );
    let mut past = store.watch(start).await.unwrap();
    let present = store.revision().await.unwrap();
    assert_eq!(told(&events_up_to(&mut past, present).await), ["a=1"]);
}

/// A store that took the barrier for one of its keys would lose another one.
#[tokio::test]
async fn the_barrier_is_no_key_of_a_whole_store() {
    let server = EtcdServer::start().await;
    let store = server.store("mail").await;
    for key in ["a", "b", "c"] {
        let outcome = store.transact(Txn::new().put(key, "1")).await;
        outcome.unwrap().committed().unwrap();
    }
    store.connection.write_barrier().await.unwrap();
    let whole = async |most| store.whole(most).await.unwrap();
    let keys = |range: Range| range.entries.len();
    assert_eq!(whole(4).await.map(keys), Some(3));
    assert_eq!(whole(3).await.map(keys), Some(3));
    assert_eq!(whole(2).await, None);
    assert_eq!(whole(1).await, None);
}

/// A choked connection holds events back in the server, which then answers the question about
/// progress before it sends them; servers before 3.4.25 and 3.5.8 answer with their present
/// revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_asked_through_a_choked_connection_is_not_overestimated() {
    const ROUNDS: usize = 4;
    /// Together more than a connection holds on its way.
    const EVENTS: usize = 8;
    let server = EtcdServer::start().await;
    let direct = store(&server, "mail").await;
    let relay = Relay::to(server.port()).await;
    let endpoint = format!("http://127.0.0.1:{}", relay.port());
    let choked = EtcdStore::connect(EtcdConfig::new(vec![endpoint], "mail"))
        .await
        .unwrap();

    let start = direct.revision().await.unwrap();
    let mut watch = choked.watch(start + 1).await.unwrap();
    let batches = tokio::spawn(async move {
        let (mut batches, mut seen) = (Vec::new(), 0);
        while seen < ROUNDS * EVENTS {
            let batch = next(&mut watch).await.unwrap();
            seen += batch.events.len();
            batches.push((batch.revision, batch.events.len()));
        }
        batches
    });
    let mut revisions = Vec::new();
    for _ in 0..ROUNDS {
        relay.set(Answers::Withheld);
        for _ in 0..EVENTS {
            let txn = Txn::new().put("a", vec![b'v'; 1024 * 1024]);
            revisions.push(commit(&direct, txn).await);
        }
        // The watch asks after one interval of silence, and gives the connection up after more.
        tokio::time::sleep(PROGRESS_INTERVAL * 3 / 2).await;
        relay.set(Answers::Pass);
        // The schedule of the fault again: it may catch up for so long.
        tokio::time::sleep(PROGRESS_INTERVAL / 2).await;
    }
    let mut seen = 0;
    for (revision, events) in batches.await.unwrap() {
        seen += events;
        let happened = revisions
            .iter()
            .filter(|happened| **happened <= revision)
            .count();
        assert_eq!(seen, happened, "at {revision}");
    }
}

/// A watch that is behind must not be told that it is up to date because it asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_delete_with_their_own_tools_is_told() {
    let server = EtcdServer::start().await;
    let store = store(&server, "mail").await;
    let start = put(&store, "a", "1").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    client.delete("mail/a", None).await.unwrap();
    let present = store.revision().await.unwrap();
    assert_eq!(told(&events_up_to(&mut watch, present).await), ["-a"]);
}

#[tokio::test]
async fn an_answer_above_the_usual_message_size_is_taken() {
    let server = EtcdServer::start().await;
    let store = store(&server, "mail").await;
    let start = store.revision().await.unwrap();
    let mut last = start;
    for number in 0..8 {
        let value = vec![b'v'; 1024 * 1024];
        last = commit(&store, Txn::new().put(format!("{number}"), value)).await;
    }
    let entries = store.range(b"", None).await.unwrap().entries;
    assert_eq!(
        entries.iter().map(|entry| entry.value.len()).sum::<usize>(),
        8 * 1024 * 1024
    );
    let mut watch = store.watch(start + 1).await.unwrap();
    assert_eq!(events_up_to(&mut watch, last).await.len(), 8);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let refused = [
        EtcdConfig::new(Vec::new(), "mail"),
        EtcdConfig::new(vec!["http://".into()], "mail"),
        EtcdConfig::new(vec!["http://127.0.0.1:2379".into()], ""),
    ];
    for config in refused {
        let store = EtcdStore::connect(config.clone()).await;
        assert!(
            matches!(store, Err(ConnectError::Config)),
            "{config:?}: {store:?}"
        );
    }
}
