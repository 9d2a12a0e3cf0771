//! Members that die, freeze, fill up or lose each other, and networks that do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::conformance::{LIMIT, commit, events_up_to, next, put, text, told};
use crate::store::etcd::{EtcdConfig, EtcdStore};
use crate::store::testing::{Answers, EtcdServer, Relay};
use crate::store::{
    Event, LeaseError, Outage, Rev, Store, StoreError, Txn, TxnOutcome, WatchError, WatchStream,
};

/// Waited out where nobody answers, and yet above what a busy machine takes.
const CALL_LIMIT: Duration = Duration::from_secs(5);

async fn connect(endpoints: Vec<String>) -> Arc<dyn Store> {
    let mut config = EtcdConfig::new(endpoints, "mail");
    config.call_limit = CALL_LIMIT;
    Arc::new(EtcdStore::connect(config).await.unwrap())
}

async fn relayed(server: &EtcdServer) -> (Relay, Arc<dyn Store>) {
    let relay = Relay::to(server.port()).await;
    let store = connect(vec![format!("http://127.0.0.1:{}", relay.port())]).await;
    (relay, store)
}

/// Tries until the store takes the write, and never writes it twice.
async fn put_at_last(store: &Arc<dyn Store>, key: &str, value: &str) -> Rev {
    let deadline = Instant::now() + LIMIT;
    let mut in_doubt = false;
    loop {
        let txn = Txn::new().absent(key).put(key, value.to_owned());
        match store.transact(txn).await {
            Ok(TxnOutcome::Committed(revision)) => return revision,
            Ok(TxnOutcome::Conflict { .. }) => {
                assert!(in_doubt, "{key} was not written before");
                if let Ok((Some(written), _)) = store.get(key.as_bytes()).await {
                    return written.mod_revision;
                }
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(StoreError::UnknownOutcome(_)) => in_doubt = true,
            Err(error) => panic!("{key}: {error:?}"),
        }
        assert!(Instant::now() < deadline, "{key} is never written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_its_server() {
    let mut server = EtcdServer::start().await;
    let store = connect(vec![server.endpoint()]).await;
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(start + 1).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            let key = format!("{round}/{number}");
            put_at_last(&store, &key, "value").await;
            expected.push(format!("{key}=value"));
        }
        if round == 0 {
            // One round is told before the loss, one is on its way, one comes after.
            let present = store.revision().await.unwrap();
            assert_eq!(told(&events_up_to(&mut watch, present).await), expected);
            expected.clear();
        }
        server.kill();
        assert!(store.revision().await.is_err());
        server.restart().await;
    }
    let last = put_at_last(&store, "last", "value").await;
    expected.push("last=value".into());
    assert_eq!(told(&events_up_to(&mut watch, last).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_a_cut_network_and_says_nothing_meanwhile() {
    let server = EtcdServer::start().await;
    let (relay, store) = relayed(&server).await;
    let direct = connect(vec![server.endpoint()]).await;
    let start = put(&direct, "a", "1").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    let second = put(&direct, "a", "2").await;
    assert_eq!(told(&events_up_to(&mut watch, second).await), ["a=2"]);

    for lost in [Answers::Cut, Answers::Withheld] {
        relay.set(lost);
        let third = put(&direct, "a", "3").await;
        let silence = timeout(Duration::from_secs(2), events_up_to(&mut watch, third)).await;
        assert!(
            silence.is_err(),
            "{lost:?}: told through a network that is away"
        );
        let fourth = commit(&direct, Txn::new().delete("a")).await;
        relay.set(Answers::Pass);
        assert_eq!(told(&events_up_to(&mut watch, fourth).await), ["a=3", "-a"]);
    }
}

/// tikv/pd went on from the compacted revision and kept what had been deleted for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_during_a_compaction_is_told_to_load_again() {
    let server = EtcdServer::start().await;
    let direct = connect(vec![server.endpoint()]).await;
    // Compacted exactly at the deletion, the first revision that the watch lacks: the case in which
    // servers before 3.4.34 and 3.5.16 let a watch go on that will never hear of the deletion.
    for later_writes in [0, 3] {
        let (relay, store) = relayed(&server).await;
        let start = commit(&direct, Txn::new().put("a", "1").put("b", "1")).await;
        let mut watch = store.watch(start + 1).await.unwrap();
        let told_at = put(&direct, "b", "2").await;
        assert_eq!(told(&events_up_to(&mut watch, told_at).await), ["b=2"]);

        relay.set(Answers::Cut);
        let mut floor = commit(&direct, Txn::new().delete("a")).await;
        for number in 0..later_writes {
            floor = put(&direct, "b", &number.to_string()).await;
        }
        direct.compact(floor).await.unwrap();
        relay.set(Answers::Pass);
        let end = async {
            loop {
                match next(&mut watch).await {
                    Ok(batch) => assert_eq!(batch.events, [], "the network was not cut"),
                    Err(error) => break error,
                }
            }
        };
        let error = timeout(LIMIT, end)
            .await
            .expect("it goes on as if nothing had happened");
        assert_eq!(error, WatchError::Compacted { floor: Some(floor) });
        assert_eq!(direct.get(b"a").await.unwrap().0, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_has_an_unknown_outcome() {
    let server = EtcdServer::start().await;
    let (relay, store) = relayed(&server).await;
    let direct = connect(vec![server.endpoint()]).await;
    put(&store, "warm", "the connection is made").await;

    relay.set(Answers::Withheld);
    let slow = store.transact(Txn::new().put("slow", "1")).await;
    assert_eq!(slow, Err(StoreError::UnknownOutcome(Outage::Timeout)));
    assert!(
        direct.get(b"slow").await.unwrap().0.is_some(),
        "it was not even sent"
    );

    relay.set(Answers::Pass);
    put(&store, "warm", "again").await;
    relay.set(Answers::Withheld);
    let lost = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.transact(Txn::new().put("lost", "1")).await }
    });
    let mut watch = direct.watch(1).await.unwrap();
    await_key(&mut watch, "lost").await;
    relay.set(Answers::Cut);
    let lost = lost.await.unwrap();
    assert_eq!(lost, Err(StoreError::UnknownOutcome(Outage::Connection)));
}

async fn await_key(watch: &mut WatchStream, key: &str) {
    while !next(watch)
        .await
        .unwrap()
        .events
        .iter()
        .any(|event| event.key() == key.as_bytes())
    {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_reached_nobody_certainly_did_not_happen() {
    let mut server = EtcdServer::start().await;
    let store = connect(vec![server.endpoint()]).await;
    server.kill();
    // The first call may find the dead connection of before and cannot be sure.
    let _ = store.transact(Txn::new().put("a", "1")).await;
    let refused = store.transact(Txn::new().put("b", "1")).await;
    assert_eq!(refused, Err(StoreError::Unavailable(Outage::Connection)));
    assert_eq!(
        store.get(b"a").await,
        Err(StoreError::Unavailable(Outage::Connection))
    );
    assert!(matches!(
        store.range(b"", None).await,
        Err(StoreError::Unavailable(Outage::Connection))
    ));
    server.restart().await;
    assert_eq!(store.get(b"b").await.unwrap().0, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_not_waited_for_for_ever() {
    let server = EtcdServer::start().await;
    let store = connect(vec![server.endpoint()]).await;
    let start = put(&store, "a", "1").await;
    let lease = store.grant(LIMIT).await.unwrap();
    let mut watch = store.watch(start + 1).await.unwrap();
    next(&mut watch).await.unwrap();
    server.freeze().await;
    let calls = async {
        assert_eq!(
            store.get(b"a").await,
            Err(StoreError::Unavailable(Outage::Timeout))
        );
        let unknown = store.transact(Txn::new().put("a", "2")).await;
        assert_eq!(unknown, Err(StoreError::UnknownOutcome(Outage::Timeout)));
        let kept = store.keep_alive(lease).await;
        assert!(
            matches!(kept, Err(LeaseError::Store(StoreError::Unavailable(_)))),
            "{kept:?}"
        );
    };
    timeout(LIMIT, calls).await.expect("a call has no limit");
    server.thaw();
    let last = put_at_last(&store, "b", "1").await;
    let events = told(&events_up_to(&mut watch, last).await);
    assert_eq!(events.last().unwrap(), "b=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_writes_and_still_serves() {
    let server = EtcdServer::start_with(&["--quota-backend-bytes=8388608"]).await;
    let store = connect(vec![server.endpoint()]).await;
    let start = put(&store, "a", "1").await;
    let full = async {
        for number in 0..50 {
            let txn = Txn::new().put(format!("{number}"), vec![b'v'; 1024 * 1024]);
            if let Err(error) = store.transact(txn).await {
                return error;
            }
        }
        panic!("the store does not fill up");
    };
    assert_eq!(full.await, StoreError::Unavailable(Outage::NoSpace));
    let refused = store.transact(Txn::new().put("a", "2")).await;
    assert_eq!(refused, Err(StoreError::Unavailable(Outage::NoSpace)));
    assert_eq!(store.get(b"a").await.unwrap().0.unwrap().value, "1");
    let present = store.revision().await.unwrap();
    let mut watch = store.watch(start).await.unwrap();
    assert_eq!(told(&events_up_to(&mut watch, present).await)[0], "a=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_its_server_and_ends_when_nobody_keeps_it() {
    let mut server = EtcdServer::start().await;
    let store = connect(vec![server.endpoint()]).await;
    let ttl = Duration::from_secs(4);
    let lease = store.grant(ttl).await.unwrap();
    let written = commit(&store, Txn::new().put_leased("leader", "me", lease)).await;
    server.kill();
    let kept = store.keep_alive(lease).await;
    assert!(
        matches!(kept, Err(LeaseError::Store(StoreError::Unavailable(_)))),
        "{kept:?}"
    );
    server.restart().await;
    let deadline = Instant::now() + LIMIT;
    while store.keep_alive(lease).await.is_err() {
        assert!(Instant::now() < deadline, "the lease is lost");
    }
    let mut watch = store.watch(written + 1).await.unwrap();
    loop {
        let batch = next(&mut watch).await.unwrap();
        if let Some(Event::Delete { key, .. }) = batch.events.first() {
            assert_eq!(text(key), "leader");
            break;
        }
        assert!(Instant::now() < deadline, "the lease does not end");
    }
    assert_eq!(store.keep_alive(lease).await, Err(LeaseError::Lost));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_read_or_written_and_with_it_everything_goes_on() {
    let mut members = EtcdServer::cluster(3).await;
    let endpoints = members.iter().map(EtcdServer::endpoint).collect();
    let store = connect(endpoints).await;
    let start = put(&store, "a", "1").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    next(&mut watch).await.unwrap();

    members[0].kill();
    members[1].kill();
    // The last member still believes in a leader for a moment.
    let deadline = Instant::now() + LIMIT;
    while store.revision().await.is_ok() {
        assert!(
            Instant::now() < deadline,
            "a minority answers linearizable reads"
        );
    }
    for _ in 0..3 {
        assert!(matches!(
            store.get(b"a").await,
            Err(StoreError::Unavailable(_))
        ));
        match store.transact(Txn::new().put("b", "1")).await {
            Err(StoreError::Unavailable(_) | StoreError::UnknownOutcome(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    members[0].restart().await;
    let last = put_at_last(&store, "c", "1").await;
    let events = told(&events_up_to(&mut watch, last).await);
    assert_eq!(events.last().unwrap(), "c=1");
}

/// A writer that counts, and never writes a number twice, until it is told to stop.
struct Counter {
    acknowledged: watch::Receiver<BTreeMap<String, Rev>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Counter {
    fn start(store: Arc<dyn Store>) -> Self {
        let (sender, acknowledged) = watch::channel(BTreeMap::new());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                if stopped.is_cancelled() {
                    break;
                }
                let key = format!("{number:06}");
                if let Ok(outcome) = store.transact(Txn::new().put(key.clone(), "value")).await {
                    let revision = outcome.committed().unwrap();
                    sender.send_modify(|acknowledged| acknowledged.extend([(key, revision)]));
                }
            }
        });
        Self {
            acknowledged,
            stop,
            task,
        }
    }

    /// Waits until so many more writes were acknowledged.
    async fn more(&mut self, writes: usize) {
        let goal = self.acknowledged.borrow().len() + writes;
        let reached = self
            .acknowledged
            .wait_for(|acknowledged| acknowledged.len() >= goal);
        timeout(LIMIT, reached)
            .await
            .expect("nothing is written")
            .unwrap();
    }

    async fn stop(self) -> BTreeMap<String, Rev> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.acknowledged.borrow().clone()
    }
}

/// Members die in turn, the leader among them, while a writer counts and a watch looks on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_die_in_turn_lose_no_write_and_no_event() {
    let mut members = EtcdServer::cluster(3).await;
    let endpoints: Vec<_> = members.iter().map(EtcdServer::endpoint).collect();
    let store = connect(endpoints.clone()).await;
    let start = store.revision().await.unwrap();
    let mut watch = connect(endpoints).await.watch(start + 1).await.unwrap();
    let mut counter = Counter::start(Arc::clone(&store));
    for member in &mut members {
        counter.more(20).await;
        member.kill();
        counter.more(20).await;
        member.restart().await;
    }
    let acknowledged = counter.stop().await;

    let truth = store.range(b"", None).await.unwrap();
    let events = events_up_to(&mut watch, truth.revision).await;
    let told: BTreeMap<_, _> = events
        .iter()
        .map(|event| (text(event.key()), event.mod_revision()))
        .collect();
    assert_eq!(told.len(), events.len(), "an event came twice");
    let held: BTreeMap<_, _> = truth
        .entries
        .iter()
        .map(|entry| (text(&entry.key), entry.mod_revision))
        .collect();
    assert_eq!(told, held);
    for (key, revision) in acknowledged {
        assert_eq!(held.get(&key), Some(&revision), "{key} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_beside_a_live_one_does_not_show() {
    let server = EtcdServer::start().await;
    let mut dead = EtcdServer::start().await;
    dead.kill();
    let store = connect(vec![dead.endpoint(), server.endpoint()]).await;
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(start + 1).await.unwrap();
    for number in 0..50 {
        let revision = put(&store, "a", &number.to_string()).await;
        assert_eq!(store.get(b"a").await.unwrap().1, revision);
    }
    let present = store.revision().await.unwrap();
    assert_eq!(events_up_to(&mut watch, present).await.len(), 50);
}
