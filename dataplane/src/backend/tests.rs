//! Verdicts on scripted servers, and what is offered because of them.

mod announcement;
mod web;

use std::{collections::BTreeSet, time::Duration};

use ferrypost_proto::{
    Endpoint, RoutingConfig,
    routing::v1::SnapshotChunk,
    v1::endpoint_tls::{Mode, Verification},
};
use ferrypost_routing::Assembly;
use ferrypost_runtime::{Random, shutdown::Shutdown};
use ferrypost_wire::{
    ProtocolKind,
    imap::{Capabilities, Imap},
};

use super::{
    breaker::Breakers,
    dialers::Dialers,
    health::{Prober, ProberSettings, Spoken, visit},
    offer::Offers,
    *,
};
use crate::{
    limits::{BackendLimits, BreakerLimits, ProbeLimits},
    net::{
        dial::Dialer,
        resolver::{Resolver, System},
        source::{OwnListeners, Sources},
        tls_client::{ClientIdentity, ClientTls},
    },
    session::tests::{
        backend::{Backend, Manners, Tls},
        client::PATIENCE,
        world::Authority,
    },
    tables::Tables,
    tokens::NoTokens,
};

fn dialer() -> Arc<Dialer> {
    let limits = BackendLimits {
        // Those that a test waits out are short, and yet above what a busy machine takes.
        connect: PATIENCE,
        handshake: Duration::from_secs(5),
        negotiate: Duration::from_secs(3),
        ..BackendLimits::default()
    };
    Arc::new(Dialer::new(
        ClientTls::new(),
        limits,
        Resolver::new(System, Shutdown::new()),
    ))
}

fn dialers() -> Arc<Dialers> {
    let resolver = Resolver::new(System, Shutdown::new());
    let own_listeners = OwnListeners::default();
    let dialers = Dialers::new(&[], BackendLimits::default(), &resolver, &own_listeners);
    Arc::new(dialers.unwrap())
}

/// A routing configuration with these destinations, the first of them the default.
fn config(destinations: &[(&str, v1::Endpoint)]) -> v1::RoutingConfig {
    v1::RoutingConfig {
        schema: 1,
        destinations: destinations
            .iter()
            .map(|(id, endpoint)| v1::Destination {
                id: (*id).to_owned(),
                without: Vec::new(),
                endpoints: vec![endpoint.clone()],
            })
            .collect(),
        default_destination: destinations[0].0.to_owned(),
        domains: Vec::new(),
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
            ..Default::default()
        }),
        ..v1::RoutingConfig::default()
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
        comparison: false,
    };
    let assembly = Assembly::begin(chunk, None, &Random::seeded(1)).unwrap();
    tables.publish(Arc::new(assembly.finish(None).unwrap()));
}

async fn visited(endpoint: v1::Endpoint) -> ProbeReport {
    visit::<Imap>(&dialer(), &valid(endpoint)).await
}

fn valid(endpoint: v1::Endpoint) -> Endpoint {
    let config = config(&[("old", endpoint)]);
    let config = RoutingConfig::try_from(&config).unwrap();
    let old = config.destination(config.default_destination()).unwrap();
    old.endpoints()[0].clone()
}

/// How a server is reached in a test.
#[derive(Clone, Copy)]
enum Way {
    Implicit,
    StartTls,
    InClear,
}

/// Starts a server and says how it is reached.
fn start(way: Way, manners: Manners) -> v1::Endpoint {
    started(way, manners).1
}

fn started(way: Way, manners: Manners) -> (Backend, v1::Endpoint) {
    let authority = Authority::new();
    let identity = authority.sign("localhost").server();
    let verification = Some(Verification::CaPem(authority.pem));
    let (tls, mode, verification) = match way {
        Way::Implicit => (Tls::Implicit(identity), Mode::Implicit, verification),
        Way::StartTls => (Tls::StartTls(identity), Mode::Starttls, verification),
        Way::InClear => (Tls::None, Mode::None, None),
    };
    let announcement = if manners.proxy {
        v1::Announcement::ProxyV2
    } else {
        v1::Announcement::None
    };
    let backend = Backend::start(Manners { tls, ..manners });
    let mut endpoint = endpoint_at(backend.address, mode, verification);
    endpoint.announcement = announcement.into();
    (backend, endpoint)
}

fn endpoint_at(
    address: SocketAddr,
    mode: Mode,
    verification: Option<Verification>,
) -> v1::Endpoint {
    v1::Endpoint {
        protocol: v1::Protocol::Imap.into(),
        host: address.ip().to_string(),
        port: address.port().into(),
        tls: Some(v1::EndpointTls {
            mode: mode.into(),
            server_name: verification.iter().map(|_| "localhost").collect(),
            plaintext_consent: verification.is_none(),
            verification,
            ..Default::default()
        }),
        announcement: v1::Announcement::None.into(),
        ..Default::default()
    }
}

fn offering(capabilities: &'static str) -> Manners {
    Manners {
        capabilities,
        ..Manners::default()
    }
}

fn greeting(line: &str) -> Manners {
    Manners {
        greeting: line.as_bytes().to_vec(),
        ..Manners::default()
    }
}

/// The same with another expectation of its certificate.
fn expecting(mut endpoint: v1::Endpoint, verification: Verification) -> v1::Endpoint {
    let tls = endpoint.tls.get_or_insert_default();
    tls.verification = Some(verification);
    endpoint
}

/// A port on which nobody listens: one that was given out a moment ago and is not given again soon.
fn unused_port() -> u32 {
    let listener = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    listener.local_addr().unwrap().port().into()
}

#[tokio::test]
async fn a_server_with_implicit_tls_is_reported_whole() {
    let greeting = greeting("* OK ready when you are\r\n");
    let (backend, endpoint) = started(Way::Implicit, greeting);
    let report = visited(endpoint).await;
    assert_eq!(report.problem, None);
    assert_eq!(report.address, Some(backend.address));
    assert_eq!(report.greeting, "ready when you are");
    assert!(
        report
            .capabilities
            .unwrap()
            .read::<Capabilities>()
            .has("AUTH=PLAIN")
    );
    let TlsVerdict::Verified {
        trust,
        version,
        certificate_end,
        ..
    } = report.tls
    else {
        panic!("{:?}", report.tls);
    };
    assert_eq!((trust, version), ("ca", "TLSv1.3"));
    // What rcgen writes where nobody says otherwise: the first of January 4096.
    assert_eq!(certificate_end, Some(67_090_118_400));
}

#[tokio::test]
async fn what_counts_is_what_is_offered_after_starttls() {
    let report = visited(start(Way::StartTls, Manners::default())).await;
    assert_eq!(report.problem, None);
    let capabilities: Capabilities = report.capabilities.unwrap().read();
    assert!(capabilities.has("AUTH=PLAIN") && !capabilities.has("LOGINDISABLED"));
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_told_apart_by_its_word() {
    let other = || Verification::CaPem(Authority::new().pem);
    let mut named = start(Way::Implicit, Manners::default());
    named.tls.as_mut().unwrap().server_name = "elsewhere.example.org".to_owned();
    let pin = Verification::PinSha256("07".repeat(32));
    for (endpoint, problem) in [
        (
            expecting(start(Way::Implicit, Manners::default()), other()),
            Problem::TlsUntrusted,
        ),
        (
            expecting(start(Way::StartTls, Manners::default()), other()),
            Problem::TlsUntrusted,
        ),
        (named, Problem::TlsWrongName),
        (
            expecting(start(Way::Implicit, Manners::default()), pin),
            Problem::TlsPinMismatch,
        ),
    ] {
        let report = visited(endpoint).await;
        assert_eq!(report.problem, Some(problem), "{report:?}");
        assert_eq!(report.tls, TlsVerdict::Refused);
    }
}

#[tokio::test]
async fn every_other_trouble_has_its_word_too() {
    let mut dead = start(Way::Implicit, Manners::default());
    dead.port = unused_port();
    let mut without_starttls = start(Way::Implicit, Manners::default());
    let in_clear = Backend::start(Manners::default());
    without_starttls.port = in_clear.address.port().into();
    without_starttls.tls.as_mut().unwrap().mode = Mode::Starttls.into();
    for (endpoint, problem) in [
        (dead, Problem::Refused),
        (without_starttls, Problem::NoStartTls),
        (
            start(Way::Implicit, greeting("* PREAUTH welcome\r\n")),
            Problem::Preauthenticated,
        ),
        (
            start(Way::Implicit, greeting("* BYE not today\r\n")),
            Problem::Bye,
        ),
        (
            start(Way::Implicit, greeting("220 smtp here\r\n")),
            Problem::BadGreeting,
        ),
        (start(Way::Implicit, greeting("")), Problem::Timeout),
        (
            start(Way::Implicit, offering("IMAP4rev1 LOGINDISABLED")),
            Problem::NoLogin,
        ),
    ] {
        let report = visited(endpoint).await;
        assert_eq!(report.problem, Some(problem), "{report:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_one_of_our_own_listeners_and_an_address_that_is_not_ours_have_words() {
    let (backend, endpoint) = started(Way::InClear, Manners::default());
    let endpoint = valid(endpoint);
    let dialer = |sources: &[std::net::IpAddr], own: &[SocketAddr]| {
        let resolver = Resolver::new(System, Shutdown::new());
        Dialer::new(ClientTls::new(), BackendLimits::default(), resolver).between(
            Sources::new(sources).unwrap(),
            OwnListeners::new(own.iter().copied()),
        )
    };
    let itself = visit::<Imap>(&dialer(&[], &[backend.address]), &endpoint).await;
    assert_eq!(itself.problem, Some(Problem::Loop));
    assert_eq!(itself.address, Some(backend.address));
    let foreign = dialer(&[[192, 0, 2, 77].into()], &[]);
    let foreign = visit::<Imap>(&foreign, &endpoint).await;
    assert_eq!(foreign.problem, Some(Problem::SourceAddress));
    assert_eq!(
        visit::<Imap>(&dialer(&[], &[]), &endpoint).await.problem,
        None
    );
}

#[tokio::test]
async fn a_server_that_wants_our_certificate_says_so_and_is_shown_what_the_files_hold_now() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mutual = authority.sign("localhost").server_for(&authority);
    let manners = Manners {
        tls: Tls::Implicit(mutual),
        ..Manners::default()
    };
    let backend = Backend::start(manners);
    let trusted = Some(Verification::CaPem(authority.pem.clone()));
    let endpoint = valid(endpoint_at(backend.address, Mode::Implicit, trusted));
    let visited = async |tls: ClientTls| {
        let resolver = Resolver::new(System, Shutdown::new());
        let dialer = Dialer::new(tls, BackendLimits::default(), resolver);
        visit::<Imap>(&dialer, &endpoint).await.problem
    };
    let refused = Some(Problem::ClientCertificate);
    assert_eq!(visited(ClientTls::new()).await, refused);
    let directory = tempfile::tempdir().unwrap();
    let files = other
        .sign("gateway.example.org")
        .write(directory.path(), "gateway");
    let identity = ClientIdentity::load(&files).unwrap();
    assert_eq!(visited(ClientTls::showing(identity.clone())).await, refused);
    let kept = identity.clone();
    tokio::spawn(async move { kept.keep_fresh().await });
    authority
        .sign("gateway.example.org")
        .write(directory.path(), "gateway");
    let limit = Instant::now() + Duration::from_secs(30);
    // Each visit is an answer of the server's, so that this does not spin.
    while visited(ClientTls::showing(identity.clone()))
        .await
        .is_some()
    {
        assert!(
            Instant::now() < limit,
            "the renewed certificate is not shown"
        );
    }
}

#[tokio::test]
async fn a_server_that_offers_compress_and_unauthenticate_is_reachable() {
    let both = offering("IMAP4rev1 AUTH=PLAIN UNAUTHENTICATE COMPRESS=DEFLATE");
    let report = visited(start(Way::Implicit, both)).await;
    assert_eq!(report.problem, None);
}

#[tokio::test]
async fn behind_a_proxy_header_the_probe_announces_nobody() {
    let manners = Manners {
        proxy: true,
        ..Manners::default()
    };
    let (backend, endpoint) = started(Way::InClear, manners);
    let report = visited(endpoint).await;
    assert_eq!((report.problem, report.tls), (None, TlsVerdict::Plaintext));
    assert_eq!(backend.seen.header().command, ppp::v2::Command::Local);
}

#[test]
fn every_word_has_its_remedy_in_the_documents() {
    let page = include_str!("../../../docs/probe.md");
    let source = include_str!("mod.rs").lines();
    let words: Vec<_> = source
        .filter_map(|line| line.split_once(" => \"")?.1.strip_suffix("\","))
        .collect();
    assert!(words.contains(&"refused") && words.contains(&"announcement_unread"));
    for word in words {
        assert!(page.contains(&format!("| `{word}` |")), "{word}");
    }
}

/// A prober and its offers, following `tables`.
struct Following {
    prober: Arc<Prober>,
    backends: Backends,
    breakers: Breakers,
    offers: Offers<Imap>,
    tables: Tables,
    shutdown: Shutdown,
}

impl Following {
    /// What is found at a destination by IMAP, as soon as anything is.
    async fn verdict(&self, destination: &str) -> TargetHealth {
        let mut changes = self.backends.watch();
        loop {
            if let Some(verdict) = self.backends.verdict(&target(destination)) {
                return verdict;
            }
            changes.changed().await.unwrap();
        }
    }
}

fn following() -> Following {
    let backends = Backends::new();
    let breakers = Breakers::new(BreakerLimits {
        clients: 1,
        ..BreakerLimits::default()
    });
    let tables = Tables::new();
    let shutdown = Shutdown::new();
    let settings = ProberSettings {
        group: String::new(),
        protocols: vec![Spoken::Line(ProtocolKind::Imap)],
        pass_throughs: BTreeSet::new(),
        pace: ProbeLimits {
            interval: Duration::from_millis(50),
            retry: Duration::from_millis(50),
        },
        breakers: breakers.clone(),
    };
    let prober = Prober::new(settings, backends.clone(), dialers(), Random::seeded(1));
    let prober = Arc::new(prober);
    shutdown.spawn_background(Arc::clone(&prober).run(tables.clone(), shutdown.clone()));
    let offers = Offers::<Imap>::new();
    let (known, followed) = (backends.clone(), tables.clone());
    let keeping = offers
        .clone()
        .keep_fresh(String::new(), known, followed, Arc::new(NoTokens));
    shutdown.spawn_background(keeping);
    Following {
        prober,
        backends,
        breakers,
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
        let outcome = tokio::time::timeout(PATIENCE, fits).await;
        let offered = self.offers.current().capabilities().to_string();
        assert!(outcome.is_ok(), "the offer is still {offered}");
    }
}

#[tokio::test]
async fn a_destination_added_at_run_time_that_lacks_something_shrinks_the_offer() {
    let old = start(Way::Implicit, offering("IMAP4rev1 IDLE MOVE AUTH=PLAIN"));
    let new = start(Way::StartTls, offering("IMAP4rev1 IDLE AUTH=PLAIN"));
    let following = following();
    publish(&following.tables, config(&[("old", old.clone())]), &[]);
    following
        .offered(|offer| offer.has("MOVE") && offer.has("IDLE"))
        .await;
    publish(
        &following.tables,
        config(&[("old", old.clone()), ("new", new.clone())]),
        &[],
    );
    following
        .offered(|offer| !offer.has("MOVE") && offer.has("IDLE"))
        .await;
    publish(&following.tables, config(&[("old", old.clone())]), &[]);
    following.offered(|offer| offer.has("MOVE")).await;
}

#[tokio::test]
async fn a_destination_that_was_never_reached_counts_once_somebody_lives_there() {
    let old = start(Way::Implicit, offering("IMAP4rev1 IDLE AUTH=PLAIN"));
    let mut dead = old.clone();
    dead.port = unused_port();
    let both = config(&[("old", old.clone()), ("dead", dead)]);
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
    let old = start(Way::Implicit, offering("IMAP4rev1 IDLE MOVE AUTH=PLAIN"));
    let mut overridden = old.clone();
    overridden.capabilities = vec!["IMAP4rev1".to_owned(), "IDLE".to_owned()];
    let following = following();
    publish(&following.tables, config(&[("old", overridden)]), &[]);
    following
        .offered(|offer| offer.has("IDLE") && !offer.has("MOVE"))
        .await;
}

/// Two that told each other what the other one tells would offer the least for ever, once both have begun with it.
#[tokio::test]
async fn another_data_plane_that_looks_is_told_of_the_servers_beside_us_alone() {
    let some = start(Way::Implicit, Manners::default());
    let with = |host: &str, capabilities: &str| v1::Endpoint {
        host: host.to_owned(),
        capabilities: capabilities.split(' ').map(str::to_owned).collect(),
        ..some.clone()
    };
    let offers = Offers::<Imap>::new();
    for (old, beside_us) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("localhost", true),
        ("old.example.org", false),
    ] {
        let tables = Tables::new();
        let config = config(&[
            ("old", with(old, "IMAP4rev1 IDLE MOVE")),
            ("new", with("new.example.org", "IMAP4rev1 IDLE")),
        ]);
        publish(&tables, config, &[]);
        let table = tables.current().unwrap();
        offers.renew("", &Backends::new(), &table, &NoTokens, false);
        let (to_clients, to_others) = (offers.current(), offers.beside_us());
        assert!(!to_clients.capabilities().has("MOVE"), "{old}");
        assert_eq!(to_others.capabilities().has("MOVE"), beside_us, "{old}");
        assert!(to_others.capabilities().has("IDLE"), "{old}");
    }
}

#[tokio::test]
async fn a_server_that_goes_down_is_noticed_and_keeps_its_part_of_the_offer() {
    let old = start(Way::Implicit, offering("IMAP4rev1 IDLE AUTH=PLAIN"));
    let following = following();
    publish(&following.tables, config(&[("old", old.clone())]), &[]);
    following.offered(|offer| offer.has("IDLE")).await;
    let down = v1::Endpoint {
        port: unused_port(),
        ..old
    };
    publish(&following.tables, config(&[("old", down)]), &[]);
    let mut changes = following.backends.watch();
    while following
        .backends
        .verdict(&target("old"))
        .unwrap()
        .reachable()
    {
        changes.changed().await.unwrap();
    }
    let told = following
        .prober
        .probe(Some(&target("old").destination))
        .await;
    assert_eq!(told.len(), 1);
    assert!(!told[0].reachable, "{told:?}");
    following.offered(|offer| offer.has("IDLE")).await;
}

#[tokio::test]
async fn a_server_that_a_probe_finds_well_and_logins_do_not_has_its_word() {
    let document = config(&[("old", start(Way::Implicit, Manners::default()))]);
    let endpoint = valid(document.destinations[0].endpoints[0].clone());
    let following = following();
    publish(&following.tables, document, &[]);
    let pass = || {
        let client = "192.0.2.1".parse().unwrap();
        following.breakers.pass(target("old"), &endpoint, client)
    };
    let told = || async { following.prober.probe(None).await.remove(0) };
    let mut changes = following.backends.watch();
    while following.backends.verdict(&target("old")).is_none() {
        changes.changed().await.unwrap();
    }
    let trial = pass().unwrap();
    pass().unwrap().failed();
    let of_open = told().await;
    assert!(of_open.reachable);
    assert_eq!(of_open.problem, "breaker_open");
    trial.answered();
    assert_eq!(told().await.problem, "");
}

#[tokio::test]
async fn a_listener_whose_protocol_leads_nowhere_is_told_as_a_problem() {
    let old = start(Way::Implicit, Manners::default());
    let following = following();
    let mut document = config(&[("old", old.clone()), ("new", old)]);
    for destination in &mut document.destinations {
        destination.endpoints[0].protocol = v1::Protocol::Pop3.into();
    }
    publish(&following.tables, document, &[]);
    let verdict = following.verdict("new").await;
    assert_eq!(verdict.word(), "no_endpoint");
    assert_eq!(following.shutdown.wait(PATIENCE).await, 0);
}

/// Nothing is in the way of a move to or from there, then.
#[tokio::test]
async fn what_a_destination_is_without_on_purpose_is_no_problem() {
    let old = start(Way::Implicit, Manners::default());
    let following = following();
    let mut document = config(&[("old", old.clone()), ("new", old)]);
    let (imap, pop3) = (v1::Protocol::Imap, v1::Protocol::Pop3);
    document.destinations[0].without = vec![pop3.into()];
    document.destinations[1].without = vec![imap.into()];
    document.destinations[1].endpoints[0].protocol = pop3.into();
    publish(&following.tables, document, &[]);
    let verdict = following.verdict("old").await;
    assert!(verdict.reachable(), "{}", verdict.word());
    let told = following.prober.probe(None).await;
    let told: Vec<_> = told.iter().map(|it| &*it.destination).collect();
    assert_eq!(told, ["old"]);
    assert_eq!(following.shutdown.wait(PATIENCE).await, 0);
}

pub(super) fn target(destination: &str) -> Target {
    Target {
        destination: DestinationId::parse(destination).unwrap(),
        protocol: v1::Protocol::Imap,
    }
}

fn offered(capabilities: &str) -> Offered {
    Offered::of(&Capabilities::parse(capabilities.as_bytes()))
}

fn report(capabilities: &str, problem: Option<Problem>) -> ProbeReport {
    ProbeReport {
        endpoint: "mail.example.org:993".to_owned(),
        address: None,
        tls: TlsVerdict::Unknown,
        greeting: String::new(),
        capabilities: problem.is_none().then(|| offered(capabilities)),
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
    assert!(
        verdict
            .capabilities
            .unwrap()
            .read::<Capabilities>()
            .has("IDLE")
    );
    assert_eq!(backends.endpoints()[0].problem, "refused");
}

#[tokio::test(start_paused = true)]
async fn a_list_grows_at_once_and_shrinks_only_after_a_second_look() {
    let backends = Backends::new();
    backends.retarget([target("old")]);
    let look = |list: &str| {
        let doubt = backends.record(&target("old"), report(list, None));
        let verdict = backends.verdict(&target("old")).unwrap();
        (verdict.capabilities.unwrap().to_string(), doubt)
    };
    let full = "IDLE AUTH=PLAIN";
    assert_eq!(look("IDLE"), ("IDLE".to_owned(), false));
    assert_eq!(look(full), (full.to_owned(), false));
    // One answer that lacks a word is an accident, and asks for another.
    assert_eq!(look("IDLE"), (full.to_owned(), true));
    assert_eq!(look(full), (full.to_owned(), false));
    // Neither does a failure in between count as a look.
    assert_eq!(look("IDLE"), (full.to_owned(), true));
    backends.record(&target("old"), report("", Some(Problem::Timeout)));
    let offered = || backends.verdict(&target("old")).unwrap().capabilities;
    assert!(offered().unwrap().has("AUTH=PLAIN"));
    assert_eq!(look("IDLE"), ("IDLE".to_owned(), false));
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

#[test]
fn the_contract_knows_every_protocol_that_is_spoken_here() {
    for kind in ProtocolKind::ALL {
        assert_eq!(on_the_wire(*kind).word(), kind.as_str());
    }
}
