//! Connections of the admin endpoint, and what a stranger may cost there.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrypost_runtime::{
    accept::{self, Complaints},
    shutdown::Shutdown,
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Denied};
use crate::net::{self, tls_server::ServerTls};

/// Connections at once; further ones wait to be accepted. Operators and their monitoring are few.
const CONNECTIONS: usize = 64;

/// Octets of a request's head.
const HEAD_OCTETS: usize = 16 * 1024;

/// Time for the TLS handshake, and for the head of each request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time that a connection may last, so that idle ones make room.
const LIFETIME: Duration = Duration::from_mins(2);

/// Time that requests under way are given when the process stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is served.
pub trait Source: Send + Sync + 'static {
    /// Whether clients are accepted.
    fn ready(&self) -> bool;

    /// The document of `/stats`.
    fn stats(&self) -> serde_json::Value;

    /// The text of `/metrics`, as Prometheus reads it.
    fn metrics(&self) -> String;
}

/// Answers on one listening socket.
#[derive(Clone)]
pub struct Server {
    source: Arc<dyn Source>,
    /// `None`: only `/healthz` and `/readyz` are there, in clear.
    guarded: Option<Guarded>,
}

#[derive(Clone)]
struct Guarded {
    tls: ServerTls,
    access: Arc<Access>,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    /// Serves everything, over TLS.
    pub fn full(source: Arc<dyn Source>, tls: ServerTls, access: Access) -> Self {
        let access = Arc::new(access);
        Self {
            source,
            guarded: Some(Guarded { tls, access }),
        }
    }

    /// Serves `/healthz` and `/readyz`, in clear.
    pub fn health_only(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            guarded: None,
        }
    }

    /// Accepts connections until the process stops.
    pub async fn run(self, listener: net::TcpListener, shutdown: Shutdown) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let stop = shutdown.stopping().clone();
        let accept = || async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("it is never closed");
            let (stream, peer) = net::accept(&listener).await?;
            Ok((stream, peer, permit))
        };
        let complaints = Complaints::of("admin");
        let accepting = accept::connections(&complaints, accept, |(stream, peer, permit)| {
            let connection = self.clone().connection(stream, peer.ip(), stop.clone());
            shutdown.spawn(async move {
                _ = timeout(LIFETIME, connection).await;
                drop(permit);
            });
        });
        _ = stop.run_until_cancelled(accepting).await;
    }

    async fn connection(self, stream: net::TcpStream, peer: IpAddr, stop: CancellationToken) {
        match &self.guarded {
            None => self.exchange(stream, peer, stop).await,
            Some(guarded) => {
                // A failed handshake is a scanner's or a mistyped URL's and says nothing to us.
                if let Ok(Ok(stream)) = timeout(PATIENCE, guarded.tls.accept_stream(stream)).await {
                    self.exchange(stream, peer, stop).await;
                }
            }
        }
    }

    async fn exchange<S>(&self, stream: S, peer: IpAddr, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let service =
            service_fn(
                |request| async move { Ok::<_, Infallible>(self.answer(&request, peer).await) },
            );
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEAD_OCTETS)
            .serve_connection(TokioIo::new(stream), service);
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

    async fn answer(&self, request: &Request<Incoming>, peer: IpAddr) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match (request.uri().path(), &self.guarded) {
            ("/healthz", _) => plain(StatusCode::OK, "ok\n"),
            ("/readyz", _) if self.source.ready() => plain(StatusCode::OK, "ready\n"),
            ("/readyz", _) => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            // Without a token nobody learns which other paths there are.
            (path, Some(guarded)) => {
                let header = request
                    .headers()
                    .get(AUTHORIZATION)
                    .map(HeaderValue::as_bytes);
                match guarded.access.check(peer, header).await {
                    Err(denied) => refusal(denied),
                    Ok(()) if path == "/stats" => document(&self.source.stats()),
                    Ok(()) if path == "/metrics" => metrics(self.source.metrics()),
                    Ok(()) => plain(
                        StatusCode::NOT_FOUND,
                        "there is /stats, /metrics, /healthz, /readyz\n",
                    ),
                }
            }
            (_, None) => plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

fn document(stats: &serde_json::Value) -> Answer {
    let mut answer = plain(StatusCode::OK, format!("{stats:#}\n"));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn metrics(text: String) -> Answer {
    let mut answer = plain(StatusCode::OK, text);
    let form = HeaderValue::from_static("text/plain; version=0.0.4");
    answer.headers_mut().insert(CONTENT_TYPE, form);
    answer
}

fn refusal(denied: Denied) -> Answer {
    match denied {
        Denied::Unauthorized => {
            let mut answer = plain(StatusCode::UNAUTHORIZED, "a bearer token is needed\n");
            let scheme = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            answer
        }
        Denied::LockedOut { remaining } => {
            let mut answer = plain(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens\n");
            let seconds = HeaderValue::from(remaining.as_secs().max(1));
            answer.headers_mut().insert(RETRY_AFTER, seconds);
            answer
        }
        Denied::NoToken => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the token file of this server cannot be read\n",
        ),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
