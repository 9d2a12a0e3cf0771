//! Whole data planes: a scripted control plane above, scripted servers behind, clients in front.

pub(crate) mod control_plane;

use std::{path::Path, time::Duration};

use ferrypost_proto::{
    routing::v1::{
        AccountEntry, Delta, Goodbye, GoodbyeAccepted, SnapshotChunk,
        stream_request::Message as Up, stream_response::Message as Down,
    },
    v1,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::*;
use crate::admin::order::{self, OrderError};
use crate::session::tests::{
    backend::{Backend, Manners},
    client::{Client, PATIENCE},
    eventually,
    world::Authority,
};
use control_plane::{ControlPlane, Conversation, welcome};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const DRAIN_TOKEN: &str = "fedcba9876543210fedcba9876543210";

/// A data plane's surroundings.
struct Surroundings {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Surroundings {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        std::fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
        authority.sign("localhost").write(directory.path(), "edge");
        std::fs::write(directory.path().join("token"), TOKEN).unwrap();
        std::fs::write(directory.path().join("drain"), DRAIN_TOKEN).unwrap();
        Self {
            directory,
            authority,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A configuration with one listener on any port.
    fn config(&self, control_plane: &str) -> Config {
        self.config_with(control_plane, "127.0.0.1:0")
    }

    fn config_with(&self, control_plane: &str, listener: &str) -> Config {
        let text = format!(
            r#"
            instance = "dp-1"
            state_directory = "state"
            [control_plane]
            {control_plane}
            [[listeners]]
            name = "imaps"
            protocol = "imap"
            address = "{listener}"
            tls = "implicit"
            certificates = [{{ cert_file = "edge.pem", key_file = "edge.key" }}]
            [admin]
            listen = "127.0.0.1:0"
            health_listen = "127.0.0.1:0"
            cert_file = "edge.pem"
            key_file = "edge.key"
            token_file = "token"
            drain_token_file = "drain"
            [limits.preauth]
            failure_floor = "1ms"
            handshake = "1m"
            [limits.shutdown]
            goodbye = "1s"
            "#
        );
        Config::parse(&text, &self.path().join("gateway.toml")).unwrap()
    }
}

fn in_clear(control_plane: &ControlPlane) -> String {
    format!("endpoints = [\"http://{}\"]", control_plane.address)
}

fn start(config: &Config) -> Bound {
    build(
        config,
        Random::seeded(1),
        &Handle::current(),
        &mut Telemetry::off(),
    )
    .unwrap()
}

/// One server, `old`, which is the default for `example.org`.
fn routing(backend: &Backend) -> v1::RoutingConfig {
    v1::RoutingConfig {
        schema: 1,
        destinations: vec![v1::Destination {
            id: "old".to_owned(),
            without: Vec::new(),
            endpoints: vec![v1::Endpoint {
                protocol: v1::Protocol::Imap.into(),
                host: backend.address.ip().to_string(),
                port: backend.address.port().into(),
                tls: Some(v1::EndpointTls {
                    mode: v1::endpoint_tls::Mode::None.into(),
                    plaintext_consent: true,
                    ..Default::default()
                }),
                announcement: v1::Announcement::None.into(),
                ..Default::default()
            }],
        }],
        default_destination: "old".to_owned(),
        domains: vec![v1::Domain {
            name: "example.org".to_owned(),
            unlisted: None,
        }],
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
            ..Default::default()
        }),
        ..v1::RoutingConfig::default()
    }
}

fn snapshot(backend: &Backend, accounts: Vec<AccountEntry>) -> Down {
    Down::SnapshotChunk(SnapshotChunk {
        position: Some(control_plane::position(5)),
        index: 0,
        last: true,
        config: Some(routing(backend)),
        accounts,
        comparison: false,
    })
}

/// Answers a data plane up to the point where it is ready.
async fn admitted(control_plane: &mut ControlPlane, backend: &Backend) -> Conversation {
    let mut conversation = control_plane.conversation().await;
    conversation.say(welcome()).await;
    conversation.say(snapshot(backend, Vec::new())).await;
    conversation.hear(|up| matches!(up, Up::Applied(_))).await;
    conversation
}

/// What `/stats` says.
async fn stats(bound: &Bound, surroundings: &Surroundings) -> serde_json::Value {
    ask(bound.addresses.admin, surroundings, "GET /stats").await
}

/// What the admin endpoint says.
async fn ask(admin: SocketAddr, surroundings: &Surroundings, what: &str) -> serde_json::Value {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(surroundings.authority.root.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(ferrypost_runtime::tls::crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = net::connect(admin).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, socket).await.unwrap();
    let token = match what {
        "POST /drain" => DRAIN_TOKEN,
        _ => TOKEN,
    };
    let head = format!(
        "{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap()
}

/// The document when it is as `holds` wants it.
async fn stats_until(
    bound: &Bound,
    surroundings: &Surroundings,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let limit = Instant::now() + PATIENCE;
    loop {
        let seen = stats(bound, surroundings).await;
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < limit, "{seen:#}");
    }
}

#[tokio::test]
async fn a_login_is_served_from_the_first_table_on_and_the_end_is_orderly() {
    let surroundings = Surroundings::new();
    let mut control_plane = ControlPlane::start();
    let backend = Backend::start(Manners::default());
    let bound = start(&surroundings.config(&in_clear(&control_plane)));
    let listener = bound.addresses.listeners["imaps"];

    // Without a table: not ready, and a temporary answer.
    let mut conversation = control_plane.conversation().await;
    assert_eq!(conversation.hello.instance, "dp-1");
    assert_eq!(conversation.hello.applied, None);
    conversation.say(welcome()).await;
    assert!(!bound.readiness.is_ready());
    let mut early = Client::tls(listener, &surroundings.authority.root).await;
    let answer = early.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");

    // With one, the same connection is served.
    conversation.say(snapshot(&backend, Vec::new())).await;
    conversation.hear(|up| matches!(up, Up::Applied(_))).await;
    let mut readiness = bound.readiness.watch();
    readiness.wait_for(|ready| *ready).await.unwrap();
    early.login("alice@example.org").await;
    early.send("a LIST \"\" \"*\"\r\n").await;
    assert!(early.answer("a ").await.starts_with("a OK"));

    // One that is logged in, one that is silent, one that has not even shaken hands.
    let _silent = Client::tls(listener, &surroundings.authority.root).await;
    let _stranger = Client::plain(listener).await;
    let seen = stats_until(&bound, &surroundings, |seen| {
        seen["listeners"]["imaps"]["connections"] == 3
    })
    .await;
    let imaps = serde_json::json!({
        "protocol": "imap",
        "address": listener.to_string(),
        "tls": "implicit",
        "connections": 3,
        "not_logged_in": 2,
        "tls_too_old": 0,
        "certificates": [{ "name": "localhost", "not_after": "4096-01-01T00:00:00Z" }],
    });
    assert_eq!(seen["listeners"], serde_json::json!({ "imaps": imaps }));
    let old = &seen["destinations"]["old"]["imap"];
    assert!(old["last_login_seconds_ago"].is_number(), "{seen:#}");
    assert!(old["last_failed_login_seconds_ago"].is_null(), "{seen:#}");
    assert_eq!(seen["ready"], true, "{seen:#}");
    assert_eq!(seen["control_plane"]["state"], "live", "{seen:#}");
    assert_eq!(seen["snapshot"]["revision"]["store"], 5, "{seen:#}");
    assert_eq!(
        seen["sessions"]["routed"][0]["stage"], "relaying",
        "{seen:#}"
    );

    // The goodbye comes after the server has seen the client's session end, and waits for no handshake.
    let ending = tokio::spawn(bound.shut_down());
    let goodbye = conversation.hear(|up| matches!(up, Up::Goodbye(_))).await;
    assert_eq!(goodbye, Up::Goodbye(Goodbye { unconfirmed: 0 }));
    assert!(backend.seen.count(&backend.seen.ended) >= 1);
    conversation
        .say(Down::GoodbyeAccepted(GoodbyeAccepted {}))
        .await;
    let stopped = ending.await.unwrap();
    assert_eq!(
        stopped,
        Stopped {
            dropped: 0,
            unconfirmed: 0,
            goodbye: Ok(())
        }
    );
    assert!(early.rest().await.contains("* BYE"));
    assert!(net::connect(listener).await.is_err());
}

#[tokio::test]
async fn who_asks_to_drain_is_answered_when_nobody_is_served_any_more() {
    let surroundings = Surroundings::new();
    let mut control_plane = ControlPlane::start();
    let backend = Backend::start(Manners::default());
    let config = surroundings.config(&in_clear(&control_plane));
    let mut bound = start(&config);
    let mut conversation = admitted(&mut control_plane, &backend).await;
    let (listener, admin) = (bound.addresses.listeners["imaps"], bound.addresses.admin);
    let root = &surroundings.authority.root;
    let mut client = Client::tls(listener, root).await;
    client.login("alice@example.org").await;

    let draining = bound.draining.clone();
    let drains = async {
        draining.asked().await;
        bound.drain().await
    };
    let accepts = async {
        let goodbye = conversation.hear(|up| matches!(up, Up::Goodbye(_))).await;
        let accepted = Down::GoodbyeAccepted(GoodbyeAccepted {});
        conversation.say(accepted).await;
        (goodbye, backend.seen.count(&backend.seen.ended))
    };
    let asked = ask(admin, &surroundings, "POST /drain");
    let (stopped, (goodbye, ended), answer) = tokio::join!(drains, accepts, asked);
    assert_eq!(stopped.goodbye, Ok(()));
    // The prober's own connections end, too.
    assert_eq!(goodbye, Up::Goodbye(Goodbye { unconfirmed: 0 }));
    assert!(ended >= 1);
    let expected = serde_json::json!({ "dropped": 0, "unconfirmed": 0, "goodbye": "accepted" });
    assert_eq!(answer, expected);
    assert!(client.rest().await.contains("* BYE"));

    // It stays to say so, also to whoever asks again.
    assert!(net::connect(listener).await.is_err());
    let seen = stats(&bound, &surroundings).await;
    assert_eq!(
        (&seen["ready"], &seen["blocked_by"][0]),
        (&false.into(), &"stopping".into())
    );
    assert_eq!(ask(admin, &surroundings, "POST /drain").await, expected);
    // The program's own order reaches it with what the configuration says, and nobody else's certificate will do.
    let mut local = config.admin().clone();
    local.listen = admin;
    let limits = config.limits().shutdown;
    // At once, and not when the server has waited long enough for another request on that connection.
    let ordered = timeout(Duration::from_secs(9), order::drain(&local, limits)).await;
    assert_eq!(ordered.expect("at once").unwrap(), expected);
    let mut unset = local.clone();
    unset.drain_token_file = None;
    let refused = order::drain(&unset, limits).await.unwrap_err();
    assert!(matches!(refused, OrderError::NotAllowed), "{refused}");
    let other = surroundings.authority.sign("localhost");
    other.write(surroundings.path(), "other");
    let mut mistaken = local.clone();
    mistaken.certificate.cert_file = surroundings.path().join("other.pem");
    let stranger = order::drain(&mistaken, limits).await.unwrap_err();
    assert!(
        matches!(stranger, OrderError::Stranger { .. }),
        "{stranger}"
    );
    bound.end().await;
    let nobody = order::drain(&local, limits).await.unwrap_err();
    assert!(matches!(nobody, OrderError::Unreachable { .. }), "{nobody}");
    assert!(net::connect(admin).await.is_err());
}

#[tokio::test]
async fn the_stats_show_what_the_prober_found() {
    let surroundings = Surroundings::new();
    let mut control_plane = ControlPlane::start();
    let backend = Backend::start(Manners::default());
    let bound = start(&surroundings.config(&in_clear(&control_plane)));
    let mut conversation = admitted(&mut control_plane, &backend).await;
    let reachable = |up: &Up| match up {
        Up::Health(health) => health.endpoints.iter().any(|endpoint| endpoint.reachable),
        _ => false,
    };
    conversation.hear(reachable).await;
    let seen = stats(&bound, &surroundings).await;
    let old = &seen["destinations"]["old"]["imap"];
    assert_eq!(old["reachable"], true, "{seen:#}");
    assert_eq!(old["word"], "reachable");
    assert_eq!(old["greeting"], "ready");
    assert_eq!(old["address"], backend.address.to_string());
    assert_eq!(old["tls"]["verdict"], "plaintext");
    let offered = old["capabilities"].as_array().unwrap();
    assert!(offered.contains(&"IDLE".into()), "{seen:#}");
    assert!(old["last_success_seconds_ago"].is_number());
    assert!(
        seen["offer"]["imap"].as_str().unwrap().contains("IDLE"),
        "{seen:#}"
    );
    assert_eq!(seen["blocked_by"], serde_json::json!([]));
    assert_eq!(
        seen["control_plane"]["installation"],
        control_plane::INSTALLATION
    );
    assert_eq!(seen["control_plane"]["rewound"], false);
    assert_eq!(seen["snapshot"]["rejected_entries"], 0);
    assert_eq!(seen["sessions"]["held_logins"], 0);
}

#[tokio::test]
async fn without_a_control_plane_clients_are_served_from_the_table_that_is_known() {
    let surroundings = Surroundings::new();
    let mut control_plane = ControlPlane::start();
    let backend = Backend::start(Manners::default());
    let bound = start(&surroundings.config(&in_clear(&control_plane)));
    let conversation = admitted(&mut control_plane, &backend).await;
    conversation.cut().await;
    control_plane.stop().await;
    let root = &surroundings.authority.root;
    let mut client = Client::tls(bound.addresses.listeners["imaps"], root).await;
    client.login("alice@example.org").await;
    assert!(bound.readiness.is_ready());
    let stopped = bound.shut_down().await;
    assert_eq!(stopped.goodbye, Err(GoodbyeError::TimedOut));
}

#[tokio::test]
async fn a_delta_that_moves_an_account_reaches_its_client() {
    let surroundings = Surroundings::new();
    let mut control_plane = ControlPlane::start();
    let backend = Backend::start(Manners::default());
    let bound = start(&surroundings.config(&in_clear(&control_plane)));
    let mut conversation = admitted(&mut control_plane, &backend).await;
    let root = &surroundings.authority.root;
    let mut client = Client::tls(bound.addresses.listeners["imaps"], root).await;
    client.login("alice@example.org").await;
    conversation
        .say(Down::Delta(Delta {
            from: control_plane::position(5).revision,
            to: Some(control_plane::position(6)),
            changes: vec![control_plane::fencing("alice@example.org", "old", 6)],
        }))
        .await;
    let drained = conversation.hear(|up| matches!(up, Up::Drained(_))).await;
    let Up::Drained(drained) = drained else {
        unreachable!("it was asked for");
    };
    assert_eq!(drained.accounts.len(), 1);
    assert_eq!(
        (drained.accounts[0].closed, drained.accounts[0].unconfirmed),
        (1, 0)
    );
    assert!(client.rest().await.contains("* BYE"));
    eventually("the server has seen the end", || {
        backend.seen.count(&backend.seen.ended) >= 1
    })
    .await;
}

#[tokio::test]
async fn the_way_to_the_control_plane_is_mutual_tls() {
    let surroundings = Surroundings::new();
    let identity = surroundings.authority.sign("localhost");
    let mut control_plane = ControlPlane::start_mutual(&identity, &surroundings.authority);
    let endpoint = format!(
        "endpoints = [\"https://localhost:{}\"]",
        control_plane.address.port()
    );
    let files = "ca_file = \"ca.pem\"\ncert_file = \"edge.pem\"\nkey_file = \"edge.key\"";
    let backend = Backend::start(Manners::default());
    let bound = start(&surroundings.config(&format!("{endpoint}\n{files}")));
    let mut readiness = bound.readiness.watch();
    let _conversation = admitted(&mut control_plane, &backend).await;
    readiness.wait_for(|ready| *ready).await.unwrap();
}

#[tokio::test]
async fn a_control_plane_that_nobody_vouches_for_is_not_believed() {
    let surroundings = Surroundings::new();
    let other = Authority::new();
    let control_plane = ControlPlane::start_mutual(&other.sign("localhost"), &other);
    let endpoint = format!(
        "endpoints = [\"https://localhost:{}\"]",
        control_plane.address.port()
    );
    let files = "ca_file = \"ca.pem\"\ncert_file = \"edge.pem\"\nkey_file = \"edge.key\"";
    let bound = start(&surroundings.config(&format!("{endpoint}\n{files}")));
    let mut status = bound.feed.status();
    let failed = status.wait_for(|status| status.problem.is_some());
    let problem = timeout(PATIENCE, failed).await.unwrap();
    let problem = problem.unwrap().problem.clone().unwrap();
    assert!(problem.contains("certificate"), "{problem}");
}

#[tokio::test]
async fn a_second_process_in_the_same_state_directory_is_refused() {
    let surroundings = Surroundings::new();
    let control_plane = ControlPlane::start();
    let config = surroundings.config(&in_clear(&control_plane));
    let _first = start(&config);
    let error = build(
        &config,
        Random::seeded(2),
        &Handle::current(),
        &mut Telemetry::off(),
    )
    .err()
    .unwrap();
    assert!(format!("{error:#}").contains("state"), "{error:#}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_listener() {
    let surroundings = Surroundings::new();
    let control_plane = ControlPlane::start();
    let taken = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = surroundings.config_with(&in_clear(&control_plane), &address);
    let error = build(
        &config,
        Random::seeded(1),
        &Handle::current(),
        &mut Telemetry::off(),
    )
    .err()
    .unwrap()
    .to_string();
    assert!(
        error.contains("imaps") && error.contains(&address),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_goes_through_while_everything_beside_the_relays_is_blocked() {
    let surroundings = Surroundings::new();
    let mut control_plane = ControlPlane::start();
    let backend = Backend::start(Manners::default());
    let beside = beside().unwrap();
    let config = surroundings.config(&in_clear(&control_plane));
    let bound = build(
        &config,
        Random::seeded(1),
        beside.handle(),
        &mut Telemetry::off(),
    )
    .unwrap();
    let _conversation = admitted(&mut control_plane, &backend).await;
    let mut readiness = bound.readiness.watch();
    readiness.wait_for(|ready| *ready).await.unwrap();

    // As a document that is too long, or a table that is packed: each thread is busy, and stays so.
    let blocked = Arc::new(std::sync::Barrier::new(BESIDE_THREADS + 1));
    let meet = |blocked: &Arc<std::sync::Barrier>| {
        let blocked = Arc::clone(blocked);
        tokio::task::spawn_blocking(move || blocked.wait())
    };
    for _ in 0..BESIDE_THREADS {
        let blocked = Arc::clone(&blocked);
        beside.spawn(async move {
            blocked.wait();
            blocked.wait();
        });
    }
    meet(&blocked).await.unwrap();

    let listener = bound.addresses.listeners["imaps"];
    let mut client = Client::tls(listener, &surroundings.authority.root).await;
    client.login("alice@example.org").await;
    client.send("a NOOP\r\n").await;
    client.answer("a OK").await;

    // What was asked beside meanwhile is answered afterwards, and the end waits for both.
    meet(&blocked).await.unwrap();
    let seen = stats(&bound, &surroundings).await;
    assert!(seen["relayed"]["imap"]["up"].as_u64() > Some(0), "{seen:#}");
    drop(client);
    let stopped = bound.shut_down().await;
    assert_eq!(stopped.dropped, 0);
    beside.shutdown_background();
}
