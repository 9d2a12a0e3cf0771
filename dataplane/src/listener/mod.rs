//! Where clients connect to log in.
//!
//! ```text
//!   door     accept, permits, PROXY header in: the same whatever is spoken
//!   (here)   a door behind which a client is brought to its login
//! ```

mod count;
mod door;
mod permit;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_runtime::{shutdown::Shutdown, tls::FileError};
use ferrypost_wire::{LineProtocol as _, ProtocolKind, dispatch};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use count::ListenerCounts;
pub use door::{Arrival, Door, DoorSettings, Host};
pub use permit::Permits;
pub(crate) use permit::{Full, OriginPlace, Place};

use crate::{
    config::{Listener, ListenerTls},
    net::tls_server::ServerTls,
    session::{ClientConnection, line::Line},
};

/// A listener that is bound.
pub struct Listening {
    door: Door,
    protocol: ProtocolKind,
    mode: ListenerTls,
    tls: ServerTls,
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
        let settings = DoorSettings {
            name: config.name,
            address: config.address,
            proxy_protocol_from: config.proxy_protocol_from,
            connections: config.connections,
        };
        Ok(Self {
            door: Door::bind(settings, permits)?,
            protocol: config.protocol,
            mode: config.tls,
            tls,
        })
    }

    /// The socket and who is connected there.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// What is spoken there.
    pub fn protocol(&self) -> ProtocolKind {
        self.protocol
    }

    /// When TLS begins there.
    pub fn mode(&self) -> ListenerTls {
        self.mode
    }

    /// Its certificates, to be kept fresh.
    pub fn tls(&self) -> ServerTls {
        self.tls.clone()
    }

    /// Serves clients until the process begins to stop; then the socket is closed, and the sessions go on.
    pub async fn serve(self, line: Arc<dyn Line>, shutdown: Shutdown) {
        let limits = line.services().limits.preauth_of(self.protocol);
        let host = LineHost {
            line,
            mode: self.mode,
            tls: self.tls,
            header_within: limits.handshake,
        };
        self.door.serve(Arc::new(host), shutdown).await;
    }
}

/// Takes logins.
struct LineHost {
    line: Arc<dyn Line>,
    mode: ListenerTls,
    tls: ServerTls,
    header_within: Duration,
}

impl Host for LineHost {
    fn header_within(&self) -> Duration {
        self.header_within
    }

    fn stopping(&self) -> &CancellationToken {
        &self.line.services().stopping
    }

    fn no_room(&self) -> Vec<u8> {
        match self.mode {
            ListenerTls::Implicit => Vec::new(),
            ListenerTls::StartTls => self.line.no_room(),
        }
    }

    fn serve(self: Arc<Self>, listener: Arc<str>, arrival: Arrival) -> BoxFuture<'static, ()> {
        let connection = ClientConnection {
            stream: arrival.stream,
            ends: arrival.ends,
            mode: self.mode,
            tls: self.tls.clone(),
            newcomer: arrival.newcomer,
        };
        Arc::clone(&self.line).serve(listener, connection)
    }
}
