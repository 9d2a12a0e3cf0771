//! A replica on the embedded store, and scripted data planes.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    AccountId, BootId, CONTRACTS, DestinationId, InstallationId, InstanceId, MigrationId, Phase,
    ReplicaId, SCHEMAS, StateId, TablePosition,
    routing::v1::{
        self as wire, Hello, StreamRequest, StreamResponse, stream_request::Message as Said,
        stream_response::Message as Told,
    },
    store::v1::{Installation, MigrationRecord},
    v1,
};
use ferrypost_runtime::Random;
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::super::{Claimable, Fleet, FleetOptions};
use crate::{
    domain::state::State,
    domain::{commit::RoutingChange, placement::Placement},
    failpoint::Failpoints,
    mirror::{Mirror, MirrorOptions},
    store::{
        Rev, Store, Txn,
        embedded::{EmbeddedConfig, EmbeddedStore},
        keys,
        value::Stored,
    },
};

/// Nothing takes as long as this unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// For streams that nobody ends for their silence, however busy the machine is.
pub(super) const SELDOM: Duration = Duration::from_mins(1);

/// For tests that wait for what is done at every heartbeat. Three of them without a word end a stream, which a busy machine
/// must not bring about.
pub(super) const OFTEN: Duration = Duration::from_secs(1);

/// One replica with its store, and a source of identifiers.
pub(super) struct World {
    /// It may be behind what the fleet has just written: see [`Self::state`].
    mirror: Mirror,
    pub(super) fleet: Fleet,
    pub(super) random: Random,
    pub(super) installation: InstallationId,
    cancel: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(crate::mirror::changelog::CAPACITY, SELDOM).await
    }

    pub(super) async fn with(changes: usize, heartbeat: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path().join("store"));
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config).await.unwrap());
        let random = Random::seeded(5);
        let installation = InstallationId::generate(random.bytes());
        let value = Installation {
            id: installation.as_str().to_owned(),
            ..Default::default()
        };
        let first = RoutingChange::new(&random)
            .config(document(), 0)
            .with(|txn| txn.put(keys::INSTALLATION, Stored::new(value).bytes()))
            .txn();
        store.transact(first).await.unwrap().committed().unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let replica = ReplicaId::parse("one").unwrap();
        let options = MirrorOptions {
            changes,
            ..MirrorOptions::new(replica.clone(), random.clone())
        };
        let mirror = Mirror::start(store, options, &tasks, cancel.clone());
        let options = FleetOptions {
            replica,
            random: random.clone(),
            heartbeat,
            settle: Duration::from_secs(7),
            failpoints: Failpoints::default(),
        };
        let fleet = Fleet::start(mirror.clone(), options, &tasks, cancel.clone());
        Self {
            mirror,
            fleet,
            random,
            installation,
            cancel,
            _folder: folder,
        }
    }

    pub(super) fn hello(&self, instance: &str) -> Hello {
        Hello {
            contract: CONTRACTS.oldest(),
            contracts: Some(CONTRACTS.into()),
            schemas: Some(SCHEMAS.into()),
            instance: instance.to_owned(),
            boot: BootId::generate(self.random.bytes()).into(),
            state_id: StateId::generate(self.random.bytes()).into(),
            place: Some(wire::Place {
                kernel: "kernel".into(),
                machine: "machine".into(),
                file: "file".into(),
            }),
            ..Hello::default()
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test says only so much")]
    pub(super) async fn connect(&self, hello: Hello) -> Result<Peer, Status> {
        let (said, requests) = mpsc::unbounded_channel();
        said.send(Ok(StreamRequest {
            message: Some(Said::Hello(hello.clone())),
        }))
        .unwrap();
        let told = self
            .fleet
            .serve(UnboundedReceiverStream::new(requests), &Claimable::Any)
            .await?;
        Ok(Peer { said, told, hello })
    }

    /// Connects and takes the snapshot.
    pub(super) async fn join(&self, hello: Hello) -> (Peer, TablePosition) {
        let mut peer = self.connect(hello).await.unwrap();
        peer.welcome().await;
        let position = peer.snapshot().await;
        (peer, position)
    }

    /// What the store holds now.
    pub(super) async fn state(&self) -> Arc<State> {
        self.mirror.catch_up(PATIENCE).await.unwrap()
    }

    pub(super) async fn commit(&self, txn: Txn) -> Rev {
        let revision = self.mirror.store().transact(txn).await.unwrap().committed();
        let revision = revision.expect("no conflict");
        self.mirror.at_least(revision, PATIENCE).await.unwrap();
        revision
    }

    /// A record for a name, in a phase.
    pub(super) async fn account(&self, name: &str, phase: Phase) -> (AccountId, Rev) {
        let mut placement = Placement::new(
            AccountId::generate(self.random.bytes()),
            [name.into()],
            DestinationId::parse("source").unwrap(),
        );
        placement.phase = phase;
        let txn = RoutingChange::new(&self.random)
            .record(&placement)
            .add_name(name, &placement)
            .txn();
        (placement.account.clone(), self.commit(txn).await)
    }

    /// An account in FENCING, by a move that is under way.
    pub(super) async fn fenced(&self, name: &str) -> (AccountId, MigrationId, Rev) {
        let migration = MigrationId::generate(self.random.bytes());
        let mut placement = Placement::new(
            AccountId::generate(self.random.bytes()),
            [name.into()],
            DestinationId::parse("source").unwrap(),
        );
        placement.phase = Phase::Fencing;
        placement.migration_id = Some(migration.clone());
        let record = Stored::new(MigrationRecord {
            state: v1::MigrationState::Running.into(),
            phase: v1::Phase::Fencing.into(),
            ..Default::default()
        });
        let txn = RoutingChange::new(&self.random)
            .record(&placement)
            .add_name(name, &placement)
            .migration(&migration, &record, 0)
            .txn();
        let epoch = self.commit(txn).await;
        (placement.account, migration, epoch)
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let mut changed = self.mirror.changed();
        let waiting = async {
            while !holds(&self.mirror.read()) {
                changed.changed().await.unwrap();
            }
        };
        time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub(super) fn instance(name: &str) -> InstanceId {
        InstanceId::parse(name).unwrap()
    }
}

pub(crate) fn document() -> v1::RoutingConfig {
    let destination = |id: &str| v1::Destination {
        id: id.into(),
        without: Vec::new(),
        endpoints: vec![v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: "127.0.0.1".into(),
            port: 993,
            tls: Some(v1::EndpointTls {
                mode: v1::endpoint_tls::Mode::Implicit.into(),
                ..Default::default()
            }),
            announcement: v1::Announcement::None.into(),
            ..Default::default()
        }],
    };
    v1::RoutingConfig {
        schema: SCHEMAS.oldest(),
        destinations: vec![destination("source"), destination("target")],
        default_destination: "source".into(),
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A scripted data plane.
pub(super) struct Peer {
    pub(super) said: mpsc::UnboundedSender<Result<StreamRequest, Status>>,
    pub(super) told: mpsc::Receiver<Result<StreamResponse, Status>>,
    pub(super) hello: Hello,
}

impl Peer {
    pub(super) fn say(&self, message: Said) {
        self.said
            .send(Ok(StreamRequest {
                message: Some(message),
            }))
            .unwrap();
    }

    /// The next message that is no heartbeat; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Told, Status>> {
        loop {
            let told = time::timeout(PATIENCE, self.told.recv())
                .await
                .expect("an answer in time");
            match told? {
                Ok(StreamResponse {
                    message: Some(Told::Heartbeat(_)),
                }) => {}
                Ok(response) => return Some(Ok(response.message.unwrap())),
                Err(status) => return Some(Err(status)),
            }
        }
    }

    pub(super) async fn told(&mut self) -> Told {
        self.next().await.expect("not the end").expect("no refusal")
    }

    pub(super) async fn welcome(&mut self) -> wire::Welcome {
        match self.told().await {
            Told::Welcome(welcome) => {
                // As a data plane does before it believes anything else.
                self.hello.installation.clone_from(&welcome.installation);
                welcome
            }
            other => panic!("not a welcome: {other:?}"),
        }
    }

    pub(super) async fn snapshot(&mut self) -> TablePosition {
        match self.told().await {
            Told::SnapshotChunk(chunk) if chunk.last => chunk.position.unwrap().into(),
            other => panic!("not a whole snapshot: {other:?}"),
        }
    }

    pub(super) async fn delta(&mut self) -> wire::Delta {
        match self.told().await {
            Told::Delta(delta) => delta,
            other => panic!("not a delta: {other:?}"),
        }
    }

    pub(super) async fn end(&mut self) -> String {
        match self.next().await {
            Some(Err(status)) => reason(&status),
            other => panic!("not the end: {other:?}"),
        }
    }
}

pub(super) fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .expect("an ErrorInfo")
        .reason
        .clone()
}
