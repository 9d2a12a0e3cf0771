//! A restored store, a replica that can be killed, and two data planes: one remembers what the store has lost,
//! one has registered with the restored store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferrypost_proto::{
    AccountId, DestinationId, Head, InstallationId, InstanceId, ReplicaId, Revision, TablePosition,
    store::v1::{Installation, RefusedClaim},
};
use ferrypost_runtime::{Random, telemetry::Tracing};
use prost_types::Timestamp;
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::{Keep, Resolution, ResolveOrder, RestoreUseCases},
    plane::{Accounts, Plane, hello},
};
use crate::{
    config::Migrations,
    domain::{commit::RoutingChange, placement::Placement, state::State},
    failpoint::{Action, Failpoints},
    fleet::{Fleet, FleetOptions, tests::world::document},
    mirror::{Mirror, MirrorOptions},
    refusal::Answer,
    service::Core,
    store::{
        Store, Txn,
        embedded::{EmbeddedConfig, EmbeddedStore},
        keys,
        testing::EtcdServer,
        value::Stored,
    },
};

/// Nothing takes as long as this unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a server may be at work for somebody who is gone.
const SETTLE: Duration = Duration::from_millis(30);

/// The accounts that have moved since the backup.
pub(super) const MOVED: [&str; 2] = ["alice", "bob"];

/// The one that has not.
pub(super) const STAYED: &str = "carol";

/// A restored store, and who is there.
pub(super) struct World {
    store: Arc<dyn Store>,
    random: Random,
    serves: watch::Sender<Option<Fleet>>,
    pub(super) remembers: Option<Plane>,
    pub(super) came_later: Option<Plane>,
    directory: Option<TempDir>,
}

impl World {
    pub(super) async fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(directory.path().join("store"));
        let store = EmbeddedStore::open(config).await.unwrap();
        Self::over(Arc::new(store), Some(directory)).await
    }

    pub(super) async fn etcd() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let server = EtcdServer::shared().await;
        let store = server.store(&format!("/restored-{number}")).await;
        Self::over(Arc::new(store), None).await
    }

    async fn over(store: Arc<dyn Store>, directory: Option<TempDir>) -> Self {
        let world = Self {
            store,
            random: Random::seeded(41),
            serves: watch::channel(None).0,
            remembers: None,
            came_later: None,
            directory,
        };
        world.install().await;
        world
    }

    /// The same store once more, as it was.
    pub(super) async fn another(&self) -> Self {
        match self.directory {
            Some(_) => Self::embedded().await,
            None => Self::etcd().await,
        }
    }

    /// As the backup has it: everybody lives at the source.
    async fn install(&self) {
        let installation = Installation {
            id: InstallationId::generate(self.random.bytes()).into(),
            ..Installation::default()
        };
        let mut change = RoutingChange::new(&self.random)
            .config(document(), 0)
            .with(|txn| txn.put(keys::INSTALLATION, Stored::new(installation).bytes()));
        for name in MOVED.into_iter().chain([STAYED]) {
            let placement = Placement::new(id_of(name), [name.into()], home("source"));
            change = change.record(&placement).add_name(name, &placement);
        }
        let outcome = self.store.transact(change.txn()).await.unwrap();
        outcome.committed().expect("the store is empty");
    }

    /// A replica that data planes go to from now on.
    pub(super) async fn replica(&self, name: &str) -> Replica {
        let replica = Replica::start(self, name);
        replica
            .core
            .mirror
            .catch_up(PATIENCE)
            .await
            .expect("the store serves");
        self.serves.send_replace(Some(replica.fleet.clone()));
        replica
    }

    /// One data plane comes that has the restored store's word from a replica, then one that knows better.
    pub(super) async fn found_out(&mut self, replica: &Replica) {
        self.comes_later(replica).await;
        self.remembers(replica);
        replica.compared().await;
    }

    pub(super) async fn comes_later(&mut self, replica: &Replica) {
        let new = (None, Accounts::new());
        let hello = hello("came-later", &self.random);
        let plane = Plane::runs(hello, new, self.serves.subscribe());
        eventually("it serves", || plane.sends(id_of(STAYED).as_str())).await;
        self.came_later = Some(plane);
        replica.core.mirror.catch_up(PATIENCE).await.unwrap();
    }

    pub(super) fn remembers(&mut self, replica: &Replica) {
        let state = replica.core.mirror.read();
        let accounts = MOVED.into_iter().chain([STAYED]).map(|name| {
            let account = state.account(&id_of(name)).expect("it is in the backup");
            let mut entry = account.entry(state.base());
            if name != STAYED {
                "target".clone_into(&mut entry.home);
            }
            (entry.account_id.clone(), entry)
        });
        // A change above the head of the restored store, which its history will pass.
        let lost = state.head().store + 1;
        let position = TablePosition {
            revision: Revision::new(0, lost),
            head: Head {
                store: lost,
                nonce: vec![7; 16],
            },
        };
        let knows = (Some(position), accounts.collect());
        let served = self.serves.subscribe();
        let mut hello = hello("remembers", &self.random);
        hello.installation = state.installation().unwrap().as_str().to_owned();
        self.remembers = Some(Plane::runs(hello, knows, served));
    }

    /// Another process has asked for a data plane's place, and was refused.
    pub(super) async fn claims_a_place(&self, replica: &Replica, instance: &str, at: Timestamp) {
        let claim = Stored::new(RefusedClaim {
            boot: "another".to_owned(),
            at: Some(at),
            ..RefusedClaim::default()
        });
        let key = keys::claim(&InstanceId::parse(instance).unwrap());
        let txn = Txn::new().put(key, claim.bytes());
        let outcome = self.store.transact(txn).await.unwrap();
        outcome.committed().expect("there is no guard");
        replica.core.caught_up().await.unwrap();
    }

    /// Where somebody is sent on each data plane, those that remember first.
    pub(super) fn sends(&self, name: &str) -> Vec<Option<String>> {
        self.planes()
            .map(|plane| plane.sends(id_of(name).as_str()))
            .collect()
    }

    fn planes(&self) -> impl Iterator<Item = &Plane> {
        self.remembers.iter().chain(&self.came_later)
    }

    /// True if no data plane sends anybody in doubt anywhere.
    pub(super) fn holds(&self) -> bool {
        let sends = |plane: &Plane| {
            MOVED
                .iter()
                .any(|name| plane.sends(id_of(name).as_str()).is_some())
        };
        !self.planes().any(sends)
    }

    /// The restore is resolved by one decision, and everybody is where it sends them.
    pub(super) async fn judge(&self, replica: &Replica, keep: Keep) {
        let state = replica.core.caught_up().await.unwrap();
        assert!(state.rewound().is_none());
        assert_eq!(state.base(), 1);
        let decided = match keep {
            Keep::Fleet => "target",
            Keep::Store => "source",
        };
        let homes = MOVED.map(|name| (name, decided)).into_iter();
        for (name, home) in homes.chain([(STAYED, "source")]) {
            let id = id_of(name);
            let stored = state.account(&id).and_then(|it| it.placement()).unwrap();
            assert_eq!(stored.home.as_str(), home, "{name}");
            for plane in self.planes() {
                let there = || (plane.sends(id.as_str())? == home).then_some(());
                eventually(&format!("{name} is sent to {home}"), there).await;
            }
        }
        let (installation, _) = self.store.get(keys::INSTALLATION).await.unwrap();
        let installation = installation.expect("it is written");
        let installation = Stored::<Installation>::read(&installation.value).unwrap();
        assert_eq!(installation.resolutions.len(), 1, "one decision counts");
    }
}

/// A replica of the control plane.
pub(super) struct Replica {
    pub(super) core: Arc<Core>,
    pub(super) fleet: Fleet,
    pub(super) restore: RestoreUseCases,
    pub(super) failpoints: Failpoints,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Replica {
    fn start(world: &World, name: &str) -> Self {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let failpoints = Failpoints::default();
        let replica = ReplicaId::parse(name).unwrap();
        let options = MirrorOptions::new(replica.clone(), world.random.clone());
        let mirror = Mirror::start(world.store.clone(), options, &tasks, cancel.clone());
        let options = FleetOptions {
            replica: replica.clone(),
            random: world.random.clone(),
            // No stream is ended for its silence, however busy the machine is.
            heartbeat: Duration::from_secs(20),
            settle: SETTLE,
            failpoints: failpoints.clone(),
        };
        let fleet = Fleet::start(mirror.clone(), options, &tasks, cancel.clone());
        let core = Arc::new(Core {
            mirror,
            random: world.random.clone(),
            tracing: Tracing::default(),
            replica,
            migrations: migrations(),
            delta_hook: false,
            failpoints: failpoints.clone(),
            ending: cancel.clone(),
        });
        Self {
            restore: RestoreUseCases::new(core.clone(), fleet.clone()),
            core,
            fleet,
            failpoints,
            tasks,
            cancel,
        }
    }

    /// It is gone between one instruction and the next, and its calls with it.
    pub(super) async fn dies(self, world: &World, calls: impl IntoIterator<Item = Call>) {
        for call in calls {
            call.abort();
            let _ = call.await;
        }
        world.serves.send_replace(None);
        self.cancel.cancel();
        self.tasks.close();
        self.failpoints.disarm();
        self.tasks.wait().await;
    }

    /// As a control plane does while it runs.
    pub(super) fn keeps_apart(&self) {
        self.tasks.spawn(self.restore.clone().keep_apart());
    }

    /// Waits until every data plane has compared what it knows with the store.
    pub(super) async fn compared(&self) {
        self.compared_by(2).await;
    }

    pub(super) async fn compared_by(&self, planes: usize) {
        let found = async {
            loop {
                if let Ok((_, picture)) = self.restore.picture().await
                    && picture.missing.is_empty()
                    && picture.planes.len() == planes
                {
                    return;
                }
                time::sleep(PAUSE).await;
            }
        };
        time::timeout(PATIENCE, found).await.expect("all compare");
    }

    /// The list that the store's word must name.
    pub(super) async fn digest(&self) -> String {
        self.restore.picture().await.unwrap().1.digest()
    }

    /// The decision that an operator makes who has read the list.
    pub(super) async fn order(&self, keep: Keep) -> ResolveOrder {
        let digest = match keep {
            Keep::Store => self.digest().await,
            Keep::Fleet => String::new(),
        };
        ResolveOrder {
            keep,
            digest,
            reason: "the disk was replaced".to_owned(),
            request_id: String::new(),
            requested_by: "an operator".to_owned(),
        }
    }

    /// Makes it, and goes on meanwhile.
    pub(super) fn resolving(&self, order: ResolveOrder) -> Call {
        let restore = self.restore.clone();
        tokio::spawn(async move { restore.resolve(&order).await })
    }

    /// Another handle of this replica, whose calls have failpoints of their own.
    pub(super) fn beside(&self) -> (RestoreUseCases, Failpoints) {
        let failpoints = Failpoints::default();
        let core = Core {
            mirror: self.core.mirror.clone(),
            random: self.core.random.clone(),
            tracing: Tracing::default(),
            replica: self.core.replica.clone(),
            migrations: migrations(),
            delta_hook: false,
            failpoints: failpoints.clone(),
            ending: self.core.ending.clone(),
        };
        (
            RestoreUseCases::new(Arc::new(core), self.fleet.clone()),
            failpoints,
        )
    }

    /// Ends a registration, as an operator does for what is gone for good.
    pub(super) async fn expels(&self, world: &World, instance: &str) {
        let instance = InstanceId::parse(instance).unwrap();
        let state = self.core.caught_up().await.unwrap();
        let txn = Txn::new().delete(keys::registration(&instance));
        let txn = crate::domain::commit::change_fleet(txn, state.fleet());
        let outcome = world.store.transact(txn).await.unwrap();
        outcome.committed().expect("nobody else registers");
        self.core.caught_up().await.unwrap();
    }
}

/// A call that is under way.
pub(super) type Call = JoinHandle<Answer<(Arc<State>, Resolution)>>;

/// Waits until a step is reached.
pub(super) async fn reached(failpoints: &Failpoints, name: &str) {
    let passed = || failpoints.passed().contains(&name).then_some(());
    eventually(name, passed).await;
}

/// Holds whoever comes to a step until it is told to go on.
pub(super) fn pause_at(failpoints: &Failpoints, name: &'static str) -> GoOn {
    let folder = tempfile::tempdir().unwrap();
    failpoints.arm(name, Action::Pause(folder.path().join("go on")));
    GoOn(folder)
}

/// Where the file comes that a paused step waits for.
pub(super) struct GoOn(TempDir);

impl GoOn {
    pub(super) fn now(&self) {
        std::fs::write(self.0.path().join("go on"), "").unwrap();
    }
}

/// An account's id is told from its name.
fn id_of(name: &str) -> AccountId {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    AccountId::generate(bytes)
}

fn home(name: &str) -> DestinationId {
    DestinationId::parse(name).unwrap()
}

fn migrations() -> Migrations {
    Migrations {
        window: Duration::from_secs(5),
        fence_budget: 20,
        fence_attempts: 3,
        settle: SETTLE,
        heartbeat: Duration::from_secs(2),
        leader_ttl: Duration::from_secs(2),
        keep_ended: Duration::from_hours(720),
    }
}

pub(super) async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        time::sleep(PAUSE).await;
    }
}
