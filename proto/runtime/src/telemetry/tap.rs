//! What is taken from the program's own log lines and spans, on the thread that makes them: nothing here waits.

use std::{cell::Cell, fmt, sync::Arc, time::Duration};

use opentelemetry::{
    SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, TraceState},
};
use opentelemetry_semantic_conventions::attribute::ERROR_TYPE;
use tokio::time::Instant;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, Filter},
    registry::LookupSpan,
};

use super::{
    clock,
    context::Sampler,
    environment::AttributeLimits,
    fields,
    otlp::{self, AnyValue, KeyValue, LogRecord, SeverityNumber, Span, Status, Value},
    queue::Queue,
};
use crate::Random;

/// The targets of what we say ourselves. What a library says is not ours to send anywhere.
const OURS: &str = "ferrypost";

/// The flags of a span in OTLP beside those of its context: whether it is known if its parent is another process's, and
/// whether it is.
const KNOWS_OF_REMOTE: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// The layer that takes spans and lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tap {
    pub(super) spans: Option<Spans>,
    pub(super) records: Option<Records>,
}

#[derive(Debug, Clone)]
pub(super) struct Spans {
    pub(super) queue: Arc<Queue<Span>>,
    pub(super) sampler: Sampler,
    pub(super) attributes: AttributeLimits,
    pub(super) random: Random,
}

#[derive(Debug, Clone)]
pub(super) struct Records {
    pub(super) queue: Arc<Queue<LogRecord>>,
    pub(super) attributes: AttributeLimits,
}

/// What is known of a span when it is made, beside what its fields say.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    parent: Option<SpanContext>,
    id: Option<SpanId>,
    ago: Duration,
}

thread_local! {
    /// Of the span that is made next.
    static ORIGIN: Cell<Option<Origin>> = const { Cell::new(None) };
}

impl Origin {
    /// Behind a span of another process, or of this one, that may have ended; without one it begins a trace.
    pub fn after(parent: Option<SpanContext>) -> Self {
        Self {
            parent,
            ..Self::default()
        }
    }

    /// It began so long ago.
    #[must_use]
    pub fn begun(self, ago: Duration) -> Self {
        Self { ago, ..self }
    }

    /// It is known by this name already.
    #[must_use]
    pub fn named(self, id: SpanId) -> Self {
        Self {
            id: Some(id),
            ..self
        }
    }

    /// Makes a span of such an origin.
    pub fn make(self, make: impl FnOnce() -> tracing::Span) -> tracing::Span {
        ORIGIN.set(Some(self));
        let span = make();
        ORIGIN.set(None);
        span
    }
}

/// Where the present span stands; `None` where spans are not taken, or there is none.
pub fn current() -> Option<SpanContext> {
    let found = tracing::Span::current().with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let extensions = span.extensions();
        extensions.get::<Taken>().map(|taken| taken.context.clone())
    });
    found.flatten()
}

/// What is kept with a span.
struct Taken {
    context: SpanContext,
    /// Of one that is recorded.
    open: Option<Box<Open>>,
}

struct Open {
    parent: Option<SpanContext>,
    begun: u64,
    since: Instant,
    ago: Duration,
    /// Where it is another than the span's in the code.
    name: Option<String>,
    kind: SpanKind,
    failed: bool,
    attributes: Attributes,
}

impl Tap {
    /// What of everything that is said is wanted: spans, and lines at the level of the log.
    pub(crate) const fn wanted(&self, lines: LevelFilter) -> Wanted {
        Wanted {
            spans: self.spans.is_some(),
            lines: if self.records.is_some() {
                lines
            } else {
                LevelFilter::OFF
            },
        }
    }
}

/// What of everything that is said is taken.
#[derive(Debug)]
pub(crate) struct Wanted {
    spans: bool,
    lines: LevelFilter,
}

impl Wanted {
    fn has(&self, metadata: &Metadata<'_>) -> bool {
        let of_spans = metadata.is_span() && self.spans && *metadata.level() <= Level::DEBUG;
        let of_lines = metadata.is_event() && *metadata.level() <= self.lines;
        metadata.target().starts_with(OURS) && (of_spans || of_lines)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.has(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.has(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.spans {
            self.lines.max(LevelFilter::DEBUG)
        } else {
            self.lines
        })
    }
}

impl<S> Layer<S> for Tap
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let (Some(spans), Some(span)) = (&self.spans, context.span(id)) else {
            return;
        };
        let above = span.parent();
        let above =
            above.and_then(|above| Some(above.extensions().get::<Taken>()?.context.clone()));
        let taken = spans.begin(ORIGIN.take().unwrap_or_default(), above, attributes);
        span.extensions_mut().insert(taken);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let taken = extensions.get_mut::<Taken>();
        if let Some(open) = taken.and_then(|taken| taken.open.as_mut()) {
            values.record(&mut **open);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(records) = &self.records else { return };
        let within = context.event_span(event);
        let within =
            within.and_then(|span| Some(span.extensions().get::<Taken>()?.context.clone()));
        records.queue.put(records.record(event, within.as_ref()));
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        let (Some(spans), Some(span)) = (&self.spans, context.span(&id)) else {
            return;
        };
        let taken = span.extensions_mut().remove::<Taken>();
        if let Some((Some(open), context)) = taken.map(|taken| (taken.open, taken.context)) {
            spans.queue.put(open.span(&context, span.name()));
        }
    }
}

impl Spans {
    fn begin(
        &self,
        origin: Origin,
        above: Option<SpanContext>,
        attributes: &span::Attributes<'_>,
    ) -> Taken {
        let parent = origin.parent.or(above);
        let trace = parent.as_ref().map_or_else(
            || TraceId::from_bytes(self.random.bytes()),
            SpanContext::trace_id,
        );
        let id = origin.id;
        let id = id.unwrap_or_else(|| SpanId::from_bytes(self.random.bytes()));
        let sampled = self.sampler.takes(trace, parent.as_ref());
        let open = sampled.then(|| {
            let mut open = Box::new(Open {
                parent: parent.filter(|parent| parent.span_id() != id),
                begun: clock::now(),
                since: Instant::now(),
                ago: origin.ago,
                name: None,
                kind: SpanKind::Internal,
                failed: false,
                attributes: Attributes::within(self.attributes),
            });
            attributes.record(&mut *open);
            open
        });
        let flags = TraceFlags::default().with_sampled(sampled);
        Taken {
            context: SpanContext::new(trace, id, flags, false, TraceState::NONE),
            open,
        }
    }
}

impl Open {
    fn span(self, context: &SpanContext, name: &str) -> Span {
        let begun = self.begun.saturating_sub(clock::nanos(self.ago));
        let parent = self.parent.as_ref();
        let remote = if parent.is_some_and(SpanContext::is_remote) {
            REMOTE
        } else {
            0
        };
        Span {
            trace_id: context.trace_id().to_bytes().to_vec(),
            id: context.span_id().to_bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |it| it.span_id().to_bytes().to_vec()),
            name: self.name.unwrap_or_else(|| name.to_owned()),
            kind: otlp::kind(&self.kind),
            start_time_unix_nano: begun,
            end_time_unix_nano: self
                .begun
                .saturating_add(clock::nanos(self.since.elapsed())),
            attributes: self.attributes.kept,
            dropped_attributes_count: self.attributes.dropped,
            status: self.failed.then_some(Status::FAILED),
            flags: flags(context) | KNOWS_OF_REMOTE | remote,
        }
    }
}

/// Those of W3C Trace Context.
fn flags(context: &SpanContext) -> u32 {
    context.trace_flags().to_u8().into()
}

/// A span's fields are its attributes, but for those that say of which kind it is and what it is called; one with
/// `error.type` has failed.
impl Visit for Open {
    fn record_str(&mut self, field: &Field, value: &str) {
        match (field.name(), value) {
            ("otel.kind", "server") => self.kind = SpanKind::Server,
            ("otel.kind", "client") => self.kind = SpanKind::Client,
            ("otel.kind", _) => {}
            ("otel.name", name) => self.name = Some(name.to_owned()),
            (name, value) => {
                self.failed |= name == ERROR_TYPE;
                self.attributes.put(name, otlp::text(value));
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.put(field.name(), otlp::count(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.put(field.name(), Value::IntValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attributes.put(field.name(), Value::BoolValue(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attributes.put(field.name(), Value::DoubleValue(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Records {
    fn record(&self, event: &Event<'_>, within: Option<&SpanContext>) -> LogRecord {
        let mut line = Line {
            body: String::new(),
            attributes: Attributes::within(self.attributes),
        };
        event.record(&mut line);
        let level = *event.metadata().level();
        let now = clock::now();
        LogRecord {
            time_unix_nano: now,
            observed_time_unix_nano: now,
            severity_number: severity(level).into(),
            severity_text: level.as_str().to_owned(),
            body: Some(AnyValue {
                value: Some(otlp::text(line.body)),
            }),
            attributes: line.attributes.kept,
            dropped_attributes_count: line.attributes.dropped,
            flags: within.map_or(0, flags),
            trace_id: within.map_or_else(Vec::new, |it| it.trace_id().to_bytes().to_vec()),
            span_id: within.map_or_else(Vec::new, |it| it.span_id().to_bytes().to_vec()),
            ..LogRecord::default()
        }
    }
}

/// The first of the four that the standard has for each level.
const fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    }
}

/// A line of the log. Of its fields, those leave the machine that cannot name anybody ([`fields`]).
struct Line {
    body: String,
    attributes: Attributes,
}

impl Line {
    fn put(&mut self, field: &Field, value: impl FnOnce() -> Value) {
        if fields::may_leave(field.name()) {
            self.attributes.put(field.name(), value());
        } else {
            self.attributes.dropped += 1;
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, || otlp::text(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, || otlp::count(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, || Value::IntValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, || Value::BoolValue(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.body = format!("{value:?}");
        } else {
            self.put(field, || otlp::text(format!("{value:?}")));
        }
    }
}

/// Attributes within their limits.
struct Attributes {
    limits: AttributeLimits,
    kept: Vec<KeyValue>,
    dropped: u32,
}

impl Attributes {
    const fn within(limits: AttributeLimits) -> Self {
        Self {
            limits,
            kept: Vec::new(),
            dropped: 0,
        }
    }

    /// Adds one, or says anew what one of this name is.
    fn put(&mut self, name: &str, value: Value) {
        let attribute = otlp::attribute(name, self.cut(value));
        let has_room = self.kept.len() < self.limits.count;
        match self.kept.iter_mut().find(|kept| kept.key == name) {
            Some(kept) => *kept = attribute,
            None if has_room => self.kept.push(attribute),
            None => self.dropped += 1,
        }
    }

    fn cut(&self, value: Value) -> Value {
        match value {
            Value::StringValue(text) if text.len() > self.limits.length => {
                Value::StringValue(text.chars().take(self.limits.length).collect())
            }
            value => value,
        }
    }
}

#[cfg(test)]
mod tests;
