//! A collector of the tests: OTLP over gRPC as the standard's own library reads it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ferrypost_tests::certs::Identity;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// It listens until it is dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    received: Received,
    serving: JoinHandle<()>,
}

/// All that came, in order.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Everything>>);

#[derive(Default)]
struct Everything {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    headers: Vec<HeaderMap>,
}

impl Receiver {
    /// In clear.
    pub(super) async fn start() -> Self {
        Self::serve(Server::builder()).await
    }

    /// Over TLS, to those who show a certificate of this authority.
    pub(super) async fn over_tls(identity: &Identity, clients: &str) -> Self {
        let identity =
            tonic::transport::Identity::from_pem(identity.certificate_pem(), identity.key_pem());
        let clients = tonic::transport::Certificate::from_pem(clients);
        let tls = ServerTlsConfig::new()
            .identity(identity)
            .client_ca_root(clients);
        Self::serve(Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Received::default();
        let gzip = CompressionEncoding::Gzip;
        let router = server
            .add_service(TraceServiceServer::new(received.clone()).accept_compressed(gzip))
            .add_service(MetricsServiceServer::new(received.clone()).accept_compressed(gzip))
            .add_service(LogsServiceServer::new(received.clone()).accept_compressed(gzip));
        let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
        Self {
            address,
            received,
            serving: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The spans that came, each with who sent it.
    pub(super) fn spans(&self) -> Vec<(Resource, Span)> {
        let all = self.received.0.lock().unwrap();
        let of_resources = all.traces.iter().flat_map(|it| &it.resource_spans);
        let spans = of_resources.flat_map(|it| {
            let spans = it.scope_spans.iter().flat_map(|it| &it.spans);
            spans.map(|span| (it.resource.clone().unwrap(), span.clone()))
        });
        spans.collect()
    }

    /// The metrics that came, each with who sent it.
    pub(super) fn metrics(&self) -> Vec<(Resource, Metric)> {
        let all = self.received.0.lock().unwrap();
        let of_resources = all.metrics.iter().flat_map(|it| &it.resource_metrics);
        let metrics = of_resources.flat_map(|it| {
            let metrics = it.scope_metrics.iter().flat_map(|it| &it.metrics);
            metrics.map(|metric| (it.resource.clone().unwrap(), metric.clone()))
        });
        metrics.collect()
    }

    /// The log records that came, each with who sent it.
    pub(super) fn records(&self) -> Vec<(Resource, LogRecord)> {
        let all = self.received.0.lock().unwrap();
        let of_resources = all.logs.iter().flat_map(|it| &it.resource_logs);
        let records = of_resources.flat_map(|it| {
            let records = it.scope_logs.iter().flat_map(|it| &it.log_records);
            records.map(|record| (it.resource.clone().unwrap(), record.clone()))
        });
        records.collect()
    }

    /// The headers of every request.
    pub(super) fn headers(&self) -> Vec<HeaderMap> {
        self.received.0.lock().unwrap().headers.clone()
    }

    /// Everything as text, to look for what must not be there.
    pub(super) fn text(&self) -> String {
        let all = self.received.0.lock().unwrap();
        format!(
            "{:?} {:?} {:?} {:?}",
            all.traces, all.metrics, all.logs, all.headers
        )
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Received {
    fn take<T>(&self, request: Request<T>, of: impl FnOnce(&mut Everything) -> &mut Vec<T>) {
        let (metadata, _, message) = request.into_parts();
        let mut all = self.0.lock().unwrap();
        all.headers.push(metadata.into_headers());
        of(&mut all).push(message);
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request, |all| &mut all.traces);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request, |all| &mut all.metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(request, |all| &mut all.logs);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// What an attribute of this name is, as text.
pub(super) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|it| it.key == name)?;
    Some(text(found.value.as_ref()))
}

/// A value as text.
pub(super) fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
