//! OpenTelemetry: traces, metrics and logs to a collector, by OTLP over gRPC (decision 0038, `docs/telemetry.md`).
//!
//! ```text
//!   spans, lines ─ tap ─ queue (bounded) ─┐
//!                                         ├─ a thread of its own ─ collector
//!   instruments ───────── readings ───────┘
//!
//!   environment   what is exported, where and how: the standard's variables
//!   context       a span's place in a trace; which traces are recorded
//!   fields        what of a line leaves the machine
//!   otlp          the messages
//!   courier       takes batches to the collector, counts and complains
//! ```
//!
//! Nobody who serves ever waits for a collector: what has no room in a queue is dropped and counted. Where nothing is
//! exported nothing is made either: no thread, no queue, no span.

mod clock;
mod collector;
mod context;
mod courier;
mod environment;
mod fields;
mod otlp;
mod queue;
mod readings;
mod tap;

use std::{ffi::OsString, io, sync::Arc, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::Attributes;
use opentelemetry_semantic_conventions::resource::{
    SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, TELEMETRY_SDK_LANGUAGE, TELEMETRY_SDK_NAME,
    TELEMETRY_SDK_VERSION,
};
use tokio::runtime::{self, Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Random,
    admin::Source,
    metrics::{Attribute, Counter, Instrument, Kind, Metrics, Values},
};
use collector::Collector;
use courier::{Courier, Sender};
use environment::Settings;
use otlp::{LogsRequest, MetricsRequest, TracesRequest};
use queue::Queue;
use readings::Readings;
use tap::{Records, Spans};

pub use context::Tracing;
pub use opentelemetry::{SpanId, TraceId, trace::SpanContext};
pub(crate) use tap::Wanted;
pub use tap::{Origin, Tap, current};

/// What is given to what waits to be sent when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The words for the signals, as the standard writes them.
const SIGNALS: &[&str] = &["traces", "metrics", "logs"];

/// The words for why something was dropped: it had no room, or the collector did not take it.
const REASONS: &[&str] = &["queue_full", "not_delivered"];

/// What no collector got. In the table of both planes.
pub static DROPPED: Instrument = Instrument {
    name: "ferrypost.telemetry.dropped",
    unit: "{item}",
    kind: Kind::Counter,
    description: "Spans, data points of metrics and log records that no OpenTelemetry collector got.",
    attributes: &[
        Attribute {
            name: "signal",
            values: Values::Words(SIGNALS),
        },
        Attribute {
            name: "reason",
            values: Values::Words(REASONS),
        },
    ],
};

/// Who exports.
#[derive(Debug, Clone)]
pub struct Service {
    /// `service.name`, unless the environment says another.
    pub name: &'static str,
    /// `service.instance.id`: what the process is called among its kind.
    pub instance: String,
}

/// What a process exports.
#[derive(Debug)]
pub struct Telemetry {
    settings: Settings,
    complaints: Vec<String>,
    resource: Vec<otlp::KeyValue>,
    random: Random,
    dropped: Dropped,
    spans: Option<Arc<Queue<otlp::Span>>>,
    records: Option<Arc<Queue<otlp::LogRecord>>>,
    running: Option<Running>,
}

/// The series of [`DROPPED`], which are counted in before the plane's instruments are made.
#[derive(Debug, Clone, Default)]
struct Dropped([[Counter; 2]; 3]);

/// What sends.
#[derive(Debug)]
struct Running {
    runtime: Runtime,
    ending: CancellationToken,
    tasks: TaskTracker,
}

impl Telemetry {
    /// As the environment of this process says.
    pub fn from_environment(service: &Service, random: Random) -> Self {
        Self::of(std::env::vars_os(), service, random)
    }

    /// None at all.
    pub fn off() -> Self {
        let service = Service {
            name: "",
            instance: String::new(),
        };
        Self::of([], &service, Random::seeded(0))
    }

    fn of(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        service: &Service,
        random: Random,
    ) -> Self {
        let (settings, complaints) = Settings::of(variables);
        let dropped = Dropped::default();
        let queue_of = |signal: &str| dropped.of(signal, "queue_full").clone();
        let spans = settings.traces.as_ref();
        let records = settings.logs.as_ref();
        Self {
            spans: spans.map(|it| Arc::new(Queue::new(it.batch, queue_of("traces")))),
            records: records.map(|it| Arc::new(Queue::new(it.batch, queue_of("logs")))),
            resource: Attributes::from(resource(service, &settings.resource)).0,
            settings,
            complaints,
            random,
            dropped,
            running: None,
        }
    }

    /// What takes spans and lines, for the log to install; `None` where neither is exported.
    pub fn tap(&self) -> Option<Tap> {
        let spans = self.settings.traces.as_ref().zip(self.spans.clone());
        let records = self.settings.logs.as_ref().zip(self.records.clone());
        if spans.is_none() && records.is_none() {
            return None;
        }
        Some(Tap {
            spans: spans.map(|(settings, queue)| Spans {
                queue,
                sampler: settings.sampler,
                attributes: settings.attributes,
                random: self.random.clone(),
            }),
            records: records.map(|(settings, queue)| Records {
                queue,
                attributes: settings.attributes,
            }),
        })
    }

    /// How traces begin.
    pub fn tracing(&self) -> Tracing {
        let traces = self.settings.traces.as_ref();
        Tracing::new(
            self.settings.follows_callers,
            traces.map(|it| it.sampler.share),
        )
    }

    /// Logs what is wrong with the environment, and what is exported. For when there is a log.
    pub fn log_start(&self) {
        for problem in &self.complaints {
            tracing::warn!(problem, "OpenTelemetry's environment");
        }
        let Settings {
            traces,
            metrics,
            logs,
            ..
        } = &self.settings;
        let targets = [
            traces.as_ref().map(|it| ("traces", &it.target)),
            metrics.as_ref().map(|it| ("metrics", &it.target)),
            logs.as_ref().map(|it| ("logs", &it.target)),
        ];
        for (signal, target) in targets.into_iter().flatten() {
            tracing::info!(signal, endpoint = target.shown(), "exported by OTLP");
        }
    }

    /// A plane's instruments, of which [`DROPPED`] is one: that counts what is dropped here.
    pub fn metrics(&self, table: &[&'static Instrument]) -> Metrics {
        let mut metrics = Metrics::new(table);
        for (signal, counters) in SIGNALS.iter().zip(&self.dropped.0) {
            for (reason, counter) in REASONS.iter().zip(counters) {
                metrics.adopt(&DROPPED, &[signal, reason], counter.clone());
            }
        }
        metrics
    }

    /// Begins to send, on a thread of its own: what was taken so far, too.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(&mut self, source: Arc<dyn Source>) -> io::Result<()> {
        if self.settings.is_idle() {
            return Ok(());
        }
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()?;
        let running = Running {
            runtime,
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        {
            let _within = running.runtime.enter();
            self.start_spans(&running);
            self.start_records(&running);
            self.start_metrics(&running, source);
        }
        running.tasks.close();
        self.running = Some(running);
        Ok(())
    }

    /// Sends what is left, for at most three seconds, and ends. Not from within an asynchronous task.
    pub fn finish(self) {
        let Some(running) = self.running else { return };
        running.ending.cancel();
        let sending = async { tokio::time::timeout(LAST_WORDS, running.tasks.wait()).await };
        let sent = running.runtime.block_on(sending);
        if sent.is_err() {
            tracing::info!("ends with telemetry that no collector has taken");
        }
        // Not even for a thread that waits for a resolver.
        running.runtime.shutdown_background();
    }

    /// Ends without that: what is left is lost.
    pub fn abandon(self) {
        if let Some(running) = self.running {
            running.runtime.shutdown_background();
        }
    }

    fn start_spans(&self, running: &Running) {
        let Some((settings, queue)) = self.settings.traces.as_ref().zip(self.spans.clone()) else {
            return;
        };
        let limit = settings.target.timeout.min(settings.batch.timeout);
        if let Some(sender) = self.sender("traces", &settings.target, limit, running) {
            let courier = Courier::<TracesRequest>::new(sender);
            running
                .tasks
                .spawn(courier.empty(queue, running.ending.clone()));
        }
    }

    fn start_records(&self, running: &Running) {
        let Some((settings, queue)) = self.settings.logs.as_ref().zip(self.records.clone()) else {
            return;
        };
        let limit = settings.target.timeout.min(settings.batch.timeout);
        if let Some(sender) = self.sender("logs", &settings.target, limit, running) {
            let courier = Courier::<LogsRequest>::new(sender);
            running
                .tasks
                .spawn(courier.empty(queue, running.ending.clone()));
        }
    }

    fn start_metrics(&self, running: &Running, source: Arc<dyn Source>) {
        let Some(settings) = &self.settings.metrics else {
            return;
        };
        let limit = settings.target.timeout.min(settings.timeout);
        if let Some(sender) = self.sender("metrics", &settings.target, limit, running) {
            let readings = Readings::new(clock::now(), settings.deltas);
            let courier = Courier::<MetricsRequest>::new(sender);
            let reporting =
                courier.report(source, readings, settings.interval, running.ending.clone());
            running.tasks.spawn(reporting);
        }
    }

    fn sender(
        &self,
        signal: &'static str,
        target: &environment::Target,
        limit: Duration,
        running: &Running,
    ) -> Option<Sender> {
        match Collector::new(target, self.random.clone()) {
            Ok(collector) => Some(Sender {
                signal,
                collector,
                resource: self.resource.clone(),
                limit,
                undelivered: self.dropped.of(signal, "not_delivered").clone(),
                crowded_out: self.dropped.of(signal, "queue_full").clone(),
                ending: running.ending.clone(),
            }),
            Err(error) => {
                tracing::warn!(signal, %error, "is not exported");
                None
            }
        }
    }
}

impl Dropped {
    fn of(&self, signal: &str, reason: &str) -> &Counter {
        let place = |words: &[&str], word| words.iter().position(|known| *known == word);
        let signal = place(SIGNALS, signal).expect("a signal's word");
        let reason = place(REASONS, reason).expect("a reason's word");
        &self.0[signal][reason]
    }
}

/// Who we are. The environment knows better than we do, but not what sends.
fn resource(service: &Service, said: &[(String, String)]) -> Vec<KeyValue> {
    let version = env!("CARGO_PKG_VERSION");
    let mut attributes = vec![
        KeyValue::new(SERVICE_NAME, service.name),
        KeyValue::new(SERVICE_INSTANCE_ID, service.instance.clone()),
        KeyValue::new(SERVICE_VERSION, version),
    ];
    for (key, value) in said {
        attributes.retain(|ours| ours.key.as_str() != *key);
        attributes.push(KeyValue::new(key.clone(), value.clone()));
    }
    attributes.retain(|it| !it.key.as_str().starts_with("telemetry.sdk."));
    attributes.push(KeyValue::new(TELEMETRY_SDK_NAME, "ferrypost"));
    attributes.push(KeyValue::new(TELEMETRY_SDK_LANGUAGE, "rust"));
    attributes.push(KeyValue::new(TELEMETRY_SDK_VERSION, version));
    attributes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{otlp::Value, *};
    use crate::metrics::Reading;

    const TRACE: TraceId = TraceId::from_bytes([7; 16]);

    fn of(variables: &[(&str, &str)]) -> Telemetry {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let service = Service {
            name: "test",
            instance: "1".to_owned(),
        };
        Telemetry::of(variables, &service, Random::seeded(38))
    }

    /// One that would export logs, if it was started.
    pub(crate) fn exporting() -> Telemetry {
        of(&[("OTEL_LOGS_EXPORTER", "otlp")])
    }

    impl Telemetry {
        /// What was said in the log and is not sent yet.
        pub(crate) fn waiting_lines(&self) -> Vec<String> {
            let waiting = self.records.as_ref().expect("exported").take();
            let body = |it: otlp::LogRecord| match it.body?.value? {
                Value::StringValue(text) => Some(text),
                _ => None,
            };
            waiting.into_iter().filter_map(body).collect()
        }
    }

    #[test]
    fn a_trace_begins_as_the_sampler_and_the_propagators_say() {
        let traces = ("OTEL_TRACES_EXPORTER", "otlp");
        let all = of(&[traces]).tracing();
        assert!(all.follows_callers() && all.records(TRACE));
        let none = of(&[traces, ("OTEL_TRACES_SAMPLER", "parentbased_always_off")]).tracing();
        assert!(!none.records(TRACE));
        let alone = of(&[traces, ("OTEL_PROPAGATORS", "none")]).tracing();
        assert!(!alone.follows_callers());
        for off in [&[][..], &[("OTEL_SDK_DISABLED", "true")]] {
            let off = of(off).tracing();
            assert!(off.follows_callers() && off.records(TRACE));
        }
    }

    /// A plane of which nothing is known.
    struct Nothing;

    impl Source for Nothing {
        fn ready(&self) -> bool {
            true
        }

        fn stats(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn metrics(&self) -> Vec<Reading> {
            Vec::new()
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a collector stands outside what a simulation looks at"
    )]
    fn the_end_of_a_process_waits_three_seconds_for_a_collector_that_has_an_hour() {
        // Connections wait in its backlog for ever.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let mut telemetry = of(&[
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "0"),
        ]);
        telemetry.start(Arc::new(Nothing)).unwrap();
        let records = telemetry.records.clone().expect("exported");
        records.put(otlp::LogRecord::default());
        let begun = tokio::time::Instant::now();
        telemetry.finish();
        let took = begun.elapsed();
        assert!(took >= LAST_WORDS, "{took:?}: somebody has answered");
        assert!(took < Duration::from_mins(1), "{took:?}");
    }
}
