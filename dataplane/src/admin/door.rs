//! The sockets of the admin endpoint, and its TLS.

use std::{io, net::SocketAddr};

use ferrypost_runtime::admin::{Connection, Door};

use crate::net::{self, TcpListener, TcpStream, tls_server::ServerTls};

/// A listening socket, under TLS or in clear.
pub struct AdminDoor {
    /// The socket.
    pub listener: TcpListener,
    /// `None`: in clear.
    pub tls: Option<ServerTls>,
}

impl Door for AdminDoor {
    type Caller = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        net::accept(&self.listener).await
    }

    async fn secure(&self, caller: TcpStream) -> io::Result<Box<dyn Connection>> {
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.accept_stream(caller).await?),
            None => Box::new(caller),
        })
    }
}
