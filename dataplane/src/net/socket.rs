//! A connected socket, and the one place where a peer's end is seen.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{TcpStream, local::LocalStream, scratch::with_scratch, transport::Transport};

/// Evidence that the peer has closed its socket, as its own kernel told ours. Nothing but a read of the socket
/// makes one: a failure to write, to encrypt or to decrypt is a reason to stop and no sign of what the peer still
/// does with what it has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseProof(End);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its FIN.
    Eof,
    /// Its RST.
    Reset,
}

impl CloseProof {
    /// As logs and statistics call it.
    pub const fn word(self) -> &'static str {
        match self.0 {
            End::Eof => "eof",
            End::Reset => "reset",
        }
    }
}

#[cfg(test)]
impl CloseProof {
    /// For what is tested without a socket.
    pub(crate) const EOF: Self = Self(End::Eof);
    /// For what is tested without a socket.
    pub(crate) const RESET: Self = Self(End::Reset);
}

/// A connection in clear, or the one below TLS.
pub(crate) struct Socket {
    stream: LocalStream,
    /// What the kernel said first when the connection failed. It says so once, to whoever reads or writes next,
    /// and lets every later read end as if the peer had closed.
    failed: Option<io::ErrorKind>,
}

impl Socket {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            // That a pipe is broken says that it failed before, and not how.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.failed.get_or_insert(error.kind());
            }
        }
        result
    }

    /// What a read proves that has come to the end.
    fn end(&self) -> io::Result<CloseProof> {
        match self.failed {
            None => Ok(CloseProof(End::Eof)),
            Some(io::ErrorKind::ConnectionReset) => Ok(CloseProof(End::Reset)),
            // Our own kernel has given up: retransmissions or keep-alives that nobody answered. The peer may be
            // alive behind the fault, with all that we have sent still to be read.
            Some(kind) => Err(kind.into()),
        }
    }
}

impl From<LocalStream> for Socket {
    fn from(stream: LocalStream) -> Self {
        Self {
            stream,
            failed: None,
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        LocalStream::Tcp(stream).into()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        Poll::Ready(self.note(result))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, from));
        Poll::Ready(self.note(result))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        Poll::Ready(self.note(result))
    }
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(cx)
    }

    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseProof>> {
        ready!(self.poll_readable(cx))?;
        with_scratch(|scratch| {
            loop {
                let mut into = ReadBuf::new(scratch);
                match ready!(Pin::new(&mut *self).poll_read(cx, &mut into)) {
                    Ok(()) if !into.filled().is_empty() => {}
                    // A read that fails says why, which is what the end is judged by.
                    Ok(()) | Err(_) => return Poll::Ready(self.end()),
                }
            }
        })
    }

    fn kept(&self) -> usize {
        0
    }

    fn drop_unsent(&mut self) {}

    /// Nothing that was read directly from a socket has passed through other memory than its reader's.
    fn carries_no_secrets_any_more(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use socket2::SockRef;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::net;

    async fn pair() -> (Socket, TcpStream) {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(net::connect(address), net::accept(&listener));
        (near.unwrap().into(), far.unwrap().0)
    }

    fn tcp(socket: &Socket) -> &TcpStream {
        match &socket.stream {
            LocalStream::Tcp(stream) => stream,
            LocalStream::Unix(_) => panic!("it was made of TCP"),
        }
    }

    async fn peer_closed(socket: &mut Socket) -> io::Result<CloseProof> {
        poll_fn(|cx| socket.poll_peer_closed(cx)).await
    }

    #[tokio::test]
    async fn a_fin_behind_whatever_was_still_on_its_way_is_proof() {
        let (mut socket, mut peer) = pair().await;
        peer.write_all(&vec![0; 100_000]).await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(peer_closed(&mut socket).await.unwrap(), CloseProof::EOF);
    }

    #[tokio::test]
    async fn a_reset_is_proof_whoever_was_told_of_it_first() {
        for told_a_writer in [false, true] {
            let (mut socket, peer) = pair().await;
            SockRef::from(&peer)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(peer);
            if told_a_writer {
                tcp(&socket).readable().await.unwrap();
                assert!(socket.write_all(b"into the void").await.is_err());
            }
            assert_eq!(peer_closed(&mut socket).await.unwrap(), CloseProof::RESET);
        }
    }

    #[tokio::test]
    async fn a_connection_that_our_own_kernel_has_given_up_proves_nothing() {
        let (mut socket, peer) = pair().await;
        SockRef::from(tcp(&socket))
            .set_tcp_user_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // The peer is alive and has much to read still.
        let failed = loop {
            if let Err(error) = socket.write_all(&vec![0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        let mut octet = [0];
        let read = poll_fn(|cx| socket.poll_some(cx, &mut octet)).await;
        assert_eq!(read.unwrap(), 0, "the kernel calls it an end all the same");
        let proof = peer_closed(&mut socket).await;
        assert_eq!(proof.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(peer);
    }
}
