//! Puts a control plane together from its configuration.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use ferrypost_runtime::{
    Random,
    admin::{Access, Server, Source},
    metrics::Metrics,
    shutdown::Shutdown,
    telemetry::Telemetry,
};
use tokio::sync::oneshot;

use crate::{
    admin::{AdminDoor, Facts, levels::instruments},
    config::{Admin, Config, EtcdAccess, RoutingSource, StoreConfig, TlsFiles},
    failpoint::Failpoints,
    fleet::{Fleet, FleetOptions},
    grpc::{
        auth::{DataPlaneGate, Gate, OperatorGate},
        migration::Migrations,
        placement::Placements,
        routing::Routing,
        routing_config::RoutingConfigs,
        server::{self, Listener, OperatorServices},
        stats::Stats,
    },
    hook::{DeltaHook, GuardedHook},
    installation,
    mirror::{Mirror, MirrorOptions},
    net,
    orchestrator::{self, OrchestratorOptions},
    routing_file::RoutingFile,
    service::{
        Core, file_keeper, migration::MigrationUseCases, placement::PlacementUseCases,
        restore::RestoreUseCases, routing_config::RoutingUseCases, stats::StatsUseCases,
    },
    store::{
        Store,
        embedded::EmbeddedStore,
        etcd::{EtcdConfig, EtcdStore, Password},
        metered::MeteredStore,
    },
    tls::{ClientCertificates, ServerTls},
    wall_clock::WallClock,
};

/// How often the leader looks for what ended long ago.
const PRUNE_EVERY: Duration = Duration::from_hours(1);

/// How long tasks may take to end. They only give up the leadership and end streams, none of which
/// needs a store that is away.
const GRACE: Duration = Duration::from_secs(10);

/// The binary that runs, under a name that holds also when an upgrade has replaced the file: it guards
/// the hook.
const OWN_BINARY: &str = "/proc/self/exe";

/// A control plane that runs.
#[derive(Debug)]
pub struct Bound {
    operators: SocketAddr,
    data_planes: SocketAddr,
    admin: Option<SocketAddr>,
    store: OpenStore,
    shutdown: Shutdown,
    failure: oneshot::Receiver<anyhow::Error>,
}

impl Bound {
    /// Where operators call.
    pub fn operators(&self) -> SocketAddr {
        self.operators
    }

    /// Where data planes open their streams.
    pub fn data_planes(&self) -> SocketAddr {
        self.data_planes
    }

    /// The admin endpoint, if there is one.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Resolves when it cannot go on, with the reason. What heals by itself is no reason.
    pub async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.failure).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends it: gives up the leadership, ends streams and calls, closes the listeners.
    ///
    /// # Errors
    /// When something did not end in time.
    pub async fn shut_down(self) -> anyhow::Result<()> {
        let left = self.shutdown.wait(GRACE).await;
        if let OpenStore::Embedded(store) = &self.store {
            store.close().await;
        }
        ensure!(
            left == 0,
            "{left} tasks had not ended {GRACE:?} after they were told to"
        );
        Ok(())
    }
}

/// What no file can tell.
const NOT_CHECKED: &str = "not checked: what the servers take for one account beside the names that it lists (aliases, \
    sub-addresses, other spellings), and whether they do with two names in one login what their endpoints say";

/// Checks a configuration file and the routing file that it names. Says what it found.
///
/// # Errors
/// Every mistake in the first of them that has any.
pub fn check(path: &Path) -> anyhow::Result<String> {
    let config = Config::load(path)?;
    doors(&config)?;
    config.admin().map(admin_tls).transpose()?;
    let routing = config.routing();
    let seed_is_absent = routing.source == RoutingSource::Api && !routing.file.exists();
    if seed_is_absent {
        return Ok(format!("{}: valid", path.display()));
    }
    let file = RoutingFile::load(&routing.file)?;
    let warnings = file.config().warnings();
    let mut lines = vec![
        format!("{}: valid", path.display()),
        format!("{}: valid", routing.file.display()),
    ];
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.push(NOT_CHECKED.to_owned());
    Ok(lines.join("\n"))
}

/// Starts a control plane. It answers as soon as this returns; what it cannot answer before its store
/// does, it refuses as unavailable.
///
/// # Errors
/// When the configuration's files, addresses or store cannot be used.
pub async fn build(
    config: Config,
    random: Random,
    telemetry: &mut Telemetry,
) -> anyhow::Result<Bound> {
    if config.routing().source == RoutingSource::File {
        RoutingFile::load(&config.routing().file)?;
    }
    let (operators, data_planes) = doors(&config)?;
    let operators = operators.open(config.operators().listen).await?;
    let data_planes = data_planes.open(config.data_planes().listen).await?;
    let addresses = (
        operators.socket.local_addr()?,
        data_planes.socket.local_addr()?,
    );
    let admin = AdminSockets::open(config.admin()).await?;
    let opened = OpenStore::open(config.store()).await?;
    let store_kind = opened.kind();
    let metrics = Arc::new(telemetry.metrics(&instruments()));
    let store: Arc<dyn Store> = Arc::new(MeteredStore::new(opened.store(), Arc::clone(&metrics)));
    let shutdown = Shutdown::new();
    opened.keep_fresh(&shutdown);
    let failure = settle_installation(&store, &config, &random, &shutdown).await?;

    let options = MirrorOptions::new(config.replica().clone(), random.clone());
    let mirror = Mirror::start(
        store,
        options,
        shutdown.tracker(),
        shutdown.stopping().clone(),
    );
    let failpoints = Failpoints::from_environment();
    let options = FleetOptions {
        replica: config.replica().clone(),
        random: random.clone(),
        heartbeat: config.migrations().heartbeat,
        settle: config.migrations().settle,
        failpoints: Clone::clone(&failpoints),
    };
    let fleet = Fleet::start(
        mirror.clone(),
        options,
        shutdown.tracker(),
        shutdown.stopping().clone(),
    );
    let core = Arc::new(Core {
        mirror: mirror.clone(),
        random: random.clone(),
        tracing: telemetry.tracing(),
        replica: config.replica().clone(),
        migrations: *config.migrations(),
        delta_hook: config.hooks().delta.is_some(),
        failpoints: Clone::clone(&failpoints),
        ending: shutdown.stopping().clone(),
    });

    orchestrator::start(
        &mirror,
        orchestrator_options(&config, &random, &metrics, failpoints),
        shutdown.tracker(),
        shutdown.stopping().clone(),
    );
    let routing = RoutingUseCases::new(core.clone(), config.routing());
    keep_routing_file(routing.clone(), &shutdown);
    let stats = StatsUseCases::new(core.clone(), fleet.clone(), store_kind);
    let restore = RestoreUseCases::new(core.clone(), fleet.clone());
    keep_apart(restore.clone(), &shutdown);
    let services = OperatorServices {
        migrations: Migrations(MigrationUseCases::new(core.clone(), fleet.clone())),
        placements: Placements(PlacementUseCases::new(core), stats.clone()),
        stats: Stats(stats.clone(), restore),
        routing_configs: RoutingConfigs(routing),
    };
    let routing_streams = Routing::new(fleet, config.data_planes().identity);
    server::serve_operators(operators, services, &mirror, &shutdown)?;
    server::serve_data_planes(data_planes, routing_streams, &mirror, &shutdown);
    let facts: Arc<dyn Source> = Arc::new(Facts {
        replica: config.replica().clone(),
        mirror,
        stats,
        metrics,
    });
    telemetry.start(Arc::clone(&facts))?;
    let admin_address = admin.map(|sockets| sockets.serve(facts, &shutdown));
    tracing::info!(operators = %addresses.0, data_planes = %addresses.1, store = store_kind,
        replica = %config.replica(), "the control plane answers");
    Ok(Bound {
        operators: addresses.0,
        data_planes: addresses.1,
        admin: admin_address,
        store: opened,
        shutdown,
        failure,
    })
}

/// What stands before the services of a listener.
struct Door {
    gate: Gate,
    tls: Option<ServerTls>,
}

impl Door {
    async fn open(self, address: SocketAddr) -> anyhow::Result<Listener> {
        let listening = net::listen(address).await;
        Ok(Listener {
            socket: listening.with_context(|| format!("cannot listen on {address}"))?,
            tls: self.tls,
            gate: self.gate,
        })
    }
}

/// The sockets of the admin endpoint.
struct AdminSockets {
    full: AdminDoor,
    health: Option<AdminDoor>,
    address: SocketAddr,
    access: Access,
}

impl AdminSockets {
    async fn open(admin: Option<&Admin>) -> anyhow::Result<Option<Self>> {
        let Some(admin) = admin else { return Ok(None) };
        let full = admin_door(admin.listen, Some(admin_tls(admin)?)).await?;
        let health = match admin.health_listen {
            Some(address) => Some(admin_door(address, None).await?),
            None => None,
        };
        Ok(Some(Self {
            address: full.listener.local_addr()?,
            full,
            health,
            access: Access::new(admin.token_file.clone()),
        }))
    }

    fn serve(self, source: Arc<dyn Source>, shutdown: &Shutdown) -> SocketAddr {
        let full = Server::full(Arc::clone(&source), self.access);
        shutdown.spawn(full.run(self.full, shutdown.clone()));
        if let Some(health) = self.health {
            shutdown.spawn(Server::health_only(source).run(health, shutdown.clone()));
        }
        self.address
    }
}

fn admin_tls(admin: &Admin) -> anyhow::Result<ServerTls> {
    let files = TlsFiles {
        identity: admin.certificate.clone(),
        client_ca: None,
    };
    let loaded = ServerTls::load(&files, ClientCertificates::Optional, b"http/1.1");
    loaded.context("admin endpoint")
}

async fn admin_door(address: SocketAddr, tls: Option<ServerTls>) -> anyhow::Result<AdminDoor> {
    let listening = net::listen(address).await;
    let refused = || format!("admin endpoint: cannot listen on {address}");
    Ok(AdminDoor {
        listener: listening.with_context(refused)?,
        tls,
    })
}

/// The doors for operators and data planes; their files are read here for the first time.
fn doors(config: &Config) -> anyhow::Result<(Door, Door)> {
    let (operators, data_planes) = (config.operators(), config.data_planes());
    let operator_gate = OperatorGate::new(operators)?;
    if operator_gate.is_open() {
        tracing::warn!(listen = %operators.listen,
            "operators are not asked who they are: everybody on this machine may do everything");
    }
    let data_plane_gate = DataPlaneGate::new(data_planes, operators)?;
    if data_plane_gate.is_open() {
        tracing::warn!(listen = %data_planes.listen, "data planes are not asked who they are");
    }
    let certificates = if operators.tokens.is_empty() {
        ClientCertificates::Required
    } else {
        ClientCertificates::Optional
    };
    Ok((
        Door {
            gate: Gate::Operators(operator_gate),
            tls: load_tls(operators.tls.as_ref(), certificates)?,
        },
        Door {
            gate: Gate::DataPlanes(data_plane_gate),
            tls: load_tls(data_planes.tls.as_ref(), ClientCertificates::Required)?,
        },
    ))
}

fn load_tls(
    files: Option<&TlsFiles>,
    clients: ClientCertificates,
) -> anyhow::Result<Option<ServerTls>> {
    let loaded = files.map(|files| ServerTls::load(files, clients, b"h2"));
    Ok(loaded.transpose()?)
}

/// The store that was chosen.
#[derive(Debug)]
enum OpenStore {
    Embedded(Arc<EmbeddedStore>),
    Etcd(Arc<EtcdStore>),
}

impl OpenStore {
    async fn open(config: &StoreConfig) -> anyhow::Result<Self> {
        Ok(match config {
            StoreConfig::Embedded(embedded) => {
                let store = EmbeddedStore::open(embedded.clone()).await;
                let place = || format!("the store {}", embedded.path.display());
                Self::Embedded(Arc::new(store.with_context(place)?))
            }
            StoreConfig::Etcd(access) => {
                let store = EtcdStore::connect(etcd_config(access)).await;
                Self::Etcd(Arc::new(store.context("the etcd cluster")?))
            }
        })
    }

    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Etcd(store) => store.clone(),
        }
    }

    /// Has its files taken over when they change.
    fn keep_fresh(&self, shutdown: &Shutdown) {
        if let Self::Etcd(store) = self {
            let store = Arc::clone(store);
            shutdown.spawn_background(async move { store.keep_fresh().await });
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Etcd(_) => "etcd",
        }
    }
}

fn etcd_config(access: &EtcdAccess) -> EtcdConfig {
    let mut config = EtcdConfig::new(access.endpoints.clone(), access.prefix.clone());
    config.tls.clone_from(&access.tls);
    let user = access.user.clone();
    config.user = user.map(|(name, file)| (name, Password::File(file)));
    config
}

fn orchestrator_options(
    config: &Config,
    random: &Random,
    metrics: &Arc<Metrics>,
    failpoints: Failpoints,
) -> OrchestratorOptions {
    let hook = config.hooks().delta.as_ref().map(|delta| {
        let command = delta.command.iter().map(Into::into).collect();
        let hook = GuardedHook::new(OWN_BINARY.into(), command, delta.timeout);
        Arc::new(hook) as Arc<dyn DeltaHook>
    });
    OrchestratorOptions {
        replica: config.replica().clone(),
        random: random.clone(),
        leader_ttl: config.migrations().leader_ttl,
        settle: config.migrations().settle,
        fence_budget: config.migrations().fence_budget,
        fence_attempts: config.migrations().fence_attempts,
        respite: config.migrations().window,
        hook,
        keep: config.migrations().keep_ended,
        prune_every: PRUNE_EVERY,
        clock: WallClock::default(),
        metrics: Arc::clone(metrics),
        failpoints,
        looks: Arc::default(),
    }
}

/// Finds out whose the store is. Where the configuration names an installation nothing is read from
/// the store before that is known, however long the store is away; else it is found out meanwhile.
async fn settle_installation(
    store: &Arc<dyn Store>,
    config: &Config,
    random: &Random,
    shutdown: &Shutdown,
) -> anyhow::Result<oneshot::Receiver<anyhow::Error>> {
    let (failed, failure) = oneshot::channel();
    if let Some(pinned) = config.installation() {
        installation::settle(&**store, random, Some(pinned)).await?;
        return Ok(failure);
    }
    let (store, random, token) = (store.clone(), random.clone(), shutdown.stopping().clone());
    shutdown.spawn(async move {
        let settling = installation::settle(&*store, &random, None);
        if let Some(Err(error)) = token.run_until_cancelled(settling).await {
            // Whoever does not listen has ended already.
            let _ = failed.send(error.into());
        }
    });
    Ok(failure)
}

fn keep_apart(desk: RestoreUseCases, shutdown: &Shutdown) {
    let token = shutdown.stopping().clone();
    shutdown.spawn(async move {
        token.run_until_cancelled(desk.keep_apart()).await;
    });
}

fn keep_routing_file(desk: RoutingUseCases, shutdown: &Shutdown) {
    let token = shutdown.stopping().clone();
    shutdown.spawn(async move {
        token.run_until_cancelled(file_keeper::keep(desk)).await;
    });
}
