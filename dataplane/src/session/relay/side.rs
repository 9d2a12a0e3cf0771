//! One side of a relay: what is read from it and what is written to it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite as _, time::Instant};

use crate::net::{
    CloseProof,
    transport::{AnyTransport, Transport as _},
};

/// A connection under relay.
pub(super) struct Side {
    io: AnyTransport,
    /// Octets for this side that it has not taken yet; what stands before `sent` is gone.
    unsent: Vec<u8>,
    sent: usize,
    /// Octets may still wait inside the transport.
    unflushed: bool,
    /// Since when it has not taken what there is for it.
    stuck_since: Option<Instant>,
    /// It has said that it will send no more.
    pub(super) ended: bool,
    /// We have said so.
    finished: bool,
}

impl Side {
    /// A side that is to be sent `first` before anything else.
    pub(super) fn new(io: AnyTransport, first: Vec<u8>) -> Self {
        Self {
            io,
            unflushed: !first.is_empty(),
            unsent: first,
            sent: 0,
            stuck_since: None,
            ended: false,
            finished: false,
        }
    }

    /// Waits for octets from this side without holding memory for them.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_readable(cx)
    }

    /// Reads what is there, up to the room in `into`; remembers the end when it comes.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.io.poll_some(cx, into))?;
        self.ended = count == 0;
        Poll::Ready(Ok(count))
    }

    /// Writes what this side takes of `octets` and keeps the rest for it. Only to be called when
    /// [`poll_ready`](Self::poll_ready) has said that nothing else waits.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> io::Result<()> {
        let mut rest = octets;
        while !rest.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(count) => rest = &rest[count?..],
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(rest);
        self.unflushed = true;
        Ok(())
    }

    /// Ready when everything for this side has been handed to the kernel: the moment to read more for
    /// it. This is what makes the other side wait for this one.
    pub(super) fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        let progress = (self.sent, self.unsent.len());
        let result = self.poll_drained(cx);
        match &result {
            Poll::Ready(_) => self.stuck_since = None,
            Poll::Pending if progress != (self.sent, self.unsent.len()) => {
                self.stuck_since = Some(now);
            }
            Poll::Pending => _ = self.stuck_since.get_or_insert(now),
        }
        result
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let rest = &self.unsent[self.sent..];
            self.sent += ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
        }
        if !self.unsent.is_empty() {
            self.drop_unsent();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Since when it has not taken what there is for it.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since
    }

    /// Whether everything for this side has been handed to the kernel.
    pub(super) fn is_drained(&self) -> bool {
        self.unsent.is_empty() && !self.unflushed
    }

    /// Octets of memory that are kept for this side and from it.
    pub(super) fn kept(&self) -> usize {
        self.unsent.capacity() + self.io.kept()
    }

    /// Forgets everything for a side that will not be written to again.
    pub(super) fn abandon(&mut self) {
        self.drop_unsent();
        self.io.drop_unsent();
    }

    /// Forgets what this side has not taken.
    pub(super) fn drop_unsent(&mut self) {
        self.unsent = Vec::new();
        self.sent = 0;
    }

    /// Says that nothing follows, once.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops what comes until the peer has closed its socket.
    pub(super) fn poll_peer_closed(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<CloseProof>> {
        self.io.poll_peer_closed(cx)
    }
}
