//! A server of HTTP that a test has in its hand: it says who it is and what it was asked, and remembers what it did.
//!
//! It is for what no server from Debian has: WebSocket, an event stream, a web interface with a form to sign in, a client
//! that is kept waiting. What it serves is in `site`.

mod files;
mod site;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ppp::v2;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::certs::{CertError, Identity};
use crate::history::Moment;
use crate::world::PASSWORD;

use super::Version;
use files::Files;

/// A handshake, and what comes before it.
const OPENING: Duration = Duration::from_mins(1);

/// Announcements that a listener who does not listen may miss.
const ANNOUNCEMENTS: usize = 64;

/// What to start.
pub struct Setup<'a> {
    /// What it calls itself.
    pub name: &'a str,
    /// The password of everybody.
    pub password: &'a str,
    /// Its certificate; `None`: it serves in clear.
    pub identity: Option<&'a Identity>,
    /// What it speaks, the first preferred; in clear, the first alone.
    pub versions: &'a [Version],
    /// Whether each connection begins with a PROXY protocol header, version 2.
    pub announced: bool,
    /// Who has signed in; two servers may know the same.
    pub sessions: Sessions,
}

/// Who has signed in: a cookie's value for each.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, String>>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was done, with all of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its method.
    pub method: Method,
    /// Its path, without a query.
    pub path: String,
    /// The query, or nothing.
    pub query: String,
    /// Who asked, if that was proved.
    pub user: Option<String>,
    /// Octets of its body.
    pub octets: u64,
    /// When.
    pub at: Moment,
}

/// A running server. It ends with the value, and its connections with it.
pub struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    stalls: watch::Sender<bool>,
    /// A WebSocket is no part of its connection any more.
    _closing: DropGuard,
    serving: JoinHandle<()>,
}

/// What the connections of a server share.
struct State {
    name: String,
    password: String,
    address: SocketAddr,
    sessions: Sessions,
    done: Mutex<Vec<Done>>,
    read: Mutex<HashMap<String, u64>>,
    files: Files,
    announcements: broadcast::Sender<String>,
    stalled: watch::Receiver<bool>,
    closing: CancellationToken,
}

/// Of one connection.
#[derive(Debug, Clone, Copy)]
struct Peer {
    client: SocketAddr,
}

impl Backend {
    /// Starts the two servers of a world, in clear, named as its destinations are. Both know who has signed in at either.
    /// `announced`: which of them are told a connection's client by PROXY.
    ///
    /// # Errors
    /// As [`Backend::start`].
    pub async fn pair(versions: &[Version], announced: [bool; 2]) -> io::Result<[Self; 2]> {
        let sessions = Sessions::default();
        let start = |name, announced| {
            Self::start(Setup {
                name,
                password: PASSWORD,
                identity: None,
                versions,
                announced,
                sessions: sessions.clone(),
            })
        };
        Ok([
            start("source", announced[0]).await?,
            start("target", announced[1]).await?,
        ])
    }

    /// Starts one.
    ///
    /// # Errors
    /// When there is no port, or TLS refuses the certificate.
    pub async fn start(setup: Setup<'_>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stalls, stalled) = watch::channel(false);
        let closing = CancellationToken::new();
        let state = Arc::new(State {
            name: setup.name.to_owned(),
            password: setup.password.to_owned(),
            address,
            sessions: setup.sessions,
            done: Mutex::default(),
            read: Mutex::default(),
            files: Files::new()?,
            announcements: broadcast::channel(ANNOUNCEMENTS).0,
            stalled,
            closing: closing.clone(),
        });
        let door = Door {
            tls: setup
                .identity
                .map(|identity| acceptor(identity, setup.versions))
                .transpose()
                .map_err(io::Error::other)?,
            speaks_2: setup.versions.first() == Some(&Version::Http2),
            announced: setup.announced,
        };
        let serving = tokio::spawn(accept(listener, Arc::new(door), Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            stalls,
            _closing: closing.drop_guard(),
            serving,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far, in order.
    pub fn done(&self) -> Vec<Done> {
        lock(&self.state.done).clone()
    }

    /// Where files lie, a folder for each user. Whoever copies it into another server's has moved them.
    pub fn folder(&self) -> &Path {
        self.state.files.folder()
    }

    /// A user's files, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn files_of(&self, user: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
        self.state.files.of(user)
    }

    /// How many octets of an upload to this path it has read, whether or not it is whole.
    pub fn read_of(&self, path: &str) -> u64 {
        lock(&self.state.read).get(path).copied().unwrap_or(0)
    }

    /// Whether it reads no further in any upload.
    pub fn stall(&self, stalls: bool) {
        self.stalls.send_replace(stalls);
    }

    /// Says something on every event stream, and answers every poll with it. How many that were.
    pub fn announce(&self, text: &str) -> usize {
        let sent = self.state.announcements.send(text.to_owned());
        sent.unwrap_or(0)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a connection begins.
struct Door {
    tls: Option<TlsAcceptor>,
    speaks_2: bool,
    announced: bool,
}

fn acceptor(identity: &Identity, versions: &[Version]) -> Result<TlsAcceptor, CertError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate().clone()], identity.key()?)?;
    config.alpn_protocols = versions.iter().map(|it| it.alpn().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The connections end with this task.
async fn accept(listener: TcpListener, door: Arc<Door>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        let (door, state) = (Arc::clone(&door), Arc::clone(&state));
        connections.spawn(async move {
            // A client that goes away has nobody to complain to.
            _ = serve(stream, peer, &door, state).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    door: &Door,
    state: Arc<State>,
) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let client = if door.announced {
        let announced = timeout(OPENING, announced(&mut stream)).await;
        announced.map_err(late)??
    } else {
        peer
    };
    let peer = Peer { client };
    let Some(tls) = &door.tls else {
        return speak(stream, door.speaks_2, peer, state).await;
    };
    let stream = timeout(OPENING, tls.accept(stream)).await.map_err(late)??;
    let speaks_2 = stream.get_ref().1.alpn_protocol() == Some(Version::Http2.alpn());
    speak(stream, speaks_2, peer, state).await
}

/// The client's address, from the header in front of everything.
async fn announced(stream: &mut TcpStream) -> io::Result<SocketAddr> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no PROXY header");
    // Signature, command, family, length (proxy-protocol.txt §2.2).
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await?;
    let length = u16::from_be_bytes([header[14], header[15]]);
    header.resize(16 + usize::from(length), 0);
    stream.read_exact(&mut header[16..]).await?;
    match v2::Header::try_from(&header[..])
        .map_err(|_| bad())?
        .addresses
    {
        v2::Addresses::IPv4(it) => Ok((it.source_address, it.source_port).into()),
        v2::Addresses::IPv6(it) => Ok((it.source_address, it.source_port).into()),
        _ => stream.peer_addr(),
    }
}

/// A client that ends its side is answered no more, as most servers have it: what it waited for ends, and so does the
/// connection, which is the proof that nothing more of it will be done.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    speaks_2: bool,
    peer: Peer,
    state: Arc<State>,
) -> io::Result<()> {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(site::answer(request, peer, &state).await) }
    });
    let stream = TokioIo::new(stream);
    let ended = if speaks_2 {
        http2::Builder::new(TokioExecutor::new())
            .enable_connect_protocol()
            .serve_connection(stream, service)
            .await
    } else {
        http1::Builder::new()
            .serve_connection(stream, service)
            .with_upgrades()
            .await
    };
    ended.map_err(io::Error::other)
}
