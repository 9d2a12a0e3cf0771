//! TLS over TCP that holds no memory while nothing moves.
//!
//! rustls' buffered connections keep a read buffer for as long as they live, which is most of what an idle
//! session costs. This drives its unbuffered ones: ciphertext is read into a buffer that the thread lends
//! (`scratch`) and decrypted there, plaintext is encrypted into another. What is kept is what makes no
//! whole record yet, what nobody had room for, and what the kernel did not take.

mod engine;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ferrypost_wire::WireBuf;
use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroize as _;

use super::{
    scratch::{PIECE, RECORD, with_scratch},
    socket::{CloseProof, Socket},
    transport::Transport,
};
use engine::{Engine, Handshake, tls};

pub(crate) use engine::Session;

/// The most octets of a handshake that wait for its next part: what rustls itself allows. Certificate
/// chains have a few thousand.
const MAX_HANDSHAKE: usize = 0xffff;

/// Octets by which a record on the wire may be longer than its plaintext (RFC 5246 §6.2.3; RFC 8446 §5.2
/// allows less).
const RECORD_OVERHEAD: usize = 5 + 2048;

/// A connection under TLS, from one end.
pub(crate) struct TlsStream<S> {
    socket: Socket,
    engine: Engine<S>,
    /// Ciphertext that makes no whole record yet.
    incoming: Vec<u8>,
    /// Plaintext that there was no room for.
    plain: WireBuf,
    /// How much of the engine's `outgoing` the kernel has taken.
    sent: usize,
    /// Plaintext may be a secret: the lent buffer is wiped.
    wipes: bool,
    closing: bool,
    /// The peer's socket has ended without `close_notify`.
    cut_off: bool,
}

impl<S: Session> TlsStream<S> {
    /// Shakes hands. `early` is sent as early as the protocol allows.
    ///
    /// # Errors
    /// An error of TLS is inside the error of I/O, and the peer has been told.
    pub(super) async fn handshake(
        socket: Socket,
        session: S,
        early: &[u8],
    ) -> io::Result<Box<Self>> {
        let mut stream = Box::new(Self {
            socket,
            engine: Engine::new(session),
            incoming: Vec::new(),
            plain: WireBuf::new(PIECE),
            sent: 0,
            wipes: true,
            closing: false,
            cut_off: false,
        });
        let shaken = stream.shake_hands(early).await;
        let flushed = poll_fn(|cx| stream.poll_send(cx)).await;
        shaken.and(flushed)?;
        stream.incoming.shrink_to_fit();
        Ok(stream)
    }

    /// What was agreed.
    pub(super) fn common(&self) -> &CommonState {
        self.engine.common()
    }

    async fn shake_hands(&mut self, mut early: &[u8]) -> io::Result<()> {
        loop {
            let Self {
                engine,
                incoming,
                plain,
                ..
            } = self;
            let mut whole = true;
            let (used, stand) = engine
                .shake_hands(incoming, &mut early, |octets| {
                    whole &= plain.extend(octets).is_ok();
                })
                .map_err(tls)?;
            incoming.drain(..used);
            if !whole {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stand == Handshake::Done {
                return Ok(());
            }
            if engine.peer_ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            poll_fn(|cx| self.poll_send(cx)).await?;
            poll_fn(|cx| self.poll_more_handshake(cx)).await?;
        }
    }

    fn poll_more_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_readable(cx))?;
        with_scratch(|scratch| {
            let room = (MAX_HANDSHAKE - self.incoming.len()).min(RECORD);
            if room == 0 {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let count = ready!(self.socket.poll_some(cx, &mut scratch[..room]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.incoming.extend_from_slice(&scratch[..count]);
            Poll::Ready(Ok(()))
        })
    }

    /// Reads ciphertext once and puts what it holds into `into`, and the rest into `plain`. Zero octets
    /// are no end: there may have been no whole record.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let kept = self.incoming.len();
            // One record fits in any case, or a small reader would never see the end of a large one.
            let most = into
                .len()
                .max(RECORD + RECORD_OVERHEAD)
                .max(kept + 1)
                .min(scratch.len());
            let count = ready!(self.socket.poll_some(cx, &mut scratch[kept..most]))?;
            if count == 0 {
                self.cut_off = true;
                return Poll::Ready(Ok(0));
            }
            scratch[..kept].copy_from_slice(&self.incoming);
            let received = &mut scratch[..kept + count];
            let decrypted = self.take_in(received, into);
            if self.wipes {
                received.zeroize();
            }
            // What it may have queued: an alert, an answer to a change of keys.
            let flushed = self.poll_send(cx);
            let decrypted = decrypted.map_err(tls)?;
            if let Poll::Ready(result) = flushed {
                result?;
            }
            Poll::Ready(Ok(decrypted))
        })
    }

    fn take_in(&mut self, received: &mut [u8], into: &mut [u8]) -> Result<usize, rustls::Error> {
        let (mut count, mut whole) = (0, true);
        let plain = &mut self.plain;
        let used = self.engine.decrypt(received, |octets| {
            let fits = octets.len().min(into.len() - count);
            into[count..count + fits].copy_from_slice(&octets[..fits]);
            count += fits;
            whole &= plain.extend(&octets[fits..]).is_ok();
        })?;
        if !whole {
            return Err(rustls::Error::General("more than was read".into()));
        }
        // Of just that size: a vector that grows as it likes may hold twice as much.
        self.incoming = received[used..].to_vec();
        Ok(count)
    }
}

impl<S: Session> Transport for TlsStream<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was decrypted already makes no socket readable.
        if !self.plain.is_empty() || self.engine.peer_ended || self.cut_off {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_readable(cx)
    }

    fn poll_peer_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseProof>> {
        self.socket.poll_peer_closed(cx)
    }

    fn kept(&self) -> usize {
        self.incoming.capacity() + self.plain.len() + self.engine.outgoing.capacity()
    }

    fn drop_unsent(&mut self) {
        self.engine.outgoing = Vec::new();
        self.sent = 0;
    }

    fn carries_no_secrets_any_more(&mut self) {
        self.wipes = false;
    }
}

/// An end of TCP without that of TLS is the error `UnexpectedEof`, as with rustls' own streams: a protocol that takes the
/// end of the stream for the end of a message (HTTP/1) must not take a cut for one.
impl<S: Session> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.initialize_unfilled();
        if room.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !self.plain.is_empty() {
            let count = self.plain.len().min(room.len());
            room[..count].copy_from_slice(&self.plain.filled()[..count]);
            self.plain.consume(count);
            self.plain.release();
            into.advance(count);
            return Poll::Ready(Ok(()));
        }
        while !self.engine.peer_ended {
            if self.cut_off {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let count = ready!(self.poll_receive(cx, room))?;
            if count > 0 {
                into.advance(count);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Session> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let piece = &from[..from.len().min(PIECE)];
        if piece.is_empty() {
            return Poll::Ready(Ok(0));
        }
        with_scratch(|scratch| {
            let this = &mut *self;
            let count = this.engine.encrypt(&mut this.incoming, piece, scratch)?;
            let mut rest = &scratch[..count];
            // Records of the engine's own that came up just now go first.
            while !rest.is_empty() && this.engine.outgoing.is_empty() {
                match Pin::new(&mut this.socket).poll_write(cx, rest) {
                    Poll::Ready(taken) => rest = &rest[taken?..],
                    Poll::Pending => break,
                }
            }
            this.engine.outgoing.extend_from_slice(rest);
            Poll::Ready(Ok(piece.len()))
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.closing, true) {
            // TLS that has failed has told the peer by its alert and has no more to say; the FIN is due all the
            // same.
            _ = this.engine.close(&mut this.incoming);
        }
        let sent = ready!(this.poll_send(cx));
        let shut = ready!(Pin::new(&mut this.socket).poll_shutdown(cx));
        Poll::Ready(sent.and(shut))
    }
}

impl<S> TlsStream<S> {
    /// Hands everything that was encrypted to the kernel.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.engine.outgoing.len() {
            let rest = &self.engine.outgoing[self.sent..];
            self.sent += ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
        }
        if self.sent > 0 {
            self.engine.outgoing = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }
}
