//! Spans and lines as the queues get them.

use tracing::{Instrument as _, debug_span};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::{
    metrics::Counter,
    telemetry::{context::Share, environment::Batch},
};

fn caller() -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes([9; 16]),
        SpanId::from_bytes([8; 8]),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    )
}

pub(crate) fn queue<T>() -> Arc<Queue<T>> {
    let batch = Batch {
        delay: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        queue: 100,
        size: 100,
    };
    Arc::new(Queue::new(batch, Counter::default()))
}

pub(crate) fn tap() -> Tap {
    let attributes = AttributeLimits {
        count: 3,
        length: 8,
    };
    Tap {
        spans: Some(Spans {
            queue: queue(),
            sampler: Sampler::DEFAULT,
            attributes,
            random: Random::seeded(1),
        }),
        records: Some(Records {
            queue: queue(),
            attributes,
        }),
    }
}

/// What comes of what `act` says.
fn taken(tap: &Tap, act: impl FnOnce()) -> (Vec<Span>, Vec<LogRecord>) {
    let layer = tap.clone().with_filter(tap.wanted(LevelFilter::INFO));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, act);
    let spans = tap.spans.as_ref().expect("taken").queue.take();
    (spans, tap.records.as_ref().expect("taken").queue.take())
}

fn within(tap: Tap, change: impl FnOnce(&mut Spans)) -> Tap {
    let mut spans = tap.spans.expect("taken");
    change(&mut spans);
    Tap {
        spans: Some(spans),
        ..tap
    }
}

#[test]
fn a_span_below_another_is_its_child_and_a_line_is_in_it() {
    let (spans, records) = taken(&tap(), || {
        debug_span!(target: "ferrypost_x", "session", otel.kind = "server", number = 7).in_scope(
            || {
                debug_span!(target: "ferrypost_x", "tls").in_scope(|| {
                    tracing::info!(target: "ferrypost_x", destination = "new", "login");
                    tracing::info!(target: "hyper", "what a library says");
                });
            },
        );
        tracing::debug!(target: "ferrypost_x", "below the level of the log");
    });
    let [tls, session] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!((&*tls.name, &*session.name), ("tls", "session"));
    assert_eq!(tls.parent_span_id, session.id);
    assert_eq!(tls.trace_id, session.trace_id);
    assert!(session.parent_span_id.is_empty());
    assert_eq!(session.kind, otlp::kind(&SpanKind::Server));
    assert_eq!(
        session.attributes,
        [otlp::attribute("number", Value::IntValue(7))]
    );
    assert!(session.start_time_unix_nano <= tls.start_time_unix_nano);
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(record.span_id, tls.id);
    assert_eq!(
        (record.severity_number, &*record.severity_text),
        (9, "INFO")
    );
    assert_eq!(
        record.attributes,
        [otlp::attribute("destination", otlp::text("new"))]
    );
}

#[test]
fn a_span_goes_on_with_the_trace_of_another_process() {
    let (spans, _) = taken(&tap(), || {
        let origin = Origin::after(Some(caller()))
            .begun(Duration::from_secs(7))
            .named(SpanId::from_bytes([3; 8]));
        drop(origin.make(|| debug_span!(target: "ferrypost_x", "fence")));
        drop(debug_span!(target: "ferrypost_x", "another", otel.name = "named"));
    });
    assert_eq!(spans[0].trace_id, caller().trace_id().to_bytes());
    assert_eq!(spans[0].parent_span_id, caller().span_id().to_bytes());
    assert_eq!(spans[0].id, [3; 8]);
    assert_eq!(spans[0].flags, flags(&caller()) | KNOWS_OF_REMOTE | REMOTE);
    let lasted = spans[0].end_time_unix_nano - spans[0].start_time_unix_nano;
    assert!(lasted >= 7_000_000_000, "{lasted}");
    assert_ne!(spans[1].trace_id, caller().trace_id().to_bytes());
    assert_eq!(spans[1].name, "named");
}

#[test]
fn what_is_not_sampled_makes_no_spans_below_it_either_and_lines_say_so() {
    let none = within(tap(), |spans| spans.sampler.share = Share::Nothing);
    let (spans, records) = taken(&none, || {
        debug_span!(target: "ferrypost_x", "session").in_scope(|| {
            drop(debug_span!(target: "ferrypost_x", "tls"));
            tracing::info!(target: "ferrypost_x", "login");
        });
    });
    assert!(spans.is_empty(), "{spans:?}");
    assert_eq!(records[0].flags, 0);
    assert_eq!(records[0].trace_id.len(), 16);
}

#[test]
fn the_present_span_can_be_asked_for_and_has_failed_if_it_says_how() {
    let mut seen = None;
    let (spans, _) = taken(&tap(), || {
        assert_eq!(current(), None);
        let span =
            debug_span!(target: "ferrypost_x", "session", error.type = tracing::field::Empty);
        span.in_scope(|| seen = current());
        span.record("error.type", "no_table");
        let after =
            Origin::after(seen.clone()).make(|| debug_span!(target: "ferrypost_x", "relay"));
        drop(after);
    });
    let seen = seen.expect("within a span");
    assert_eq!(spans[0].parent_span_id, seen.span_id().to_bytes());
    assert_eq!(spans[1].id, seen.span_id().to_bytes());
    assert_eq!(spans[1].status, Some(Status::FAILED));
}

#[test]
fn attributes_stay_within_their_limits() {
    let (spans, _) = taken(&tap(), || {
        drop(debug_span!(target: "ferrypost_x", "s", a = "é".repeat(9), b = true, c = 1.5, d = -1));
    });
    let first = otlp::attribute("a", otlp::text("é".repeat(8)));
    assert_eq!(spans[0].attributes[0], first);
    assert_eq!(spans[0].attributes.len(), 3);
    assert_eq!(spans[0].dropped_attributes_count, 1);
}

#[test]
fn of_a_line_only_what_names_nobody_is_taken() {
    let (_, records) = taken(&tap(), || {
        tracing::warn!(target: "ferrypost_x", name = "alice", account = "a-1", error = %"no alice", blame = "client", "x");
    });
    assert_eq!(
        records[0].attributes,
        [otlp::attribute("blame", otlp::text("client"))]
    );
    assert_eq!(records[0].dropped_attributes_count, 3);
    assert!(!format!("{records:?}").contains("alice"), "{records:?}");
}

#[test]
fn a_span_of_a_future_lasts_as_long_as_the_future() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (spans, _) = taken(&tap(), || {
        let working = async { drop(debug_span!(target: "ferrypost_x", "child")) };
        runtime.block_on(working.instrument(debug_span!(target: "ferrypost_x", "work")));
    });
    assert_eq!(spans[0].parent_span_id, spans[1].id);
}
