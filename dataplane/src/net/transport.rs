//! What a leg reads from and writes to: TCP, or TLS over it.
//!
//! Tokio's two traits, and beside them what no reader of `tokio::io` can do: *wait* for octets without holding
//! memory for them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{client::UnbufferedClientConnection, server::UnbufferedServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    socket::{CloseProof, Socket},
    tls_stream::TlsStream,
};

/// One side's connection. What was written is on its way only after a flush; a shutdown says that nothing follows
/// (`close_notify` where there is TLS, then FIN), and reading goes on.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// Ready when a read may find something; there may turn out to be nothing yet.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads and drops whatever still comes until the peer has closed its socket: an end that its
    /// kernel has told us, whatever TLS has said before.
    ///
    /// # Errors
    /// The connection was given up on our side: nothing is known of the peer's.
    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseProof>>;

    /// Octets of memory that it holds: what was written and the kernel did not take, what was received and is no whole
    /// record yet or had no room.
    fn kept(&self) -> usize;

    /// Drops what was written and the kernel did not take. Nothing may be written behind that.
    fn drop_unsent(&mut self);

    /// The login is over: what is read from now on need not be wiped from the memory that it passed
    /// through.
    fn carries_no_secrets_any_more(&mut self);

    /// Reads some octets; none means the end. To a mail protocol the end of TCP without that of TLS is one like any
    /// other: it frames its messages, so nothing that was cut off is taken for whole, and many clients end
    /// like this.
    fn poll_some(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        match ready!(Pin::new(self).poll_read(cx, &mut into)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            result => Poll::Ready(result.map(|()| into.filled().len())),
        }
    }
}

/// A connection under TLS, in which we are one end or the other.
pub(crate) enum Tls {
    /// The client's side: we are its server.
    Server(Box<TlsStream<UnbufferedServerConnection>>),
    /// The backend's side: we are its client.
    Client(Box<TlsStream<UnbufferedClientConnection>>),
}

impl Tls {
    /// When the peer's certificate ends, in seconds since 1970. It is read anew with every call: for probes.
    pub(super) fn certificate_end(&self) -> Option<i64> {
        let common = match self {
            Self::Server(stream) => stream.common(),
            Self::Client(stream) => stream.common(),
        };
        let end_entity = common.peer_certificates()?.first()?;
        let (_, certificate) = X509Certificate::from_der(end_entity).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }
}

/// The transport of a leg whose kind no longer matters: what a relay moves bytes between.
pub(crate) enum AnyTransport {
    /// TCP.
    Tcp(Socket),
    /// TLS over TCP.
    Tls(Tls),
}

impl From<Socket> for AnyTransport {
    fn from(socket: Socket) -> Self {
        Self::Tcp(socket)
    }
}

impl From<Tls> for AnyTransport {
    fn from(stream: Tls) -> Self {
        Self::Tls(stream)
    }
}

impl<T: Transport> Transport for Box<T> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_readable(cx)
    }

    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseProof>> {
        (**self).poll_peer_closed(cx)
    }

    fn kept(&self) -> usize {
        (**self).kept()
    }

    fn drop_unsent(&mut self) {
        (**self).drop_unsent();
    }

    fn carries_no_secrets_any_more(&mut self) {
        (**self).carries_no_secrets_any_more();
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

        impl AsyncRead for $kind {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(self.inner()).poll_read(cx, into)
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                from: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(self.inner()).poll_write(cx, from)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(self.inner()).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(self.inner()).poll_shutdown(cx)
            }
        }

        impl Transport for $kind {
            fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.inner().poll_readable(cx)
            }

            fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseProof>> {
                self.inner().poll_peer_closed(cx)
            }

            fn kept(&self) -> usize {
                match self {
                    $(Self::$variant(inner) => inner.kept(),)*
                }
            }

            fn drop_unsent(&mut self) {
                self.inner().drop_unsent();
            }

            fn carries_no_secrets_any_more(&mut self) {
                self.inner().carries_no_secrets_any_more();
            }
        }
    };
}

by_variant!(Tls: Server, Client);
by_variant!(AnyTransport: Tcp, Tls);
