//! A move as a trace: one span for the whole of it, a child for each of its phases and for each run of the hook.
//!
//! The whole is written when the move has ended, by whoever leads then; until that its children wait for it under a name
//! that every replica knows. Phases that another leader has seen begin are not written.

use std::time::Duration;

use ferrypost_proto::{MigrationId, TraceParent, store::v1::MigrationRecord, v1::MigrationState};
use ferrypost_runtime::telemetry::{Origin, SpanContext, SpanId};
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::{Span, debug_span, field::Empty};

use crate::metrics::{Reason, Step};

/// What this leader has seen of a move so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The last step, which began a phase.
    phase: Option<(Step, Instant)>,
}

impl Trace {
    /// A step is written, `now`: the phase before it is over, and so is the move if it was the last one.
    pub(super) fn step(
        &mut self,
        id: &MigrationId,
        record: &MigrationRecord,
        step: Step,
        now: &Timestamp,
    ) {
        let Some(whole) = Whole::of(id, record) else {
            return;
        };
        let since_request = since(record.requested_at.as_ref(), now);
        match self.phase.replace((step, Instant::now())) {
            Some((phase, begun)) => drop(whole.phase(phase.into_str(), begun.elapsed())),
            None if step == Step::Fencing => drop(whole.phase("queued", since_request)),
            None => {}
        }
        if matches!(step, Step::Settled | Step::Aborted) {
            self.phase = None;
            drop(whole.span(record, since_request));
        }
    }

    /// The move is over without a step.
    pub(super) fn end(&mut self, id: &MigrationId, record: &MigrationRecord, now: &Timestamp) {
        let Some(whole) = Whole::of(id, record) else {
            return;
        };
        if let Some((phase, begun)) = self.phase.take() {
            drop(whole.phase(phase.into_str(), begun.elapsed()));
        }
        drop(whole.span(record, since(record.requested_at.as_ref(), now)));
    }
}

/// The span of a run of the hook.
pub(super) fn hook(id: &MigrationId, record: &MigrationRecord) -> Span {
    Whole::of(id, record).map_or_else(Span::none, |whole| whole.phase("hook", Duration::ZERO))
}

/// The span of a whole move, which is not written yet.
struct Whole<'a> {
    id: &'a MigrationId,
    trace: TraceParent,
    context: SpanContext,
}

impl<'a> Whole<'a> {
    fn of(id: &'a MigrationId, record: &MigrationRecord) -> Option<Self> {
        let trace: TraceParent = record.traceparent.parse().ok()?;
        let span = if trace.begins_here() {
            trace.span_id()
        } else {
            named(id)
        };
        Some(Self {
            id,
            trace,
            context: trace.span(span),
        })
    }

    fn phase(&self, name: &'static str, lasted: Duration) -> Span {
        let origin = Origin::after(Some(self.context.clone())).begun(lasted);
        origin.make(|| {
            debug_span!(parent: None, "phase", otel.name = name, ferrypost.migration.id = self.id.as_str())
        })
    }

    fn span(&self, record: &MigrationRecord, lasted: Duration) -> Span {
        // Its own span begins a trace that nobody else has begun.
        let parent = (!self.trace.begins_here()).then(|| self.trace.parent());
        let parent = parent.unwrap_or_else(|| self.context.clone());
        let origin = Origin::after(Some(parent));
        let span = origin.named(self.context.span_id()).begun(lasted).make(|| {
            debug_span!(
                parent: None,
                "migration",
                ferrypost.migration.id = self.id.as_str(),
                ferrypost.migration.accounts = record.accounts.len(),
                ferrypost.migration.source = record.source,
                ferrypost.migration.target = record.target,
                ferrypost.migration.attempts = record.attempts,
                ferrypost.migration.outcome = Empty,
                error.type = Empty,
            )
        });
        let outcome = match record.state() {
            MigrationState::Aborted => "aborted",
            _ => "succeeded",
        };
        span.record("ferrypost.migration.outcome", outcome);
        if record.state() == MigrationState::Aborted {
            let cause = record.abort_cause.as_ref();
            let first = cause.and_then(|cause| cause.blockers.first());
            let reason = first.map_or(Reason::None, |blocker| blocker.reason().into());
            span.record("error.type", reason.into_str());
        }
        span
    }
}

/// What the span of a move is called that a caller's trace goes on with: the same on every replica.
fn named(id: &MigrationId) -> SpanId {
    let digest = Sha256::digest(id.as_str());
    let mut name = [0; 8];
    name.copy_from_slice(&digest[..8]);
    SpanId::from_bytes(name)
}

/// For people to look at, as both times are.
fn since(begun: Option<&Timestamp>, now: &Timestamp) -> Duration {
    let Some(begun) = begun else {
        return Duration::ZERO;
    };
    let nanos = |it: &Timestamp| i128::from(it.seconds) * 1_000_000_000 + i128::from(it.nanos);
    let nanos = u64::try_from(nanos(now) - nanos(begun)).unwrap_or_default();
    Duration::from_nanos(nanos)
}
