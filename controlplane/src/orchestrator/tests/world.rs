//! A store with an installation in it, and orchestrators that can be killed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferrypost_proto::{
    InstallationId, InstanceId, MigrationId, Phase, ReplicaId,
    store::v1::{Installation, MigrationRecord, Rewound},
    v1::{self, BlockerReason, MigrationState},
};
use ferrypost_runtime::Random;
use tempfile::TempDir;
use tokio::{task::JoinHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::plane::Plane;
use crate::{
    domain::state::State,
    domain::{
        commit::{RoutingChange, change_fleet},
        placement::Placement,
        start::{self, MoveRequest, MoveTerms, MoveVerdict, Requester},
    },
    failpoint::{Action, Failpoints},
    hook::DeltaHook,
    mirror::{Mirror, MirrorOptions},
    orchestrator::{OrchestratorOptions, run},
    store::{
        Event, Rev, Store, Txn, TxnOutcome, Write,
        embedded::{EmbeddedConfig, EmbeddedStore},
        keys,
        testing::EtcdServer,
        value::Stored,
    },
    wall_clock::{self, WallClock},
};

/// Nothing takes as long as this unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// The held window of the tests' moves, unless they say otherwise. Far above what a move takes on a busy
/// machine: only a test that waits for its end chooses a short one.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// A store, an installation, and who watches it.
pub(super) struct World {
    pub(super) store: Arc<dyn Store>,
    pub(super) random: Random,
    /// What waits for something looks here. It may be behind any orchestrator, each of which has a mirror of
    /// its own, so what is true now is asked of the store: see [`Self::state`].
    observer: Mirror,
    pub(super) window: Duration,
    tasks: TaskTracker,
    cancel: CancellationToken,
    _directory: Option<TempDir>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A number that no other world of this process has.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl World {
    pub(super) async fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(directory.path().join("store"));
        let store = EmbeddedStore::open(config).await.unwrap();
        Self::over(Arc::new(store), Some(directory)).await
    }

    pub(super) async fn etcd() -> Self {
        let server = EtcdServer::shared().await;
        let store = server.store(&format!("/world-{}", next_number())).await;
        Self::over(Arc::new(store), None).await
    }

    async fn over(store: Arc<dyn Store>, directory: Option<TempDir>) -> Self {
        let random = Random::seeded(next_number());
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let options = MirrorOptions::new(replica("observer"), random.clone());
        let observer = Mirror::start(store.clone(), options, &tasks, cancel.clone());
        let world = Self {
            store,
            random,
            observer,
            window: WINDOW,
            tasks,
            cancel,
            _directory: directory,
        };
        world.install().await;
        world
    }

    async fn install(&self) {
        let installation = Installation {
            id: InstallationId::generate(self.random.bytes())
                .as_str()
                .to_owned(),
            ..Installation::default()
        };
        let config = config();
        ferrypost_proto::RoutingConfig::try_from(&config).expect("the tests' document is valid");
        let txn = RoutingChange::new(&self.random)
            .config(config, 0)
            .with(|txn| txn.put(keys::INSTALLATION, Stored::new(installation).bytes()))
            .txn();
        self.commit(txn).await;
    }

    /// What the store holds now.
    pub(super) async fn state(&self) -> State {
        let all = self.store.range(b"", None).await.expect("the store serves");
        let mut state = State::default();
        for entry in all.entries {
            state.apply(&[Event::Put(entry)]);
        }
        state.reach(all.revision);
        state
    }

    /// Commits what must be possible, and waits until the observer's mirror has it.
    pub(super) async fn commit(&self, txn: Txn) -> Rev {
        let outcome = self.store.transact(txn).await.expect("the store serves");
        let TxnOutcome::Committed(revision) = outcome else {
            panic!("a guard of the test's own transaction failed");
        };
        self.observed(revision).await;
        revision
    }

    /// Changes the registrations, however often somebody else does so meanwhile.
    pub(super) async fn commit_to_fleet(&self, change: impl Fn(&State) -> Txn) {
        loop {
            let state = self.state().await;
            let txn = change_fleet(change(&state), state.fleet());
            let outcome = self.store.transact(txn).await.expect("the store serves");
            if let TxnOutcome::Committed(revision) = outcome {
                return self.observed(revision).await;
            }
        }
    }

    async fn observed(&self, revision: Rev) {
        let observed = self.observer.at_least(revision, PATIENCE).await;
        observed.expect("the mirror follows");
    }

    /// For a data plane, which acts upon what it comes to see.
    pub(super) fn observer(&self) -> Mirror {
        self.observer.clone()
    }

    /// A mirror of another replica.
    fn mirror_of(&self, name: &str, store: Arc<dyn Store>) -> Mirror {
        let options = MirrorOptions::new(replica(name), self.random.clone());
        Mirror::start(store, options, &self.tasks, self.cancel.clone())
    }

    /// A registered data plane that does everything right.
    pub(super) async fn plane(&self, name: &str) -> Plane {
        Plane::register(self, name).await
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            cancel.run_until_cancelled(task).await;
        });
    }

    /// An orchestrator that stands for leader, without a hook.
    pub(super) fn orchestrator(&self, name: &str) -> Orchestrator {
        self.orchestrator_with(name, |_| {})
    }

    /// An orchestrator that goes on with a move which is under way already, up to a failpoint: armed before it
    /// runs, since it may be there at once.
    pub(super) fn orchestrator_up_to(&self, name: &str, failpoint: &'static str) -> Orchestrator {
        self.orchestrator_with(name, |options| {
            options.failpoints.arm(failpoint, Action::Halt);
        })
    }

    /// An orchestrator with a hook.
    pub(super) fn orchestrator_with_hook(&self, name: &str, hook: impl DeltaHook) -> Orchestrator {
        self.orchestrator_with(name, |options| options.hook = Some(Arc::new(hook)))
    }

    pub(super) fn orchestrator_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut OrchestratorOptions),
    ) -> Orchestrator {
        self.run_orchestrator(name, self.store.clone(), change)
    }

    /// An orchestrator whose way to the store is another one.
    pub(super) fn orchestrator_over(&self, name: &str, store: Arc<dyn Store>) -> Orchestrator {
        self.run_orchestrator(name, store, |_| {})
    }

    /// An orchestrator whose way to the store is another one, and who leads only while it is heard of.
    pub(super) fn orchestrator_on_a_short_lease(
        &self,
        name: &str,
        store: Arc<dyn Store>,
    ) -> Orchestrator {
        self.run_orchestrator(name, store, |options| {
            options.leader_ttl = Duration::from_secs(5);
        })
    }

    fn run_orchestrator(
        &self,
        name: &str,
        store: Arc<dyn Store>,
        change: impl FnOnce(&mut OrchestratorOptions),
    ) -> Orchestrator {
        let failpoints = Failpoints::default();
        let mut options = OrchestratorOptions {
            metrics: Arc::new(ferrypost_runtime::metrics::Metrics::new(
                crate::metrics::TABLE,
            )),
            replica: replica(name),
            random: self.random.clone(),
            // Nobody is deposed because the machine is busy.
            leader_ttl: Duration::from_secs(30),
            settle: Duration::from_millis(300),
            fence_budget: 20,
            fence_attempts: 3,
            respite: Duration::from_millis(50),
            hook: None,
            keep: Duration::from_hours(720),
            prune_every: Duration::from_hours(1),
            clock: WallClock::default(),
            failpoints: failpoints.clone(),
            looks: Arc::default(),
        };
        change(&mut options);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(self.mirror_of(name, store), options, stop.clone()));
        Orchestrator {
            task,
            stop,
            failpoints,
        }
    }

    /// The lease of a leader that was killed ends.
    pub(super) async fn leader_lease_ends(&self) {
        self.commit(Txn::new().delete(keys::LEADER)).await;
    }

    /// Asks for a move of `alice@example.org` to `target`.
    pub(super) async fn migrate(&self, target: &str) -> MigrationId {
        self.ask("alice@example.org", Some(target), false).await
    }

    pub(super) async fn migrate_with_hook(&self, target: &str) -> MigrationId {
        self.ask("alice@example.org", Some(target), true).await
    }

    pub(super) async fn rollback(&self) -> MigrationId {
        self.ask("alice@example.org", None, false).await
    }

    pub(super) async fn ask(
        &self,
        account: &str,
        destination: Option<&str>,
        delta_hook: bool,
    ) -> MigrationId {
        loop {
            let state = self.state().await;
            let (id, txn) = self.begin(&state, account, destination, delta_hook);
            if let Ok(TxnOutcome::Committed(revision)) = self.store.transact(txn).await {
                self.observed(revision).await;
                return id;
            }
        }
    }

    /// What begins a move.
    fn begin(
        &self,
        state: &State,
        account: &str,
        destination: Option<&str>,
        delta_hook: bool,
    ) -> (MigrationId, Txn) {
        let request = MoveRequest {
            account,
            names: &[],
            destination,
            expected_source: None,
        };
        let terms = MoveTerms {
            window: self.window,
            delta_hook,
        };
        let verdict = start::start(state, &self.random, &request, terms);
        let MoveVerdict::Start(start) = verdict.expect("the move may start") else {
            panic!("another move is under way");
        };
        let id = MigrationId::generate(self.random.bytes());
        let change = start.change(&self.random, &id, Requester::default(), wall_clock::now());
        (id, change.txn())
    }

    /// Asks for moves of `user<n>@example.org` to the target, as many in one transaction as it takes.
    pub(super) async fn queue(&self, accounts: std::ops::Range<usize>) {
        let names: Vec<_> = accounts.map(|n| format!("user{n}@example.org")).collect();
        for few in names.chunks(40) {
            loop {
                let state = self.observer.read();
                let mut all = Txn::new();
                for name in few {
                    let (_, one) = self.begin(&state, name, Some("target"), false);
                    let new: Vec<_> = one
                        .guards
                        .into_iter()
                        .filter(|guard| !all.guards.contains(guard))
                        .collect();
                    all.guards.extend(new);
                    let is_new = |write: &Write| all.writes.iter().all(|w| w.key() != write.key());
                    let new: Vec<_> = one.writes.into_iter().filter(is_new).collect();
                    all.writes.extend(new);
                }
                match self.store.transact(all).await.expect("the store serves") {
                    TxnOutcome::Committed(revision) => break self.observed(revision).await,
                    TxnOutcome::Conflict { revision } => self.observed(revision).await,
                }
            }
        }
    }

    /// Waits until a state shows what is looked for.
    pub(super) async fn eventually<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.observer.changed();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = look(&self.observer.read()) {
                    return found;
                }
                changed.changed().await.expect("the mirror runs");
            }
        };
        time::timeout(PATIENCE, found).await.unwrap_or_else(|_| {
            panic!(
                "waited in vain for {what}; the state is {:#?}",
                self.observer.read()
            )
        })
    }

    /// Waits until the migration has ended.
    pub(super) async fn ended(&self, id: &MigrationId) -> MigrationRecord {
        self.eventually("the end of the migration", |state| {
            let migration = state.migration(id)?;
            crate::domain::state::has_ended(&migration.value).then(|| (*migration.value).clone())
        })
        .await
    }

    pub(super) async fn succeeds(&self, id: &MigrationId) -> MigrationRecord {
        let migration = self.ended(id).await;
        assert_eq!(
            migration.state(),
            MigrationState::Succeeded,
            "{migration:?}"
        );
        migration
    }

    /// Waits for the abort, and says in which phase and why it was.
    pub(super) async fn aborts(&self, id: &MigrationId) -> (Phase, Vec<BlockerReason>) {
        let migration = self.ended(id).await;
        assert_eq!(migration.state(), MigrationState::Aborted, "{migration:?}");
        let cause = migration.abort_cause.expect("an abort has a cause");
        let phase = Phase::try_from(cause.phase).unwrap();
        (
            phase,
            cause.blockers.iter().map(v1::Blocker::reason).collect(),
        )
    }

    /// Waits until the migration waits unfenced for exactly these reasons.
    pub(super) async fn waits_for(&self, id: &MigrationId, reasons: &[BlockerReason]) {
        self.eventually(&format!("blockers {reasons:?}"), |state| {
            let migration = state.migration(id)?;
            assert_eq!(
                migration.value.phase(),
                v1::Phase::Copying,
                "it is not fenced"
            );
            let shown = migration.value.blockers.iter().map(v1::Blocker::reason);
            shown.eq(reasons.iter().copied()).then_some(())
        })
        .await;
    }

    /// Alice's record, if she has one.
    pub(super) async fn alice(&self) -> Placement {
        let state = self.state().await;
        let account = state
            .by_name("alice@example.org")
            .expect("alice has a record");
        account.placement().expect("it is readable").clone()
    }

    pub(super) async fn reaches(&self, phase: Phase) {
        self.eventually(&format!("{phase:?}"), |state| {
            let account = state.by_name("alice@example.org")?;
            (account.phase() == Some(phase)).then_some(())
        })
        .await;
    }

    pub(super) async fn rewind(&self) {
        let proof = Stored::new(Rewound::default());
        self.commit(Txn::new().put(keys::REWOUND, proof.bytes()))
            .await;
    }

    pub(super) async fn abort(&self, id: &MigrationId) {
        loop {
            let state = self.state().await;
            let migration = state.migration(id).unwrap();
            let mut record = migration.value.clone();
            record.abort_requested_by = "operator".to_owned();
            let key = keys::migration(id);
            let txn = Txn::new()
                .at(key.clone(), migration.revision)
                .put(key, record.bytes());
            if let Ok(TxnOutcome::Committed(_)) = self.store.transact(txn).await {
                return;
            }
        }
    }
}

/// An orchestrator that runs.
pub(super) struct Orchestrator {
    task: JoinHandle<()>,
    stop: CancellationToken,
    pub(super) failpoints: Failpoints,
}

impl Orchestrator {
    /// It is gone between one instruction and the next; its lease is not given back.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// It ends in order.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        time::timeout(PATIENCE, self.task)
            .await
            .expect("it ends")
            .unwrap();
    }

    /// Holds it at a failpoint until it is told to go on.
    pub(super) fn pause_at(&self, name: &'static str) -> GoOn {
        GoOn::from(&self.failpoints, name)
    }

    /// Waits until it has reached a failpoint.
    pub(super) async fn reached(&self, name: &str) {
        let waiting = async {
            while !self.failpoints.passed().contains(&name) {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{name} is reached; passed {:?}", self.failpoints.passed()));
    }
}

/// Where the file comes that a paused orchestrator waits for.
pub(super) struct GoOn(TempDir);

impl GoOn {
    /// Holds whoever comes to a failpoint.
    pub(super) fn from(failpoints: &Failpoints, name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        failpoints.arm(name, Action::Pause(folder.path().join("go on")));
        Self(folder)
    }

    pub(super) fn now(&self) {
        std::fs::write(self.0.path().join("go on"), "").unwrap();
    }
}

pub(super) fn replica(name: &str) -> ReplicaId {
    ReplicaId::parse(name).unwrap()
}

pub(super) fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn config() -> v1::RoutingConfig {
    let destination = |id: &str| v1::Destination {
        id: id.to_owned(),
        without: Vec::new(),
        endpoints: vec![v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: format!("{id}.example.org"),
            port: 993,
            tls: Some(v1::EndpointTls {
                mode: v1::endpoint_tls::Mode::Implicit.into(),
                ..v1::EndpointTls::default()
            }),
            announcement: v1::Announcement::None.into(),
            ..v1::Endpoint::default()
        }],
    };
    v1::RoutingConfig {
        schema: 1,
        destinations: vec![destination("source"), destination("target")],
        default_destination: "source".to_owned(),
        domains: vec![v1::Domain {
            name: "example.org".to_owned(),
            unlisted: None,
        }],
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
            ..v1::NamePolicy::default()
        }),
        ..v1::RoutingConfig::default()
    }
}
