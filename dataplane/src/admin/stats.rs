//! The document of `/stats`.
//!
//! Names of fields are part of the interface: they are only ever added. Times are in seconds before
//! now. Nothing in it names an account.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ferrypost_proto::{DestinationId, Revision};
use ferrypost_runtime::{
    admin::{Drained, Source},
    metrics::{Metrics, Reading},
};
use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use tokio::{sync::watch, time::Instant};

use super::drain::Draining;
use crate::{
    backend::{
        Backends, Caution, Target, TargetHealth, TlsVerdict, breaker::Breakers, logins::Logins,
    },
    config::{DeliveryProtocol, ListenerTls},
    delivery::{Post, dock::Dock},
    feed::{ConnectionState, FeedStatus, Identity},
    http::WebListening,
    listener::{ListenerCounts, Listening},
    metrics::{HTTP, RELAY_IO, SMTP},
    net::tls_server::{ServerTls, Shown},
    pass_through::PassingThrough,
    ready::Readiness,
    registry::Registry,
    session::{line::Line, relay::Budget},
    tables::Tables,
};

/// Where the document's facts come from.
pub struct Stats {
    /// Who this data plane is.
    pub identity: Identity,
    /// When it was started.
    pub started: Instant,
    /// What blocks it.
    pub readiness: Readiness,
    /// The control connection.
    pub feed: watch::Receiver<FeedStatus>,
    /// The destinations.
    pub backends: Backends,
    /// How logins have fared there.
    pub logins: Logins,
    /// Where they are not tried.
    pub breakers: Breakers,
    /// What sessions keep for those that do not take it.
    pub budget: Budget,
    /// Where names go.
    pub tables: Tables,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The sessions.
    pub registry: Arc<Registry>,
    /// What is offered before login, by protocol.
    pub lines: BTreeMap<&'static str, Arc<dyn Line>>,
    /// What mail systems share, by protocol.
    pub posts: BTreeMap<&'static str, Arc<Post>>,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where mail systems deliver.
    pub docks: Vec<DeliveryListener>,
    /// Who may end them.
    pub draining: Draining,
}

/// A listener, as it was bound.
pub struct Listener {
    /// Its name in the configuration.
    pub name: String,
    /// What is spoken there.
    pub protocol: &'static str,
    /// Where it is bound.
    pub address: SocketAddr,
    /// When TLS begins there.
    pub tls: &'static str,
    /// Where all its clients go, if that does not depend on them.
    pub destination: Option<DestinationId>,
    /// How many are connected.
    pub counts: Arc<ListenerCounts>,
    /// Its end of TLS, if that is ours.
    pub tls_server: Option<ServerTls>,
}

impl From<&Listening> for Listener {
    fn from(listening: &Listening) -> Self {
        let door = listening.door();
        Self {
            name: door.name().to_owned(),
            protocol: listening.protocol().as_str(),
            address: door.address(),
            tls: listening.mode().word(),
            destination: None,
            counts: door.counts(),
            tls_server: Some(listening.tls()),
        }
    }
}

impl From<&WebListening> for Listener {
    fn from(listening: &WebListening) -> Self {
        let door = listening.door();
        Self {
            name: door.name().to_owned(),
            protocol: HTTP,
            address: door.address(),
            tls: ListenerTls::Implicit.word(),
            destination: None,
            counts: door.counts(),
            tls_server: Some(listening.tls()),
        }
    }
}

impl From<&PassingThrough> for Listener {
    fn from(through: &PassingThrough) -> Self {
        let door = through.door();
        Self {
            name: door.name().to_owned(),
            protocol: SMTP,
            address: door.address(),
            tls: "passed_through",
            destination: Some(through.destination().clone()),
            counts: door.counts(),
            tls_server: None,
        }
    }
}

/// A listener of mail systems, as it was bound.
pub struct DeliveryListener {
    /// Its name in the configuration.
    pub name: String,
    /// What is spoken there.
    pub protocol: DeliveryProtocol,
    /// Where it is bound.
    pub place: String,
    /// How many are connected.
    pub open: Arc<AtomicUsize>,
}

impl From<&Dock> for DeliveryListener {
    fn from(dock: &Dock) -> Self {
        Self {
            name: dock.name().to_owned(),
            protocol: dock.protocol(),
            place: dock.place(),
            open: dock.open(),
        }
    }
}

impl Source for Stats {
    fn ready(&self) -> bool {
        self.readiness.is_ready()
    }

    fn stats(&self) -> serde_json::Value {
        serde_json::to_value(self.document()).expect("all keys are texts")
    }

    fn metrics(&self) -> Vec<Reading> {
        self.metrics.read(&self.levels())
    }

    fn drain(&self) -> Option<Drained> {
        let draining = self.draining.clone();
        draining.ask();
        Some(Box::pin(async move {
            let outcome = draining.outcome().await;
            serde_json::to_value(outcome).expect("all keys are texts")
        }))
    }
}

#[derive(Serialize)]
struct Document {
    version: String,
    instance: String,
    boot: String,
    group: String,
    uptime_seconds: f64,
    ready: bool,
    /// What it waits for, in words; empty when ready.
    blocked_by: Vec<String>,
    control_plane: ControlConnection,
    snapshot: Option<Snapshot>,
    destinations: BTreeMap<String, BTreeMap<&'static str, Destination>>,
    sessions: Sessions,
    /// Octets relayed so far, those of open sessions among them, by protocol.
    relayed: BTreeMap<&'static str, RelayedOctets>,
    /// What is offered before login, by protocol.
    offer: BTreeMap<&'static str, String>,
    /// By name.
    listeners: BTreeMap<String, ListenerState>,
    /// Where mail systems deliver, by name.
    deliveries: BTreeMap<String, DeliveryState>,
}

#[derive(Serialize)]
struct RelayedOctets {
    /// From clients to servers.
    up: u64,
    /// From servers to clients.
    down: u64,
}

#[derive(Serialize)]
struct ListenerState {
    protocol: &'static str,
    /// As bound: the port that was given where the configuration says 0.
    address: SocketAddr,
    /// `implicit`, `starttls`, or `passed_through` where it is the server's own.
    tls: &'static str,
    /// Where all its clients are passed through to; not there where that depends on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    /// Connections that are open, relayed ones among them.
    connections: usize,
    /// Those that have not logged in: in their handshake, silent, or waiting for an answer.
    not_logged_in: usize,
    /// Clients that were turned away since the start because no TLS version, cipher suite or key exchange is theirs
    /// and ours.
    tls_too_old: u64,
    /// What is shown there, the one for everybody else first. Empty where TLS is the server's own.
    certificates: Vec<ShownCertificate>,
}

#[derive(Serialize)]
struct ShownCertificate {
    /// The first name that it is for; empty: it names none.
    name: String,
    /// When it ends.
    not_after: Option<String>,
}

#[derive(Serialize)]
struct DeliveryState {
    protocol: &'static str,
    /// An address as bound, or a path.
    place: String,
    /// Mail systems that are connected.
    connections: usize,
}

#[derive(Serialize)]
struct ControlConnection {
    /// `connecting`, `syncing`, `live`, `refused` or `ended`.
    state: &'static str,
    seconds_in_state: f64,
    replica: Option<String>,
    /// The version of the contract that is spoken with it.
    contract: Option<u32>,
    installation: Option<String>,
    /// The store was restored to an older state: nothing new is taken over.
    rewound: bool,
    last_error: Option<String>,
}

/// How the control connection stands, in one word.
#[derive(Debug, Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum ControlState {
    Connecting,
    Syncing,
    Live,
    Refused,
    Ended,
}

impl From<&ConnectionState> for ControlState {
    fn from(state: &ConnectionState) -> Self {
        match state {
            ConnectionState::Connecting => Self::Connecting,
            ConnectionState::Syncing => Self::Syncing,
            ConnectionState::Live => Self::Live,
            ConnectionState::Refused(_) => Self::Refused,
            ConnectionState::Ended(_) => Self::Ended,
        }
    }
}

#[derive(Serialize)]
struct Snapshot {
    revision: RevisionNumbers,
    /// How long ago it was last known to be the truth.
    age_seconds: f64,
    /// Entries that could not be taken over; their accounts are fenced here.
    rejected_entries: usize,
}

#[derive(Serialize)]
struct RevisionNumbers {
    base: u64,
    store: u64,
}

#[derive(Serialize)]
struct Destination {
    reachable: bool,
    /// `reachable`, `unknown` while nobody has asked yet, or why not.
    word: &'static str,
    endpoint: Option<String>,
    address: Option<String>,
    tls: Option<Tls>,
    greeting: Option<String>,
    /// What there is to know of it although it is reachable: `breaker_open`, `announcement_unread`,
    /// `authorization_ignored`, `jmap_elsewhere`.
    caution: Option<&'static str>,
    /// What it offers after TLS and before login, as its last two answers said.
    capabilities: Option<Vec<String>>,
    checked_seconds_ago: Option<f64>,
    last_success_seconds_ago: Option<f64>,
    /// When it last accepted a client's login.
    last_login_seconds_ago: Option<f64>,
    /// When a client's login last failed by its fault: not reached, no verdict, refused for a reason of its own.
    last_failed_login_seconds_ago: Option<f64>,
    /// For how long its breaker has been open: one client after the other failed, and logins are not tried but for one
    /// now and then.
    breaker_open_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Tls {
    /// `verified`, `refused`, `plaintext` or `unknown`.
    verdict: &'static str,
    /// What verified it: `platform`, `ca` or `pin`.
    trust: Option<&'static str>,
    version: Option<&'static str>,
    cipher: Option<&'static str>,
    /// When the server's certificate ends.
    certificate_not_after: Option<String>,
}

#[derive(Serialize)]
struct Sessions {
    total: usize,
    held_logins: usize,
    /// Octets that are kept for clients and servers that do not take them (`limits.connections.kept`).
    kept_octets: usize,
    /// By destination, protocol and stage.
    routed: Vec<SessionCount>,
}

#[derive(Serialize)]
struct SessionCount {
    destination: String,
    protocol: &'static str,
    kind: &'static str,
    stage: &'static str,
    count: usize,
}

impl Stats {
    fn document(&self) -> Document {
        let feed = self.feed.borrow().clone();
        let blocked_by = self.readiness.reasons();
        Document {
            version: self.identity.version.clone(),
            instance: self.identity.instance.to_string(),
            boot: self.identity.boot.to_string(),
            group: self.identity.group.clone(),
            uptime_seconds: seconds_since(self.started),
            ready: blocked_by.is_empty(),
            blocked_by,
            snapshot: snapshot(&feed),
            control_plane: control_connection(feed),
            destinations: self.destinations(),
            sessions: self.sessions(),
            relayed: self.relayed(),
            offer: self.offer(),
            listeners: self
                .listeners
                .iter()
                .map(|listener| (listener.name.clone(), listener.into()))
                .collect(),
            deliveries: self
                .docks
                .iter()
                .map(|dock| (dock.name.clone(), dock.into()))
                .collect(),
        }
    }

    fn offer(&self) -> BTreeMap<&'static str, String> {
        let lines = self.lines.iter();
        let lines = lines.map(|(protocol, line)| (*protocol, line.offered()));
        let posts = self.posts.iter();
        let posts = posts.map(|(protocol, post)| (*protocol, post.offers.current().items()));
        let offers = lines.chain(posts);
        offers
            .map(|(protocol, items)| (protocol, items.join(" ")))
            .collect()
    }

    fn destinations(&self) -> BTreeMap<String, BTreeMap<&'static str, Destination>> {
        let mut destinations: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (target, verdict) in self.backends.all() {
            let logins = self.logins.latest(&target);
            let state = Destination {
                last_login_seconds_ago: logins.accepted.map(seconds_since),
                last_failed_login_seconds_ago: logins.failed.map(seconds_since),
                breaker_open_seconds: self.breakers.open_since(&target).map(seconds_since),
                ..verdict.map_or_else(Destination::unknown, Into::into)
            };
            let Target {
                destination,
                protocol,
            } = target;
            let protocols = destinations.entry(destination.into()).or_default();
            protocols.insert(protocol.word(), state);
        }
        destinations
    }

    fn relayed(&self) -> BTreeMap<&'static str, RelayedOctets> {
        let protocols: BTreeSet<_> = self.listeners.iter().map(|l| l.protocol).collect();
        let protocols = protocols.into_iter();
        let octets = |protocol, direction| {
            let counter = self.metrics.counter(&RELAY_IO, &[protocol, direction]);
            counter.value()
        };
        let relayed = protocols.map(|protocol| {
            let (up, down) = (octets(protocol, "up"), octets(protocol, "down"));
            (protocol, RelayedOctets { up, down })
        });
        relayed.collect()
    }

    fn sessions(&self) -> Sessions {
        let counts = self.registry.counts();
        let routed = self.registry.tally().into_iter();
        Sessions {
            total: counts.sessions,
            held_logins: counts.held,
            kept_octets: self.budget.kept(),
            routed: routed
                .map(|(group, count)| SessionCount {
                    destination: group.destination.into(),
                    protocol: group.protocol.word(),
                    kind: group.kind.into_str(),
                    stage: group.stage.into_str(),
                    count,
                })
                .collect(),
        }
    }
}

impl From<&DeliveryListener> for DeliveryState {
    fn from(dock: &DeliveryListener) -> Self {
        Self {
            protocol: dock.protocol.word(),
            place: dock.place.clone(),
            connections: dock.open.load(Ordering::Relaxed),
        }
    }
}

impl From<&Listener> for ListenerState {
    fn from(listener: &Listener) -> Self {
        Self {
            protocol: listener.protocol,
            address: listener.address,
            tls: listener.tls,
            destination: listener.destination.as_ref().map(ToString::to_string),
            connections: listener.counts.open(),
            not_logged_in: listener.counts.not_logged_in(),
            tls_too_old: listener.tls_server.as_ref().map_or(0, ServerTls::too_old),
            certificates: listener
                .tls_server
                .iter()
                .flat_map(ServerTls::shown)
                .map(ShownCertificate::from)
                .collect(),
        }
    }
}

impl From<Shown> for ShownCertificate {
    fn from(shown: Shown) -> Self {
        Self {
            name: shown.name,
            not_after: shown.end.map(time_of_day),
        }
    }
}

fn time_of_day(seconds: i64) -> String {
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}

fn control_connection(feed: FeedStatus) -> ControlConnection {
    ControlConnection {
        state: ControlState::from(&feed.connection).into_str(),
        seconds_in_state: seconds_since(feed.since),
        replica: feed.replica,
        contract: feed.contract,
        installation: feed.installation.map(Into::into),
        rewound: feed.rewound,
        last_error: match feed.connection {
            ConnectionState::Refused(refused) => Some(refused.to_string()),
            ConnectionState::Ended(end) => Some(end.to_string()),
            _ => feed.problem,
        },
    }
}

fn snapshot(feed: &FeedStatus) -> Option<Snapshot> {
    let (position, confirmed) = feed.table.as_ref()?;
    Some(Snapshot {
        revision: position.revision.into(),
        age_seconds: seconds_since(*confirmed),
        rejected_entries: feed.rejected,
    })
}

impl From<Revision> for RevisionNumbers {
    fn from(revision: Revision) -> Self {
        Self {
            base: revision.base(),
            store: revision.store(),
        }
    }
}

impl Destination {
    fn unknown() -> Self {
        Self {
            reachable: false,
            word: "unknown",
            endpoint: None,
            address: None,
            tls: None,
            greeting: None,
            caution: None,
            capabilities: None,
            checked_seconds_ago: None,
            last_success_seconds_ago: None,
            last_login_seconds_ago: None,
            last_failed_login_seconds_ago: None,
            breaker_open_seconds: None,
        }
    }
}

impl From<TargetHealth> for Destination {
    fn from(verdict: TargetHealth) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            reachable: verdict.reachable(),
            word: if verdict.reachable() {
                "reachable"
            } else {
                verdict.word()
            },
            address: verdict.report.address.map(|address| address.to_string()),
            tls: Some((&verdict.report.tls).into()),
            greeting: some(verdict.report.greeting),
            caution: verdict.report.caution.map(Caution::word),
            endpoint: some(verdict.report.endpoint),
            capabilities: verdict.capabilities.map(|offered| offered.items().to_vec()),
            checked_seconds_ago: Some(seconds_since(verdict.checked)),
            last_success_seconds_ago: verdict.last_success.map(seconds_since),
            last_login_seconds_ago: None,
            last_failed_login_seconds_ago: None,
            breaker_open_seconds: None,
        }
    }
}

impl From<&TlsVerdict> for Tls {
    fn from(verdict: &TlsVerdict) -> Self {
        let bare = Self {
            verdict: verdict.word(),
            trust: None,
            version: None,
            cipher: None,
            certificate_not_after: None,
        };
        match *verdict {
            TlsVerdict::Unknown | TlsVerdict::Refused | TlsVerdict::Plaintext => bare,
            TlsVerdict::Verified {
                trust,
                version,
                cipher,
                certificate_end,
            } => Self {
                trust: Some(trust),
                version: Some(version),
                cipher: Some(cipher),
                certificate_not_after: certificate_end.map(time_of_day),
                ..bare
            },
        }
    }
}

/// To the millisecond.
fn seconds_since(past: Instant) -> f64 {
    (past.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}
