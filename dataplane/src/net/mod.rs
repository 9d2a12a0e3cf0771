//! The only module that opens sockets, and what is done with them.
//!
//! ```text
//!   (here)      listen, accept, connect, resolve: what a simulator would replace
//!   local       the same for the operator's own programs, at an address or a file
//!   socket      a connected socket, and the one place where a peer's end is seen
//!   transport   what a leg reads from and writes to: TCP, or TLS over it
//!   leg         a transport with its read buffer, and by type whether it may carry secrets
//!   tls_stream  TLS that holds no memory while nothing moves
//!   tls_server  certificates by server name, reloaded when their files change
//!   tls_client  how a destination's certificate is verified
//!   proxy       the PROXY protocol's header, both ways
//!   resolver    the addresses of hosts, asked for once and kept
//!   source      where connections come from, and whether they end at us again
//!   race        one connection to whichever address answers first
//!   dial        from an endpoint to a leg that is ready for its protocol
//!   h2          the beginning of HTTP/2
//!   tasks       futures that run in the task of whoever owns them
//!   scratch     the memory that bytes are moved through
//! ```

pub mod dial;
pub(crate) mod h2;
pub mod leg;
pub mod local;
pub mod proxy;
pub(crate) mod race;
pub mod resolver;
pub(crate) mod scratch;
mod socket;
pub mod source;
pub(crate) mod tasks;
pub mod tls_client;
pub mod tls_server;
mod tls_stream;
pub(crate) mod transport;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};

pub use socket::CloseProof;

/// A connected socket.
pub type TcpStream = tokio::net::TcpStream;
/// A listening socket.
pub type TcpListener = tokio::net::TcpListener;

/// Connections that wait to be accepted. The kernel caps it at `net.core.somaxconn`, 4096 by default
/// on current Linux; a whole office reconnecting after a move fits.
const BACKLOG: u32 = 4096;

/// Silence after which the kernel asks a peer whether it is still there, the pause between questions
/// and how many go unanswered before the connection is given up: a vanished peer is noticed within
/// about eight minutes, mobile radios wake at most every five.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
const KEEPALIVE_PROBES: u32 = 3;

/// Opens a listening socket. Port 0 takes any free one.
///
/// # Errors
/// What the system says: the address is in use, is not ours, or needs a privilege.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the seam: it opens the sockets of this crate"
)]
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    // A restart must not wait for the predecessor's connections to leave TIME-WAIT.
    socket.set_reuseaddr(true)?;
    // What it accepts inherits that, which spares each connection five system calls.
    tune(&socket);
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes the next connection of a listener that [`listen`] has opened. The peer's address is in its plain form: an IPv4 client of a listener
/// for both families is an IPv4 client.
///
/// # Errors
/// What the system says. None of them is the listener's end: the caller pauses and goes on.
pub async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    Ok((stream, plain(peer)))
}

/// Why there is no connection to an address.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// What the system says to the connection.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// What it says to the address that it was to come from.
    #[error("cannot connect from {address}: {error}")]
    Source {
        /// The address.
        address: IpAddr,
        /// What the system says.
        error: io::Error,
    },
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) | ConnectError::Source { error, .. } => error,
        }
    }
}

/// Connects to one address from another of this machine's.
///
/// # Errors
/// [`ConnectError`].
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the seam: it opens the sockets of this crate"
)]
pub async fn connect_from(source: IpAddr, address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    let bound = socket.bind((source, 0).into());
    bound.map_err(|error| ConnectError::Source {
        address: source,
        error,
    })?;
    let stream = socket.connect(address).await?;
    tune(&stream);
    Ok(stream)
}

/// Connects to one address.
///
/// # Errors
/// What the system says.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the seam: it opens the sockets of this crate"
)]
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream);
    Ok(stream)
}

/// The addresses of a host, in the resolver's order and without a port. Blocks a thread of the runtime's pool
/// until the system's resolver answers, also when nobody waits for it any more.
///
/// # Errors
/// What the resolver says.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the seam: it resolves the names of this crate"
)]
async fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

/// An address without the wrapping of IPv4 into IPv6.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Sends small writes at once and notices peers that vanish.
///
/// A failure is of no consequence: the connection works, a little slower or for a little longer
/// than its peer.
fn tune(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    _ = socket.set_tcp_nodelay(true);
    _ = socket.set_tcp_keepalive(&keepalive);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn either_end_sends_at_once_and_asks_after_a_silent_peer() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(connect(address), accept(&listener));
        for stream in [near.unwrap(), far.unwrap().0] {
            let socket = SockRef::from(&stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        }
    }
}
