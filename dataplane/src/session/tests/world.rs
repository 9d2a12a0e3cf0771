//! A data plane without its control plane: the table is written by hand.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrypost_proto::{
    AccountId, DestinationId, MigrationId, Revision, TablePosition,
    routing::v1::{AccountEntry, Change, Delta, SnapshotChunk, change},
    v1::{self, endpoint_tls::Mode},
};
use ferrypost_routing::{Assembly, RoutingTable, Touched};
use ferrypost_runtime::tls::CertificateFiles;
use ferrypost_runtime::{Random, metrics::Metrics, shutdown::Shutdown};
use ferrypost_wire::{LineProtocol, imap::Imap};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use sha2::{Digest as _, Sha256};

use super::{
    backend::{Backend, Manners},
    client::Client,
};
use crate::{
    backend::{
        Backends, Target,
        breaker::Breakers,
        dialers::Dialers,
        logins::{Latest, Logins},
        on_the_wire,
    },
    config::{Listener, ListenerTls},
    fence::Fences,
    limits::{KnownNetwork, Limits},
    listener::{ListenerCounts, Listening, Permits},
    metrics::TABLE,
    net::{
        dial::Dialer,
        proxy::Ends,
        resolver::{Resolver, tests::Book},
        tls_client::ClientTls,
        tls_server::ServerTls,
    },
    redact::Redact,
    registry::{CloseReason, Registry},
    session::{
        self, ClientConnection, Newcomers, Rounds, context::Services, guesses::Guesses,
        line::LineServices, relay::Budget,
    },
    tables::Tables,
    tokens::{NoTokens, TokenOwner},
};

/// A certificate authority and what it signs for `localhost`.
pub(crate) struct Authority {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            root: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key,
        }
    }
}

impl Identity {
    pub(crate) fn write(&self, directory: &Path, stem: &str) -> CertificateFiles {
        let files = CertificateFiles {
            cert_file: directory.join(format!("{stem}.pem")),
            key_file: directory.join(format!("{stem}.key")),
        };
        std::fs::write(&files.cert_file, &self.certificate_pem).unwrap();
        std::fs::write(&files.key_file, self.key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn chain_and_key(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        (vec![self.certificate.clone()], key.into())
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let (chain, key) = self.chain_and_key();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    /// The same, for a server that asks for a certificate of this authority.
    pub(crate) fn server_for(&self, authority: &Authority) -> Arc<ServerConfig> {
        let (chain, key) = self.chain_and_key();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    pub(crate) fn pin(&self) -> String {
        let digest = Sha256::digest(&self.certificate);
        let digits = digest.iter().map(|octet| format!("{octet:02x}"));
        digits.collect::<Vec<_>>().concat()
    }
}

/// How the data plane is told to reach a destination.
pub(crate) struct Way {
    pub(crate) tls: v1::EndpointTls,
    pub(crate) announcement: v1::Announcement,
    /// The name of both servers; `None`: their address.
    pub(crate) host: Option<&'static str>,
    /// Where the old and the new server are, in place of the scripted ones.
    pub(crate) at: [Option<std::net::SocketAddr>; 2],
    /// What the old and the new server do with an authorization identity.
    pub(crate) authorization: [v1::AuthorizationIdentity; 2],
    /// What both servers are said to offer, and clients are offered because of it; nothing: our own minimum.
    pub(crate) offered: &'static [&'static str],
    /// Where logins are parted from master users, and whether the old and the new server do it there.
    pub(crate) masters: (&'static str, [bool; 2]),
}

impl Default for Way {
    fn default() -> Self {
        Self {
            tls: v1::EndpointTls {
                mode: Mode::None.into(),
                plaintext_consent: true,
                ..Default::default()
            },
            announcement: v1::Announcement::None,
            host: None,
            at: [None; 2],
            authorization: [v1::AuthorizationIdentity::Unspecified; 2],
            offered: &[],
            masters: ("", [false; 2]),
        }
    }
}

impl Way {
    pub(crate) fn tls(mode: Mode, verification: v1::endpoint_tls::Verification) -> Self {
        Self {
            tls: v1::EndpointTls {
                mode: mode.into(),
                server_name: "localhost".into(),
                verification: Some(verification),
                ..Default::default()
            },
            ..Self::default()
        }
    }
}

/// What a test can choose.
pub(crate) struct Plan {
    pub(crate) old: Manners,
    pub(crate) new: Manners,
    pub(crate) way: Way,
    pub(crate) limits: Limits,
    pub(crate) listener: ListenerTls,
    /// Where clients connect.
    pub(crate) address: std::net::SocketAddr,
    /// Made by the caller when a backend's certificate must come from it.
    pub(crate) authority: Authority,
    pub(crate) proxy_from: Vec<crate::network::Network>,
    pub(crate) names: Book,
    /// How we speak TLS to the servers.
    pub(crate) backend_tls: ClientTls,
    pub(crate) known_networks: Vec<KnownNetwork>,
    /// The listener's own limit.
    pub(crate) connections: Option<usize>,
    pub(crate) tokens: Arc<dyn TokenOwner>,
}

impl Default for Plan {
    fn default() -> Self {
        let mut limits = Limits::default();
        // Failures are told apart by their words here, and not by their time.
        limits.preauth.failure_floor = Duration::ZERO;
        // Only where a server does not close is it waited for so long.
        limits.relay.close = Duration::from_secs(20);
        Self {
            old: Manners::default(),
            new: Manners::default(),
            way: Way::default(),
            limits,
            listener: ListenerTls::Implicit,
            address: "127.0.0.1:0".parse().unwrap(),
            authority: Authority::new(),
            proxy_from: Vec::new(),
            names: Book::default(),
            backend_tls: ClientTls::new(),
            known_networks: Vec::new(),
            connections: None,
            tokens: Arc::new(NoTokens),
        }
    }
}

/// Two servers, `old` and `new`, and the data plane in front of them. `alice@example.org` is on the old
/// one, `bob@example.org` on the new one, and so is everybody else on the old one.
pub(crate) struct World {
    pub(crate) old: Backend,
    pub(crate) new: Backend,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) fences: Arc<Fences>,
    pub(crate) shutdown: Shutdown,
    pub(crate) budget: Budget,
    pub(crate) metrics: Arc<Metrics>,
    services: Arc<Services>,
    protocol: v1::Protocol,
    tls: ServerTls,
    pub(crate) counts: Arc<ListenerCounts>,
    pub(crate) tables: Tables,
    accounts: Mutex<Accounts>,
    _directory: tempfile::TempDir,
}

struct Accounts {
    revision: u64,
    alice: AccountId,
}

impl World {
    /// Clients that were turned away for their TLS.
    pub(crate) fn too_old(&self) -> u64 {
        self.tls.too_old()
    }

    /// Counts a failed login of where its clients are.
    pub(crate) fn guess(&self, login: &str) {
        let table = self.tables.current().unwrap();
        let name = table.config().names().canonicalise(login).unwrap();
        self.services.guesses.failed(self.address.ip(), Some(&name));
    }

    pub(crate) fn new() -> Self {
        Self::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> Self {
        Self::speaking::<Imap>(plan)
    }

    /// A world in which another protocol is spoken.
    pub(crate) fn speaking<P: LineProtocol>(plan: Plan) -> Self {
        let old = Backend::start(plan.old);
        let new = Backend::start(plan.new);
        let tables = Tables::new();
        let shutdown = Shutdown::new();
        let resolver = Resolver::new(plan.names, shutdown.clone());
        let dialer = Dialer::new(plan.backend_tls, plan.limits.backend, resolver);
        let mut services = services(&tables, &plan.limits, dialer, &shutdown);
        services.tokens = plan.tokens;
        let services = Arc::new(services);
        let random = services.random.clone();
        let directory = tempfile::tempdir().unwrap();
        let identity = plan.authority.sign("localhost");
        let listener = Listener {
            name: "test".to_owned(),
            protocol: P::KIND,
            address: plan.address,
            tls: plan.listener,
            certificates: vec![identity.write(directory.path(), "edge")],
            proxy_protocol_from: plan.proxy_from,
            connections: plan.connections,
        };
        let listening = Listening::bind(
            listener,
            Permits::new(plan.limits.connections, &plan.known_networks),
        )
        .unwrap();
        let (address, tls) = (listening.door().address(), listening.tls());
        let counts = listening.door().counts();
        let line = Arc::new(LineServices::<P>::new(Arc::clone(&services)));
        let offers = line.offers.clone();
        tokio::spawn(listening.serve(line, shutdown.clone()));
        let world = Self {
            address,
            root: plan.authority.root,
            fences: Arc::new(Fences::new(Arc::clone(&services.registry))),
            registry: Arc::clone(&services.registry),
            shutdown,
            budget: services.budget.clone(),
            metrics: Arc::clone(&services.metrics),
            services,
            protocol: on_the_wire(P::KIND),
            tls,
            counts,
            tables,
            accounts: Mutex::new(Accounts {
                revision: 1,
                alice: AccountId::generate(random.bytes()),
            }),
            _directory: directory,
            old,
            new,
        };
        world.first_table(&plan.way, &random);
        if !plan.way.offered.is_empty() {
            let tokens = &*world.services.tokens;
            offers.renew("", &Backends::new(), &world.table(), tokens, true);
        }
        world
    }

    fn first_table(&self, way: &Way, random: &Random) {
        let alice = self.accounts.lock().unwrap().alice.clone();
        let chunk = SnapshotChunk {
            position: Some(position(1)),
            index: 0,
            last: true,
            config: Some(self.config(way)),
            accounts: vec![
                entry(&alice, "alice@example.org", "old", v1::Phase::Settled, 1),
                entry(
                    &AccountId::generate(random.bytes()),
                    "bob@example.org",
                    "new",
                    v1::Phase::Settled,
                    1,
                ),
            ],
            comparison: false,
        };
        let assembly = Assembly::begin(chunk, None, random).unwrap();
        self.tables
            .publish(Arc::new(assembly.finish(None).unwrap()));
    }

    fn config(&self, way: &Way) -> v1::RoutingConfig {
        let at = |n: usize, backend: &Backend| way.at[n].unwrap_or(backend.address);
        let (separators, known) = way.masters;
        let destination = |id: &str, backend: &Backend, n: usize| v1::Destination {
            id: id.into(),
            without: Vec::new(),
            endpoints: vec![v1::Endpoint {
                protocol: self.protocol.into(),
                host: way
                    .host
                    .map_or_else(|| at(n, backend).ip().to_string(), str::to_owned),
                port: u32::from(at(n, backend).port()),
                tls: Some(way.tls.clone()),
                announcement: way.announcement.into(),
                authorization_identity: way.authorization[n].into(),
                capabilities: way.offered.iter().map(|&item| item.to_owned()).collect(),
                master_separators: if known[n] { separators } else { "" }.into(),
                ..Default::default()
            }],
        };
        v1::RoutingConfig {
            schema: 1,
            destinations: vec![
                destination("old", &self.old, 0),
                destination("new", &self.new, 1),
            ],
            default_destination: "old".into(),
            domains: vec![v1::Domain {
                name: "example.org".into(),
                unlisted: None,
            }],
            names: Some(v1::NamePolicy {
                bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
                master_separators: separators.into(),
                ..Default::default()
            }),
            ..v1::RoutingConfig::default()
        }
    }

    /// The octets that the task of a session begins with.
    pub(crate) async fn future_size(&self) -> usize {
        let stream = crate::net::connect(self.address).await.unwrap();
        let local = stream.local_addr().unwrap();
        let connection = ClientConnection {
            ends: Ends::direct(local, local),
            stream,
            mode: ListenerTls::Implicit,
            tls: self.tls.clone(),
            newcomer: Newcomers::default().enter(),
        };
        let line = Arc::new(LineServices::<Imap>::new(Arc::clone(&self.services)));
        let session = session::run(line, "test".into(), connection);
        size_of_val(&session)
    }

    /// The latest logins at a destination.
    pub(crate) fn logins(&self, destination: &str) -> Latest {
        self.services.logins.latest(&Target {
            destination: DestinationId::parse(destination).unwrap(),
            protocol: self.protocol,
        })
    }

    /// Whether the breaker of a destination is open.
    pub(crate) fn breaker_is_open(&self, destination: &str) -> bool {
        let target = Target {
            destination: DestinationId::parse(destination).unwrap(),
            protocol: self.protocol,
        };
        self.services.breakers.open_since(&target).is_some()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::tls(self.address, &self.root).await
    }

    /// Alice's account is fenced.
    pub(crate) fn fence(&self) {
        self.change("old", v1::Phase::Fencing);
    }

    /// Alice's account is on the new server.
    pub(crate) fn flip(&self) {
        self.change("new", v1::Phase::Flipped);
    }

    /// The move is off.
    pub(crate) fn abort(&self) {
        self.change("old", v1::Phase::Settled);
    }

    /// The table that fences alice's account is in force, and nothing was closed for it yet: what lies
    /// between the two steps of [`fence`](Self::fence).
    pub(crate) fn fence_unseen(&self) {
        self.publish("old", v1::Phase::Fencing);
    }

    fn change(&self, home: &str, phase: v1::Phase) {
        let touched = self.publish(home, phase);
        self.fences.settle(&self.table(), &touched);
    }

    fn publish(&self, home: &str, phase: v1::Phase) -> Touched {
        let (revision, entry) = {
            let mut accounts = self.accounts.lock().unwrap();
            accounts.revision += 1;
            let revision = accounts.revision;
            let alice = &accounts.alice;
            (
                revision,
                entry(alice, "alice@example.org", home, phase, revision),
            )
        };
        let delta = Delta {
            from: Some(Revision::new(0, revision - 1).into()),
            to: Some(position(revision)),
            changes: vec![Change {
                change: Some(change::Change::Account(entry)),
            }],
        };
        let applied = self.table().apply(delta).unwrap();
        self.tables.publish(Arc::new(applied.table));
        applied.touched
    }

    fn table(&self) -> Arc<RoutingTable> {
        self.tables.current().unwrap()
    }

    /// Alice's sessions are ended by an operator.
    pub(crate) fn kick(&self) {
        let name = self
            .table()
            .config()
            .names()
            .canonicalise("alice@example.org");
        self.registry.kick(&[name.unwrap()]);
    }

    /// The process begins to stop.
    pub(crate) fn stop(&self) {
        self.shutdown.stop();
        self.registry.close_all(CloseReason::Stopping);
    }
}

/// What all sessions share that reach servers by this dialer.
pub(crate) fn services(
    tables: &Tables,
    limits: &Limits,
    dialer: Dialer,
    shutdown: &Shutdown,
) -> Services {
    let random = Random::seeded(1);
    Services {
        metrics: Arc::new(Metrics::new(TABLE)),
        tables: tables.clone(),
        registry: Registry::new(tables.clone(), limits.hold, &random),
        dialers: Arc::new(Dialers::of_one(dialer)),
        logins: Logins::default(),
        breakers: Breakers::new(limits.breaker),
        group: String::new(),
        limits: *limits,
        budget: Budget::new(limits.connections.kept),
        rounds: Rounds::default(),
        guesses: Guesses::new(&limits.preauth, &random),
        tokens: Arc::new(NoTokens),
        random,
        redact: Redact::full(),
        stopping: shutdown.stopping().clone(),
    }
}

pub(crate) fn position(revision: u64) -> ferrypost_proto::routing::v1::TablePosition {
    TablePosition {
        revision: Revision::new(0, revision),
        ..TablePosition::default()
    }
    .into()
}

pub(crate) fn entry(
    account: &AccountId,
    name: &str,
    home: &str,
    phase: v1::Phase,
    revision: u64,
) -> AccountEntry {
    let moving = phase == v1::Phase::Fencing;
    AccountEntry {
        account_id: account.as_str().to_owned(),
        names: vec![name.to_owned()],
        home: home.to_owned(),
        target: if moving {
            "new".to_owned()
        } else {
            String::new()
        },
        phase: phase.into(),
        epoch: Some(Revision::new(0, revision).into()),
        fence_epoch: None,
        migration_id: if moving {
            MigrationId::generate(Random::seeded(9).bytes())
                .as_str()
                .to_owned()
        } else {
            String::new()
        },
        ..Default::default()
    }
}
