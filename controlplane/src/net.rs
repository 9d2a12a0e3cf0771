//! Every socket of the control plane, beside those that the stores open behind their trait: a
//! listener that hands over connections whose TLS handshake is done and whose peer is known.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ferrypost_runtime::{
    accept::{self, Complaints},
    shutdown::Shutdown,
};
use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::tls::{CertificateNames, ServerTls};

/// Connections that a listener has open at once; further ones wait in the kernel's queue. Far above
/// any fleet, far below the usual limit of open files.
const MOST_CONNECTIONS: usize = 4096;

/// A peer that has not finished its handshake by then is sent away.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Who is at the other end. tonic hands it to every request of the connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub(crate) address: SocketAddr,
    /// What its certificate says, if it showed one that our authority signed.
    pub(crate) certificate: Option<Arc<CertificateNames>>,
}

/// An open connection, in clear or under TLS.
pub(crate) struct PeerConnection {
    io: Io,
    peer: Peer,
    /// Makes room for another connection when this one is gone.
    _permit: OwnedSemaphorePermit,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a listener.
///
/// # Errors
/// Those of the operating system.
#[expect(clippy::disallowed_methods, reason = "this module opens the sockets")]
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// The connections of the listener of this name. The accepting task ends with `shutdown` or with the stream.
pub(crate) fn connections(
    name: &'static str,
    listener: TcpListener,
    tls: Option<ServerTls>,
    shutdown: &Shutdown,
) -> impl Stream<Item = io::Result<PeerConnection>> + use<> {
    let (ready, connections) = mpsc::channel(64);
    let accepting = Accepting {
        name,
        listener,
        tls,
        room: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        ready,
        shutdown: shutdown.clone(),
    };
    shutdown.spawn(accepting.run());
    ReceiverStream::new(connections)
}

struct Accepting {
    name: &'static str,
    listener: TcpListener,
    tls: Option<ServerTls>,
    room: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<PeerConnection>>,
    shutdown: Shutdown,
}

impl Accepting {
    async fn run(self) {
        let complaints = Complaints::of(self.name);
        let accepting = accept::connections(
            &complaints,
            || self.accept(),
            |(stream, address, permit)| self.handshake(stream, address, permit),
        );
        tokio::select! {
            () = self.shutdown.stopping().cancelled() => {}
            () = self.ready.closed() => {}
            _ = accepting => {}
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let room = self.room.clone();
        let permit = room.acquire_owned().await.map_err(io::Error::other)?;
        let (stream, address) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, address, permit))
    }

    /// In a task of its own: a slow peer holds nobody up.
    fn handshake(&self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let acceptor = self.tls.as_ref().map(ServerTls::acceptor);
        let ready = self.ready.clone();
        let token = self.shutdown.stopping().clone();
        self.shutdown.spawn(async move {
            let secured = tokio::select! {
                () = token.cancelled() => return,
                secured = tokio::time::timeout(HANDSHAKE_LIMIT, secure(stream, acceptor)) => secured,
            };
            let (io, certificate) = match secured {
                Ok(Ok(secured)) => secured,
                Ok(Err(error)) => {
                    tracing::info!(peer = %address, %error, "no TLS with a peer");
                    return;
                }
                Err(_) => {
                    tracing::info!(peer = %address, "a peer did not finish its TLS handshake");
                    return;
                }
            };
            let peer = Peer {
                address,
                certificate,
            };
            let connection = PeerConnection {
                io,
                peer,
                _permit: permit,
            };
            // Nobody takes it any more: the server has ended.
            let _ = ready.send(Ok(connection)).await;
        });
    }
}

async fn secure(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
) -> io::Result<(Io, Option<Arc<CertificateNames>>)> {
    let Some(acceptor) = acceptor else {
        return Ok((Io::Plain(stream), None));
    };
    let stream = acceptor.accept(stream).await?;
    let certificate = match stream.get_ref().1.peer_certificates() {
        Some([certificate, ..]) => Some(Arc::new(CertificateNames::of(certificate))),
        _ => None,
    };
    Ok((Io::Tls(Box::new(stream)), certificate))
}

impl Connected for PeerConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PeerConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
