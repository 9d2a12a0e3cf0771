//! The mirror over a store that misbehaves.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ferrypost_proto::{
    AccountId, BootId, DestinationId, Head, InstallationId, InstanceId, MigrationId, Phase,
    ReplicaId,
    store::v1::{Installation, MigrationRecord, Registration},
    v1,
};
use ferrypost_runtime::Random;
use futures_util::{FutureExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Mirror, MirrorOptions, Standing, changelog::History};
use crate::{
    domain::{
        commit::RoutingChange,
        placement::Placement,
        state::{Change, ENDED_MIGRATIONS, State},
    },
    store::{
        KeyValue, LeaseError, LeaseId, Range, Rev, Store, StoreError, Txn, TxnOutcome, WatchError,
        WatchStream,
        embedded::{EmbeddedConfig, EmbeddedStore},
        keys,
        value::Stored,
    },
};

/// Nothing takes as long as this unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// A store that can be changed for another one, and whose watches and loads can be broken.
struct Unsteady {
    inner: Mutex<Arc<dyn Store>>,
    /// Raised to end all watches.
    cut: watch::Sender<u32>,
    watch_error: Arc<Mutex<WatchError>>,
    /// Pinned ranges to answer before one of them is compacted away.
    ranges_until_compaction: AtomicUsize,
    loads: AtomicUsize,
    /// While true, no load begins.
    holds_loads: watch::Sender<bool>,
}

impl Unsteady {
    fn over(store: Arc<dyn Store>) -> Self {
        Self {
            inner: Mutex::new(store),
            cut: watch::Sender::new(0),
            watch_error: Arc::new(Mutex::new(WatchError::Compacted { floor: None })),
            ranges_until_compaction: AtomicUsize::new(usize::MAX),
            loads: AtomicUsize::new(0),
            holds_loads: watch::Sender::new(false),
        }
    }

    fn inner(&self) -> Arc<dyn Store> {
        self.inner.lock().unwrap().clone()
    }

    fn cut_watches(&self, error: WatchError) {
        *self.watch_error.lock().unwrap() = error;
        self.cut.send_modify(|cut| *cut += 1);
    }
}

#[async_trait]
impl Store for Unsteady {
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        self.inner().get(key).await
    }

    async fn whole(&self, most: usize) -> Result<Option<Range>, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let _ = self.holds_loads.subscribe().wait_for(|holds| !holds).await;
        self.inner().whole(most).await
    }

    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        let left = &self.ranges_until_compaction;
        if at.is_some() && left.load(Ordering::SeqCst) != usize::MAX {
            let before = left.fetch_sub(1, Ordering::SeqCst);
            if before == 0 {
                left.store(usize::MAX, Ordering::SeqCst);
                return Err(StoreError::Compacted { floor: None });
            }
        }
        self.inner().range(prefix, at).await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.inner().transact(txn).await
    }

    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError> {
        let mut cut = self.cut.subscribe();
        cut.borrow_and_update();
        let until = async move {
            let _ = cut.changed().await;
        };
        let inner = self.inner().watch(from).await?;
        let mut ends = Some(self.watch_error.clone());
        let end = futures_util::stream::poll_fn(move |_| {
            let error = ends.take().map(|error| Err(error.lock().unwrap().clone()));
            std::task::Poll::Ready(error)
        });
        Ok(inner.take_until(until.boxed()).chain(end).boxed())
    }

    async fn revision(&self) -> Result<Rev, StoreError> {
        self.inner().revision().await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner().grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        self.inner().keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner().revoke(lease).await
    }

    async fn compact(&self, to: Rev) -> Result<(), StoreError> {
        self.inner().compact(to).await
    }
}

/// A mirror over an unsteady store.
struct World {
    store: Arc<Unsteady>,
    mirror: Mirror,
    random: Random,
    cancel: CancellationToken,
    _directory: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn embedded() -> (Arc<dyn Store>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(directory.path().join("store"));
    let store = EmbeddedStore::open(config).await.unwrap();
    (Arc::new(store), directory)
}

impl World {
    /// One whose store is loaded as a large one is.
    async fn new() -> Self {
        Self::that_loads_in_one_go(0).await
    }

    async fn that_loads_in_one_go(keys: usize) -> Self {
        let (inner, directory) = embedded().await;
        let store = Arc::new(Unsteady::over(inner));
        let random = Random::seeded(1);
        let cancel = CancellationToken::new();
        let options = MirrorOptions {
            in_one_go: keys,
            ..MirrorOptions::new(ReplicaId::parse("cp-1").unwrap(), random.clone())
        };
        let mirror = Mirror::start(store.clone(), options, &TaskTracker::new(), cancel.clone());
        let installation = Installation {
            id: InstallationId::generate(random.bytes()).as_str().to_owned(),
            ..Installation::default()
        };
        let world = Self {
            store,
            mirror,
            random,
            cancel,
            _directory: directory,
        };
        let installed = Txn::new().put(keys::INSTALLATION, Stored::new(installation).bytes());
        world.commit(installed).await;
        world
    }

    async fn write(&self, txn: Txn) -> Rev {
        self.store
            .transact(txn)
            .await
            .unwrap()
            .committed()
            .expect("no guard fails")
    }

    async fn commit(&self, txn: Txn) -> Rev {
        let revision = self.write(txn).await;
        self.mirror.at_least(revision, PATIENCE).await.unwrap();
        revision
    }

    /// A record with the name, and the transaction that creates it.
    fn account(&self, name: &str) -> (Placement, Txn) {
        let home = DestinationId::parse("source").unwrap();
        let id = AccountId::generate(self.random.bytes());
        let placement = Placement::new(id, [name.into()], home);
        let txn = RoutingChange::new(&self.random)
            .record(&placement)
            .add_name(name, &placement)
            .txn();
        (placement, txn)
    }

    async fn loads(&self, more_than: usize) {
        self.eventually(|_| (self.store.loads.load(Ordering::SeqCst) > more_than).then_some(()))
            .await;
    }

    async fn eventually<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = look(&self.mirror.read()) {
                    return found;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, looking)
            .await
            .expect("it comes to be")
    }
}

#[tokio::test]
async fn what_is_written_is_read_with_its_names_counts_and_changes() {
    let world = World::new().await;
    let before = world.mirror.read().revision();
    let (placement, txn) = world.account("alice");
    let revision = world.commit(txn).await;
    let state = world.mirror.read();
    let found = state.by_name("alice").unwrap();
    assert_eq!(found.id(), &placement.account);
    assert_eq!(found.epoch(), revision);
    assert_eq!((state.account_count(), state.name_count()), (1, 1));
    assert_eq!(state.counts().homes[&placement.home], 1);
    assert_eq!(state.counts().phases[&Phase::Settled], 1);
    assert_eq!(state.head().store, revision);
    let feed = world.mirror.feed(before);
    let entries = feed.entries.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].revision, revision);
    assert!(matches!(&entries[0].changes[..], [Change::Account(account)] if account == found));
    assert_eq!(world.mirror.history(state.head()), History::Ours);

    let mut removed = found.placement().unwrap().clone();
    removed.epoch = revision;
    let txn = RoutingChange::new(&world.random)
        .remove_record(&removed)
        .remove_name("alice")
        .txn();
    world.commit(txn).await;
    let after = world.mirror.read();
    assert_eq!((after.account_count(), after.name_count()), (0, 0));
    assert!(after.counts().homes.is_empty() && after.counts().phases.is_empty());
    assert_eq!(
        state.account_count(),
        1,
        "a state that is held stays as it is"
    );
    let entries = world.mirror.feed(revision).entries.unwrap();
    assert!(matches!(&entries[0].changes[..], [Change::Removed(id)] if *id == placement.account));
}

#[tokio::test]
async fn compaction_means_another_load_that_deletes_what_it_lacks() {
    let world = World::new().await;
    let (mut placement, txn) = world.account("alice");
    let old = world.commit(txn).await;
    world.store.holds_loads.send_replace(true);
    world
        .store
        .cut_watches(WatchError::Compacted { floor: None });
    world.loads(1).await;
    // Nobody watches now.
    placement.epoch = old;
    let txn = RoutingChange::new(&world.random)
        .remove_record(&placement)
        .remove_name("alice")
        .txn();
    let deleted = world.write(txn).await;
    assert!(world.mirror.read().by_name("alice").is_some());
    world.store.holds_loads.send_replace(false);
    let state = world.mirror.at_least(deleted, PATIENCE).await.unwrap();
    assert!(state.by_name("alice").is_none());
    assert!(
        world.mirror.feed(old).entries.is_none(),
        "what happened meanwhile is not known"
    );
    assert_eq!(world.mirror.feed(deleted).entries.unwrap().len(), 0);
    // It follows again.
    let (_, txn) = world.account("bob");
    world.commit(txn).await;
    assert!(world.mirror.read().by_name("bob").is_some());
}

/// Of what is loaded at once and of what is loaded piece by piece, in stores just below and above the bound.
#[tokio::test]
async fn a_store_is_loaded_whole_whatever_its_size() {
    for keys in [0, 3, 5, 6, 7, 100] {
        let world = World::that_loads_in_one_go(keys).await;
        for name in ["alice", "bob"] {
            let (_, txn) = world.account(name);
            world.commit(txn).await;
        }
        let before = world.mirror.read();
        world
            .store
            .cut_watches(WatchError::Compacted { floor: None });
        world.loads(1).await;
        let (_, txn) = world.account("carol");
        world.commit(txn).await;
        let state = world.mirror.read();
        assert_eq!(
            (state.account_count(), state.name_count()),
            (3, 3),
            "{keys}"
        );
        assert_eq!(state.installation(), before.installation());
        assert_eq!(state.by_name("alice"), before.by_name("alice"), "{keys}");
    }
}

#[tokio::test]
async fn compaction_during_a_load_begins_the_load_again() {
    let world = World::new().await;
    let (_, txn) = world.account("alice");
    world.commit(txn).await;
    world
        .store
        .ranges_until_compaction
        .store(100, Ordering::SeqCst);
    world
        .store
        .cut_watches(WatchError::Compacted { floor: None });
    world.loads(2).await;
    let (_, txn) = world.account("bob");
    world.commit(txn).await;
    let state = world.mirror.read();
    assert!(state.by_name("alice").is_some() && state.by_name("bob").is_some());
    let mut standing = world.mirror.standing();
    let follows = standing.wait_for(|standing| *standing == Standing::Following);
    time::timeout(PATIENCE, follows).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_restored_store_is_proved_before_anything_older_is_shown() {
    let world = World::new().await;
    let installation = world.mirror.read().installation().unwrap().clone();
    for name in ["alice", "bob"] {
        let (_, txn) = world.account(name);
        world.commit(txn).await;
    }
    let before = world.mirror.read();

    // The same installation, from before all of that.
    let (older, _directory) = embedded().await;
    let record = Installation {
        id: installation.as_str().to_owned(),
        ..Installation::default()
    };
    let txn = Txn::new().put(keys::INSTALLATION, Stored::new(record).bytes());
    let _ = older.transact(txn).await.unwrap();
    *world.store.inner.lock().unwrap() = older.clone();
    world
        .store
        .cut_watches(WatchError::Store(StoreError::Closed));

    world
        .eventually(|state| {
            // Never the older state without the proof.
            assert!(state.revision() >= before.revision() || state.rewound().is_some());
            state.rewound().map(drop)
        })
        .await;
    let (proof, _) = older.get(keys::REWOUND).await.unwrap();
    let proof = Stored::<ferrypost_proto::store::v1::Rewound>::read(&proof.unwrap().value).unwrap();
    assert_eq!(proof.instance, "cp-1");
    assert_eq!(proof.held, Some(before.wire_revision().into()));
    assert!(proof.store.unwrap().store < before.revision());
}

#[tokio::test]
async fn another_history_at_a_higher_revision_is_found_out_by_its_head() {
    let world = World::new().await;
    let installation = world.mirror.read().installation().unwrap().clone();
    let (_, txn) = world.account("alice");
    world.commit(txn).await;
    let before = world.mirror.read();
    let (other, _directory) = embedded().await;
    let record = Installation {
        id: installation.as_str().to_owned(),
        ..Installation::default()
    };
    let txn = Txn::new().put(keys::INSTALLATION, Stored::new(record).bytes());
    let _ = other.transact(txn).await.unwrap();
    while other.revision().await.unwrap() <= before.revision() + 3 {
        // A leader's lease, a registration: no routing.
        let txn = Txn::new().put(keys::LEADER, "");
        let _ = other.transact(txn).await.unwrap();
    }
    *world.store.inner.lock().unwrap() = other;
    world
        .store
        .cut_watches(WatchError::Store(StoreError::Closed));
    world.eventually(|state| state.rewound().map(drop)).await;
}

#[tokio::test]
async fn an_unreadable_record_is_held_and_an_unreadable_registration_counts() {
    let world = World::new().await;
    let (placement, txn) = world.account("alice");
    world.commit(txn).await;
    let mut stored = placement.to_stored();
    stored.phase = 77;
    let key = keys::account(&placement.account);
    let instance = InstanceId::parse("dp-1").unwrap();
    let txn = Txn::new()
        .put(key, stored.bytes())
        .put(keys::registration(&instance), b"\xff".as_slice());
    world.commit(txn).await;
    let state = world.mirror.read();
    let alice = state.by_name("alice").unwrap();
    assert_eq!(alice.placement(), None);
    assert_eq!(
        alice.entry(0).phase,
        0,
        "no data plane knows that phase, so each holds it"
    );
    assert_eq!(alice.entry(0).names, ["alice"]);
    assert_eq!(state.registrations()[&instance].value.boot, "");
}

#[tokio::test]
async fn only_the_last_ended_migrations_are_kept_and_all_are_counted() {
    let world = World::new().await;
    let ids: Vec<_> = (0..ENDED_MIGRATIONS + 20)
        .map(|_| MigrationId::generate(world.random.bytes()))
        .collect();
    let record = |state: v1::MigrationState| {
        Stored::new(MigrationRecord {
            state: state.into(),
            phase: v1::Phase::Settled.into(),
            ..MigrationRecord::default()
        })
        .bytes()
    };
    let mut first = None;
    for chunk in ids.chunks(100) {
        let txn = chunk.iter().fold(Txn::new(), |txn, id| {
            txn.put(keys::migration(id), record(v1::MigrationState::Succeeded))
        });
        let revision = world.commit(txn).await;
        first.get_or_insert(revision);
    }
    let kept = |state: &State| state.migrations().count();
    let state = world.mirror.read();
    assert_eq!(kept(&state), ENDED_MIGRATIONS);
    let counted = u64::try_from(ids.len()).unwrap();
    assert_eq!(
        state.counts().migrations[&v1::MigrationState::Succeeded],
        counted
    );
    assert!(
        state.migration(ids.last().unwrap()).is_some(),
        "the last ones are kept"
    );

    world
        .store
        .cut_watches(WatchError::Compacted { floor: None });
    world.loads(1).await;
    let id = MigrationId::generate(world.random.bytes());
    let txn = Txn::new().put(keys::migration(&id), record(v1::MigrationState::Aborted));
    world.commit(txn).await;
    let state = world.mirror.read();
    assert_eq!(kept(&state), ENDED_MIGRATIONS);
    assert_eq!(
        state.counts().migrations[&v1::MigrationState::Succeeded],
        counted
    );
    assert!(state.migration(&id).is_some());
}

#[tokio::test]
async fn waiting_ends_with_what_was_acknowledged_or_says_that_it_is_late() {
    let world = World::new().await;
    let instance = InstanceId::parse("dp-1").unwrap();
    let registration = Registration {
        boot: BootId::generate(world.random.bytes()).as_str().to_owned(),
        ..Registration::default()
    };
    let txn = Txn::new().put(
        keys::registration(&instance),
        Stored::new(registration).bytes(),
    );
    let revision = world.write(txn).await;
    let state = world.mirror.catch_up(PATIENCE).await.unwrap();
    assert!(state.revision() >= revision);
    assert!(state.registrations().contains_key(&instance));
    assert_eq!(state.head(), &Head::default(), "no routing has changed");
    let never = world
        .mirror
        .at_least(Rev::MAX, Duration::from_millis(50))
        .await;
    assert_eq!(never.unwrap_err(), super::BehindError::Late);
}
