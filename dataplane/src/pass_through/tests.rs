//! Connections passed through a data plane without its control plane, to servers by hand.

use std::{net::SocketAddr, sync::Mutex};

use ferrypost_proto::{
    Revision, TablePosition,
    routing::v1::SnapshotChunk,
    v1::{self, endpoint_tls::Mode},
};
use ferrypost_routing::Assembly;
use ferrypost_runtime::Random;
use ferrypost_wire::{ClientFacts, HopLimit, Introduction, SessionReference};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};

use super::*;
use crate::{
    backend::{
        Problem, Target,
        health::{Prober, ProberSettings},
    },
    limits::{ConnectionLimits, Limits},
    metrics::RELAY_IO,
    net::{
        self, TcpListener, TcpStream,
        dial::Dialer,
        proxy::{self, Announced, Ends, Told},
        resolver::{Resolver, System},
        source::{OwnListeners, Sources},
        tls_client::ClientTls,
    },
    session::tests::{eventually, world::services},
    tables::Tables,
};

/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mail server that answers EHLO and QUIT and gives everything else back as it came.
struct Server {
    address: SocketAddr,
    /// Who was announced last.
    told: Arc<Mutex<Option<Ends>>>,
}

impl Server {
    /// One that reads a PROXY header, and offers this to everybody.
    fn start(offers: &'static str) -> Self {
        let (listener, address) = listening();
        let told = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&told);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = net::accept(&listener).await.unwrap();
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    if let Ok(Told::Client(ends)) = proxy::receive(&mut stream).await {
                        *noted.lock().unwrap() = Some(ends);
                    }
                    serve(stream, offers, <[u8]>::to_vec).await;
                });
            }
        });
        Self { address, told }
    }

    /// One that knows of no header, and has no words for what it does not understand but that.
    fn without_header() -> SocketAddr {
        let (listener, address) = listening();
        tokio::spawn(async move {
            loop {
                let (stream, _) = net::accept(&listener).await.unwrap();
                let unknown = |_: &[u8]| b"500 5.5.2 Error: bad syntax\r\n".to_vec();
                tokio::spawn(serve(stream, "PIPELINING", unknown));
            }
        });
        address
    }
}

fn listening() -> (TcpListener, SocketAddr) {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Whoever is served may be gone at any time.
async fn serve(stream: TcpStream, offers: &str, otherwise: fn(&[u8]) -> Vec<u8>) {
    let mut stream = BufReader::new(stream);
    _ = stream.write_all(b"220 mx.example.org ESMTP\r\n").await;
    let mut line = Vec::new();
    while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
        let answer = match line.get(..4) {
            Some(b"EHLO") => format!("250-mx.example.org\r\n250 {offers}\r\n").into_bytes(),
            Some(b"QUIT") => b"221 2.0.0 Bye\r\n".to_vec(),
            _ => otherwise(&line),
        };
        _ = stream.write_all(&answer).await;
        if line.starts_with(b"QUIT") {
            return;
        }
        line.clear();
    }
    _ = stream.write_all(b"behind the end").await;
}

struct World {
    address: SocketAddr,
    services: Arc<Services>,
    tables: Tables,
    backends: Backends,
    shutdown: Shutdown,
    config: v1::RoutingConfig,
}

/// What a test can choose.
struct Plan {
    /// Where the destination's server is; `None`: at our own listener.
    server: Option<SocketAddr>,
    announcement: v1::Announcement,
    tls: v1::EndpointTls,
    limits: Limits,
    trusted: Vec<crate::network::Network>,
    connections: Option<usize>,
    /// Whether there is a table from the beginning.
    table: bool,
}

impl Plan {
    fn to(server: SocketAddr) -> Self {
        Self {
            server: Some(server),
            announcement: v1::Announcement::ProxyV2,
            tls: v1::EndpointTls {
                mode: Mode::None.into(),
                plaintext_consent: true,
                ..Default::default()
            },
            limits: Limits::default(),
            trusted: Vec::new(),
            connections: None,
            table: true,
        }
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let (tables, shutdown) = (Tables::new(), Shutdown::new());
        let config = PassThrough {
            name: "mx".to_owned(),
            address: "127.0.0.1:0".parse().unwrap(),
            destination: DestinationId::parse("new").unwrap(),
            proxy_protocol_from: plan.trusted,
            connections: plan.connections,
        };
        let permits = Permits::new(plan.limits.connections, &[]);
        let through = PassingThrough::bind(config, permits).unwrap();
        let address = through.door().address();
        let resolver = Resolver::new(System, shutdown.clone());
        let dialer = Dialer::new(ClientTls::new(), plan.limits.backend, resolver)
            .between(Sources::default(), OwnListeners::new([address]));
        let services = Arc::new(services(&tables, &plan.limits, dialer, &shutdown));
        let backends = Backends::new();
        let serving = through.serve(Arc::clone(&services), backends.clone(), shutdown.clone());
        tokio::spawn(serving);
        let endpoint = v1::Endpoint {
            protocol: v1::Protocol::Smtp.into(),
            host: "127.0.0.1".to_owned(),
            port: plan.server.unwrap_or(address).port().into(),
            tls: Some(plan.tls),
            announcement: plan.announcement.into(),
            ..Default::default()
        };
        let world = Self {
            address,
            services,
            tables,
            backends,
            shutdown,
            config: routing(&["old", "new"], &endpoint),
        };
        if plan.table {
            world.publish(&world.config);
        }
        world
    }

    fn publish(&self, config: &v1::RoutingConfig) {
        let chunk = SnapshotChunk {
            position: Some(
                TablePosition {
                    revision: Revision::new(0, 1),
                    ..TablePosition::default()
                }
                .into(),
            ),
            index: 0,
            last: true,
            config: Some(config.clone()),
            accounts: Vec::new(),
            comparison: false,
        };
        let assembly = Assembly::begin(chunk, None, &Random::seeded(1)).unwrap();
        let table = assembly.finish(None).unwrap();
        self.tables.publish(Arc::new(table));
        self.services.registry.sweep();
    }

    /// The destination is not there any more.
    fn remove_destination(&self) {
        let mut config = self.config.clone();
        config.destinations.retain(|it| it.id != "new");
        self.publish(&config);
    }

    async fn connect(&self) -> Client {
        Client::new(net::connect(self.address).await.unwrap())
    }

    /// What somebody is greeted with who connects now.
    async fn greeting(&self) -> String {
        self.connect().await.line().await
    }

    /// Waits for what a probe finds.
    async fn probed(&self) -> Option<Problem> {
        let target = Target {
            destination: DestinationId::parse("new").unwrap(),
            protocol: v1::Protocol::Smtp,
        };
        let settings = ProberSettings {
            group: String::new(),
            protocols: Vec::new(),
            pass_throughs: [target.destination.clone()].into(),
            pace: self.services.limits.probe,
            breakers: self.services.breakers.clone(),
        };
        let (backends, random) = (self.backends.clone(), self.services.random.clone());
        let dialers = Arc::clone(&self.services.dialers);
        let prober = Arc::new(Prober::new(settings, backends, dialers, random));
        self.shutdown
            .spawn_background(prober.run(self.tables.clone(), self.shutdown.clone()));
        let known = || self.backends.verdict(&target);
        eventually("the server was asked", || known().is_some()).await;
        known().unwrap().report.problem
    }

    async fn sessions_are(&self, count: usize) {
        let registry = &self.services.registry;
        eventually("so many are there", || registry.counts().sessions == count).await;
    }
}

/// Destinations that are all reached in this way.
fn routing(destinations: &[&str], endpoint: &v1::Endpoint) -> v1::RoutingConfig {
    let destination = |id: &&str| v1::Destination {
        id: (*id).to_owned(),
        endpoints: vec![endpoint.clone()],
        ..Default::default()
    };
    v1::RoutingConfig {
        schema: 1,
        destinations: destinations.iter().map(destination).collect(),
        default_destination: "old".to_owned(),
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
            ..Default::default()
        }),
        ..Default::default()
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }

    async fn say(&mut self, octets: &[u8]) {
        self.0.write_all(octets).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line)).await;
        read.unwrap().unwrap();
        line
    }

    /// Everything up to the end, which may be a cut.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        _ = timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .unwrap();
        rest
    }

    async fn ask(&mut self, line: &str) -> String {
        self.say(line.as_bytes()).await;
        self.line().await
    }
}

#[tokio::test]
async fn every_octet_goes_both_ways_behind_a_header_that_says_whose_it_is() {
    let server = Server::start("PIPELINING");
    let world = World::new(Plan::to(server.address));
    let mut client = world.connect().await;
    assert_eq!(client.line().await, "220 mx.example.org ESMTP\r\n");
    let ends = server.told.lock().unwrap().unwrap();
    assert_eq!((ends.peer, ends.local), (client.address(), world.address));
    let mut whatever: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    whatever.push(b'\n');
    client.say(&whatever).await;
    let mut back = vec![0; whatever.len()];
    let read = timeout(PATIENCE, client.0.read_exact(&mut back)).await;
    read.unwrap().unwrap();
    assert!(back == whatever);
    // Its end goes on too, and what is said behind it comes.
    client.0.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"behind the end");
    world.sessions_are(0).await;
    let counted = |direction| {
        let metrics = &world.services.metrics;
        metrics.counter(&RELAY_IO, &["smtp", direction]).value()
    };
    assert_eq!(counted("up"), whatever.len() as u64);
    assert_eq!(counted("down"), 26 + whatever.len() as u64 + 14);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_greeting_to_come_again() {
    let (listener, address) = listening();
    drop(listener);
    let world = World::new(Plan::to(address));
    let mut client = world.connect().await;
    let greeting = client.line().await;
    assert!(greeting.starts_with("421 4.3.0 "), "{greeting}");
    assert!(client.rest().await.is_empty());
    world.sessions_are(0).await;
}

#[tokio::test]
async fn nobody_is_passed_to_a_server_that_would_take_our_address_for_everybody_s() {
    let server = Server::start("PIPELINING");
    let world = World::new(Plan {
        announcement: v1::Announcement::None,
        ..Plan::to(server.address)
    });
    assert_eq!(world.probed().await, Some(Problem::UnfitEndpoint));
    let greeting = world.greeting().await;
    assert!(greeting.starts_with("421 4.3.5 "), "{greeting}");
    assert_eq!(
        *server.told.lock().unwrap(),
        None,
        "it was not even reached"
    );
}

#[tokio::test]
async fn nobody_is_passed_to_a_server_whose_tls_would_begin_without_him() {
    let server = Server::start("PIPELINING");
    let world = World::new(Plan {
        tls: v1::EndpointTls {
            mode: Mode::Implicit.into(),
            ..Default::default()
        },
        ..Plan::to(server.address)
    });
    assert_eq!(world.probed().await, Some(Problem::UnfitEndpoint));
    let greeting = world.greeting().await;
    assert!(greeting.starts_with("421 4.3.5 "), "{greeting}");
}

#[tokio::test]
async fn nobody_is_passed_to_a_server_that_is_seen_to_believe_strangers() {
    for offers in ["XCLIENT NAME ADDR", "xforward NAME ADDR"] {
        let server = Server::start(offers);
        let world = World::new(Plan::to(server.address));
        assert!(
            world.greeting().await.starts_with("220 "),
            "nobody has looked yet"
        );
        assert_eq!(world.probed().await, Some(Problem::BelievesStrangers));
        let stranger = server.told.lock().unwrap().unwrap();
        assert_eq!(stranger.peer.to_string(), "192.0.2.1:25");
        let greeting = world.greeting().await;
        assert!(greeting.starts_with("421 4.3.5 "), "{greeting}");
    }
}

#[tokio::test]
async fn a_probe_finds_nothing_wrong_with_a_server_that_believes_nobody() {
    let world = World::new(Plan::to(Server::start("PIPELINING").address));
    assert_eq!(world.probed().await, None);
}

#[tokio::test]
async fn a_server_that_takes_no_header_is_found_by_a_probe() {
    let world = World::new(Plan::to(Server::without_header()));
    assert_eq!(world.probed().await, Some(Problem::ProxyUnexpected));
}

#[tokio::test]
async fn mail_that_comes_before_the_first_table_waits_for_it() {
    let server = Server::start("PIPELINING");
    let world = World::new(Plan {
        table: false,
        ..Plan::to(server.address)
    });
    let mut client = world.connect().await;
    let counts = || world.services.registry.counts().sessions;
    assert_eq!(counts(), 0);
    world.publish(&world.config);
    assert!(client.line().await.starts_with("220 "));
    assert_eq!(counts(), 1);
}

#[tokio::test]
async fn without_a_table_nobody_is_passed_anywhere() {
    let server = Server::start("PIPELINING");
    let mut plan = Plan::to(server.address);
    plan.table = false;
    plan.limits.preauth.handshake = Duration::from_millis(50);
    let greeting = World::new(plan).greeting().await;
    assert!(greeting.starts_with("421 4.3.0 "), "{greeting}");
}

#[tokio::test]
async fn a_destination_that_is_gone_takes_its_connections_with_it_when_their_time_is_over() {
    let mut plan = Plan::to(Server::start("PIPELINING").address);
    plan.limits.relay.drain = Duration::from_millis(200);
    let world = World::new(plan);
    let mut client = world.connect().await;
    assert!(client.line().await.starts_with("220 "));
    world.remove_destination();
    // Nothing of ours is put into what may be under TLS.
    assert!(client.rest().await.is_empty());
    world.sessions_are(0).await;
    let greeting = world.greeting().await;
    assert!(greeting.starts_with("421 4.3.5 "), "{greeting}");
}

#[tokio::test]
async fn a_connection_that_is_to_end_goes_on_until_it_ends_by_itself() {
    let mut plan = Plan::to(Server::start("PIPELINING").address);
    plan.limits.relay.drain = PATIENCE;
    let world = World::new(plan);
    let mut client = world.connect().await;
    assert!(client.line().await.starts_with("220 "));
    world.remove_destination();
    assert_eq!(client.ask("a message\r\n").await, "a message\r\n");
    assert_eq!(client.ask("another\r\n").await, "another\r\n");
    assert_eq!(client.ask("QUIT\r\n").await, "221 2.0.0 Bye\r\n");
    assert!(client.rest().await.is_empty());
    world.sessions_are(0).await;
}

#[tokio::test]
async fn a_connection_in_which_nothing_is_said_is_closed() {
    let mut plan = Plan::to(Server::start("PIPELINING").address);
    plan.limits.pass_through.idle = Duration::from_millis(200);
    let world = World::new(plan);
    let mut client = world.connect().await;
    assert!(client.line().await.starts_with("220 "));
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn one_more_than_may_be_connected_is_told_to_come_again() {
    let mut plan = Plan::to(Server::start("PIPELINING").address);
    plan.connections = Some(2);
    plan.limits.connections = ConnectionLimits {
        per_address: 1,
        ..plan.limits.connections
    };
    let world = World::new(plan);
    let mut first = world.connect().await;
    assert!(first.line().await.starts_with("220 "));
    // By the limit of its address, and then by that of the listener.
    let mut second = world.connect().await;
    let greeting = second.line().await;
    assert!(greeting.starts_with("421 4.7.0 "), "{greeting}");
}

#[tokio::test]
async fn an_endpoint_that_is_our_own_listener_is_a_circle() {
    let world = World::new(Plan {
        server: None,
        ..Plan::to("127.0.0.1:1".parse().unwrap())
    });
    let greeting = world.greeting().await;
    assert!(greeting.starts_with("421 4.4.6 "), "{greeting}");
    assert_eq!(world.probed().await, Some(Problem::Loop));
}

/// A header as the data plane before us writes it.
fn header(client: &str, hops: HopLimit) -> Vec<u8> {
    let facts = ClientFacts {
        peer: client.parse().unwrap(),
        local: "198.51.100.1:25".parse().unwrap(),
        tls: None,
        session: SessionReference::new("before".to_owned()).unwrap(),
        hops,
        introduction: Introduction::default(),
    };
    let announced = Announced {
        client: &facts,
        alpn: None,
    };
    let tls = net::dial::tests::endpoint("mail.example.org", 25).tls;
    proxy::announce(announced, &tls)
}

#[tokio::test]
async fn a_balancer_that_is_trusted_says_whose_it_is_and_how_often_it_went_round() {
    let server = Server::start("PIPELINING");
    let world = World::new(Plan {
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::to(server.address)
    });
    let greeting = async |client: &str, hops| {
        let mut balancer = world.connect().await;
        balancer.say(&header(client, hops)).await;
        balancer.line().await
    };
    let first = greeting("[2001:db8::25]:4000", HopLimit::FIRST).await;
    assert!(first.starts_with("220 "));
    let ends = server.told.lock().unwrap().unwrap();
    assert_eq!(ends.peer, "[2001:db8::25]:4000".parse().unwrap());
    let last = greeting("192.0.2.25:4000", HopLimit::after(2).unwrap()).await;
    assert!(last.starts_with("421 4.4.6 "), "{last}");
}

#[tokio::test]
async fn a_server_that_fails_one_client_after_the_other_is_not_tried_by_the_next() {
    let (listener, address) = listening();
    drop(listener);
    let mut plan = Plan::to(address);
    plan.limits.breaker.clients = 2;
    plan.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let world = World::new(plan);
    for client in ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"] {
        let mut balancer = world.connect().await;
        balancer.say(&header(client, HopLimit::FIRST)).await;
        assert!(balancer.line().await.starts_with("421 4.3.0 "));
    }
    let target = Target {
        destination: DestinationId::parse("new").unwrap(),
        protocol: v1::Protocol::Smtp,
    };
    assert!(world.services.breakers.open_since(&target).is_some());
}
