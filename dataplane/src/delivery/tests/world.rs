//! Two servers, and the data plane's dock for mail systems in front of them. Alice and Carol are on `source`, Bob is on
//! `target`; the table is written by hand.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrypost_proto::{
    Phase,
    v1::{self, Protocol, endpoint_tls::Mode},
};
use ferrypost_routing::{RoutingTable, testing};
use ferrypost_runtime::{metrics::Metrics, shutdown::Shutdown, tls::CertificateFiles};

use super::server::{Manners, Server};
use crate::{
    config::{DeliveryListener, DeliveryProtocol},
    delivery::{Post, dock::Dock, offers::Offers},
    fence::{FenceReport, Fences},
    limits::Limits,
    listener::Permits,
    metrics::DELIVERIES,
    net::{
        dial::Dialer,
        local::Place,
        resolver::{Resolver, System},
        tls_client::ClientTls,
    },
    registry::{CloseReason, Registry},
    session::tests::{
        client::{Client, PATIENCE},
        world::services,
    },
    tables::Tables,
};

/// What a test can choose.
pub(super) struct Plan {
    pub(super) protocol: DeliveryProtocol,
    pub(super) source: Manners,
    pub(super) target: Manners,
    pub(super) limits: Limits,
    pub(super) place: Place,
    pub(super) from: Vec<crate::network::Network>,
    /// Mail systems at once.
    pub(super) connections: Option<usize>,
    /// What is shown to mail systems that want TLS; `None`: there is none.
    pub(super) certificate: Option<CertificateFiles>,
}

impl Default for Plan {
    fn default() -> Self {
        let mut limits = Limits::default();
        // Only where a server does not close is it waited for so long.
        limits.relay.close = Duration::from_secs(20);
        Self {
            protocol: DeliveryProtocol::Lmtp,
            source: Manners::default(),
            target: Manners::default(),
            limits,
            place: Place::Address("127.0.0.1:0".parse().unwrap()),
            from: vec!["127.0.0.0/8".parse().unwrap()],
            connections: None,
            certificate: None,
        }
    }
}

pub(super) struct World {
    pub(super) source: Server,
    pub(super) target: Server,
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) tables: Tables,
    pub(super) fences: Arc<Fences>,
    protocol: DeliveryProtocol,
    address: Option<SocketAddr>,
    revision: Mutex<u64>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Plan::default())
    }

    pub(super) fn with(plan: Plan) -> Self {
        let world = Self::without_table(plan);
        world.publish(world.config());
        world
    }

    /// One whose servers are nothing else than itself.
    pub(super) fn in_a_circle(plan: Plan) -> Self {
        let world = Self::without_table(plan);
        let port = world.address.unwrap().port();
        let mut config = world.config();
        let destinations = config.destinations.iter_mut();
        for endpoint in destinations.filter_map(|it| it.endpoints.last_mut()) {
            endpoint.port = port.into();
        }
        world.publish(config);
        world
    }

    pub(super) fn publish(&self, config: v1::RoutingConfig) {
        let accounts = vec![
            testing::entry(1, &["alice@a.example"], "source", 1),
            testing::entry(2, &["bob@a.example"], "target", 1),
            testing::entry(3, &["carol@a.example"], "source", 1),
        ];
        let mut chunk = testing::chunk(1, accounts);
        chunk.config = Some(config);
        let table = testing::snapshot_after(None, chunk).unwrap();
        self.tables.publish(Arc::new(table));
    }

    /// Before anything is known.
    pub(super) fn without_table(plan: Plan) -> Self {
        let tables = Tables::new();
        let shutdown = Shutdown::new();
        let resolver = Resolver::new(System, shutdown.clone());
        let dialer = Dialer::new(ClientTls::new(), plan.limits.backend, resolver);
        let services = services(&tables, &plan.limits, dialer, &shutdown);
        let (registry, metrics) = (
            Arc::clone(&services.registry),
            Arc::clone(&services.metrics),
        );
        let listener = DeliveryListener {
            name: "lmtp".to_owned(),
            protocol: plan.protocol,
            place: plan.place,
            from: plan.from,
            certificates: plan.certificate.into_iter().collect(),
            connections: plan.connections,
        };
        let dock = Dock::bind(listener, Permits::new(plan.limits.connections, &[])).unwrap();
        let address = dock.address();
        let post = Post {
            protocol: plan.protocol,
            services: Arc::new(services),
            offers: Offers::new(),
            instance: "dp-1".to_owned(),
        };
        shutdown.spawn(dock.serve(Arc::new(post), shutdown.clone()));
        Self {
            source: Server::start(plan.source),
            target: Server::start(plan.target),
            fences: Arc::new(Fences::new(Arc::clone(&registry))),
            registry,
            metrics,
            shutdown,
            tables,
            protocol: plan.protocol,
            address,
            revision: Mutex::new(1),
        }
    }

    pub(super) fn config(&self) -> v1::RoutingConfig {
        let mut config = testing::config();
        for destination in &mut config.destinations {
            let address = match &*destination.id {
                "source" | "third" => self.source.address,
                "target" => self.target.address,
                other => panic!("{other}"),
            };
            destination.endpoints.push(v1::Endpoint {
                protocol: match self.protocol {
                    DeliveryProtocol::Lmtp => Protocol::Lmtp,
                    DeliveryProtocol::Smtp => Protocol::Smtp,
                }
                .into(),
                host: address.ip().to_string(),
                port: address.port().into(),
                tls: Some(v1::EndpointTls {
                    mode: Mode::None.into(),
                    plaintext_consent: true,
                    ..Default::default()
                }),
                announcement: v1::Announcement::None.into(),
                ..Default::default()
            });
        }
        config
    }

    /// A mail system that has said hello.
    pub(super) async fn mail_system(&self) -> MailSystem {
        let mut client = Client::plain(self.address.unwrap()).await;
        let greeting = client.line().await;
        assert!(greeting.starts_with("220 "), "{greeting}");
        let hello = match self.protocol {
            DeliveryProtocol::Lmtp => "LHLO",
            DeliveryProtocol::Smtp => "EHLO",
        };
        client.send(format!("{hello} mx.example.org\r\n")).await;
        client.answer("250 ").await;
        MailSystem(client)
    }

    /// One that has only connected.
    pub(super) async fn stranger(&self) -> Client {
        Client::plain(self.address.unwrap()).await
    }

    /// Alice's account is fenced.
    pub(super) fn fence(&self) {
        self.change("source", Phase::Fencing);
    }

    /// Alice's account is on the target.
    pub(super) fn flip(&self) {
        self.change("target", Phase::Flipped);
    }

    fn change(&self, home: &str, phase: Phase) {
        let mut revision = self.revision.lock().unwrap();
        let (from, to) = (*revision, *revision + 1);
        *revision = to;
        let entry = testing::entry(1, &["alice@a.example"], home, to);
        let entry = testing::moving(entry, phase, None);
        let delta = testing::delta(from, to, vec![testing::put(entry)]);
        let applied = self.table().apply(delta).unwrap();
        self.tables.publish(Arc::new(applied.table));
        self.fences.settle(&self.table(), &applied.touched);
    }

    fn table(&self) -> Arc<RoutingTable> {
        self.tables.current().unwrap()
    }

    /// Alice's deliveries are ended by an operator.
    pub(super) fn kick(&self) {
        self.registry.kick(&[testing::name("alice@a.example")]);
    }

    /// The process begins to stop.
    pub(super) fn stop(&self) {
        self.shutdown.stop();
        self.registry.close_all(CloseReason::Stopping);
    }

    /// Deliveries that are registered.
    pub(super) fn deliveries(&self) -> usize {
        self.registry.counts().sessions
    }

    /// Waits until the fence of Alice's account is drained. Returns how many deliveries it closed, and how many of them
    /// nobody saw the end of.
    pub(super) async fn drained(&self) -> (u32, u32) {
        let drained = async {
            loop {
                if let FenceReport::Drained(drained) = self.fences.report().await {
                    return (drained.accounts[0].closed, drained.accounts[0].unconfirmed);
                }
            }
        };
        tokio::time::timeout(PATIENCE, drained)
            .await
            .expect("the fence drains")
    }

    /// How many deliveries ended so.
    pub(super) fn counted(&self, outcome: &str, blame: &str) -> u64 {
        let counter = self
            .metrics
            .counter(&DELIVERIES, &[self.protocol.word(), outcome, blame]);
        counter.value()
    }
}

/// A mail system by hand.
pub(super) struct MailSystem(pub(super) Client);

impl MailSystem {
    /// Begins a message for these. Returns what is said to each.
    pub(super) async fn begin(&mut self, recipients: &[&str]) -> Vec<String> {
        self.0.send("MAIL FROM:<from@elsewhere.example>\r\n").await;
        let sender = self.0.line().await;
        assert!(sender.starts_with("250 "), "{sender}");
        let mut answers = Vec::new();
        for recipient in recipients {
            answers.push(self.recipient(recipient).await);
        }
        answers
    }

    pub(super) async fn recipient(&mut self, recipient: &str) -> String {
        self.0.send(format!("RCPT TO:<{recipient}>\r\n")).await;
        code(&self.0.line().await)
    }

    /// Says DATA and returns the answer.
    pub(super) async fn data(&mut self) -> String {
        self.0.send("DATA\r\n").await;
        code(&self.0.line().await)
    }

    /// Sends the rest of a message and returns that many answers.
    pub(super) async fn finish(&mut self, text: &str, answers: usize) -> Vec<String> {
        self.0.send(format!("{text}.\r\n")).await;
        self.answers(answers).await
    }

    pub(super) async fn answers(&mut self, count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(code(&self.0.line().await));
        }
        answers
    }

    /// Sends a whole message. Returns what is said about each recipient that was accepted.
    pub(super) async fn deliver(&mut self, recipients: &[&str]) -> Vec<String> {
        let accepted = self.begin(recipients).await;
        let accepted = accepted.iter().filter(|it| it.starts_with("250"));
        let count = accepted.count();
        assert_eq!(self.data().await, "354");
        self.finish("Subject: hello\r\n\r\nHello.\r\n", count).await
    }
}

/// The code of an answer, and the enhanced one if it has one.
fn code(line: &str) -> String {
    let mut words = line.split(' ');
    let code = words.next().unwrap_or_default();
    let is_enhanced = |word: &&str| word.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    match words.next().filter(is_enhanced) {
        Some(enhanced) => format!("{code} {enhanced}"),
        None => code.to_owned(),
    }
}
