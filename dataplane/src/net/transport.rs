//! What a leg reads from and writes to: TCP, or TLS over it.
//!
//! Polled by hand rather than through `AsyncRead`, because a relay needs to *wait* for bytes without
//! holding memory for them, which no reader of `tokio::io` can do.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{TcpStream, scratch::with_scratch};

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
        finished(ready!(Pin::new(self).poll_shutdown(cx)))
    }

    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_scratch(|scratch| {
            while ready!(self.poll_read(cx, scratch))? > 0 {}
            Poll::Ready(Ok(()))
        })
    }
}

/// A connection under TLS, from either end.
pub(crate) type TlsStream = Box<tokio_rustls::TlsStream<TcpStream>>;

impl Transport for TlsStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.get_ref();
        // Octets that were decrypted already make no socket readable.
        if !session.wants_read() {
            return Poll::Ready(Ok(()));
        }
        socket.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        match ready!(Pin::new(&mut **self).poll_read(cx, &mut into)) {
            Ok(()) => Poll::Ready(Ok(into.filled().len())),
            // A peer that closes without `close_notify`. Mail protocols frame their messages, so
            // nothing that was cut off is taken for whole; many clients end like this.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self).poll_write(cx, from)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        finished(ready!(Pin::new(&mut **self).poll_shutdown(cx)))
    }

    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_peer_closed(cx)
    }
}

/// A peer that has gone already needs no farewell.
fn finished(result: io::Result<()>) -> Poll<io::Result<()>> {
    Poll::Ready(match result {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    })
}

/// The transport of a leg whose kind no longer matters: what a relay moves bytes between.
pub(crate) enum AnyTransport {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(TlsStream),
}

impl AnyTransport {
    fn inner(&mut self) -> &mut dyn Transport {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream,
        }
    }
}

impl Transport for AnyTransport {
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
}
