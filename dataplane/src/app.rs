//! Assembles a data plane from its configuration, and takes it apart again in order.
//!
//! ```text
//!   groups of tasks     services   feed, prober, offer, certificates, admin endpoint: on a runtime beside
//!                       sessions   listeners and everything that a client started
//!                       lookups    of names, for both
//!
//!   start   state directory locked ─ sockets bound ─ services ─ sessions
//!   drain   not ready ─ sessions: no new ones, the open ones closed at a pace ─ goodbye
//!   stop    drain ─ services ─ unlocked
//! ```
//!
//! The program, every test and a later simulator start the same thing here.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context as _, anyhow, ensure};
use ferrypost_proto::BootId;
use ferrypost_runtime::{
    Random,
    admin::{Access, Server, Source},
    metrics::Metrics,
    shutdown::Shutdown,
    telemetry::Telemetry,
};
use ferrypost_wire::ProtocolKind;
use tokio::{
    runtime::{self, Handle, Runtime},
    time::Instant,
};

use crate::{
    admin::{
        AdminDoor,
        drain::{Drained, Draining},
        levels::instruments,
        stats::{Listener, Stats},
    },
    backend::{
        Backends,
        breaker::Breakers,
        dialers::Dialers,
        health::{Prober, ProberSettings, Spoken},
        logins::Logins,
    },
    certificates::Certificates,
    config::{Admin, Config, DeliveryProtocol},
    control_plane::ControlPlaneConnector,
    cookie_keys::CookieKeys,
    delivery::{Post, dock::Dock, offers::Offers},
    feed::{Feed, FeedHandle, FeedSetup, FeedTiming, GoodbyeError, Identity},
    http::{Web, WebListening},
    limits::Limits,
    listener::{Door, Listening, Permits},
    lookup::{self, Lookup, next_hops::NextHops},
    net::{
        self, TcpListener,
        resolver::{Resolver, System},
        source::OwnListeners,
        tls_server::ServerTls,
    },
    pass_through::PassingThrough,
    ready::{Blocker, Readiness},
    registry::{CloseReason, Registry},
    session::{
        Rounds,
        context::Services,
        guesses::Guesses,
        line::{Line, line},
        relay::Budget,
    },
    state_dir::StateDir,
    tables::Tables,
    tokens::{Means, NoTokens, TokenOwner, Ways},
};

/// A data plane that runs.
pub struct Bound {
    /// Where it can be reached.
    pub addresses: Addresses,
    /// What blocks it.
    pub readiness: Readiness,
    /// Who asked for [`drain`](Self::drain).
    pub draining: Draining,
    limits: Limits,
    /// From the beginning of the drain on.
    not_ready: Option<Blocker>,
    registry: Arc<Registry>,
    feed: FeedHandle,
    lookups: Shutdown,
    services: Shutdown,
    sessions: Shutdown,
}

/// The addresses that were really bound: where the configuration says port 0, the one that was given.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// By the listener's name.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// Where mail systems ask, by name.
    pub lookups: BTreeMap<String, lookup::Bound>,
    /// Where mail systems deliver, by name; those in the file system are where the configuration says.
    pub deliveries: BTreeMap<String, SocketAddr>,
    /// The admin endpoint.
    pub admin: SocketAddr,
    /// `/healthz` and `/readyz` in clear.
    pub health: Option<SocketAddr>,
}

impl Addresses {
    /// Where nothing that is behind us can be: we listen there ourselves.
    fn own(&self) -> impl Iterator<Item = SocketAddr> {
        let lookups = self.lookups.values().filter_map(lookup::Bound::address);
        let deliveries = self.deliveries.values().copied();
        let listeners = self.listeners.values().copied();
        listeners.chain(deliveries).chain(lookups)
    }
}

/// How a data plane came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Tasks of sessions that did not end within the limit and were dropped.
    pub dropped: usize,
    /// Sessions whose backend's close nobody saw.
    pub unconfirmed: usize,
    /// Whether the control plane took note, so that nothing waits for us.
    pub goodbye: Result<(), GoodbyeError>,
}

/// Threads beside the relays': one may pack a table or write a long answer while the other keeps the control
/// plane's heartbeat.
const BESIDE_THREADS: usize = 2;

/// What the feed, the prober and the admin endpoint run on, beside the runtime of listeners and relays: a
/// storm of `/stats` or a table of ten million accounts delays no session.
///
/// # Errors
/// When the system gives no threads.
pub fn beside() -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .worker_threads(BESIDE_THREADS)
        .thread_name("beside")
        .enable_all()
        .build()
}

/// Starts a data plane: sessions on the runtime that this is called on, everything else on `beside`, and what is
/// exported on a thread of `telemetry`'s own. When this
/// returns, all sockets are bound; readiness comes later, with the first table.
///
/// # Errors
/// The state directory belongs to another process or cannot be used; an address cannot be bound or a
/// certificate not be used: every listener that fails is named.
pub fn build(
    config: &Config,
    random: Random,
    beside: &Handle,
    telemetry: &mut Telemetry,
) -> anyhow::Result<Bound> {
    let state = StateDir::open(config.state_directory(), &random)?;
    let sockets = Sockets::bind(config, beside)?;
    let addresses = sockets.addresses();
    let identity = Identity {
        instance: config.instance().clone(),
        boot: BootId::generate(random.bytes()),
        group: config.group().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        admin_address: addresses.admin.to_string(),
        limits: config.limits().of_fence(),
    };
    let own_listeners = OwnListeners::new(addresses.own());
    let metrics = Arc::new(telemetry.metrics(&instruments()));
    let mut parts = Parts::new(config, random, beside.clone(), &own_listeners, metrics)?;

    let prober = parts.start_prober(config);
    let sessions = parts.session_services(config)?;
    parts.start_lines(config, &sessions);
    let feed = parts.start_feed(
        config,
        identity.clone(),
        state,
        (prober, sockets.certificates()),
    );
    let source = Arc::new(parts.stats(identity, &feed, &sockets));
    telemetry.start(source.clone())?;
    sockets.admin.serve(config, source, &parts.services);
    for listener in sockets.listeners {
        parts.start_listener(listener);
    }
    for web in sockets.web {
        parts.start_web(web, &sessions);
    }
    for through in sockets.pass_throughs {
        parts.start_pass_through(through, &sessions);
    }
    for lookup in sockets.lookups {
        parts.start_lookup(lookup);
    }
    for dock in sockets.docks {
        parts.start_dock(dock);
    }
    Ok(Bound {
        addresses,
        readiness: parts.readiness,
        draining: parts.draining,
        limits: *config.limits(),
        not_ready: None,
        registry: parts.registry,
        feed,
        lookups: parts.lookups,
        services: parts.services,
        sessions: parts.sessions,
    })
}

/// What the tasks of a data plane share.
struct Parts {
    random: Random,
    tables: Tables,
    registry: Arc<Registry>,
    resolver: Resolver,
    dialers: Arc<Dialers>,
    backends: Backends,
    logins: Logins,
    breakers: Breakers,
    budget: Budget,
    metrics: Arc<Metrics>,
    lines: HashMap<ProtocolKind, Arc<dyn Line>>,
    /// What mail systems share, where there is a listener for them.
    posts: HashMap<DeliveryProtocol, Arc<Post>>,
    cookie_keys: CookieKeys,
    readiness: Readiness,
    draining: Draining,
    lookups: Shutdown,
    services: Shutdown,
    sessions: Shutdown,
}

impl Parts {
    fn new(
        config: &Config,
        random: Random,
        beside: Handle,
        own_listeners: &OwnListeners,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let limits = config.limits();
        let tables = Tables::new();
        // Logins wait for these.
        let lookups = Shutdown::new();
        let resolver = Resolver::new(System, lookups.clone());
        let dialers = Dialers::new(config.servers(), limits.backend, &resolver, own_listeners);
        Ok(Self {
            registry: Registry::new(tables.clone(), limits.hold, &random),
            tables,
            cookie_keys: CookieKeys::new(random.clone()),
            random,
            dialers: Arc::new(dialers.context("servers")?),
            resolver,
            backends: Backends::new(),
            logins: Logins::default(),
            breakers: Breakers::new(limits.breaker),
            budget: Budget::new(limits.connections.kept),
            metrics,
            lines: HashMap::new(),
            posts: HashMap::new(),
            readiness: Readiness::new(),
            draining: Draining::default(),
            lookups,
            services: Shutdown::on(beside),
            sessions: Shutdown::new(),
        })
    }

    fn start_prober(&self, config: &Config) -> Arc<Prober> {
        let settings = ProberSettings {
            group: config.group().to_owned(),
            protocols: spoken(config).into_iter().collect(),
            pass_throughs: config
                .pass_throughs()
                .iter()
                .map(|through| through.destination.clone())
                .collect(),
            pace: config.limits().probe,
            breakers: self.breakers.clone(),
        };
        let (backends, dialers) = (self.backends.clone(), Arc::clone(&self.dialers));
        for identity in dialers.identities() {
            let identity = identity.clone();
            self.services
                .spawn_background(async move { identity.keep_fresh().await });
        }
        let prober = Prober::new(settings, backends, dialers, self.random.clone());
        let prober = Arc::new(prober);
        let following = Arc::clone(&prober).run(self.tables.clone(), self.services.clone());
        self.services.spawn_background(following);
        prober
    }

    /// What every session needs.
    fn session_services(&self, config: &Config) -> anyhow::Result<Arc<Services>> {
        Ok(Arc::new(Services {
            metrics: Arc::clone(&self.metrics),
            tables: self.tables.clone(),
            registry: Arc::clone(&self.registry),
            dialers: Arc::clone(&self.dialers),
            logins: self.logins.clone(),
            breakers: self.breakers.clone(),
            group: config.group().to_owned(),
            limits: *config.limits(),
            budget: self.budget.clone(),
            tokens: self.tokens(config)?,
            rounds: Rounds::default(),
            guesses: Guesses::new(&config.limits().preauth, &self.random),
            random: self.random.clone(),
            redact: config.log().redact.clone(),
            stopping: self.sessions.stopping().clone(),
        }))
    }

    /// Begins with every protocol that has a listener.
    fn start_lines(&mut self, config: &Config, services: &Arc<Services>) {
        self.start_posts(config, services);
        for kind in protocols(config) {
            let line = line(kind, Arc::clone(services));
            let keeping = line.keep_fresh(self.backends.clone());
            self.services.spawn_background(keeping);
            self.lines.insert(kind, line);
        }
    }

    /// Begins with what mail systems are offered.
    fn start_posts(&mut self, config: &Config, services: &Arc<Services>) {
        for protocol in config.deliveries().iter().map(|it| it.protocol) {
            self.posts.entry(protocol).or_insert_with(|| {
                let offers = Offers::new();
                self.services.spawn_background(offers.clone().keep_fresh(
                    spoken_by(protocol).on_the_wire(),
                    config.group().to_owned(),
                    self.backends.clone(),
                    self.tables.clone(),
                ));
                Arc::new(Post {
                    protocol,
                    services: Arc::clone(services),
                    offers,
                    instance: config.instance().to_string(),
                })
            });
        }
    }

    /// Who tells whose bearer tokens are.
    fn tokens(&self, config: &Config) -> anyhow::Result<Arc<dyn TokenOwner>> {
        let Some(settings) = config.tokens() else {
            return Ok(Arc::new(NoTokens));
        };
        let means = Means {
            limits: config.limits().tokens,
            resolver: &self.resolver,
            metrics: &self.metrics,
            // Logins wait for these.
            tasks: &self.lookups,
        };
        Ok(Arc::new(Ways::new(settings, &means).context("tokens")?))
    }

    fn start_feed(
        &self,
        config: &Config,
        identity: Identity,
        state: StateDir,
        (prober, certificates): (Arc<Prober>, Certificates),
    ) -> FeedHandle {
        let (feed, handle) = Feed::new(FeedSetup {
            identity,
            connect: Arc::new(ControlPlaneConnector::new(
                config.control_plane(),
                self.resolver.clone(),
            )),
            state,
            tables: self.tables.clone(),
            registry: Arc::clone(&self.registry),
            readiness: self.readiness.clone(),
            cookie_keys: self.cookie_keys.clone(),
            health: Arc::new(self.backends.clone()),
            prober: Arc::new(prober),
            certificates,
            random: self.random.clone(),
            timing: FeedTiming::default(),
        });
        self.services.spawn_background(feed.run());
        handle
    }

    fn stats(&self, identity: Identity, feed: &FeedHandle, sockets: &Sockets) -> Stats {
        let lines = self.lines.iter();
        Stats {
            identity,
            started: Instant::now(),
            readiness: self.readiness.clone(),
            feed: feed.status(),
            backends: self.backends.clone(),
            logins: self.logins.clone(),
            breakers: self.breakers.clone(),
            budget: self.budget.clone(),
            tables: self.tables.clone(),
            metrics: Arc::clone(&self.metrics),
            registry: Arc::clone(&self.registry),
            lines: lines
                .map(|(kind, line)| (kind.as_str(), Arc::clone(line)))
                .collect(),
            posts: self
                .posts
                .iter()
                .map(|(protocol, post)| (protocol.word(), Arc::clone(post)))
                .collect(),
            listeners: sockets.shown(),
            docks: sockets.docks.iter().map(Into::into).collect(),
            draining: self.draining.clone(),
        }
    }

    fn start_lookup(&self, lookup: Lookup) {
        let next_hops = lookup.settings().next_hops.clone();
        let next_hops = NextHops::new(self.tables.clone(), next_hops, &self.metrics);
        if let Some(tls) = lookup.tls() {
            keep_fresh(tls.clone(), &self.services);
        }
        self.sessions
            .spawn(lookup.serve(Arc::new(next_hops), self.sessions.clone()));
    }

    fn start_dock(&self, dock: Dock) {
        let post = &self.posts[&dock.protocol()];
        if let Some(tls) = dock.tls() {
            keep_fresh(tls, &self.services);
        }
        self.sessions
            .spawn(dock.serve(Arc::clone(post), self.sessions.clone()));
    }

    fn start_listener(&self, listener: Listening) {
        let line = Arc::clone(&self.lines[&listener.protocol()]);
        keep_fresh(listener.tls(), &self.services);
        self.sessions
            .spawn(listener.serve(line, self.sessions.clone()));
    }

    fn start_web(&self, listening: WebListening, services: &Arc<Services>) {
        keep_fresh(listening.tls(), &self.services);
        let web = Arc::new(Web {
            services: Arc::clone(services),
            cookie_keys: self.cookie_keys.clone(),
        });
        self.sessions
            .spawn(listening.serve(web, self.sessions.clone()));
    }

    fn start_pass_through(&self, through: PassingThrough, services: &Arc<Services>) {
        let (services, backends) = (Arc::clone(services), self.backends.clone());
        self.sessions
            .spawn(through.serve(services, backends, self.sessions.clone()));
    }
}

impl Bound {
    /// Stops in order: see [`drain`](Self::drain) and [`end`](Self::end).
    pub async fn shut_down(mut self) -> Stopped {
        let stopped = self.drain().await;
        self.end().await;
        stopped
    }

    /// Lets go of everybody: no client is admitted any more, every session is closed and its backend's close
    /// waited for, and the registration is ended. The admin endpoint stays, and who asked there is told.
    pub async fn drain(&mut self) -> Stopped {
        self.not_ready = Some(self.readiness.block("stopping"));
        let dropped = self.close_sessions().await;
        let unconfirmed = self.registry.unconfirmed();
        let told = u32::try_from(unconfirmed).unwrap_or(u32::MAX);
        let goodbye = self.feed.goodbye(told, self.limits.shutdown.goodbye).await;
        if let Err(error @ (GoodbyeError::Ended | GoodbyeError::TimedOut)) = goodbye {
            tracing::warn!(%error, "no goodbye: moves wait until a successor registers or this one is expelled");
        }
        let stopped = Stopped {
            dropped,
            unconfirmed,
            goodbye,
        };
        self.draining.is_over(stopped.into());
        stopped
    }

    /// Returns how many had to be dropped.
    async fn close_sessions(&self) -> usize {
        // Who is not logged in hears of it through this, who is through the registry.
        self.sessions.stop();
        let begun = Instant::now();
        let (grace, relay) = (self.limits.shutdown.grace, self.limits.relay);
        // The last one to be told still has the time that a session may take to end.
        let pace = grace.saturating_sub(relay.drain + relay.close);
        let all_told = self.registry.close_paced(CloseReason::Stopping, pace);
        tokio::select! {
            // First, so that nobody is admitted any more.
            biased;
            () = all_told => {}
            // Whoever is left was never registered.
            () = self.registry.empty() => {}
        }
        self.sessions
            .wait(grace.saturating_sub(begun.elapsed()))
            .await
    }

    /// Ends what is left of one that is drained.
    pub async fn end(self) {
        let limit = self.limits.shutdown.goodbye;
        tokio::join!(self.services.wait(limit), self.lookups.wait(limit));
    }
}

impl From<Stopped> for Drained {
    fn from(stopped: Stopped) -> Self {
        Self {
            dropped: stopped.dropped,
            unconfirmed: stopped.unconfirmed,
            goodbye: match stopped.goodbye {
                Ok(()) => "accepted".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }
}

/// Every socket of the data plane.
struct Sockets {
    listeners: Vec<Listening>,
    pass_throughs: Vec<PassingThrough>,
    web: Vec<WebListening>,
    lookups: Vec<Lookup>,
    docks: Vec<Dock>,
    admin: AdminSockets,
}

struct AdminSockets {
    tls: ServerTls,
    full: TcpListener,
    health: Option<TcpListener>,
    addresses: (SocketAddr, Option<SocketAddr>),
}

impl Sockets {
    /// Binds all of them, or says of each that fails why.
    fn bind(config: &Config, beside: &Handle) -> anyhow::Result<Self> {
        let permits = Permits::new(config.limits().connections, config.known_networks());
        let mut failures = Vec::new();
        let mut listeners = Vec::new();
        for listener in config.listeners() {
            match Listening::bind(listener.clone(), permits.clone()) {
                Ok(listening) => listeners.push(listening),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let mut pass_throughs = Vec::new();
        for through in config.pass_throughs() {
            match PassingThrough::bind(through.clone(), permits.clone()) {
                Ok(through) => pass_throughs.push(through),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let mut web = Vec::new();
        for listener in config.web() {
            match WebListening::bind(listener.clone(), permits.clone()) {
                Ok(listening) => web.push(listening),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let mut lookups = Vec::new();
        for settings in config.lookups() {
            match Lookup::bind(settings.clone()) {
                Ok(lookup) => lookups.push(lookup),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let mut docks = Vec::new();
        for delivery in config.deliveries() {
            match Dock::bind(delivery.clone(), permits.clone()) {
                Ok(dock) => docks.push(dock),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let admin = {
            let _entered = beside.enter();
            AdminSockets::bind(config.admin())
        };
        failures.extend(admin.as_ref().err().map(|error| format!("{error:#}")));
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(Self {
            listeners,
            pass_throughs,
            web,
            lookups,
            docks,
            admin: admin?,
        })
    }

    fn addresses(&self) -> Addresses {
        let bound = |door: &Door| (door.name().to_owned(), door.address());
        let lookups = self.lookups.iter();
        Addresses {
            listeners: self.doors().map(bound).collect(),
            lookups: lookups
                .map(|lookup| (lookup.name().to_owned(), lookup.bound().clone()))
                .collect(),
            deliveries: self
                .docks
                .iter()
                .filter_map(|dock| Some((dock.name().to_owned(), dock.address()?)))
                .collect(),
            admin: self.admin.addresses.0,
            health: self.admin.addresses.1,
        }
    }

    /// Everything that is connected to but the admin endpoint.
    fn doors(&self) -> impl Iterator<Item = &Door> {
        let listeners = self.listeners.iter().map(Listening::door);
        let web = self.web.iter().map(WebListening::door);
        let listeners = listeners.chain(web);
        listeners.chain(self.pass_throughs.iter().map(PassingThrough::door))
    }

    /// What each of them shows to those who connect.
    fn certificates(&self) -> Certificates {
        let named = |name: &str, tls: ServerTls| (name.to_owned(), tls);
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|it| named(it.door().name(), it.tls()));
        let web = self.web.iter().map(|it| named(it.door().name(), it.tls()));
        let docks = self.docks.iter();
        let docks = docks.filter_map(|it| Some(named(it.name(), it.tls()?)));
        let lookups = self.lookups.iter();
        let lookups = lookups.filter_map(|it| Some(named(it.name(), it.tls()?.clone())));
        let admin = named("admin", self.admin.tls.clone());
        let all = listeners.chain(web).chain(docks).chain(lookups);
        Certificates::of(all.chain([admin]))
    }

    /// The same as `/stats` shows it.
    fn shown(&self) -> Vec<Listener> {
        let listeners = self.listeners.iter().map(Listener::from);
        let web = self.web.iter().map(Listener::from);
        let pass_throughs = self.pass_throughs.iter().map(Listener::from);
        listeners.chain(web).chain(pass_throughs).collect()
    }
}

impl AdminSockets {
    fn bind(admin: &Admin) -> anyhow::Result<Self> {
        let tls = ServerTls::new(std::slice::from_ref(&admin.certificate), Some(b"http/1.1"))
            .context("admin endpoint")?;
        let full = listen(admin.listen)?;
        let health = admin.health_listen.map(listen).transpose()?;
        let health_address = health.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok(Self {
            addresses: (full.local_addr()?, health_address),
            tls,
            full,
            health,
        })
    }

    fn serve(self, config: &Config, stats: Arc<Stats>, services: &Shutdown) {
        let admin = config.admin();
        let access = Access::new(admin.token_file.clone()).draining(admin.drain_token_file.clone());
        let source: Arc<dyn Source> = stats;
        let shutdown = config.limits().shutdown;
        let full = Server::full(Arc::clone(&source), access)
            .draining_within(shutdown.grace + shutdown.goodbye);
        let door = AdminDoor {
            listener: self.full,
            tls: Some(self.tls.clone()),
        };
        services.spawn(full.run(door, services.clone()));
        if let Some(listener) = self.health {
            let door = AdminDoor {
                listener,
                tls: None,
            };
            services.spawn(Server::health_only(source).run(door, services.clone()));
        }
        keep_fresh(self.tls, services);
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    net::listen(address)
        .map_err(|error| anyhow!("admin endpoint: cannot listen on {address}: {error}"))
}

fn keep_fresh(tls: ServerTls, services: &Shutdown) {
    services.spawn_background(async move { tls.keep_fresh().await });
}

/// What servers are asked in: all that is spoken at a listener.
fn spoken(config: &Config) -> HashSet<Spoken> {
    let deliveries = config.deliveries().iter().map(|it| spoken_by(it.protocol));
    let lines = protocols(config).into_iter().map(Spoken::Line);
    let web = (!config.web().is_empty()).then_some(Spoken::Http);
    lines.chain(deliveries).chain(web).collect()
}

/// What servers are asked in that mail systems deliver to by this.
const fn spoken_by(protocol: DeliveryProtocol) -> Spoken {
    match protocol {
        DeliveryProtocol::Lmtp => Spoken::Lmtp,
        DeliveryProtocol::Smtp => Spoken::Smtp,
    }
}

/// What the listeners speak.
fn protocols(config: &Config) -> HashSet<ProtocolKind> {
    config
        .listeners()
        .iter()
        .map(|listener| listener.protocol)
        .collect()
}
