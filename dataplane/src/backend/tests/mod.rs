//! Verdicts on scripted servers, and what is offered because of them.

mod server;

use std::time::Duration;

use ferrypost_proto::{Random, routing::v1::SnapshotChunk};
use ferrypost_wire::{ProtocolKind, imap::Imap};

use super::{
    health::{Prober, ProberSettings, visit},
    offer::Offers,
    *,
};
use crate::{
    config::{BackendLimits, ProbeLimits},
    net::{dial::Dialer, tls_client::ClientTls},
    routing::{Assembly, Tables},
    shutdown::Shutdown,
};
use server::{Server, Tls};

fn dialer() -> Arc<Dialer> {
    let limits = BackendLimits {
        connect: Duration::from_secs(2),
        handshake: Duration::from_secs(2),
        negotiate: Duration::from_millis(500),
        ..BackendLimits::default()
    };
    Arc::new(Dialer::new(ClientTls::new(), limits))
}

/// A routing configuration with these destinations, the first of them the default.
fn config(destinations: &[(&str, v1::Endpoint)]) -> v1::RoutingConfig {
    v1::RoutingConfig {
        schema: 1,
        destinations: destinations
            .iter()
            .map(|(id, endpoint)| v1::Destination {
                id: (*id).to_owned(),
                endpoints: vec![endpoint.clone()],
            })
            .collect(),
        default_destination: destinations[0].0.to_owned(),
        domains: Vec::new(),
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
            ..Default::default()
        }),
    }
}

fn publish(tables: &Tables, config: v1::RoutingConfig, accounts: &[(&str, &str)]) {
    let revision = tables
        .current()
        .map_or(1, |t| t.position().revision.store() + 1);
    let revision = ferrypost_proto::Revision::new(0, revision);
    let accounts = accounts.iter().enumerate().map(|(n, (name, home))| {
        ferrypost_proto::routing::v1::AccountEntry {
            account_id: format!("acct-{n:026}"),
            names: vec![(*name).to_owned()],
            home: (*home).to_owned(),
            phase: v1::Phase::Settled.into(),
            epoch: Some(revision.into()),
            ..Default::default()
        }
    });
    let chunk = SnapshotChunk {
        position: Some(
            ferrypost_proto::TablePosition {
                revision,
                head: ferrypost_proto::types::Head::default(),
            }
            .into(),
        ),
        index: 0,
        last: true,
        config: Some(config),
        accounts: accounts.collect(),
    };
    let assembly = Assembly::begin(chunk, None, &Random::seeded(1)).unwrap();
    tables.publish(Arc::new(assembly.finish(None).unwrap()));
}

fn endpoint(config: &v1::RoutingConfig) -> ferrypost_proto::Endpoint {
    let config = ferrypost_proto::RoutingConfig::try_from(config).unwrap();
    config
        .destination(config.default_destination())
        .unwrap()
        .endpoints()[0]
        .clone()
}

async fn visited(server: &Server) -> Report {
    visit::<Imap>(&dialer(), &endpoint(&config(&[("old", server.endpoint())]))).await
}

#[tokio::test]
async fn a_server_with_implicit_tls_is_reported_whole() {
    let server = Server::start(Tls::Implicit)
        .greeting("* OK ready when you are")
        .run();
    let report = visited(&server).await;
    assert_eq!(report.problem, None);
    assert_eq!(report.address, Some(server.address));
    assert_eq!(report.greeting, "ready when you are");
    assert!(report.capabilities.unwrap().has("AUTH=PLAIN"));
    let TlsVerdict::Verified { trust, version, .. } = report.tls else {
        panic!("{:?}", report.tls);
    };
    assert_eq!((trust, version), ("ca", "TLSv1.3"));
}

#[tokio::test]
async fn what_counts_is_what_is_offered_after_starttls() {
    let server = Server::start(Tls::StartTls).run();
    let report = visited(&server).await;
    assert_eq!(report.problem, None);
    let capabilities = report.capabilities.unwrap();
    assert!(capabilities.has("AUTH=PLAIN") && !capabilities.has("LOGINDISABLED"));
}

#[tokio::test]
async fn every_kind_of_trouble_has_its_word() {
    let gone = Server::start(Tls::Implicit).run();
    let mut refused = gone.endpoint();
    drop(gone);
    // Its listener is closed with its task, which the runtime drops some time later.
    refused.port = server::unused_port();
    let refusing = endpoint(&config(&[("old", refused)]));
    assert_eq!(
        visit::<Imap>(&dialer(), &refusing).await.problem,
        Some(Problem::Refused)
    );

    for (server, problem) in [
        (
            Server::start(Tls::Implicit).untrusted(),
            Problem::TlsUntrusted,
        ),
        (
            Server::start(Tls::Implicit).named("elsewhere.example.org"),
            Problem::TlsWrongName,
        ),
        (
            Server::start(Tls::Implicit).pinned(&"07".repeat(32)),
            Problem::TlsPinMismatch,
        ),
        (
            Server::start(Tls::StartTls).untrusted(),
            Problem::TlsUntrusted,
        ),
        (
            Server::start(Tls::StartTls).offering("IMAP4rev1 AUTH=PLAIN"),
            Problem::NoStartTls,
        ),
        (
            Server::start(Tls::Implicit).greeting("* PREAUTH welcome"),
            Problem::Preauthenticated,
        ),
        (
            Server::start(Tls::Implicit).greeting("* BYE not today"),
            Problem::Bye,
        ),
        (
            Server::start(Tls::Implicit).greeting("220 smtp here"),
            Problem::BadGreeting,
        ),
        (Server::start(Tls::Implicit).greeting(""), Problem::Timeout),
        (
            Server::start(Tls::Implicit).offering("IMAP4rev1 LOGINDISABLED"),
            Problem::NoLogin,
        ),
    ] {
        let report = visited(&server.run()).await;
        assert_eq!(report.problem, Some(problem), "{report:?}");
        if matches!(
            problem,
            Problem::TlsUntrusted | Problem::TlsWrongName | Problem::TlsPinMismatch
        ) {
            assert_eq!(report.tls, TlsVerdict::Refused);
        }
    }
}

#[tokio::test]
async fn a_server_whose_compression_is_withheld_is_reachable_and_it_is_said() {
    let offering = "IMAP4rev1 AUTH=PLAIN UNAUTHENTICATE COMPRESS=DEFLATE";
    let report = visited(&Server::start(Tls::Implicit).offering(offering).run()).await;
    assert_eq!(report.problem, None);
    assert_eq!(report.caution, Some(Caution::CompressionWithheld));
}

#[tokio::test]
async fn behind_a_proxy_header_the_probe_announces_nobody() {
    let server = Server::start(Tls::Implicit).expecting_proxy().run();
    assert_eq!(visited(&server).await.problem, None);
    let header = server.proxy_header().await;
    // Version 2, command LOCAL (the PROXY protocol's specification, §2.2).
    assert_eq!(header[12], 0x20, "{header:?}");
}

/// A prober and its offers, following `tables`.
struct Following {
    prober: Arc<Prober>,
    backends: Backends,
    offers: Offers,
    tables: Tables,
    shutdown: Shutdown,
}

fn following() -> Following {
    let backends = Backends::new();
    let tables = Tables::new();
    let shutdown = Shutdown::new();
    let settings = ProberSettings {
        group: String::new(),
        protocols: vec![ProtocolKind::Imap],
        pace: ProbeLimits {
            interval: Duration::from_millis(50),
            retry: Duration::from_millis(50),
        },
    };
    let prober = Prober::new(settings, backends.clone(), dialer(), Random::seeded(1));
    let prober = Arc::new(prober);
    shutdown.spawn_background(Arc::clone(&prober).run(tables.clone(), shutdown.clone()));
    let offers = Offers::new(ProtocolKind::Imap);
    let (known, followed) = (backends.clone(), tables.clone());
    let keeping = offers.clone().keep_fresh(String::new(), known, followed);
    shutdown.spawn_background(keeping);
    Following {
        prober,
        backends,
        offers,
        tables,
        shutdown,
    }
}

impl Following {
    /// Waits until the offer is as wanted.
    async fn offered(&self, wanted: impl Fn(&Capabilities) -> bool) {
        let mut offers = self.offers.watch();
        let fits = offers.wait_for(|offer| wanted(offer.capabilities()));
        let outcome = tokio::time::timeout(Duration::from_secs(10), fits).await;
        let offered = self.offers.current().capabilities().to_string();
        assert!(outcome.is_ok(), "the offer is still {offered}");
    }
}

#[tokio::test]
async fn a_destination_added_at_run_time_that_lacks_something_shrinks_the_offer() {
    let old = Server::start(Tls::Implicit)
        .offering("IMAP4rev1 IDLE MOVE AUTH=PLAIN")
        .run();
    let new = Server::start(Tls::StartTls).run_offering("IMAP4rev1 IDLE AUTH=PLAIN");
    let following = following();
    publish(&following.tables, config(&[("old", old.endpoint())]), &[]);
    following
        .offered(|offer| offer.has("MOVE") && offer.has("IDLE"))
        .await;
    publish(
        &following.tables,
        config(&[("old", old.endpoint()), ("new", new.endpoint())]),
        &[],
    );
    following
        .offered(|offer| !offer.has("MOVE") && offer.has("IDLE"))
        .await;
    publish(&following.tables, config(&[("old", old.endpoint())]), &[]);
    following.offered(|offer| offer.has("MOVE")).await;
}

#[tokio::test]
async fn a_destination_that_was_never_reached_counts_once_somebody_lives_there() {
    let old = Server::start(Tls::Implicit)
        .offering("IMAP4rev1 IDLE AUTH=PLAIN")
        .run();
    let mut dead = old.endpoint();
    dead.port = server::unused_port();
    let both = config(&[("old", old.endpoint()), ("dead", dead)]);
    let following = following();
    publish(&following.tables, both.clone(), &[]);
    following.offered(|offer| offer.has("IDLE")).await;
    let known = target("dead");
    let mut changes = following.backends.watch();
    while following.backends.verdict(&known).is_none() {
        changes.changed().await.unwrap();
    }
    following.offered(|offer| offer.has("IDLE")).await;
    let mut listed = both;
    listed.names = Some(v1::NamePolicy {
        bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
        ..Default::default()
    });
    publish(&following.tables, listed, &[("alice", "dead")]);
    following
        .offered(|offer| !offer.has("IDLE") && offer.has("AUTH=PLAIN"))
        .await;
}

#[tokio::test]
async fn a_list_in_the_routing_configuration_overrides_the_probe() {
    let old = Server::start(Tls::Implicit)
        .offering("IMAP4rev1 IDLE MOVE AUTH=PLAIN")
        .run();
    let mut overridden = old.endpoint();
    overridden.capabilities = vec!["IMAP4rev1".to_owned(), "IDLE".to_owned()];
    let following = following();
    publish(&following.tables, config(&[("old", overridden)]), &[]);
    following
        .offered(|offer| offer.has("IDLE") && !offer.has("MOVE"))
        .await;
}

#[tokio::test]
async fn a_server_that_goes_down_is_noticed_and_keeps_its_part_of_the_offer() {
    let old = Server::start(Tls::Implicit)
        .offering("IMAP4rev1 IDLE AUTH=PLAIN")
        .run();
    let endpoint = old.endpoint();
    let following = following();
    publish(&following.tables, config(&[("old", endpoint)]), &[]);
    following.offered(|offer| offer.has("IDLE")).await;
    old.stop().await;
    let told = following
        .prober
        .probe(Some(&target("old").destination))
        .await;
    assert_eq!(told.len(), 1);
    assert!(!told[0].reachable, "{told:?}");
    following.offered(|offer| offer.has("IDLE")).await;
}

#[tokio::test]
async fn a_destination_without_the_listeners_protocol_is_told_as_a_problem() {
    let old = Server::start(Tls::Implicit).run();
    let mut elsewhere = old.endpoint();
    elsewhere.when = Some(v1::Condition {
        group: "source".to_owned(),
    });
    let following = following();
    let document = config(&[("old", old.endpoint()), ("new", elsewhere)]);
    publish(&following.tables, document, &[]);
    let mut changes = following.backends.watch();
    while following.backends.verdict(&target("new")).is_none() {
        changes.changed().await.unwrap();
    }
    let verdict = following.backends.verdict(&target("new")).unwrap();
    assert_eq!(verdict.word(), "no_endpoint");
    assert_eq!(following.shutdown.wait(Duration::from_secs(10)).await, 0);
}

pub(super) fn target(destination: &str) -> Target {
    Target {
        destination: DestinationId::parse(destination).unwrap(),
        protocol: v1::Protocol::Imap,
    }
}

fn report(capabilities: &str, problem: Option<Problem>) -> Report {
    Report {
        endpoint: "mail.example.org:993".to_owned(),
        address: None,
        tls: TlsVerdict::Unknown,
        greeting: String::new(),
        capabilities: problem
            .is_none()
            .then(|| Capabilities::parse(capabilities.as_bytes())),
        problem,
        caution: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_goes_down_keeps_its_list_and_last_success() {
    let backends = Backends::new();
    backends.retarget([target("old")]);
    backends.record(&target("old"), report("IMAP4rev1 IDLE", None));
    let up = Instant::now();
    tokio::time::advance(Duration::from_secs(5)).await;
    backends.record(&target("old"), report("", Some(Problem::Refused)));
    let verdict = backends.verdict(&target("old")).unwrap();
    assert!(!verdict.reachable());
    assert_eq!(verdict.word(), "refused");
    assert_eq!(verdict.last_success, Some(up));
    assert!(verdict.capabilities.unwrap().has("IDLE"));
    assert_eq!(backends.endpoints()[0].problem, "refused");
}

#[test]
fn only_news_wakes_those_who_follow() {
    let backends = Backends::new();
    backends.retarget([target("old")]);
    let mut watch = backends.watch();
    watch.mark_unchanged();
    backends.record(&target("old"), report("IMAP4rev1", None));
    assert!(watch.has_changed().unwrap());
    watch.mark_unchanged();
    backends.record(&target("old"), report("imap4REV1", None));
    assert!(!watch.has_changed().unwrap());
    backends.record(&target("old"), report("", Some(Problem::Timeout)));
    assert!(watch.has_changed().unwrap());
}

#[test]
fn a_removed_destination_is_forgotten_and_one_that_was_not_asked_is_not_reported() {
    let backends = Backends::new();
    backends.retarget([target("old"), target("new")]);
    backends.record(&target("old"), report("IMAP4rev1", None));
    assert_eq!(backends.endpoints().len(), 1);
    backends.retarget([target("new")]);
    backends.record(&target("old"), report("IMAP4rev1", None));
    assert_eq!(backends.all().keys().collect::<Vec<_>>(), [&target("new")]);
    assert!(backends.endpoints().is_empty());
}
