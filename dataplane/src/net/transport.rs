//! What a leg reads from and writes to: TCP, or TLS over it.
//!
//! Polled by hand rather than through `AsyncRead`, because a relay needs to *wait* for bytes without
//! holding memory for them, which no reader of `tokio::io` can do.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{client::UnbufferedClientConnection, server::UnbufferedServerConnection};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{TcpStream, scratch::with_scratch, tls_stream::TlsStream};

/// One side's connection.
pub(crate) trait Transport: Send + Unpin {
    /// Ready when [`poll_read`](Self::poll_read) may find something; there may turn out to be
    /// nothing yet.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads some octets; none means the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes some octets. They are on their way only after [`poll_flush`](Self::poll_flush).
    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>>;

    /// Hands everything that was taken to the kernel.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing follows: `close_notify` where there is TLS, then FIN. Reading goes on.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads and drops whatever still comes until the peer has closed its socket: an end that its
    /// kernel has told us, whatever TLS has said before.
    ///
    /// # Errors
    /// A reset, which is an end as well.
    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The login is over: what is read from now on need not be wiped from the memory that it passed
    /// through.
    fn carries_no_secrets_any_more(&mut self);
}

impl Transport for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(self).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, from)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(self).poll_shutdown(cx)) {
            // A peer that has gone already needs no farewell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }

    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(cx))?;
        with_scratch(|scratch| {
            while ready!(Transport::poll_read(self, cx, scratch))? > 0 {}
            Poll::Ready(Ok(()))
        })
    }

    /// Nothing that was read directly from a socket has passed through other memory than its reader's.
    fn carries_no_secrets_any_more(&mut self) {}
}

/// A connection under TLS, in which we are one end or the other.
pub(crate) enum Tls {
    /// The client's side: we are its server.
    Server(Box<TlsStream<UnbufferedServerConnection>>),
    /// The backend's side: we are its client.
    Client(Box<TlsStream<UnbufferedClientConnection>>),
}

/// The transport of a leg whose kind no longer matters: what a relay moves bytes between.
pub(crate) enum AnyTransport {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Tls),
}

impl From<TcpStream> for AnyTransport {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<Tls> for AnyTransport {
    fn from(stream: Tls) -> Self {
        Self::Tls(stream)
    }
}

/// Implements [`Transport`] for an enum by the transport inside.
macro_rules! by_variant {
    ($kind:ident: $($variant:ident),*) => {
        impl $kind {
            fn inner(&mut self) -> &mut dyn Transport {
                match self {
                    $(Self::$variant(inner) => inner,)*
                }
            }
        }

        impl Transport for $kind {
            fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.inner().poll_readable(cx)
            }

            fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
                self.inner().poll_read(cx, into)
            }

            fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
                self.inner().poll_write(cx, from)
            }

            fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.inner().poll_flush(cx)
            }

            fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.inner().poll_finish(cx)
            }

            fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.inner().poll_peer_closed(cx)
            }

            fn carries_no_secrets_any_more(&mut self) {
                self.inner().carries_no_secrets_any_more();
            }
        }
    };
}

by_variant!(Tls: Server, Client);
by_variant!(AnyTransport: Tcp, Tls);
