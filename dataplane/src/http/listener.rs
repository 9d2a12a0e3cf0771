//! A listener for HTTP, that is bound.

use std::{sync::Arc, time::Duration};

use ferrypost_http::fields::Peer;
use ferrypost_runtime::shutdown::Shutdown;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Web, client};
use crate::{
    config::WebListener,
    listener::{Arrival, Door, DoorSettings, Host, ListenError, Permits},
    net::{
        dial::{H2, HTTP_1},
        tls_server::ServerTls,
    },
    network::Network,
};

/// A listener that is bound.
pub struct WebListening {
    door: Door,
    tls: ServerTls,
    trusted_peers: Vec<Network>,
}

impl WebListening {
    /// Reads the certificates and binds the socket. Who connects now waits until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(config: WebListener, permits: Permits) -> Result<Self, ListenError> {
        let tls = ServerTls::offering(&config.certificates, &[H2, HTTP_1]).map_err(|error| {
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
            tls,
            trusted_peers: config.trusted_peers,
        })
    }

    /// The socket and who is connected there.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Its certificates, to be kept fresh.
    pub fn tls(&self) -> ServerTls {
        self.tls.clone()
    }

    /// Serves clients until the process begins to stop; then the socket is closed, and what is open goes on.
    pub async fn serve(self, web: Arc<Web>, shutdown: Shutdown) {
        let host = WebHost {
            web,
            tls: self.tls,
            trusted_peers: self.trusted_peers,
        };
        self.door.serve(Arc::new(host), shutdown).await;
    }
}

struct WebHost {
    web: Arc<Web>,
    tls: ServerTls,
    trusted_peers: Vec<Network>,
}

impl Host for WebHost {
    fn header_within(&self) -> Duration {
        self.web.services.limits.preauth.handshake
    }

    fn stopping(&self) -> &CancellationToken {
        &self.web.services.stopping
    }

    /// None: whatever could be said would cost a handshake.
    fn no_room(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(self: Arc<Self>, listener: Arc<str>, arrival: Arrival) -> BoxFuture<'static, ()> {
        let address = arrival.ends.peer.ip();
        let is_trusted = self.trusted_peers.iter().any(|it| it.contains(address));
        let peer = if is_trusted {
            Peer::Trusted
        } else {
            Peer::Stranger
        };
        let (web, tls) = (Arc::clone(&self.web), self.tls.clone());
        Box::pin(client::serve(web, tls, listener, arrival, peer))
    }
}
