//! Where mail systems connect, and who may: whoever delivers is not asked for a password.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrypost_runtime::{
    accept::{self, Complaints},
    shutdown::Shutdown,
    tls::FileError,
};
use tokio::{io::AsyncWriteExt as _, sync::Semaphore, time::timeout};

use super::{Connection, Post, Whence, run};
use crate::{
    config::{DeliveryListener, DeliveryProtocol},
    listener::{Full, OriginPlace, Permits, Place},
    net::{
        self,
        local::{self, LocalListener, LocalStream, Neighbour},
        tls_server::ServerTls,
    },
};

/// How long a mail system that is turned away may take to read why.
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// A listener that is bound.
pub struct Dock {
    name: Arc<str>,
    config: DeliveryListener,
    socket: LocalListener,
    address: Option<SocketAddr>,
    tls: Option<ServerTls>,
    permits: Permits,
    /// The listener's own limit.
    places: Option<Arc<Semaphore>>,
    open: Arc<AtomicUsize>,
}

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum DockError {
    /// Its certificates cannot be used.
    #[error("delivery listener {listener}: {error}")]
    Certificate {
        /// The listener.
        listener: String,
        /// What is wrong.
        error: FileError,
    },
    /// The system does not give us the place.
    #[error("delivery listener {listener}: cannot listen on {place}: {error}")]
    Bind {
        /// The listener.
        listener: String,
        /// Its place.
        place: local::Place,
        /// What the system says.
        error: io::Error,
    },
}

/// Counts a connection for as long as it lives.
struct Opened(Arc<AtomicUsize>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dock {
    /// Reads the certificates and binds the socket. Who connects now waits until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`DockError`].
    pub fn bind(config: DeliveryListener, permits: Permits) -> Result<Self, DockError> {
        let listener = || config.name.clone();
        let certificates = &config.certificates;
        let tls = (!certificates.is_empty()).then(|| ServerTls::new(certificates, None));
        let tls = tls.transpose().map_err(|error| DockError::Certificate {
            listener: listener(),
            error,
        })?;
        let bound = LocalListener::bind(&config.place).and_then(|socket| {
            let address = socket.address()?;
            Ok((socket, address))
        });
        let (socket, address) = bound.map_err(|error| DockError::Bind {
            listener: listener(),
            place: config.place.clone(),
            error,
        })?;
        Ok(Self {
            name: config.name.as_str().into(),
            places: config
                .connections
                .map(|most| Arc::new(Semaphore::new(most))),
            socket,
            address,
            tls,
            permits,
            open: Arc::default(),
            config,
        })
    }

    /// Its name in logs and statistics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is spoken there.
    pub fn protocol(&self) -> DeliveryProtocol {
        self.config.protocol
    }

    /// Where it is bound, on the network: the port that was given where the configuration says 0.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where it is bound, in words.
    pub fn place(&self) -> String {
        self.address
            .map_or_else(|| self.config.place.to_string(), |it| it.to_string())
    }

    /// How many are connected.
    pub fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }

    /// Its certificates, to be kept fresh, if it has some.
    pub fn tls(&self) -> Option<ServerTls> {
        self.tls.clone()
    }

    /// Serves mail systems until the process begins to stop; then the socket is closed, and what is on its way goes on.
    pub async fn serve(self, post: Arc<Post>, shutdown: Shutdown) {
        let stopping = shutdown.stopping().clone();
        let accepting = self.accept_all(post, shutdown);
        _ = stopping.run_until_cancelled(accepting).await;
    }

    async fn accept_all(&self, post: Arc<Post>, shutdown: Shutdown) {
        let complaints = Complaints::of(&self.name);
        let accept = || self.socket.accept();
        accept::connections(&complaints, accept, |(stream, neighbour)| {
            let Some(whence) = self.let_in(&stream, neighbour) else {
                return;
            };
            let post = Arc::clone(&post);
            let place = match self.room_for(whence) {
                Ok(place) => place,
                Err(full) => {
                    complaints.about(&full);
                    shutdown.spawn(turn_away(post.no_room(), stream));
                    return;
                }
            };
            let connection = Connection {
                stream,
                whence,
                listener: Arc::clone(&self.name),
                tls: self.tls.clone(),
            };
            self.open.fetch_add(1, Ordering::Relaxed);
            let opened = Opened(Arc::clone(&self.open));
            let serving = Box::pin(run(post, connection));
            shutdown.spawn(async move {
                serving.await;
                drop((place, opened));
            });
        })
        .await;
    }

    /// A place for somebody, and one among those of where he comes from: one who is allowed to come takes all places from
    /// nobody.
    fn room_for(&self, whence: Whence) -> Result<(Place, Option<OriginPlace>), Full> {
        let place = self.permits.place(self.places.as_ref())?;
        let origin = match whence {
            Whence::Address { peer, .. } => Some(self.permits.origin(peer.ip())?),
            Whence::Here => None,
        };
        Ok((place, origin))
    }

    /// Where somebody comes from who may come.
    fn let_in(&self, stream: &LocalStream, neighbour: Neighbour) -> Option<Whence> {
        let (Neighbour::Address(peer), LocalStream::Tcp(stream)) = (neighbour, stream) else {
            return Some(Whence::Here);
        };
        let mut allowed = self.config.from.iter();
        if !allowed.any(|network| network.contains(peer.ip())) {
            tracing::info!(listener = &*self.name, client = %peer, "turned away: it is not in `from`");
            return None;
        }
        let local = net::plain(stream.local_addr().ok()?);
        Some(Whence::Address { peer, local })
    }
}

/// Tells a mail system that there is no room.
async fn turn_away(farewell: Vec<u8>, mut stream: LocalStream) {
    _ = timeout(TURNED_AWAY, stream.write_all(&farewell)).await;
}
