//! OTLP's messages, put together.
//!
//! Those of metrics and of log records, and what all have in common, are the standard's own. Those of spans are written
//! down here, as far as something is sent in them: what publishes them brings the standard's kit for traces along, and
//! with it a second version of `rand` (decision 0042). The tests decode what is sent with that library.

use opentelemetry::trace::SpanKind;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
        metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    },
    logs::v1::{ResourceLogs, ScopeLogs},
    metrics::v1::{ResourceMetrics, ScopeMetrics},
};
pub(super) use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
        metric::Data, number_data_point::Value as Number,
    },
    resource::v1::Resource,
};
use prost::Message;

pub(super) type LogsRequest = ExportLogsServiceRequest;
pub(super) type MetricsRequest = ExportMetricsServiceRequest;

/// A number of ours; none comes near the end of the signed ones.
pub(super) fn count(count: u64) -> Value {
    Value::IntValue(i64::try_from(count).unwrap_or(i64::MAX))
}

pub(super) fn text(text: impl Into<String>) -> Value {
    Value::StringValue(text.into())
}

pub(super) fn attribute(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// A request of one signal, which has the same form for each: items of one scope of one resource.
pub(super) trait Request: Message + Clone + Default + 'static {
    /// What it carries.
    type Item: Message + Clone + Default + 'static;

    /// What a collector says to it.
    type Answer: Message + Default + 'static;

    /// The method that takes it.
    const METHOD: &'static str;

    /// With these.
    fn of(resource: Resource, scope: InstrumentationScope, items: Vec<Self::Item>) -> Self;

    /// How many items the collector says that it did not take.
    fn rejected(answer: &Self::Answer) -> i64;
}

impl Request for LogsRequest {
    type Item = LogRecord;
    type Answer = ExportLogsServiceResponse;

    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn of(resource: Resource, scope: InstrumentationScope, log_records: Vec<LogRecord>) -> Self {
        let of_scope = ScopeLogs {
            scope: Some(scope),
            log_records,
            ..ScopeLogs::default()
        };
        Self {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![of_scope],
                ..ResourceLogs::default()
            }],
        }
    }

    fn rejected(answer: &Self::Answer) -> i64 {
        let some = answer.partial_success.as_ref();
        some.map_or(0, |some| some.rejected_log_records)
    }
}

impl Request for MetricsRequest {
    type Item = Metric;
    type Answer = ExportMetricsServiceResponse;

    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn of(resource: Resource, scope: InstrumentationScope, metrics: Vec<Metric>) -> Self {
        let of_scope = ScopeMetrics {
            scope: Some(scope),
            metrics,
            ..ScopeMetrics::default()
        };
        Self {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource),
                scope_metrics: vec![of_scope],
                ..ResourceMetrics::default()
            }],
        }
    }

    fn rejected(answer: &Self::Answer) -> i64 {
        let some = answer.partial_success.as_ref();
        some.map_or(0, |some| some.rejected_data_points)
    }
}

impl Request for TracesRequest {
    type Item = Span;
    type Answer = TracesResponse;

    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn of(resource: Resource, scope: InstrumentationScope, spans: Vec<Span>) -> Self {
        let of_scope = ScopeSpans {
            scope: Some(scope),
            spans,
        };
        Self {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![of_scope],
            }],
        }
    }

    fn rejected(answer: &Self::Answer) -> i64 {
        let some = answer.partial_success.as_ref();
        some.map_or(0, |some| some.rejected_spans)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TracesRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TracesResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<TracesPartialSuccess>,
}

/// Without its text, which nobody is shown.
#[derive(Clone, PartialEq, Message)]
struct TracesPartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) id: Vec<u8>,
    /// Empty: it has none.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    /// As [`kind`] numbers them.
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "10")]
    pub(super) dropped_attributes_count: u32,
    /// `None`: it says nothing of whether it has failed.
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
    /// Those of W3C Trace Context, and whether the parent is another process's.
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

impl Status {
    /// `STATUS_CODE_ERROR`.
    pub(super) const FAILED: Self = Self { code: 2 };
}

/// The number of a kind of spans.
pub(super) const fn kind(kind: &SpanKind) -> i32 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}
