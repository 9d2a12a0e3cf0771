//! A data plane that is nothing but its stream.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ferrypost_proto::{
    BootId, CONTRACTS, Phase, SCHEMAS, StateId,
    routing::v1::{
        AccountEntry, Applied, Command, CommandResult, Drained, DrainedAccount, EndpointHealth,
        Health, Hello, KickedSessions, NameRoute, RejectReason, Rejected, RejectedEndpoint,
        RejectedEntry, SessionInfo, SessionList, StreamRequest, StreamResponse, TablePosition,
        change::Change, command, command_result, routing_service_client::RoutingServiceClient,
        stream_request::Message as Say, stream_response::Message as Heard,
    },
    v1,
};
use ferrypost_runtime::Random;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

use super::world::{World, eventually};

/// How a data plane behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// It reports fences drained.
    pub(crate) drains: bool,
    /// It reports what it has applied.
    pub(crate) applies: bool,
    /// Closes that it did not see confirmed.
    pub(crate) unconfirmed: u32,
    /// It rejects every record.
    pub(crate) rejects: bool,
    /// Endpoints that it does not use.
    pub(crate) rejected_endpoints: Vec<RejectedEndpoint>,
    /// What it says when it is asked for sessions.
    pub(crate) sessions: Vec<SessionInfo>,
    /// Its verdicts.
    pub(crate) endpoints: Vec<EndpointHealth>,
    /// What it shows at its listeners.
    pub(crate) certificates: Vec<v1::ListenerCertificate>,
    /// Where it says that every name goes. `None`: it does not know the question.
    pub(crate) route: Option<String>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            drains: true,
            applies: true,
            unconfirmed: 0,
            rejects: false,
            rejected_endpoints: Vec::new(),
            sessions: Vec::new(),
            endpoints: Vec::new(),
            certificates: Vec::new(),
            route: None,
        }
    }
}

/// A running one. It comes back when its replica lets it go, and ends when it is dropped, without a goodbye.
pub(crate) struct DataPlane {
    pub(crate) boot: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What outlives its streams.
struct Shared {
    address: String,
    hello: Hello,
    manner: Mutex<Manner>,
    entries: Mutex<BTreeMap<String, AccountEntry>>,
    traces: Mutex<Vec<String>>,
    say: Mutex<mpsc::Sender<StreamRequest>>,
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DataPlane {
    /// Registers, and waits until it counts as connected with a first table.
    pub(crate) async fn join(world: &World, instance: &str, manner: Manner) -> Self {
        Self::join_as(world, hello(instance), manner).await
    }

    /// The same for one that introduces itself otherwise.
    pub(crate) async fn join_as(world: &World, hello: Hello, manner: Manner) -> Self {
        let (say, saying) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            address: world.data_planes(),
            hello,
            manner: Mutex::new(manner),
            entries: Mutex::default(),
            traces: Mutex::default(),
            say: Mutex::new(say),
        });
        let stream = Stream::open(shared.clone(), saying).await;
        let data_plane = Self {
            boot: shared.hello.boot.clone(),
            shared,
            task: tokio::spawn(
                stream
                    .expect("it listens and accepts")
                    .run_again_and_again(),
            ),
        };
        data_plane.connected(world).await;
        data_plane
    }

    async fn connected(&self, world: &World) {
        eventually(async || {
            let request = v1::ListDataPlanesRequest {};
            let answer = world.stats().list_data_planes(request).await.ok()?;
            let planes = answer.into_inner().data_planes;
            let mine = planes.into_iter().find(|plane| plane.boot == self.boot)?;
            mine.connected.then_some(())
        })
        .await;
    }

    /// Behaves differently from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(
            &mut self
                .shared
                .manner
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// The record that it was sent last.
    pub(crate) fn entry(&self, account: &str) -> Option<AccountEntry> {
        let entries = &self.shared.entries;
        let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(account).cloned()
    }
}

impl DataPlane {
    /// The traces of the commands that it was told.
    pub(crate) fn traces(&self) -> Vec<String> {
        let traces = &self.shared.traces;
        traces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says anew which endpoints it does not use.
    pub(crate) async fn reject_endpoints(&self) {
        let endpoints = self.shared.manner().rejected_endpoints;
        let rejected = Say::Rejected(Rejected {
            endpoints,
            ..Rejected::default()
        });
        self.shared.say(rejected).await;
    }
}

/// How a data plane of this version introduces itself.
pub(crate) fn hello(instance: &str) -> Hello {
    let random = Random::from_os();
    Hello {
        contract: CONTRACTS.oldest(),
        contracts: Some(CONTRACTS.into()),
        schemas: Some(SCHEMAS.into()),
        instance: instance.to_owned(),
        boot: BootId::generate(random.bytes()).into(),
        state_id: StateId::generate(random.bytes()).into(),
        version: "test".to_owned(),
        limits: Some(v1::DataPlaneLimits {
            hold: Some(prost_types::Duration {
                seconds: 25,
                nanos: 0,
            }),
            drain: Some(prost_types::Duration::default()),
            close: Some(prost_types::Duration::default()),
        }),
        ..Hello::default()
    }
}

/// The requests of a stream that says hello and nothing more.
pub(crate) fn opening(
    hello: Hello,
) -> impl tokio_stream::Stream<Item = StreamRequest> + Send + 'static {
    use tokio_stream::StreamExt as _;
    let hello = StreamRequest {
        message: Some(Say::Hello(hello)),
    };
    tokio_stream::once(hello).chain(tokio_stream::pending())
}

impl Shared {
    fn manner(&self) -> Manner {
        self.manner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn say(&self, message: Say) {
        let say = self
            .say
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let message = StreamRequest {
            message: Some(message),
        };
        // The control plane may have ended.
        let _ = say.send(message).await;
    }
}

struct Stream {
    shared: Arc<Shared>,
    heard: tonic::Streaming<StreamResponse>,
}

impl Stream {
    async fn open(
        shared: Arc<Shared>,
        saying: mpsc::Receiver<StreamRequest>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut client = RoutingServiceClient::connect(shared.address.clone()).await?;
        shared.say(Say::Hello(shared.hello.clone())).await;
        let heard = client.stream(ReceiverStream::new(saying)).await?;
        Ok(Self {
            shared,
            heard: heard.into_inner(),
        })
    }

    /// A replica whose store is slow lets its data planes go, and they come back.
    async fn run_again_and_again(mut self) {
        loop {
            self = Self::reopen(self.run().await).await;
        }
    }

    async fn reopen(shared: Arc<Shared>) -> Self {
        loop {
            // As every data plane does, lest one that is not wanted asks without end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (say, saying) = mpsc::channel(64);
            *shared.say.lock().unwrap_or_else(PoisonError::into_inner) = say;
            if let Ok(stream) = Self::open(shared.clone(), saying).await {
                return stream;
            }
        }
    }

    async fn run(mut self) -> Arc<Shared> {
        while let Ok(Some(StreamResponse {
            message: Some(message),
        })) = self.heard.message().await
        {
            match message {
                Heard::SnapshotChunk(chunk) => {
                    self.take(chunk.accounts).await;
                    if chunk.last {
                        self.rejected_endpoints().await;
                        self.applied(chunk.position).await;
                    }
                }
                Heard::Delta(delta) => {
                    let accounts = delta.changes.into_iter().filter_map(|c| match c.change {
                        Some(Change::Account(entry)) => Some(entry),
                        _ => None,
                    });
                    self.take(accounts.collect()).await;
                    self.applied(delta.to).await;
                }
                Heard::Heartbeat(heartbeat) => self.health(heartbeat.sequence).await,
                Heard::Command(command) => self.obey(command).await,
                Heard::Welcome(_) | Heard::GoodbyeAccepted(_) | Heard::CookieKeys(_) => {}
            }
        }
        self.shared
    }

    async fn take(&self, accounts: Vec<AccountEntry>) {
        let manner = self.shared.manner();
        for entry in accounts {
            let fenced = Phase::try_from(entry.phase).is_ok_and(Phase::is_fenced);
            if fenced && manner.drains {
                self.drained(&entry, manner.unconfirmed).await;
            }
            if manner.rejects {
                self.rejected(&entry).await;
            }
            let entries = &self.shared.entries;
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.insert(entry.account_id.clone(), entry);
        }
    }

    async fn drained(&self, entry: &AccountEntry, unconfirmed: u32) {
        self.shared
            .say(Say::Drained(Drained {
                migration_id: entry.migration_id.clone(),
                accounts: vec![DrainedAccount {
                    account_id: entry.account_id.clone(),
                    fence_epoch: entry.fence_epoch.or(entry.epoch),
                    closed: 1,
                    unconfirmed,
                }],
            }))
            .await;
    }

    async fn rejected(&self, entry: &AccountEntry) {
        self.shared
            .say(Say::Rejected(Rejected {
                revision: entry.epoch,
                entries: vec![RejectedEntry {
                    account_id: entry.account_id.clone(),
                    reason: RejectReason::BadName.into(),
                    field: "names".to_owned(),
                }],
                endpoints: Vec::new(),
            }))
            .await;
    }

    async fn rejected_endpoints(&self) {
        let endpoints = self.shared.manner().rejected_endpoints;
        if !endpoints.is_empty() {
            self.shared
                .say(Say::Rejected(Rejected {
                    endpoints,
                    ..Rejected::default()
                }))
                .await;
        }
    }

    async fn applied(&self, position: Option<TablePosition>) {
        if self.shared.manner().applies {
            self.shared.say(Say::Applied(Applied { position })).await;
        }
    }

    async fn health(&self, sequence: u64) {
        let manner = self.shared.manner();
        self.shared
            .say(Say::Health(Health {
                unsettled: None,
                sequence,
                ready: true,
                sessions: manner.sessions.len() as u64,
                held_logins: 0,
                endpoints: manner.endpoints,
                certificates: manner.certificates,
            }))
            .await;
    }

    async fn obey(&self, command: Command) {
        let traces = &self.shared.traces;
        traces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command.traceparent.clone());
        let sessions = self.shared.manner().sessions;
        let of = |names: &[String]| -> Vec<SessionInfo> {
            let mut found = sessions.clone();
            found.retain(|s| names.is_empty() || names.contains(&s.name));
            found
        };
        let result = match command.command {
            Some(command::Command::ListSessions(list)) => {
                let mut found = of(&list.names);
                let total = found.len() as u64;
                let held = found.iter().filter(|s| s.stage == "held").count() as u64;
                // As they began.
                for (serial, session) in (1..).zip(&mut found) {
                    session.serial = serial;
                }
                found.retain(|session| session.serial >= list.from);
                let left = found.len();
                found.truncate(list.limit as usize);
                command_result::Result::SessionList(SessionList {
                    unsettled: 0,
                    truncated: found.len() < left,
                    sessions: found,
                    total,
                    held,
                })
            }
            Some(command::Command::KickSessions(kick)) => {
                command_result::Result::KickedSessions(KickedSessions {
                    kicked: of(&kick.names).len() as u64,
                })
            }
            Some(command::Command::ExplainName(explain)) => match &self.shared.manner().route {
                Some(destination) if !explain.name.is_empty() => {
                    command_result::Result::NameRoute(NameRoute {
                        rule: v1::RouteRule::Placement.into(),
                        destination: destination.clone(),
                        applied: None,
                    })
                }
                _ => command_result::Result::Failed(
                    "this version does not know the command".to_owned(),
                ),
            },
            _ => command_result::Result::Failed("not in this script".to_owned()),
        };
        self.shared
            .say(Say::CommandResult(CommandResult {
                command_id: command.command_id,
                result: Some(result),
            }))
            .await;
    }
}

/// A session to list.
pub(crate) fn session(name: &str, stage: &str) -> SessionInfo {
    SessionInfo {
        reference: format!("ref-{name}"),
        protocol: v1::Protocol::Imap.into(),
        name: name.to_owned(),
        destination: if stage == "held" { "" } else { "source" }.to_owned(),
        client: "192.0.2.1".to_owned(),
        age: None,
        stage: stage.to_owned(),
        kind: "session".to_owned(),
        serial: 0,
    }
}
