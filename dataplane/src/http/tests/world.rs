//! Two web servers, a data plane in front of them, and no control plane.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ferrypost_proto::{
    AccountId, Revision,
    routing::v1::{self as wire, Change, Delta, SnapshotChunk, change},
    v1::{self, http_without_account::Policy},
};
use ferrypost_routing::{Assembly, RoutingTable};
use ferrypost_runtime::shutdown::Shutdown;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    backend::Backend,
    entrance::{Entrance, Way, narrow},
    message::{Message, Wire},
};
use crate::{
    config::WebListener,
    cookie_keys::CookieKeys,
    fence::Fences,
    http::{Web, WebListening},
    limits::Limits,
    listener::Permits,
    net::{
        self,
        dial::Dialer,
        resolver::{Resolver, System},
        tls_client::ClientTls,
    },
    registry::{CloseReason, Registry, SessionKind},
    session::{
        context::Services,
        tests::world::{Authority, entry, position, services},
    },
    tables::Tables,
};

/// What a test can choose.
pub(super) struct Plan {
    pub(super) rules: Vec<v1::HttpRule>,
    pub(super) limits: Limits,
    pub(super) trusted_peers: Vec<crate::network::Network>,
    pub(super) announcement: v1::Announcement,
    pub(super) response_limit: Option<Duration>,
    /// How the old server is reached; the new one is in clear and speaks HTTP/1.1.
    pub(super) old: Way,
}

impl Default for Plan {
    fn default() -> Self {
        let mut limits = Limits::default();
        limits.preauth.failure_floor = Duration::ZERO;
        limits.relay.close = Duration::from_secs(20);
        Self {
            rules: rules(),
            limits,
            trusted_peers: Vec::new(),
            announcement: v1::Announcement::None,
            response_limit: None,
            old: Way::default(),
        }
    }
}

/// `/login` to the old server whoever it is, `/form` to whoever is named in it, `/either` by whatever it has, everything else
/// by its credentials.
fn rules() -> Vec<v1::HttpRule> {
    let pinned = v1::HttpRule {
        name: "login".into(),
        paths: vec!["/login/**".into()],
        pin: "old".into(),
        writes_to_accounts: Some(false),
        ..Default::default()
    };
    let writing = v1::HttpRule {
        name: "web".into(),
        paths: vec!["/web/**".into()],
        pin: "old".into(),
        writes_to_accounts: Some(true),
        ..Default::default()
    };
    let sign_in = v1::HttpRule {
        name: "sign in".into(),
        paths: vec!["/sign-in".into()],
        learns: Some(v1::HttpLearns {
            account_from: Vec::new(),
            status: vec![302],
            server_cookie: "sid".into(),
            seconds: 3600,
        }),
        ..by_account(&["form:user"])
    };
    let mailbox = v1::HttpRule {
        name: "mailbox".into(),
        paths: vec!["/mailbox/**".into()],
        without_account: Some(without_account(Policy::Pin("old".into()))),
        writes_to_accounts: Some(false),
        ..by_account(&["cookie"])
    };
    let either = v1::HttpRule {
        name: "either".into(),
        paths: vec!["/either".into()],
        ..by_account(&["basic", "query:user", "cookie"])
    };
    let form = v1::HttpRule {
        name: "form".into(),
        paths: vec!["/form".into()],
        ..by_account(&["form:user"])
    };
    let accounts = v1::HttpRule {
        name: "accounts".into(),
        ..by_account(&["basic", "bearer"])
    };
    vec![pinned, writing, sign_in, mailbox, either, form, accounts]
}

/// A rule that asks for an account.
pub(super) fn by_account(sources: &[&str]) -> v1::HttpRule {
    v1::HttpRule {
        account_from: sources.iter().map(|&source| source.to_owned()).collect(),
        without_account: Some(without_account(Policy::Challenge(v1::HttpChallenge {}))),
        ..Default::default()
    }
}

pub(super) fn without_account(policy: Policy) -> v1::HttpWithoutAccount {
    v1::HttpWithoutAccount {
        policy: Some(policy),
    }
}

/// Alice is on the old server, bob on the new one, and so is everybody else on the old one.
pub(super) struct World {
    pub(super) old: Backend,
    pub(super) new: Backend,
    pub(super) address: SocketAddr,
    pub(super) root: CertificateDer<'static>,
    pub(super) registry: Arc<Registry>,
    pub(super) services: Arc<Services>,
    pub(super) shutdown: Shutdown,
    fences: Arc<Fences>,
    tables: Tables,
    accounts: Mutex<(u64, AccountId)>,
    _directory: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Plan::default())
    }

    pub(super) fn with(plan: Plan) -> Self {
        let authority = Authority::new();
        let old = Backend::start("old", Entrance::of(&plan.old, &authority));
        let new = Backend::start("new", Entrance::default());
        let tables = Tables::new();
        let shutdown = Shutdown::new();
        let resolver = Resolver::new(System, shutdown.clone());
        let dialer = Dialer::new(ClientTls::new(), plan.limits.backend, resolver);
        let services = Arc::new(services(&tables, &plan.limits, dialer, &shutdown));
        let directory = tempfile::tempdir().unwrap();
        let listener = WebListener {
            name: "web".into(),
            address: "127.0.0.1:0".parse().unwrap(),
            certificates: vec![authority.sign("localhost").write(directory.path(), "edge")],
            proxy_protocol_from: Vec::new(),
            trusted_peers: plan.trusted_peers.clone(),
            connections: None,
        };
        let permits = Permits::new(plan.limits.connections, &[]);
        let listening = WebListening::bind(listener, permits).unwrap();
        let address = listening.door().address();
        let cookie_keys = CookieKeys::new(services.random.clone());
        cookie_keys.replace(&wire::CookieKeys {
            keys: vec![wire::CookieKey {
                id: 1,
                key: vec![7; 32].into(),
            }],
            sealing: 1,
        });
        let web = Web {
            services: Arc::clone(&services),
            cookie_keys,
        };
        tokio::spawn(listening.serve(Arc::new(web), shutdown.clone()));
        let random = services.random.clone();
        let world = Self {
            old,
            new,
            address,
            root: authority.root.clone(),
            registry: Arc::clone(&services.registry),
            fences: Arc::new(Fences::new(Arc::clone(&services.registry))),
            services,
            shutdown,
            tables,
            accounts: Mutex::new((1, AccountId::generate(random.bytes()))),
            _directory: directory,
        };
        world.first_table(plan, &authority);
        world
    }

    fn first_table(&self, plan: Plan, authority: &Authority) {
        let alice = self.accounts.lock().unwrap().1.clone();
        let bob = AccountId::generate(self.services.random.bytes());
        let destination = |id: &str, backend: &Backend, way: &Way| v1::Destination {
            id: id.into(),
            endpoints: vec![v1::Endpoint {
                protocol: v1::Protocol::Http.into(),
                host: backend.address.ip().to_string(),
                port: u32::from(backend.address.port()),
                tls: Some(way.tls(authority)),
                announcement: plan.announcement.into(),
                response_limit: plan.response_limit.map(|it| it.try_into().unwrap()),
                versions: way.versions.iter().map(|&it| it.into()).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let config = v1::RoutingConfig {
            schema: 3,
            http: Some(v1::HttpRouting { rules: plan.rules }),
            destinations: vec![
                destination("old", &self.old, &plan.old),
                destination("new", &self.new, &Way::default()),
            ],
            default_destination: "old".into(),
            domains: vec![v1::Domain {
                name: "example.org".into(),
                unlisted: None,
            }],
            names: Some(v1::NamePolicy {
                bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
                ..Default::default()
            }),
            ..Default::default()
        };
        let settled = v1::Phase::Settled;
        let chunk = SnapshotChunk {
            position: Some(position(1)),
            index: 0,
            last: true,
            config: Some(config),
            accounts: vec![
                entry(&alice, "alice@example.org", "old", settled, 1),
                entry(&bob, "bob@example.org", "new", settled, 1),
            ],
            comparison: false,
        };
        let assembly = Assembly::begin(chunk, None, &self.services.random).unwrap();
        self.tables
            .publish(Arc::new(assembly.finish(None).unwrap()));
    }

    /// Alice's account is fenced.
    pub(super) fn fence(&self) {
        self.change("old", v1::Phase::Fencing);
    }

    /// Alice's account is on the new server.
    pub(super) fn flip(&self) {
        self.change("new", v1::Phase::Flipped);
    }

    /// The move is off.
    pub(super) fn abort(&self) {
        self.change("old", v1::Phase::Settled);
    }

    fn change(&self, home: &str, phase: v1::Phase) {
        let (revision, entry) = {
            let mut accounts = self.accounts.lock().unwrap();
            accounts.0 += 1;
            let (revision, alice) = (accounts.0, &accounts.1);
            let entry = entry(alice, "alice@example.org", home, phase, revision);
            (revision, entry)
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
        self.fences.settle(&self.table(), &applied.touched);
    }

    fn table(&self) -> Arc<RoutingTable> {
        self.tables.current().unwrap()
    }

    /// The process begins to stop.
    pub(super) fn stop(&self) {
        self.shutdown.stop();
        self.registry.close_all(CloseReason::Stopping);
    }

    /// What is registered under alice's name and has a route.
    pub(super) fn routed(&self) -> usize {
        let table = self.table();
        let names = table.config().names();
        self.registry
            .routed_under([&names.canonicalise("alice@example.org").unwrap()])
    }

    /// Exchanges and kept connections that are registered, for whomever.
    pub(super) fn registered(&self) -> usize {
        self.registry.counts().sessions
    }

    /// Connections that are kept while nothing goes on there.
    pub(super) fn kept(&self) -> usize {
        let tally = self.registry.tally().into_iter();
        let kept = tally.filter(|(group, _)| group.kind == SessionKind::IdleUpstream);
        kept.map(|(_, count)| count).sum()
    }

    /// Exchanges that are held.
    pub(super) fn held(&self) -> usize {
        self.registry.counts().held
    }

    /// A client that speaks HTTP/1.
    pub(super) async fn client(&self) -> Wire {
        Wire::new(Box::new(self.secured(&[b"http/1.1"]).await))
    }

    /// The same, for whom the kernels hold little of what he has not read.
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever connects has to say so before"
    )]
    pub(super) async fn narrow_client(&self) -> Wire {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        narrow(&socket).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        Wire::new(Box::new(self.secure(stream, &[b"http/1.1"]).await))
    }

    /// A connection of somebody who names these protocols.
    pub(super) async fn secured(&self, protocols: &[&[u8]]) -> TlsStream<net::TcpStream> {
        let stream = net::connect(self.address).await.unwrap();
        self.secure(stream, protocols).await
    }

    async fn secure(
        &self,
        stream: net::TcpStream,
        protocols: &[&[u8]],
    ) -> TlsStream<net::TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }
}

/// Credentials.
pub(super) fn authorization(user: &str) -> String {
    let login = STANDARD.encode(format!("{user}@example.org:secret"));
    format!("Basic {login}")
}

pub(super) fn basic(user: &str) -> String {
    format!("Authorization: {}\r\n", authorization(user))
}

/// A request of somebody's with more fields and a body.
pub(super) fn request(line: &str, user: &str, more: &str) -> String {
    let authorization = if user.is_empty() {
        String::new()
    } else {
        basic(user)
    };
    let (fields, body) = more.split_once("\r\n\r\n").unwrap_or((more, ""));
    let end = if fields.is_empty() || fields.ends_with("\r\n") {
        ""
    } else {
        "\r\n"
    };
    format!("{line} HTTP/1.1\r\nHost: mail.example.org\r\n{authorization}{fields}{end}\r\n{body}")
}

impl Wire {
    /// Asks as somebody, and reads the answer.
    pub(super) async fn ask(&mut self, line: &str, user: &str, more: &str) -> Message {
        self.send(request(line, user, more)).await.unwrap();
        let mut response = self.head().await.unwrap();
        if !line.starts_with("HEAD ") {
            self.body(&mut response).await;
        }
        response
    }
}
