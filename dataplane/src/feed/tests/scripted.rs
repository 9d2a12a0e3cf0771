//! A control plane that does what a test says, and a data plane without listeners that follows it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrypost_proto::{
    BootId, DestinationId, InstallationId, InstanceId,
    routing::v1::{
        EndpointHealth, GoodbyeAccepted, Health, Heartbeat, Hello, Rejected, SnapshotChunk,
        StreamRequest, StreamResponse, TablePosition, Welcome,
        routing_service_server::{RoutingService, RoutingServiceServer},
        stream_request::Message as Up,
        stream_response::Message as Down,
    },
    v1::Protocol,
};
use ferrypost_routing::testing;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::super::{
    BoxFuture, Connect, ConnectError, Feed, FeedEnd, FeedHandle, FeedSetup, FeedTiming,
    HealthSource, Identity, Prober,
};
use crate::{
    certificates::Certificates,
    cookie_keys::CookieKeys,
    limits::HoldLimits,
    ready::Readiness,
    registry::{Admission, AdmitRequest, OnFence, Registry, SessionKind, Subject},
    state_dir::StateDir,
    tables::Tables,
};

/// What the scripted control plane announces.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

pub(super) const TIMING: FeedTiming = FeedTiming {
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(5),
    refused_pause: Duration::from_secs(30),
    welcome_within: Duration::from_secs(10),
};

/// A running feed and both ends of its world.
pub(super) struct World {
    pub(super) registry: Arc<Registry>,
    pub(super) readiness: Readiness,
    pub(super) cookie_keys: CookieKeys,
    pub(super) handle: FeedHandle,
    pub(super) verdicts: watch::Sender<Arc<[EndpointHealth]>>,
    pub(super) feed: JoinHandle<FeedEnd>,
    streams: mpsc::Receiver<Served>,
    state: Arc<TempDir>,
}

/// One stream as the control plane has it.
pub(super) struct Served {
    /// When the data plane opened it.
    pub(super) opened: Instant,
    up: Streaming<StreamRequest>,
    down: mpsc::Sender<Result<StreamResponse, Status>>,
}

pub(super) fn installation() -> InstallationId {
    InstallationId::generate(testing::random().bytes())
}

impl World {
    pub(super) fn new() -> Self {
        Self::in_directory(Arc::new(TempDir::new().unwrap()))
    }

    fn in_directory(state: Arc<TempDir>) -> Self {
        let random = testing::random();
        let tables = Tables::new();
        let limits = HoldLimits {
            total: 10,
            per_name: 10,
            per_name_and_address: 10,
            ..HoldLimits::default()
        };
        let registry = Registry::new(tables.clone(), limits, &random);
        let readiness = Readiness::new();
        let cookie_keys = CookieKeys::new(random.clone());
        let (verdicts, known) = watch::channel(Arc::default());
        let (served, streams) = mpsc::channel(8);
        let (feed, handle) = Feed::new(FeedSetup {
            identity: Identity {
                instance: InstanceId::parse("dp-1").unwrap(),
                boot: BootId::generate(random.bytes()),
                group: "edge".into(),
                version: "test".into(),
                admin_address: "127.0.0.1:9443".into(),
                limits: said_limits(),
            },
            connect: Arc::new(InMemory::serve(served)),
            state: StateDir::open(state.path(), &random).unwrap(),
            tables,
            registry: Arc::clone(&registry),
            readiness: readiness.clone(),
            cookie_keys: cookie_keys.clone(),
            health: Arc::new(Verdicts(known)),
            prober: Arc::new(EchoProber),
            certificates: Certificates::default(),
            random,
            timing: TIMING,
        });
        Self {
            registry,
            readiness,
            cookie_keys,
            handle,
            verdicts,
            feed: tokio::spawn(feed.run()),
            streams,
            state,
        }
    }

    /// One that had applied a snapshot, said goodbye, and has started again.
    pub(super) async fn left_with(applied: SnapshotChunk) -> Self {
        let mut world = Self::new();
        let mut stream = world.synced(applied).await;
        let handle = world.handle.clone();
        let farewell = tokio::spawn(async move { handle.goodbye(0, HEARTBEAT).await });
        stream
            .find(|message| matches!(message, Up::Goodbye(_)).then_some(()))
            .await;
        stream.accept_goodbye().await;
        farewell.await.unwrap().unwrap();
        world.restart().await
    }

    /// The process dies and starts again in the same state directory.
    pub(super) async fn restart(self) -> Self {
        self.feed.abort();
        // The lock goes with the feed.
        let _ = self.feed.await;
        Self::in_directory(self.state)
    }

    /// The next stream that the data plane opens.
    pub(super) async fn stream(&mut self) -> Served {
        self.streams.recv().await.expect("the server runs")
    }

    /// A stream that is welcomed. Returns what Hello said.
    pub(super) async fn welcomed(&mut self) -> (Served, Hello) {
        let mut stream = self.stream().await;
        let hello = stream.hello().await;
        stream.send(Down::Welcome(welcome())).await;
        (stream, hello)
    }

    /// A stream on which a first snapshot was applied.
    pub(super) async fn synced(&mut self, chunk: SnapshotChunk) -> Served {
        let (mut stream, _) = self.welcomed().await;
        stream.snapshot(chunk).await;
        stream
    }

    pub(super) fn admit(&self, login: &str) -> Admission {
        self.registry.admit(AdmitRequest {
            subject: Subject::Name(testing::name(login)),
            kind: SessionKind::Session,
            on_fence: OnFence::Hold,
            protocol: Protocol::Imap,
            client: "192.0.2.1:1234".parse().ok(),
            reference: format!("ref-{login}"),
        })
    }

    /// Where a login goes now; `None` if it has no route.
    pub(super) fn destination(&self, login: &str) -> Option<String> {
        match self.admit(login) {
            Admission::Routed(guard) => Some(guard.route().destination.clone().into()),
            _ => None,
        }
    }
}

impl Served {
    pub(super) async fn hello(&mut self) -> Hello {
        match self.next().await {
            Up::Hello(hello) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    pub(super) async fn send(&self, message: Down) {
        let response = StreamResponse {
            message: Some(message),
        };
        self.down
            .send(Ok(response))
            .await
            .expect("the stream is open");
    }

    /// Sends a snapshot's only chunk and waits until it is applied. Returns what was rejected.
    pub(super) async fn snapshot(&mut self, chunk: SnapshotChunk) -> Option<Rejected> {
        let position = chunk.position.clone();
        self.send(Down::SnapshotChunk(chunk)).await;
        self.until_applied(position).await
    }

    /// Waits for Applied. Returns the last Rejected before it.
    pub(super) async fn until_applied(
        &mut self,
        position: Option<TablePosition>,
    ) -> Option<Rejected> {
        let mut last = None;
        loop {
            match self.next().await {
                Up::Rejected(rejected) => last = Some(rejected),
                Up::Applied(applied) => {
                    assert_eq!(
                        applied.position.map(|p| p.revision),
                        position.map(|p| p.revision)
                    );
                    return last;
                }
                _ => {}
            }
        }
    }

    /// What the data plane says next, but for unasked Health.
    pub(super) async fn next(&mut self) -> Up {
        loop {
            let message = self.up.message().await.expect("the stream is open");
            let message = message.and_then(|request| request.message);
            match message.expect("the data plane goes on") {
                Up::Health(health) if health.sequence == 0 => {}
                other => return other,
            }
        }
    }

    /// The next Health that answers no heartbeat.
    pub(super) async fn unasked(&mut self) -> Health {
        loop {
            let message = self.up.message().await.expect("the stream is open");
            match message.and_then(|request| request.message) {
                Some(Up::Health(health)) if health.sequence == 0 => return health,
                Some(_) => {}
                None => panic!("the data plane has given the stream up"),
            }
        }
    }

    /// Waits for Applied. Returns the last unasked Health before it.
    pub(super) async fn health_before_applied(&mut self) -> Option<Health> {
        let mut last = None;
        loop {
            let message = self.up.message().await.expect("the stream is open");
            match message.and_then(|request| request.message) {
                Some(Up::Health(health)) if health.sequence == 0 => last = Some(health),
                Some(Up::Applied(_)) => return last,
                Some(_) => {}
                None => panic!("the data plane has given the stream up"),
            }
        }
    }

    /// The next message of one kind.
    pub(super) async fn find<T>(&mut self, kind: impl Fn(Up) -> Option<T>) -> T {
        loop {
            if let Some(found) = kind(self.next().await) {
                return found;
            }
        }
    }

    /// Waits until the data plane has given the stream up, answering nothing.
    pub(super) async fn given_up(mut self) {
        while let Ok(Some(_)) = self.up.message().await {}
    }

    /// Ends the stream with a reason of the contract.
    pub(super) async fn refuse(self, reason: &str) {
        let details =
            ErrorDetails::with_error_info(reason, "ferrypost", [] as [(String, String); 0]);
        let status = Status::with_error_details(tonic::Code::FailedPrecondition, "no", details);
        let _ = self.down.send(Err(status)).await;
    }

    pub(super) async fn heartbeat(&self, sequence: u64) {
        self.send(Down::Heartbeat(Heartbeat { sequence })).await;
    }

    pub(super) async fn accept_goodbye(&self) {
        self.send(Down::GoodbyeAccepted(GoodbyeAccepted {})).await;
    }
}

/// How long the scripted data plane says that it holds and closes.
pub(super) fn said_limits() -> ferrypost_proto::v1::DataPlaneLimits {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    ferrypost_proto::v1::DataPlaneLimits {
        hold: seconds(25),
        drain: seconds(10),
        close: seconds(5),
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        contract: ferrypost_proto::CONTRACTS.newest(),
        installation: installation().as_str().to_owned(),
        registered: Some(testing::revision(1)),
        heartbeat_interval: prost_types::Duration::try_from(HEARTBEAT).ok(),
        rewound: false,
        replica: "cp-1".into(),
        contracts: Some(ferrypost_proto::CONTRACTS.into()),
        schemas: Some(ferrypost_proto::SCHEMAS.into()),
        settle: None,
    }
}

/// Connects within the process.
struct InMemory {
    incoming: mpsc::Sender<std::io::Result<DuplexStream>>,
}

impl InMemory {
    fn serve(served: mpsc::Sender<Served>) -> Self {
        let (incoming, accepted) = mpsc::channel(8);
        tokio::spawn(
            Server::builder()
                .add_service(RoutingServiceServer::new(Script { served }))
                .serve_with_incoming(ReceiverStream::new(accepted)),
        );
        Self { incoming }
    }
}

impl Connect for InMemory {
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ConnectError>> {
        let incoming = self.incoming.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            incoming.send(Ok(theirs)).await.expect("the server runs");
            let ours = Mutex::new(Some(ours));
            let connector = tower::service_fn(move |_| {
                let ours = ours.lock().unwrap().take();
                async move {
                    ours.map(TokioIo::new)
                        .ok_or_else(|| std::io::Error::other("one connection a channel"))
                }
            });
            Endpoint::from_static("http://control.example")
                .connect_with_connector(connector)
                .await
                .map_err(|error| ConnectError(error.to_string()))
        })
    }
}

struct Script {
    served: mpsc::Sender<Served>,
}

#[tonic::async_trait]
impl RoutingService for Script {
    type StreamStream = ReceiverStream<Result<StreamResponse, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (down, responses) = mpsc::channel(64);
        let served = Served {
            opened: Instant::now(),
            up: request.into_inner(),
            down,
        };
        self.served.send(served).await.expect("the test runs");
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

struct Verdicts(watch::Receiver<Arc<[EndpointHealth]>>);

impl HealthSource for Verdicts {
    fn verdicts(&self) -> watch::Receiver<Arc<[EndpointHealth]>> {
        self.0.clone()
    }
}

/// Finds every destination reachable.
struct EchoProber;

impl Prober for EchoProber {
    fn probe(&self, destination: Option<DestinationId>) -> BoxFuture<'static, Vec<EndpointHealth>> {
        Box::pin(async move { vec![verdict(destination.map(String::from).as_deref(), true)] })
    }
}

pub(super) fn verdict(destination: Option<&str>, reachable: bool) -> EndpointHealth {
    EndpointHealth {
        destination: destination.unwrap_or("all").to_owned(),
        protocol: Protocol::Imap.into(),
        reachable,
        problem: String::new(),
        facts: None,
    }
}
