//! Connections of the admin endpoint, and what a stranger may cost there.

use std::{
    convert::Infallible, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration,
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
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    access::{Access, Denied, Right},
    places::{Place, Places},
    probe,
};
use crate::{
    accept::{self, Complaints},
    metrics::{Reading, prometheus},
    shutdown::Shutdown,
};

/// Connections at once; a further one takes the place of another. Operators and their monitoring are few.
const CONNECTIONS: usize = 64;

/// Octets of a request's head.
pub(super) const HEAD_OCTETS: usize = 16 * 1024;

/// Time for the TLS handshake, and for the head of each request.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same on the port in clear: a probe waits a second for its answer, and asks at once.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// Time that a connection may last, so that idle ones make room; beside what draining may take.
const LIFETIME: Duration = Duration::from_mins(2);

/// The same on the port in clear: a probe asks once.
const PROBE_LIFETIME: Duration = Duration::from_secs(10);

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
    pub(super) patience: Duration,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    /// Serves everything. The door must have TLS: a token crosses it.
    pub fn full(source: Arc<dyn Source>, access: Access) -> Self {
        Self {
            source,
            access: Some(Arc::new(access)),
            lifetime: LIFETIME,
            patience: PATIENCE,
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
            patience: PROBE_PATIENCE,
        }
    }

    /// Accepts connections until the process stops.
    pub async fn run<D: Door>(self, door: D, shutdown: Shutdown) {
        let door = Arc::new(door);
        let places = Places::new(CONNECTIONS);
        let stop = shutdown.stopping().clone();
        let complaints = Complaints::of("admin");
        let accepting = accept::connections(
            &complaints,
            || door.accept(),
            |(caller, peer)| {
                let Some(place) = places.take(peer.ip()) else {
                    // Everybody who is connected has shown a token.
                    complaints.about(&"there is no place left for a further connection");
                    return;
                };
                let (server, door) = (self.clone(), Arc::clone(&door));
                shutdown.spawn(server.connection(door, caller, Arc::new(place), stop.clone()));
            },
        );
        _ = stop.run_until_cancelled(accepting).await;
    }

    /// Serves it until it ends, its time is over, or another needs its place.
    async fn connection<D: Door>(
        self,
        door: Arc<D>,
        caller: D::Caller,
        place: Arc<Place>,
        stop: CancellationToken,
    ) {
        let lifetime = self.lifetime;
        let served = timeout(lifetime, self.serve(door, caller, Arc::clone(&place), stop));
        tokio::select! {
            _ = served => {}
            () = place.lost() => {}
        }
    }

    async fn serve<D: Door>(
        self,
        door: Arc<D>,
        caller: D::Caller,
        place: Arc<Place>,
        stop: CancellationToken,
    ) {
        // A failed handshake is a scanner's or a mistyped URL's and says nothing to us.
        if let Ok(Ok(stream)) = timeout(self.patience, door.secure(caller)).await {
            match self.access {
                Some(_) => self.exchange(stream, &place, stop).await,
                None => probe::serve(self, stream, place, stop).await,
            }
        }
    }

    async fn exchange(&self, stream: Box<dyn Connection>, place: &Place, stop: CancellationToken) {
        let service =
            service_fn(
                |request| async move { Ok::<_, Infallible>(self.answer(&request, place).await) },
            );
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience)
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

    pub(super) async fn answer(&self, request: &Request<Incoming>, place: &Place) -> Answer {
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        match (request.uri().path(), &self.access) {
            (DRAIN, Some(access)) if request.method() == Method::POST => {
                let checked = access.check(place.peer(), bearer(request), Right::Drain);
                if let Err(denied) = checked.await {
                    return refusal(denied);
                }
                place.keep();
                self.drain().await
            }
            (DRAIN, Some(_)) => not_allowed("POST"),
            _ if !reads => not_allowed("GET, HEAD"),
            ("/healthz", _) => plain(StatusCode::OK, "ok\n"),
            ("/readyz", _) if self.source.ready() => plain(StatusCode::OK, "ready\n"),
            ("/readyz", _) => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            // Without a token nobody learns which other paths there are.
            (path, Some(access)) => {
                let checked = access.check(place.peer(), bearer(request), Right::Read);
                if let Err(denied) = checked.await {
                    return refusal(denied);
                }
                place.keep();
                self.read(path)
            }
            (_, None) => plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

impl Server {
    fn read(&self, path: &str) -> Answer {
        match path {
            "/stats" => document(&self.source.stats()),
            "/metrics" => metrics(prometheus(&self.source.metrics())),
            _ => plain(
                StatusCode::NOT_FOUND,
                "there is /stats, /metrics, /healthz, /readyz, and POST /drain\n",
            ),
        }
    }

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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::oneshot,
    };
    use tonic::transport::Channel;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    /// What is waited for comes before this.
    const SOON: Duration = Duration::from_mins(1);

    struct InClear(TcpListener);

    impl Door for InClear {
        type Caller = TcpStream;

        async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
            self.0.accept().await
        }

        async fn secure(&self, caller: TcpStream) -> io::Result<Box<dyn Connection>> {
            Ok(Box::new(caller))
        }
    }

    /// Ready, and drained when it is told to be.
    #[derive(Default)]
    struct Drains {
        asked: Mutex<Option<oneshot::Sender<()>>>,
        over: Mutex<Option<oneshot::Receiver<()>>>,
    }

    impl Source for Drains {
        fn ready(&self) -> bool {
            true
        }

        fn stats(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn metrics(&self) -> Vec<Reading> {
            Vec::new()
        }

        fn drain(&self) -> Option<Drained> {
            self.asked.lock().unwrap().take()?.send(()).unwrap();
            let over = self.over.lock().unwrap().take()?;
            Some(Box::pin(async move {
                over.await.unwrap();
                serde_json::json!({ "goodbye": "accepted" })
            }))
        }
    }

    /// One whose connections do not end by themselves within a test.
    #[expect(
        clippy::disallowed_methods,
        reason = "the crate has no network of its own to simulate"
    )]
    async fn serve(server: Server) -> (SocketAddr, Shutdown) {
        let long = Duration::from_hours(1);
        let server = Server {
            lifetime: long,
            patience: long,
            ..server
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (socket.local_addr().unwrap(), Shutdown::new());
        shutdown.spawn(server.run(InClear(socket), shutdown.clone()));
        (address, shutdown)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the crate has no network of its own to simulate"
    )]
    async fn connect(address: SocketAddr) -> TcpStream {
        let stream = timeout(SOON, TcpStream::connect(address)).await;
        stream.expect("in time").unwrap()
    }

    /// Connections that say nothing, more than there are places.
    async fn flood(address: SocketAddr) -> Vec<TcpStream> {
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(connect(address).await);
        }
        silent
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.expect("in time").unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_are_answered_however_many_connections_say_nothing() {
        let (address, _shutdown) = serve(Server::health_only(Arc::<Drains>::default())).await;
        let _silent = flood(address).await;
        let mut stream = connect(address).await;
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answered = answer(stream).await;
        assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");

        let asked = async {
            let channel = Channel::from_shared(format!("http://{address}")).unwrap();
            let mut client = HealthClient::new(channel.connect().await.unwrap());
            client.check(HealthCheckRequest::default()).await
        };
        timeout(SOON, asked).await.expect("in time").unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_a_drain_keeps_his_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, TOKEN).unwrap();
        let access = Access::new(directory.path().join("none")).draining(Some(file));
        let ((asked, is_asked), (over, is_over)) = (oneshot::channel(), oneshot::channel());
        let source = Drains {
            asked: Mutex::new(Some(asked)),
            over: Mutex::new(Some(is_over)),
        };
        let (address, _shutdown) = serve(Server::full(Arc::new(source), access)).await;
        let mut stream = connect(address).await;
        let request = format!(
            "POST /drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        timeout(SOON, is_asked).await.expect("in time").unwrap();
        let mut silent = flood(address).await;
        // All of them have been let in by now: the first has made room for another.
        let first = silent.remove(0);
        assert_eq!(answer(first).await, "");
        over.send(()).unwrap();
        let answered = answer(stream).await;
        assert!(
            answered.ends_with("\"goodbye\": \"accepted\"\n}\n"),
            "{answered}"
        );
    }
}
