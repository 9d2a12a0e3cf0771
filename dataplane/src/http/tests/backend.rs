//! A web server behind the data plane, whose manners are in the paths that it is asked for.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::sync::Semaphore;

use super::{
    entrance::{Entrance, narrow},
    message::{Message, Wire},
    streams,
};
use crate::net;

/// Octets of `/long`: more than the kernels hold for a client that is [narrow], and less than hyper holds besides.
pub(super) const LONG: usize = 256 << 10;

/// What it has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Requests, each with the number of its connection, as soon as their heads came.
    requests: Mutex<Vec<(usize, Message)>>,
    /// Those of which it has seen the end, and that it has executed.
    pub(super) executed: AtomicUsize,
    pub(super) connections: AtomicUsize,
    /// Connections whose end it has seen.
    pub(super) ended: AtomicUsize,
    /// Octets of bodies that it has read.
    pub(super) octets: AtomicUsize,
    /// Streams that were reset before it was done with them.
    pub(super) resets: AtomicUsize,
    /// PROXY headers, without what they are recognised by.
    pub(super) announced: Mutex<Vec<Vec<u8>>>,
}

impl Seen {
    pub(super) fn requests(&self) -> Vec<(usize, Message)> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn last(&self) -> Message {
        self.requests().pop().unwrap().1
    }

    pub(super) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// A request on a connection.
    pub(super) fn note(&self, connection: usize, request: Message) {
        self.requests.lock().unwrap().push((connection, request));
    }
}

pub(super) fn count(of: &AtomicUsize) -> usize {
    of.load(Ordering::SeqCst)
}

/// The server.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
    /// Lets one step go on of what waits for it.
    pub(super) steps: Arc<Semaphore>,
}

impl Backend {
    pub(super) fn start(name: &'static str, entrance: Entrance) -> Self {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        if entrance.is_narrow {
            narrow(&listener).unwrap();
        }
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let steps = Arc::new(Semaphore::new(0));
        let (all, permits) = (Arc::clone(&seen), Arc::clone(&steps));
        tokio::spawn(async move {
            loop {
                let (stream, _) = net::accept(&listener).await.unwrap();
                let connection = Connection {
                    name,
                    number: all.connections.fetch_add(1, Ordering::SeqCst),
                    seen: Arc::clone(&all),
                    steps: Arc::clone(&permits),
                };
                let entrance = entrance.clone();
                tokio::spawn(async move {
                    let Some(entered) = entrance.enter(stream, &connection.seen).await else {
                        return;
                    };
                    if entered.is_h2 {
                        streams::serve(connection, entered).await;
                    } else {
                        let wire = Wire::new(entered.stream);
                        Http1 { connection, wire }.serve().await;
                    }
                });
            }
        });
        Self {
            address,
            seen,
            steps,
        }
    }
}

/// Whose connection it is.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) name: &'static str,
    pub(super) number: usize,
    pub(super) seen: Arc<Seen>,
    steps: Arc<Semaphore>,
}

impl Connection {
    pub(super) fn step(&self) -> impl Future<Output = ()> + Send + use<> {
        let steps = Arc::clone(&self.steps);
        async move { steps.acquire().await.unwrap().forget() }
    }
}

/// A connection on which HTTP/1 is spoken.
struct Http1 {
    connection: Connection,
    wire: Wire,
}

impl std::ops::Deref for Http1 {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Http1 {
    async fn serve(mut self) {
        while let Some(request) = self.wire.head().await {
            self.seen.note(self.number, request.clone());
            if self.answer(request).await.is_none() {
                break;
            }
        }
        self.wire.finish().await;
        if self.wire.has_ended().await {
            self.seen.ended.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What comes before a body is read. False: nothing else does.
    async fn begin(&mut self, path: &str) -> Option<bool> {
        match path {
            "/unread" => self.step().await,
            // Whatever follows is read as before.
            "/denied-first" => self.say("401 Unauthorized", "", "no").await?,
            "/missing-late" => {
                self.say("404 Not Found", "", "no").await?;
                self.step().await;
            }
            "/early" => {
                self.say("413 Content Too Large", "Connection: close\r\n", "")
                    .await?;
                return Some(false);
            }
            _ => {}
        }
        Some(true)
    }

    /// `None`: nothing more is said on the connection.
    async fn answer(&mut self, mut request: Message) -> Option<()> {
        let path = request.target().split('?').next().unwrap().to_owned();
        if !self.begin(&path).await? {
            return Some(());
        }
        self.wire.body(&mut request).await;
        self.seen
            .octets
            .fetch_add(request.body.len(), Ordering::SeqCst);
        if !request.is_whole {
            return None;
        }
        match path.as_str() {
            "/slow" => self.step().await,
            "/deaf" | "/Microsoft-Server-ActiveSync" => std::future::pending().await,
            "/hangs-up" => return None,
            _ => {}
        }
        self.seen.executed.fetch_add(1, Ordering::SeqCst);
        match path.as_str() {
            "/denied-first" | "/missing-late" => Some(()),
            "/missing" => self.say("404 Not Found", "", "no").await,
            "/closes" => {
                self.say("200 OK", "Connection: close\r\n", "bye").await;
                None
            }
            "/half" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it";
                self.wire.send(head).await.ok()?;
                None
            }
            "/events" => self.events().await,
            "/deaf-events" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
                self.wire.send(head).await.ok()?;
                std::future::pending().await
            }
            "/ws" | "/ws-in-two" | "/ws-much" => self.web_socket(&request).await,
            "/ws-wrong" => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
                self.wire.send(head).await.ok()
            }
            "/garbage" => {
                self.wire.send("220 ready\r\n\r\n").await.ok()?;
                None
            }
            "/two-lengths" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
                self.wire.send(head).await.ok()
            }
            "/upgrades" => {
                let head =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
                self.wire.send(head).await.ok()
            }
            "/denied" => {
                let fields = "WWW-Authenticate: Basic realm=\"server\"\r\n";
                self.say("401 Unauthorized", fields, "no").await
            }
            "/sign-in" => {
                let fields = "Location: /mailbox/\r\nSet-Cookie: sid=1234; Path=/\r\n";
                self.say("302 Found", fields, "").await
            }
            "/redirect" => {
                let to = request.field("x-to").unwrap();
                let fields = format!("Location: {to}\r\nAlt-Svc: h3=\":443\"\r\nKeep-Alive: 5\r\n");
                self.say("302 Found", &fields, "").await
            }
            "/then-deaf" => {
                self.say("200 OK", "", "now").await?;
                std::future::pending().await
            }
            "/then-more" => {
                self.say("200 OK", "", "now").await?;
                self.step().await;
                self.say("200 OK", "", "poison").await
            }
            "/long" => self.say("200 OK", "", &"x".repeat(LONG)).await,
            "/nothing" => self.wire.send("HTTP/1.1 204 No Content\r\n\r\n").await.ok(),
            "/trailers" => {
                let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                    2\r\nab\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n";
                self.wire.send(response).await.ok()
            }
            _ => {
                let body = format!("{} {}", self.name, request.target());
                let body = if request.method() == "HEAD" {
                    ""
                } else {
                    &body
                };
                self.say("200 OK", "", body).await
            }
        }
    }

    async fn say(&mut self, status: &str, fields: &str, body: &str) -> Option<()> {
        let length = body.len();
        let response =
            format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        self.wire.send(response).await.ok()
    }

    /// An event at once, and one more for each step.
    async fn events(&mut self) -> Option<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.wire.send(head).await.ok()?;
        loop {
            self.wire.send("9\r\ndata: 1\n\n\r\n").await.ok()?;
            tokio::select! {
                () = self.step() => {}
                true = self.wire.has_ended() => return None,
            }
        }
    }

    /// Two frames, the second with the next step; `/ws-in-two` begins the second at once, and `/ws-much` has much in
    /// between.
    async fn web_socket(&mut self, request: &Message) -> Option<()> {
        let key = request.field("sec-websocket-key")?;
        let proof = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, proof.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            STANDARD.encode(digest)
        );
        self.wire.send(head).await.ok()?;
        let (begun, rest): (&[u8], &[u8]) = match request.target() {
            "/ws" | "/ws-much" => (b"\x81\x02hi", b"\x81\x03you"),
            _ => (b"\x81\x02hi\x81\x03y", b"ou"),
        };
        self.wire.send(begun).await.ok()?;
        if request.target() == "/ws-much" {
            // More than anybody holds who does not hand it on.
            let frame = [&b"\x82\x7e\x10\x00"[..], &[0; 4096]].concat();
            for _ in 0..2048 {
                self.wire.send(&frame).await.ok()?;
            }
        }
        loop {
            tokio::select! {
                () = self.step() => self.wire.send(rest).await.ok()?,
                octets = self.wire.some() => {
                    // At the end it is as with any other connection.
                    let count = octets?.len();
                    self.seen.octets.fetch_add(count, Ordering::SeqCst);
                }
            }
        }
    }
}
