//! The sockets of the admin endpoint, and its TLS.

use std::{io, net::SocketAddr};

use ferrypost_runtime::admin::{Connection, Door};
use tokio::net::{TcpListener, TcpStream};

use crate::tls::ServerTls;

/// A listening socket, under TLS or in clear.
pub(crate) struct AdminDoor {
    /// The socket.
    pub(crate) listener: TcpListener,
    /// `None`: in clear.
    pub(crate) tls: Option<ServerTls>,
}

impl Door for AdminDoor {
    type Caller = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    async fn secure(&self, caller: TcpStream) -> io::Result<Box<dyn Connection>> {
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.acceptor().accept(caller).await?),
            None => Box::new(caller),
        })
    }
}
