//! What only the embedded store promises: its file.

use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tempfile::TempDir;

use super::*;
use crate::store::conformance::{LIMIT, commit, events_up_to, next, put, told};
use crate::store::{Event, Store};

/// Set for a copy of the test binary that only writes, or only tries to open, a store.
const WRITER_PATH: &str = "FERRYPOST_TEST_WRITER_PATH";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    async fn open(&self) -> Arc<EmbeddedStore> {
        Arc::new(
            EmbeddedStore::open(EmbeddedConfig::new(self.path()))
                .await
                .unwrap(),
        )
    }
}

fn dynamic(store: &Arc<EmbeddedStore>) -> Arc<dyn Store> {
    Arc::clone(store) as _
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let place = Place::new();
    let store = place.open().await;
    let first = put(&dynamic(&store), "a", "1").await;
    put(&dynamic(&store), "a", "2").await;
    let last = commit(&dynamic(&store), Txn::new().put("b", "1").delete("a")).await;
    let state = store.range(b"", None).await.unwrap();
    let pinned = store.range(b"", Some(first)).await.unwrap();
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.revision().await.unwrap(), last);
    assert_eq!(store.range(b"", None).await.unwrap(), state);
    assert_eq!(store.range(b"", Some(first)).await.unwrap(), pinned);
    let mut watch = store.watch(first + 1).await.unwrap();
    let mut events = told(&events_up_to(&mut watch, last).await);
    events.sort();
    assert_eq!(events, ["-a", "a=2", "b=1"]);
    assert!(put(&dynamic(&store), "a", "3").await > last);
}

#[tokio::test]
async fn compaction_survives_a_restart() {
    let place = Place::new();
    let store = place.open().await;
    let before = put(&dynamic(&store), "a", "1").await;
    let floor = put(&dynamic(&store), "a", "2").await;
    store.compact(floor).await.unwrap();
    store.close().await;

    let store = place.open().await;
    let compacted = Err(StoreError::Compacted { floor: Some(floor) });
    assert_eq!(store.range(b"", Some(before)).await, compacted);
    let error = next(&mut store.watch(floor).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(error, WatchError::Compacted { floor: Some(floor) });
}

#[tokio::test]
async fn leases_do_not_survive_a_restart_and_their_keys_go_visibly() {
    let place = Place::new();
    let store = place.open().await;
    let lease = store.grant(LIMIT).await.unwrap();
    let written = commit(
        &dynamic(&store),
        Txn::new().put_leased("leader", "me", lease).put("a", "1"),
    )
    .await;
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.get(b"leader").await.unwrap().0, None);
    assert!(store.get(b"a").await.unwrap().0.is_some());
    let gone = store.revision().await.unwrap();
    let mut watch = store.watch(written + 1).await.unwrap();
    assert_eq!(told(&events_up_to(&mut watch, gone).await), ["-leader"]);
    assert_eq!(store.keep_alive(lease).await, Err(LeaseError::Lost));
    let used = store
        .transact(Txn::new().put_leased("leader", "me", lease))
        .await;
    assert_eq!(used, Err(StoreError::LeaseLost));
    assert_ne!(store.grant(LIMIT).await.unwrap(), lease);
}

#[tokio::test]
async fn a_second_store_on_the_file_is_refused_until_the_first_is_closed() {
    let place = Place::new();
    let store = place.open().await;
    let second = EmbeddedStore::open(EmbeddedConfig::new(place.path())).await;
    assert!(matches!(second, Err(OpenError::InUse)), "{second:?}");
    store.close().await;
    place.open().await;
}

#[tokio::test]
async fn a_closed_store_says_so_and_ends_its_watches() {
    let place = Place::new();
    let store = place.open().await;
    let written = put(&dynamic(&store), "a", "1").await;
    let mut watch = store.watch(written + 1).await.unwrap();
    store.close().await;

    assert_eq!(
        next(&mut watch).await,
        Err(WatchError::Store(StoreError::Closed))
    );
    assert!(watch.next().await.is_none());
    assert_eq!(store.get(b"a").await, Err(StoreError::Closed));
    assert_eq!(store.range(b"", None).await, Err(StoreError::Closed));
    assert_eq!(store.revision().await, Err(StoreError::Closed));
    assert_eq!(
        store.transact(Txn::new().put("a", "2")).await,
        Err(StoreError::Closed)
    );
    assert_eq!(store.compact(written).await, Err(StoreError::Closed));
    assert!(matches!(store.watch(1).await, Err(StoreError::Closed)));
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.get(b"a").await.unwrap().0.unwrap().value, "1");
}

#[tokio::test]
async fn a_store_that_is_closed_at_once_lets_go_of_its_file() {
    let place = Place::new();
    let closed = place.open().await;
    closed.close().await;
    place.open().await;
    drop(closed);
}

#[tokio::test]
async fn what_was_submitted_before_the_close_is_answered_truly() {
    let place = Place::new();
    let store = place.open().await;
    let writes: Vec<_> = (0..200)
        .map(|number: u32| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                (
                    number,
                    store
                        .transact(Txn::new().put(format!("{number}"), "value"))
                        .await,
                )
            })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    drop(store);

    let store = place.open().await;
    for write in writes {
        let (number, outcome) = write.await.unwrap();
        let exists = store
            .get(number.to_string().as_bytes())
            .await
            .unwrap()
            .0
            .is_some();
        match outcome {
            Ok(TxnOutcome::Committed(_)) => assert!(exists, "{number} was lost"),
            Err(StoreError::Closed) => assert!(!exists, "{number} was written after all"),
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn history_is_bounded_by_whole_revisions() {
    let place = Place::new();
    let config = EmbeddedConfig {
        history_changes: 10,
        ..EmbeddedConfig::new(place.path())
    };
    let store = Arc::new(EmbeddedStore::open(config).await.unwrap());
    let mut revisions = Vec::new();
    for number in 0..10 {
        let txn = ["a", "b", "c", "d"]
            .into_iter()
            .fold(Txn::new(), |txn, key| txn.put(key, format!("{number}")));
        revisions.push(commit(&dynamic(&store), txn).await);
    }
    // Ten changes are two whole revisions of four; what they changed from is the floor.
    let kept = &revisions[8..];
    let floor = revisions[7];
    let error = next(&mut store.watch(floor).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(error, WatchError::Compacted { floor: Some(floor) });
    let mut watch = store.watch(floor + 1).await.unwrap();
    let events = events_up_to(&mut watch, kept[1]).await;
    assert_eq!(
        events.iter().map(Event::mod_revision).collect::<Vec<_>>(),
        [
            kept[0], kept[0], kept[0], kept[0], kept[1], kept[1], kept[1], kept[1]
        ]
    );
    assert_eq!(
        store.range(b"", Some(floor)).await.unwrap().entries.len(),
        4
    );
    assert!(store.range(b"", Some(floor - 1)).await.is_err());
}

#[tokio::test]
async fn a_watch_that_falls_behind_the_history_is_told_to_load_again() {
    let place = Place::new();
    let config = EmbeddedConfig {
        history_changes: 10,
        ..EmbeddedConfig::new(place.path())
    };
    let store = Arc::new(EmbeddedStore::open(config).await.unwrap());
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(start + 1).await.unwrap();
    for number in 0..100 {
        put(&dynamic(&store), "a", &number.to_string()).await;
    }
    let error = next(&mut watch).await.unwrap_err();
    assert!(
        matches!(error, WatchError::Compacted { floor: Some(_) }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let place = Place::new();
    let text = b"this is somebody's diary, and not a store at all\n".repeat(200);
    std::fs::write(place.path(), &text).unwrap();
    let refused = EmbeddedStore::open(EmbeddedConfig::new(place.path())).await;
    assert!(
        matches!(refused, Err(OpenError::Corrupt | OpenError::Io(_))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(place.path()).unwrap(), text);
}

#[tokio::test]
async fn a_store_of_another_format_is_refused() {
    let place = Place::new();
    place.open().await.close().await;
    disk::set_format(&place.path(), 99);
    let refused = EmbeddedStore::open(EmbeddedConfig::new(place.path())).await;
    assert!(
        matches!(refused, Err(OpenError::Format { found: 99 })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_creation_that_was_interrupted_is_begun_again() {
    let place = Place::new();
    std::fs::write(place.path().with_extension("new"), [0; 5000]).unwrap();
    std::fs::write(place.path(), []).unwrap();
    let store = place.open().await;
    put(&dynamic(&store), "a", "1").await;
    store.close().await;
    let left: Vec<_> = std::fs::read_dir(place.0.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "the store and its lock: {left:?}");
    assert!(place.open().await.get(b"a").await.unwrap().0.is_some());
}

#[tokio::test]
async fn nothing_is_left_of_what_was_deleted_and_compacted() {
    let place = Place::new();
    let store = place.open().await;
    for number in 0..50 {
        put(&dynamic(&store), &number.to_string(), "value").await;
        put(&dynamic(&store), &number.to_string(), "another").await;
    }
    for number in 1..50 {
        commit(&dynamic(&store), Txn::new().delete(number.to_string())).await;
    }
    store.compact(u64::MAX).await.unwrap();
    store.close().await;
    assert_eq!(
        disk::rows(&place.path()),
        [("versions", 1), ("changes", 0), ("leased", 0)]
    );
}

#[tokio::test]
async fn a_missing_directory_is_said() {
    let place = Place::new();
    let config = EmbeddedConfig::new(place.0.path().join("missing/store"));
    let refused = EmbeddedStore::open(config).await;
    assert!(matches!(refused, Err(OpenError::Io(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_on_the_runtimes_clock() {
    let place = Place::new();
    let store = place.open().await;
    let ttl = Duration::from_hours(1);
    let lease = store.grant(ttl).await.unwrap();
    commit(
        &dynamic(&store),
        Txn::new().put_leased("leader", "me", lease),
    )
    .await;
    tokio::time::advance(ttl / 2).await;
    store.keep_alive(lease).await.unwrap();
    tokio::time::advance(ttl.saturating_sub(Duration::from_secs(1))).await;
    assert!(store.get(b"leader").await.unwrap().0.is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(store.keep_alive(lease).await, Err(LeaseError::Lost));
    let mut watch = store.watch(2).await.unwrap();
    loop {
        let batch = next(&mut watch).await.unwrap();
        if told(&batch.events).contains(&"-leader".to_owned()) {
            break;
        }
    }
}

/// A disk that refuses to write or to sync from some moment on.
#[derive(Debug, Default)]
struct FailingDisk {
    memory: InMemoryBackend,
    writes_fail: Arc<AtomicBool>,
    syncs_fail: Arc<AtomicBool>,
}

impl FailingDisk {
    fn refuse_if(flag: &AtomicBool) -> io::Result<()> {
        let refuses = flag.load(Ordering::SeqCst);
        if refuses {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::refuse_if(&self.writes_fail)?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::refuse_if(&self.syncs_fail)?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Self::refuse_if(&self.writes_fail)?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_disk_that_refuses_makes_no_promise_and_no_event() {
    for sync in [true, false] {
        let place = Place::new();
        let disk = FailingDisk::default();
        let fail = Arc::clone(if sync {
            &disk.syncs_fail
        } else {
            &disk.writes_fail
        });
        let store = Arc::new(EmbeddedStore::run(Disk::on(disk, &place.path()), 1000));
        let written = put(&dynamic(&store), "a", "1").await;
        let mut watch = store.watch(written + 1).await.unwrap();

        fail.store(true, Ordering::SeqCst);
        // A little is written at the commit, much before it already.
        let value = if sync { 1 } else { 1024 * 1024 };
        let failed = store.transact(Txn::new().put("b", vec![b'v'; value])).await;
        let expected = if sync {
            StoreError::UnknownOutcome(Outage::NoSpace)
        } else {
            StoreError::Unavailable(Outage::NoSpace)
        };
        assert_eq!(failed, Err(expected));
        fail.store(false, Ordering::SeqCst);
        let later = store.transact(Txn::new().put("c", "1")).await;
        assert_eq!(later, Err(StoreError::Unavailable(Outage::Io)));
        assert_eq!(store.revision().await.unwrap(), written);
        let batch = next(&mut watch).await.unwrap();
        assert_eq!((batch.revision, batch.events), (written, Vec::new()));
        store.close().await;
    }
}

/// A copy of this test binary, running only `task`.
fn copy(task: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([task, "--exact", "--nocapture", "--test-threads=1"])
        .env(WRITER_PATH, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what the copy does that [`copy`] starts. Without being started by it,
/// it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_of_a_writing_process() {
    let Some(path) = std::env::var_os(WRITER_PATH) else {
        return;
    };
    let store = Arc::new(
        EmbeddedStore::open(EmbeddedConfig::new(path))
            .await
            .unwrap(),
    );
    let writers = (0..4).map(|writer| {
        let store = dynamic(&store);
        tokio::spawn(async move {
            for number in 0_u64.. {
                let key = format!("{writer}/{number}");
                let revision = put(&store, &key, &number.to_string()).await;
                // Said only after it was acknowledged, in one piece.
                let line = format!("wrote {key} {revision}\n");
                io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    futures_util::future::join_all(writers).await;
}

#[tokio::test]
async fn a_second_process_is_refused_while_the_first_lives() {
    let place = Place::new();
    let mut writer = copy(
        "store::embedded::tests::task_of_a_writing_process",
        &place.path(),
    );
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().starts_with("wrote ")),
        "the writer does not write"
    );
    let refused = EmbeddedStore::open(EmbeddedConfig::new(place.path())).await;
    assert!(matches!(refused, Err(OpenError::InUse)), "{refused:?}");
    writer.kill().unwrap();
    writer.wait().unwrap();
    place.open().await;
}

/// `kill -9` at a different moment each time; the same file throughout, so that recovery from one
/// kill is the start of the next.
#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let place = Place::new();
    let mut acknowledged = 0;
    for round in 1..=6 {
        let mut writer = copy(
            "store::embedded::tests::task_of_a_writing_process",
            &place.path(),
        );
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut written: Vec<(String, Rev)> = Vec::new();
        for line in lines {
            // After the kill the last line may be cut.
            let Ok(line) = line else { break };
            let Some(fact) = line.strip_prefix("wrote ") else {
                continue;
            };
            let Some((key, revision)) = fact.split_once(' ') else {
                continue;
            };
            written.push((key.to_owned(), revision.parse().unwrap()));
            if written.len() == round * 37 {
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();

        let store = place.open().await;
        let newest = written.iter().map(|(_, revision)| *revision).max().unwrap();
        assert!(store.revision().await.unwrap() >= newest);
        for (key, revision) in &written {
            let entry = store.get(key.as_bytes()).await.unwrap().0;
            let entry = entry.unwrap_or_else(|| panic!("{key} of round {round} is lost"));
            assert_eq!(entry.mod_revision, *revision, "{key} of round {round}");
        }
        acknowledged += written.len();
        store.close().await;
    }
    assert!(acknowledged >= 6 * 37, "too few writes to mean anything");
}
