//! Connections of the port in clear: HTTP/1.1 and, for an orchestrator that asks by gRPC, HTTP/2 without TLS. Which of the
//! two a caller speaks is seen by how it begins.

use std::{convert::Infallible, sync::Arc};

use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxStream, Service as _},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::{
    places::Place,
    server::{Connection, HEAD_OCTETS, LAST_WORDS, Server, Source},
};

/// Requests at once on a connection: a probe asks one thing.
const STREAMS: u32 = 8;

/// Octets of a request by gRPC, whose one field is the name of a service.
const MESSAGE_OCTETS: usize = 1024;

/// Answers on one connection until it ends or the process does.
pub(super) async fn serve(
    server: Server,
    stream: Box<dyn Connection>,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    let patience = server.patience;
    let health = HealthServer::new(Answering(Arc::clone(&server.source)))
        .max_decoding_message_size(MESSAGE_OCTETS);
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, place, mut health) = (server.clone(), Arc::clone(&place), health.clone());
        async move {
            if is_grpc(&request) {
                return health.call(request).await;
            }
            Ok::<Response<Body>, Infallible>(server.answer(&request, &place).await.map(Body::new))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_OCTETS);
    builder
        .http2()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_OCTETS).unwrap_or(u32::MAX));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // What goes wrong on such a connection is the caller's to notice.
    tokio::select! {
        _ = &mut connection => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            _ = timeout(LAST_WORDS, connection).await;
        }
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
    request.method() == Method::POST && kind.starts_with(b"application/grpc")
}

/// `grpc.health.v1` of one process.
struct Answering(Arc<dyn Source>);

#[tonic::async_trait]
impl Health for Answering {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let serves = match request.get_ref().service.as_str() {
            "" | "readiness" => self.0.ready(),
            "liveness" => true,
            _ => return Err(Status::not_found("there is readiness, and liveness")),
        };
        let status = if serves {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        let status = status.into();
        Ok(tonic::Response::new(HealthCheckResponse { status }))
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    /// A probe asks anew each time. By `grpc.health.v1` nobody tries this again.
    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask by Check"))
    }
}
