//! What an OpenTelemetry collector gets of both planes, and what they are like without one.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod hostile;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::certs::Authority;
use ferrypost_tests::story::{
    SOON, closed, landing, migrate, migration_until, move_to, session, short_limits,
};
use ferrypost_tests::tools::repository;
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Builder, Plane, World};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_semantic_conventions::attribute as standard;
use tokio::net::TcpListener;

use crate::memory::Memory;
use hostile::{Hostile, Manner, WORDS};
use receiver::{Receiver, attribute, text};

const PLANES: [&str; 2] = ["ferrypost-dataplane", "ferrypost-controlplane"];

/// A world whose planes export as these variables say, and soon.
fn exporting(variables: &[(&str, &str)]) -> Builder {
    let soon = [
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "300"),
    ];
    let all = soon.iter().chain(variables);
    all.fold(
        World::builder().limits(short_limits()),
        |builder, (name, value)| {
            let builder = builder.data_plane_env(name, value);
            builder.control_plane_env(name, value)
        },
    )
}

/// An instrument as `docs/metrics.md` lists it.
#[derive(Debug)]
struct Listed {
    kind: String,
    unit: String,
    /// `None`: what an operator has named.
    attributes: BTreeMap<String, Option<BTreeSet<String>>>,
}

fn registry() -> BTreeMap<String, Listed> {
    let page = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let sections = page.split("\n### `").skip(1);
    sections.map(listed).collect()
}

fn listed(section: &str) -> (String, Listed) {
    let (name, rest) = section.split_once('`').unwrap();
    let rest = rest.split("\n## ").next().unwrap();
    let mut lines = rest.lines().filter_map(|line| line.strip_prefix("- "));
    let (kind, unit) = lines.next().unwrap().split_once(", unit ").unwrap();
    let attributes = lines.filter(|line| line.starts_with('`')).map(|line| {
        let (name, values) = line.split_once(": ").unwrap();
        let words = values
            .split(", ")
            .map(|word| word.strip_prefix('`')?.strip_suffix('`'));
        let words: Option<BTreeSet<_>> = words.map(|word| word.map(str::to_owned)).collect();
        (name.trim_matches('`').to_owned(), words)
    });
    let listed = Listed {
        kind: kind.to_owned(),
        unit: unit.trim_matches('`').to_owned(),
        attributes: attributes.collect(),
    };
    (name.to_owned(), listed)
}

/// Insists that a metric is what the registry says of it.
fn is_as_listed(registry: &BTreeMap<String, Listed>, metric: &Metric) {
    let listed = registry.get(&metric.name);
    let listed = listed.unwrap_or_else(|| panic!("{} is in no table", metric.name));
    assert_eq!(metric.unit, listed.unit, "{}", metric.name);
    let cumulative = AggregationTemporality::Cumulative as i32;
    let (kind, points): (_, Vec<&[KeyValue]>) = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == cumulative);
            (
                "counter",
                sum.data_points.iter().map(|it| &*it.attributes).collect(),
            )
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.aggregation_temporality, cumulative);
            for point in &histogram.data_points {
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
            }
            (
                "histogram",
                histogram
                    .data_points
                    .iter()
                    .map(|it| &*it.attributes)
                    .collect(),
            )
        }
        Data::Gauge(gauge) => (
            "gauge",
            gauge.data_points.iter().map(|it| &*it.attributes).collect(),
        ),
        other => panic!("{}: {other:?}", metric.name),
    };
    assert_eq!(kind, listed.kind, "{}", metric.name);
    for attributes in points {
        assert_eq!(attributes.len(), listed.attributes.len(), "{}", metric.name);
        for it in attributes {
            let value = text(it.value.as_ref());
            let known = listed.attributes.get(&it.key);
            let known = known.unwrap_or_else(|| panic!("{} of {}", it.key, metric.name));
            let is_known = known.as_ref().is_none_or(|words| words.contains(&value));
            assert!(is_known, "{} of {} is {value}", it.key, metric.name);
        }
    }
}

fn service(resource: &Resource) -> String {
    attribute(&resource.attributes, "service.name").unwrap()
}

/// Waits until a collector has these of a plane.
async fn until(what: &str, is_there: impl Fn() -> bool) {
    let waited = eventually(what, SOON, || {
        let there = is_there();
        async move { there.then_some(()).ok_or_else(|| "not yet".to_owned()) }
    });
    waited.await.unwrap();
}

fn metric_of(receiver: &Receiver, plane: &str, name: &str) -> bool {
    let metrics = receiver.metrics();
    metrics
        .iter()
        .any(|(resource, metric)| service(resource) == plane && metric.name == name)
}

#[tokio::test]
async fn a_collector_gets_the_metrics_of_both_planes_as_they_are_listed() {
    let receiver = Receiver::start().await;
    let endpoint = format!("http://{}", receiver.address());
    let world = exporting(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=mail%20system"),
    ]);
    let world = world.start().await.unwrap();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(0), &account, world.password())
        .await
        .unwrap();
    let moved = migrate(&world.operator(0), move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    closed(&mut client).await.unwrap();

    for (plane, name) in [
        (PLANES[0], "ferrypost.dataplane.logins"),
        (PLANES[0], "ferrypost.dataplane.session.duration"),
        (PLANES[0], "ferrypost.dataplane.ready"),
        (PLANES[1], "ferrypost.controlplane.migrations"),
        (PLANES[1], "ferrypost.controlplane.store.operation.duration"),
    ] {
        until(&format!("{plane} sends {name}"), || {
            metric_of(&receiver, plane, name)
        })
        .await;
    }
    let registry = registry();
    for (resource, metric) in receiver.metrics() {
        is_as_listed(&registry, &metric);
        let of = |name| attribute(&resource.attributes, name);
        assert!(PLANES.contains(&&*service(&resource)));
        assert_eq!(
            of("service.version").as_deref(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(of("deployment.environment.name").as_deref(), Some("test"));
        let instance = of("service.instance.id").unwrap();
        assert!(["gateway-1", "gateway-2", "control-plane-1"].contains(&&*instance));
    }
    let headers = receiver.headers();
    assert!(headers.iter().all(|it| it["x-tenant"] == "mail system"));
    assert!(headers.iter().all(|it| it["grpc-encoding"] == "gzip"));
    names_nobody(&receiver, &world);
}

/// A trace that an operator's own tools have begun.
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_session_and_a_move_are_traces_that_go_through_both_planes() {
    let receiver = Receiver::start().await;
    let endpoint = format!("http://{}", receiver.address());
    let world = exporting(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let world = world.start().await.unwrap();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(0), &account, world.password())
        .await
        .unwrap();
    let mut asked = tonic::Request::new(move_to(&account, "target"));
    asked
        .metadata_mut()
        .insert("traceparent", CALLER.parse().unwrap());
    let moved = world.operator(0).migrations().migrate(asked).await.unwrap();
    let moved = moved.into_inner().migration.unwrap();
    assert_eq!(moved.state(), MigrationState::Succeeded);
    closed(&mut client).await.unwrap();
    // Which would be its end, but for the phases that it has not come to.
    migration_until(
        &world.operator(0),
        &moved.migration_id,
        "it has ended",
        |it| it.ended_at.is_some(),
    )
    .await
    .unwrap();
    let by_itself = migrate(&world.operator(0), move_to(&account, "source")).await;
    let by_itself = by_itself.unwrap().migration_id;

    eventually("both moves, and the relay, have ended", SOON, || {
        let spans = Spans::of(&receiver);
        let count = |name| spans.named(name).len();
        let counts = ["migration", "fence", "drain", "relay"].map(count);
        async move {
            (counts == [2, 4, 4, 1])
                .then_some(())
                .ok_or_else(|| format!("{counts:?}"))
        }
    })
    .await
    .unwrap();
    let spans = Spans::of(&receiver);
    spans.are_as_documented();
    the_session_is_whole(&spans);
    the_move_of_a_caller_is_whole(&spans, &moved.migration_id);
    the_move_without_a_caller_is_whole(&spans, &by_itself);
    names_nobody(&receiver, &world);
}

/// Moves an account as if for [`CALLER`], and waits until that has ended. Returns its id.
async fn move_for_caller(world: &World, account: &str) -> String {
    let mut asked = tonic::Request::new(move_to(account, "target"));
    let caller = CALLER.parse().unwrap();
    asked.metadata_mut().insert("traceparent", caller);
    let moved = world.operator(0).migrations().migrate(asked).await.unwrap();
    let id = moved.into_inner().migration.unwrap().migration_id;
    ended(world, &id).await;
    id
}

async fn ended(world: &World, id: &str) {
    let operator = world.operator(0);
    let ended = migration_until(&operator, id, "it has ended", |it| it.ended_at.is_some());
    ended.await.unwrap();
}

#[tokio::test]
async fn a_caller_s_trace_that_is_not_followed_leaves_a_move_one_trace() {
    let receiver = Receiver::start().await;
    let endpoint = format!("http://{}", receiver.address());
    let world = exporting(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_PROPAGATORS", "none"),
    ]);
    let world = world.start().await.unwrap();
    let id = move_for_caller(&world, &world.accounts()[0]).await;
    until("the move and its fences have ended", || {
        let spans = Spans::of(&receiver);
        let counts = ["migration", "fence", "drain"].map(|name| spans.named(name).len());
        counts == [1, 2, 2]
    })
    .await;
    let spans = Spans::of(&receiver);
    assert_ne!(hex(&spans.migration(&id).trace_id), CALLER[3..35]);
    the_move_without_a_caller_is_whole(&spans, &id);
}

#[tokio::test]
async fn a_move_without_a_caller_is_recorded_as_the_sampler_says() {
    let receiver = Receiver::start().await;
    let endpoint = format!("http://{}", receiver.address());
    let world = exporting(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ]);
    let world = world.start().await.unwrap();
    let [first, second] = [0, 1].map(|n| world.accounts()[n].clone());
    let alone = migrate(&world.operator(0), move_to(&first, "target")).await;
    ended(&world, &alone.unwrap().migration_id).await;
    let id = move_for_caller(&world, &second).await;
    until("the caller's move and its fences have ended", || {
        let spans = Spans::of(&receiver);
        let counts = ["migration", "fence", "drain"].map(|name| spans.named(name).len());
        counts[0] >= 1 && counts[1] >= 2 && counts[2] >= 2
    })
    .await;
    let spans = Spans::of(&receiver);
    assert_eq!(spans.named("migration").len(), 1);
    the_move_of_a_caller_is_whole(&spans, &id);
    let of_caller = |it: &Span| hex(&it.trace_id) == CALLER[3..35];
    assert!(spans.0.iter().all(of_caller), "{:?}", spans.0);
}

fn the_session_is_whole(spans: &Spans) {
    let session = spans.named("session")[0];
    assert_eq!(session.kind(), SpanKind::Server);
    assert!(session.parent_span_id.is_empty());
    assert_eq!(
        attribute(&session.attributes, "network.protocol.name").as_deref(),
        Some("imap")
    );
    assert_eq!(
        attribute(&session.attributes, "ferrypost.login.outcome").as_deref(),
        Some("accepted")
    );
    assert_eq!(
        attribute(&session.attributes, "ferrypost.destination").as_deref(),
        Some("source")
    );
    for phase in [
        "tls",
        "preauth",
        "identity",
        "admission",
        "dial",
        "replay",
        "relay",
    ] {
        let below = spans.below(session);
        let phase = below.iter().find(|it| it.name == phase);
        let phase = phase.unwrap_or_else(|| panic!("no {phase:?} among {below:?}"));
        assert_eq!(phase.trace_id, session.trace_id);
        assert!(phase.start_time_unix_nano <= phase.end_time_unix_nano);
    }
    let relay = spans.named("relay")[0];
    assert_eq!(
        attribute(&relay.attributes, "ferrypost.session.end").as_deref(),
        Some("moved")
    );
}

fn the_move_of_a_caller_is_whole(spans: &Spans, id: &str) {
    let whole = spans.migration(id);
    assert_eq!(hex(&whole.trace_id), CALLER[3..35]);
    assert_eq!(hex(&whole.parent_span_id), CALLER[36..52]);
    spans.has_its_phases(whole);
    // Of each data plane.
    for name in ["fence", "drain"] {
        let of_it = spans
            .named(name)
            .into_iter()
            .filter(|it| it.trace_id == whole.trace_id);
        let of_it: Vec<_> = of_it.collect();
        assert_eq!(of_it.len(), 2, "{of_it:?}");
        assert!(
            of_it
                .iter()
                .all(|it| it.parent_span_id == whole.parent_span_id)
        );
    }
}

fn the_move_without_a_caller_is_whole(spans: &Spans, id: &str) {
    let whole = spans.migration(id);
    assert!(whole.parent_span_id.is_empty());
    spans.has_its_phases(whole);
    for name in ["fence", "drain"] {
        let below = spans.below(whole);
        assert_eq!(
            below.iter().filter(|it| it.name == name).count(),
            2,
            "{below:?}"
        );
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        _ = write!(text, "{octet:02x}");
        text
    })
}

/// What the standard calls what is not ours alone.
const STANDARD: [&str; 9] = [
    standard::CLIENT_ADDRESS,
    standard::CLIENT_PORT,
    standard::ERROR_TYPE,
    standard::HTTP_REQUEST_METHOD,
    standard::HTTP_RESPONSE_STATUS_CODE,
    standard::NETWORK_PROTOCOL_NAME,
    standard::NETWORK_TRANSPORT,
    standard::SERVER_ADDRESS,
    standard::SERVER_PORT,
];

/// All spans that came.
struct Spans(Vec<Span>);

impl Spans {
    fn of(receiver: &Receiver) -> Self {
        Self(receiver.spans().into_iter().map(|(_, span)| span).collect())
    }

    fn named(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|it| it.name == name).collect()
    }

    fn below(&self, parent: &Span) -> Vec<&Span> {
        let below =
            |it: &&Span| it.parent_span_id == parent.span_id && it.trace_id == parent.trace_id;
        self.0.iter().filter(below).collect()
    }

    fn migration(&self, id: &str) -> &Span {
        let all = self.named("migration").into_iter();
        let mut of_it = all.filter(|it| {
            attribute(&it.attributes, "ferrypost.migration.id").as_deref() == Some(id)
        });
        of_it.next().unwrap()
    }

    fn has_its_phases(&self, whole: &Span) {
        let below = self.below(whole);
        for phase in ["queued", "fencing", "quiesced", "flipped", "released"] {
            assert!(
                below.iter().any(|it| it.name == phase),
                "{phase} is not among {below:?}"
            );
        }
        let outcome = attribute(&whole.attributes, "ferrypost.migration.outcome");
        assert_eq!(outcome.as_deref(), Some("succeeded"));
    }

    /// Every name and every attribute stands in the table of `docs/telemetry.md`, and what is not ours in the standard's.
    fn are_as_documented(&self) {
        let page = fs::read_to_string(repository().join("docs/telemetry.md")).unwrap();
        let (_, rest) = page.split_once("**Spans**").unwrap();
        let (table, rest) = rest.split_once("Common: ").unwrap();
        let (common, _) = rest.split_once("\n\n").unwrap();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split('|').collect())
            .collect();
        for span in &self.0 {
            let name = format!("`{}`", span.name);
            let row = rows
                .iter()
                .find(|row| row.get(1).is_some_and(|cell| cell.contains(&name)));
            let row = row.unwrap_or_else(|| panic!("{name} is in no row"));
            for it in &span.attributes {
                let is_ours = it.key.starts_with("ferrypost.");
                assert!(is_ours || STANDARD.contains(&&*it.key), "{}", it.key);
                let key = format!("`{}`", it.key);
                assert!(
                    row[5].contains(&key) || common.contains(&key),
                    "{key} of {name}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_collector_gets_the_log_s_lines_without_what_names_anybody() {
    let receiver = Receiver::start().await;
    let endpoint = format!("http://{}", receiver.address());
    let world = exporting(&[
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint),
    ]);
    let world = world.start().await.unwrap();
    let account = world.accounts()[0].clone();
    let landed = landing(&world.imaps(0), &account, world.password()).await;
    assert_eq!(landed.unwrap(), "source");
    let log = world.data_planes()[0].plane.log().text();
    assert!(
        log.contains(&account),
        "the log itself names accounts, as it is configured"
    );
    let lines = |body: &str| {
        let records = receiver.records().into_iter();
        let of_it = records.filter(|(_, it)| text(it.body.as_ref()) == body);
        of_it.collect::<Vec<_>>()
    };
    until("the login's line and its session are there", || {
        !lines("login").is_empty() && !Spans::of(&receiver).named("session").is_empty()
    })
    .await;
    let (resource, login) = lines("login").remove(0);
    assert_eq!(service(&resource), PLANES[0]);
    assert_eq!(
        (login.severity_text.as_str(), login.severity_number),
        ("INFO", 9)
    );
    assert!(login.time_unix_nano > 0);
    let of = |name| attribute(&login.attributes, name);
    assert_eq!(of("destination").as_deref(), Some("source"));
    assert_eq!(of("outcome").as_deref(), Some("accepted"));
    assert_eq!((of("name"), of("account")), (None, None));
    let spans = Spans::of(&receiver);
    assert!(
        spans
            .named("session")
            .iter()
            .any(|it| it.span_id == login.span_id && it.trace_id == login.trace_id)
    );
    until("the control plane's lines are there", || {
        !lines("this replica drives migrations now").is_empty()
    })
    .await;
    names_nobody(&receiver, &world);
}

/// Insists that nothing that came says whose mail it is, or how to read it.
fn names_nobody(receiver: &Receiver, world: &World) {
    let said = receiver.text();
    assert!(!said.contains(world.password()), "a password was sent");
    for account in world.accounts() {
        let name = account.split('@').next().unwrap();
        let at = said.find(name);
        let around = at.map(|at| said.get(at.saturating_sub(200)..at + 40));
        assert!(at.is_none(), "{name} was sent: {around:?}");
    }
}

#[tokio::test]
async fn a_collector_is_reached_over_tls_by_whom_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("collectors").unwrap();
    let client = authority.client("ferrypost", &[]).unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let ca = write("ca.pem", authority.pem());
    let certificate = write("client.pem", client.certificate_pem());
    let key = write("client.key", client.key_pem());
    let receiver = Receiver::over_tls(&authority.server().unwrap(), authority.pem()).await;
    let endpoint = format!("https://localhost:{}", receiver.address().port());
    let world = exporting(&[
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &ca),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
    ]);
    let world = world.start().await.unwrap();
    for plane in PLANES {
        until(&format!("{plane} is there"), || {
            receiver
                .metrics()
                .iter()
                .any(|(resource, _)| service(resource) == plane)
        })
        .await;
    }
    assert!(
        receiver.records().is_empty() && receiver.spans().is_empty(),
        "nobody asked for these"
    );
    world.stop().await.unwrap();
}

/// Sessions go on, and everything ends in time.
async fn serves_and_stops(endpoint: &str, reasons: &[&str]) {
    let world = exporting(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "4"),
    ]);
    let mut world = world.start().await.unwrap();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(0), &account, world.password())
        .await
        .unwrap();
    for _ in 0..8 {
        let landed = landing(&world.imaps(0), &account, world.password()).await;
        assert_eq!(landed.unwrap(), "source");
    }
    client.noop().await.unwrap().accepted().unwrap();
    let admin = world.admin(0);
    eventually("what is dropped is counted", SOON, || async {
        let (_, page) = admin.get("/metrics").await.map_err(|it| it.to_string())?;
        let dropped = reasons.iter().all(|reason| {
            page.contains(&format!(
                "ferrypost_telemetry_dropped_total{{signal=\"logs\",reason=\"{reason}\"}}"
            ))
        });
        dropped.then_some(()).ok_or(page)
    })
    .await
    .unwrap();
    drop(client);
    // Which waits for a minute at most, and insists on success.
    let begun = tokio::time::Instant::now();
    world.stop_ferrypost().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(50),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn nobody_notices_that_a_collector_is_away() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    serves_and_stops(&format!("http://{gone}"), &["not_delivered"]).await;
}

#[tokio::test]
async fn nobody_notices_that_a_collector_never_answers() {
    // Connections wait in its backlog for ever.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    serves_and_stops(&endpoint, &["queue_full", "not_delivered"]).await;
}

/// What a data plane may have beyond what it had: less than a message of 50 MiB.
const MORE: u64 = 40 << 20;

/// Nobody who is served notices what a collector does, and neither the memory nor the log of a program is full of it.
#[tokio::test]
async fn nobody_notices_that_a_collector_is_broken_or_means_harm() {
    let collector = Hostile::start().await;
    let endpoint = format!("http://{}", collector.address());
    let world = exporting(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
    ]);
    let mut world = world.data_planes(1).start().await.unwrap();
    let begun = tokio::time::Instant::now();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(0), &account, world.password())
        .await
        .unwrap();
    let memory = Memory::of(world.data_planes()[0].plane.id().unwrap());
    let before = memory.now();
    memory.forget_peak();
    for manner in Manner::ALL {
        collector.becomes(manner);
        for _ in 0..4 {
            let landed = landing(&world.imaps(0), &account, world.password()).await;
            assert_eq!(landed.unwrap(), "source", "{manner:?}");
        }
        let what = format!("three signals of two programs are sent to one that {manner:?}");
        until(&what, || collector.requests() >= 6).await;
        client.noop().await.unwrap().accepted().unwrap();
    }
    let more = memory.peak().saturating_sub(before);
    assert!(more < MORE, "{more} octets more");
    let planes = [
        &world.data_planes()[0].plane,
        &world.control_planes()[0].plane,
    ];
    let minutes = begun.elapsed().as_secs() / 60 + 1;
    for log in planes.map(Plane::log) {
        assert!(log.lines_with(&[WORDS]).is_empty());
        // Of each signal, that it is dropped and that it is not any more.
        let lines = log.lines_with(&["telemetry is"]);
        assert!(
            (1..=minutes * 6).contains(&(lines.len() as u64)),
            "{lines:?}"
        );
    }
    drop(client);
    // Which waits for a minute at most, and insists on success.
    world.stop_ferrypost().await.unwrap();
}
