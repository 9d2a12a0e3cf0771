//! A socket that clients connect to, whatever is spoken there: the accept loop, its limits, the PROXY header of a load
//! balancer in front.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_runtime::{
    accept::{self, Complaints},
    shutdown::Shutdown,
};
use futures_util::future::BoxFuture;
use tokio::{io::AsyncWriteExt as _, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ListenError, ListenerCounts, Permits,
    permit::{Full, OriginPlace, Place},
};
use crate::{
    net::{
        self, TcpListener, TcpStream,
        proxy::{self, Ends, Told},
    },
    network::Network,
    session::Newcomer,
};

/// How long a client that is turned away may take to read why.
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// Who serves the clients of a door.
pub trait Host: Send + Sync + 'static {
    /// Time for a PROXY header, where one must come.
    fn header_within(&self) -> Duration;

    /// Cancelled when this process begins to stop.
    fn stopping(&self) -> &CancellationToken;

    /// The words for a client for whom there is no room; none, where they would cost a handshake.
    fn no_room(&self) -> Vec<u8>;

    /// Serves one client.
    fn serve(self: Arc<Self>, listener: Arc<str>, arrival: Arrival) -> BoxFuture<'static, ()>;
}

/// A client that was let in.
pub struct Arrival {
    /// Its connection.
    pub stream: TcpStream,
    /// Whose it is, whoever passed it on.
    pub ends: Ends,
    /// Counts it among those for whom nothing is relayed yet.
    pub newcomer: Newcomer,
}

/// What is said of a door in the configuration.
#[derive(Debug, Clone)]
pub struct DoorSettings {
    /// Its name in logs and statistics.
    pub name: String,
    /// Where it is bound. Port 0: any free one.
    pub address: SocketAddr,
    /// Peers whose PROXY header is believed, and who must send one. Empty: nobody may.
    pub proxy_protocol_from: Vec<Network>,
    /// Client connections at once. `None`: only the limits for all doors.
    pub connections: Option<usize>,
}

/// A door that is bound.
pub struct Door {
    keeper: Arc<Keeper>,
    socket: TcpListener,
    address: SocketAddr,
}

/// Lets clients in.
struct Keeper {
    name: Arc<str>,
    trusted: Vec<Network>,
    permits: Permits,
    /// The door's own limit.
    places: Option<Arc<Semaphore>>,
    counts: Arc<ListenerCounts>,
}

impl Door {
    /// Binds the socket. Who connects now waits until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub fn bind(settings: DoorSettings, permits: Permits) -> Result<Self, ListenError> {
        let (socket, address) = bind(settings.address).map_err(|error| ListenError::Bind {
            listener: settings.name.clone(),
            address: settings.address,
            error,
        })?;
        Ok(Self {
            keeper: Arc::new(Keeper {
                name: settings.name.into(),
                trusted: settings.proxy_protocol_from,
                permits,
                places: settings
                    .connections
                    .map(|most| Arc::new(Semaphore::new(most))),
                counts: Arc::default(),
            }),
            socket,
            address,
        })
    }

    /// Its name in logs and statistics.
    pub fn name(&self) -> &str {
        &self.keeper.name
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many are connected.
    pub fn counts(&self) -> Arc<ListenerCounts> {
        Arc::clone(&self.keeper.counts)
    }

    /// Serves clients until the process begins to stop; then the socket is closed, and the sessions go on.
    pub async fn serve(self, host: Arc<dyn Host>, shutdown: Shutdown) {
        let stopping = shutdown.stopping().clone();
        _ = stopping
            .run_until_cancelled(self.accept_all(host, shutdown))
            .await;
    }

    async fn accept_all(self, host: Arc<dyn Host>, shutdown: Shutdown) {
        let complaints = Complaints::of(&self.keeper.name);
        let accept = || net::accept(&self.socket);
        accept::connections(&complaints, accept, |(stream, peer)| {
            let (keeper, host) = (Arc::clone(&self.keeper), Arc::clone(&host));
            match keeper.permits.place(keeper.places.as_ref()) {
                // In a box, since a future is copied into each of the futures around it.
                Ok(place) => {
                    shutdown.spawn(Box::pin(keeper.welcome(host, stream, peer, place)));
                }
                Err(full) => {
                    complaints.about(&full);
                    shutdown.spawn(async move { turn_away(&*host, stream).await });
                }
            }
        })
        .await;
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = net::listen(address)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

impl Keeper {
    /// Serves one client.
    fn welcome(
        self: Arc<Self>,
        host: Arc<dyn Host>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
    ) -> impl Future<Output = ()> + Send {
        // In a box that is gone when the session begins: a future stays as large as the largest thing that it has
        // ever held, and this one lives as long as the session.
        let entering = Box::pin(Arc::clone(&self).let_in(host, stream, peer));
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
        host: Arc<dyn Host>,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<(BoxFuture<'static, ()>, OriginPlace)> {
        let newcomer = self.counts.newcomer();
        let ends = self.ends(&*host, &mut stream, peer).await?;
        match self.permits.origin(ends.peer.ip()) {
            Ok(origin) => {
                let arrival = Arrival {
                    stream,
                    ends,
                    newcomer,
                };
                Some((host.serve(Arc::clone(&self.name), arrival), origin))
            }
            Err(full) => {
                self.say_turned_away(ends.peer, full);
                turn_away(&*host, stream).await;
                None
            }
        }
    }

    fn say_turned_away(&self, client: SocketAddr, reason: Full) {
        tracing::info!(listener = &*self.name, %client, %reason, "turned away");
    }

    /// Both ends of the connection: its own, or those that a load balancer which we trust tells.
    async fn ends(
        &self,
        host: &dyn Host,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<Ends> {
        let local = net::plain(stream.local_addr().ok()?);
        let direct = Ends::direct(peer, local);
        if !self
            .trusted
            .iter()
            .any(|network| network.contains(peer.ip()))
        {
            return Some(direct);
        }
        let header = timeout(host.header_within(), proxy::receive(stream));
        // Nothing was said yet, so that a stop need not wait for it.
        match host.stopping().run_until_cancelled(header).await? {
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
async fn turn_away(host: &dyn Host, mut stream: TcpStream) {
    _ = timeout(TURNED_AWAY, stream.write_all(&host.no_room())).await;
}
