//! Where clients connect: the accept loop, its limits, the PROXY header of a load balancer in front.

mod count;
mod permit;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_runtime::{
    accept::{self, Complaints},
    shutdown::Shutdown,
    tls::FileError,
};
use ferrypost_wire::{LineProtocol as _, ProtocolKind, dispatch};
use futures_util::future::BoxFuture;
use tokio::{io::AsyncWriteExt as _, sync::Semaphore, time::timeout};

pub use count::ListenerCounts;
pub use permit::Permits;
use permit::{OriginPlace, Place};

use crate::{
    config::{Listener, ListenerTls},
    net::{
        self, TcpListener, TcpStream,
        proxy::{self, Ends, Told},
        tls_server::ServerTls,
    },
    session::{ClientConnection, line::Line},
};

/// How long a client that is turned away may take to read why.
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// A listener that is bound.
pub struct Listening {
    settings: Arc<Settings>,
    socket: TcpListener,
    address: SocketAddr,
}

struct Settings {
    name: Arc<str>,
    config: Listener,
    tls: ServerTls,
    permits: Permits,
    /// The listener's own limit.
    places: Option<Arc<Semaphore>>,
    counts: Arc<ListenerCounts>,
}

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its certificates cannot be used.
    #[error("listener {listener}: {error}")]
    Certificate {
        /// The listener.
        listener: String,
        /// What is wrong.
        error: FileError,
    },
    /// The system does not give us the address.
    #[error("listener {listener}: cannot listen on {address}: {error}")]
    Bind {
        /// The listener.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

impl Listening {
    /// Reads the certificates and binds the socket. Who connects now waits until
    /// [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(config: Listener, permits: Permits) -> Result<Self, ListenError> {
        let alpn = dispatch!(config.protocol, P => P::ALPN).map(str::as_bytes);
        let tls = ServerTls::new(&config.certificates, alpn).map_err(|error| {
            ListenError::Certificate {
                listener: config.name.clone(),
                error,
            }
        })?;
        let bound = net::listen(config.address).and_then(|socket| {
            let address = socket.local_addr()?;
            Ok((socket, address))
        });
        let (socket, address) = bound.map_err(|error| ListenError::Bind {
            listener: config.name.clone(),
            address: config.address,
            error,
        })?;
        Ok(Self {
            settings: Arc::new(Settings {
                name: config.name.as_str().into(),
                places: config
                    .connections
                    .map(|most| Arc::new(Semaphore::new(most))),
                tls,
                permits,
                counts: Arc::default(),
                config,
            }),
            socket,
            address,
        })
    }

    /// Its name in logs and statistics.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What is spoken there.
    pub fn protocol(&self) -> ProtocolKind {
        self.settings.config.protocol
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When TLS begins there.
    pub fn mode(&self) -> ListenerTls {
        self.settings.config.tls
    }

    /// How many are connected.
    pub fn counts(&self) -> Arc<ListenerCounts> {
        Arc::clone(&self.settings.counts)
    }

    /// Its certificates, to be kept fresh.
    pub fn tls(&self) -> ServerTls {
        self.settings.tls.clone()
    }

    /// Serves clients until the process begins to stop; then the socket is closed, and the sessions go on.
    pub async fn serve(self, line: Arc<dyn Line>, shutdown: Shutdown) {
        let stopping = shutdown.stopping().clone();
        _ = stopping
            .run_until_cancelled(self.accept_all(line, shutdown))
            .await;
    }

    async fn accept_all(self, line: Arc<dyn Line>, shutdown: Shutdown) {
        let complaints = Complaints::of(&self.settings.name);
        let accept = || net::accept(&self.socket);
        accept::connections(&complaints, accept, |(stream, peer)| {
            let (settings, line) = (Arc::clone(&self.settings), Arc::clone(&line));
            match settings.permits.place(settings.places.as_ref()) {
                // In a box, since a future is copied into each of the futures around it.
                Ok(place) => {
                    shutdown.spawn(Box::pin(settings.welcome(line, stream, peer, place)));
                }
                Err(full) => {
                    complaints.about(&full);
                    shutdown.spawn(turn_away(settings, line, stream));
                }
            }
        })
        .await;
    }
}

impl Settings {
    /// Serves one client.
    fn welcome(
        self: Arc<Self>,
        line: Arc<dyn Line>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
    ) -> impl Future<Output = ()> + Send {
        // In a box that is gone when the session begins: a future stays as large as the largest thing that it has
        // ever held, and this one lives as long as the session.
        let entering = Box::pin(Arc::clone(&self).let_in(line, stream, peer));
        async move {
            let _opened = self.counts.opened();
            if let Some((session, _origin)) = entering.await {
                session.await;
            }
            drop(place);
        }
    }

    /// Everything before the session, which is what comes of it, with its place among those of its origin. `None`: the
    /// client was turned away.
    async fn let_in(
        self: Arc<Self>,
        line: Arc<dyn Line>,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<(BoxFuture<'static, ()>, OriginPlace)> {
        let newcomer = self.counts.newcomer();
        let ends = self.ends(&*line, &mut stream, peer).await?;
        match self.permits.origin(ends.peer.ip()) {
            Ok(origin) => {
                let connection = ClientConnection {
                    stream,
                    ends,
                    mode: self.config.tls,
                    tls: self.tls.clone(),
                    newcomer,
                };
                let session = line.serve(Arc::clone(&self.name), connection);
                Some((session, origin))
            }
            Err(full) => {
                tracing::info!(listener = &*self.name, client = %ends.peer, reason = %full, "turned away");
                turn_away(self, line, stream).await;
                None
            }
        }
    }

    /// Both ends of the connection: its own, or those that a load balancer which we trust tells.
    async fn ends(
        &self,
        line: &dyn Line,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<Ends> {
        let local = net::plain(stream.local_addr().ok()?);
        let direct = Ends::direct(peer, local);
        let trusted = &self.config.proxy_protocol_from;
        if !trusted.iter().any(|network| network.contains(peer.ip())) {
            return Some(direct);
        }
        let services = line.services();
        let limits = services.limits.preauth_of(self.config.protocol);
        let header = timeout(limits.handshake, proxy::receive(stream));
        // Nothing was said yet, so that a stop need not wait for it.
        match services.stopping.run_until_cancelled(header).await? {
            Ok(Ok(Told::Client(ends))) => Some(ends),
            Ok(Ok(Told::Nameless)) => Some(direct),
            Ok(Ok(Told::Check)) => Some(Ends {
                is_check: true,
                ..direct
            }),
            Ok(Err(error)) => {
                tracing::info!(listener = &*self.name, client = %peer, reason = %error, "turned away");
                None
            }
            Err(_) => {
                tracing::info!(listener = &*self.name, client = %peer, "no PROXY header in time");
                None
            }
        }
    }
}

/// Tells a client that there is no room, where that costs no handshake.
async fn turn_away(settings: Arc<Settings>, line: Arc<dyn Line>, mut stream: TcpStream) {
    if settings.config.tls == ListenerTls::StartTls {
        let farewell = line.no_room();
        _ = timeout(TURNED_AWAY, stream.write_all(&farewell)).await;
    }
}
