//! Connections of the admin endpoint, and what a stranger may cost there.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
        WWW_AUTHENTICATE,
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

use super::{
    access::{Access, Denied, Right},
    probe,
};
use crate::{
    accept::{self, Complaints},
    metrics::{Reading, prometheus},
    shutdown::Shutdown,
};

/// Connections at once; further ones wait to be accepted. Operators and their monitoring are few.
const CONNECTIONS: usize = 64;

/// Octets of a request's head.
pub(super) const HEAD_OCTETS: usize = 16 * 1024;

/// Time for the TLS handshake, and for the head of each request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Time that a connection may last, so that idle ones make room; beside what draining may take.
const LIFETIME: Duration = Duration::from_mins(2);

/// The same on the port in clear: a probe asks once.
const PROBE_LIFETIME: Duration = Duration::from_secs(20);

/// What stops serving whoever is served.
const DRAIN: &str = "/drain";

/// Time that requests under way are given when the process stops.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// How draining went, when it is over.
pub type Drained = Pin<Box<dyn Future<Output = serde_json::Value> + Send>>;

/// What is served.
pub trait Source: Send + Sync + 'static {
    /// Whether the process serves those whom it is for.
    fn ready(&self) -> bool;

    /// The document of `/stats`.
    fn stats(&self) -> serde_json::Value;

    /// What all instruments stand at, for `/metrics` and for a collector.
    fn metrics(&self) -> Vec<Reading>;

    /// Begins to let go of everybody, if nobody has, and says how that went when it is over. `None`: there is nobody
    /// to let go of.
    fn drain(&self) -> Option<Drained> {
        None
    }
}

/// An open connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A listening socket and its TLS.
pub trait Door: Send + Sync + 'static {
    /// A connection whose handshake is still to come.
    type Caller: Send + 'static;

    /// Waits for one. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Caller, SocketAddr)>> + Send;

    /// Shakes hands with it, where that is asked for.
    fn secure(
        &self,
        caller: Self::Caller,
    ) -> impl Future<Output = io::Result<Box<dyn Connection>>> + Send;
}

/// Answers behind one door.
#[derive(Clone)]
pub struct Server {
    pub(super) source: Arc<dyn Source>,
    /// `None`: only `/healthz` and `/readyz` are there.
    access: Option<Arc<Access>>,
    lifetime: Duration,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    /// Serves everything. The door must have TLS: a token crosses it.
    pub fn full(source: Arc<dyn Source>, access: Access) -> Self {
        Self {
            source,
            access: Some(Arc::new(access)),
            lifetime: LIFETIME,
        }
    }

    /// The same, where a caller may have to wait for so long until everybody is let go of.
    #[must_use]
    pub fn draining_within(mut self, limit: Duration) -> Self {
        self.lifetime = LIFETIME.saturating_add(limit);
        self
    }

    /// Serves `/healthz` and `/readyz`, and the same by gRPC, for a door in clear.
    pub fn health_only(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            access: None,
            lifetime: PROBE_LIFETIME,
        }
    }

    /// Accepts connections until the process stops.
    pub async fn run<D: Door>(self, door: D, shutdown: Shutdown) {
        let door = Arc::new(door);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let stop = shutdown.stopping().clone();
        let accept = || async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("it is never closed");
            let (caller, peer) = door.accept().await?;
            Ok((caller, peer, permit))
        };
        let complaints = Complaints::of("admin");
        let accepting = accept::connections(&complaints, accept, |(caller, peer, permit)| {
            let (server, door) = (self.clone(), Arc::clone(&door));
            let lifetime = self.lifetime;
            let connection = server.connection(door, caller, peer.ip(), stop.clone());
            shutdown.spawn(async move {
                _ = timeout(lifetime, connection).await;
                drop(permit);
            });
        });
        _ = stop.run_until_cancelled(accepting).await;
    }

    async fn connection<D: Door>(
        self,
        door: Arc<D>,
        caller: D::Caller,
        peer: IpAddr,
        stop: CancellationToken,
    ) {
        // A failed handshake is a scanner's or a mistyped URL's and says nothing to us.
        if let Ok(Ok(stream)) = timeout(PATIENCE, door.secure(caller)).await {
            match self.access {
                Some(_) => self.exchange(stream, peer, stop).await,
                None => probe::serve(self, stream, peer, stop).await,
            }
        }
    }

    async fn exchange(&self, stream: Box<dyn Connection>, peer: IpAddr, stop: CancellationToken) {
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

    pub(super) async fn answer(&self, request: &Request<Incoming>, peer: IpAddr) -> Answer {
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        match (request.uri().path(), &self.access) {
            (DRAIN, Some(access)) if request.method() == Method::POST => {
                match access.check(peer, bearer(request), Right::Drain).await {
                    Err(denied) => refusal(denied),
                    Ok(()) => self.drain().await,
                }
            }
            (DRAIN, Some(_)) => not_allowed("POST"),
            _ if !reads => not_allowed("GET, HEAD"),
            ("/healthz", _) => plain(StatusCode::OK, "ok\n"),
            ("/readyz", _) if self.source.ready() => plain(StatusCode::OK, "ready\n"),
            ("/readyz", _) => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            // Without a token nobody learns which other paths there are.
            (path, Some(access)) => match access.check(peer, bearer(request), Right::Read).await {
                Err(denied) => refusal(denied),
                Ok(()) if path == "/stats" => document(&self.source.stats()),
                Ok(()) if path == "/metrics" => metrics(prometheus(&self.source.metrics())),
                Ok(()) => plain(
                    StatusCode::NOT_FOUND,
                    "there is /stats, /metrics, /healthz, /readyz, and POST /drain\n",
                ),
            },
            (_, None) => plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

impl Server {
    async fn drain(&self) -> Answer {
        match self.source.drain() {
            Some(drained) => document(&drained.await),
            None => plain(StatusCode::NOT_FOUND, "there is nothing to drain here\n"),
        }
    }
}

fn bearer(request: &Request<Incoming>) -> Option<&[u8]> {
    let header = request.headers().get(AUTHORIZATION);
    header.map(HeaderValue::as_bytes)
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = plain(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{allowed} is served here\n"),
    );
    let allow = HeaderValue::from_static(allowed);
    answer.headers_mut().insert(ALLOW, allow);
    answer
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
        Denied::Forbidden => plain(StatusCode::FORBIDDEN, "this token is for something else\n"),
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
