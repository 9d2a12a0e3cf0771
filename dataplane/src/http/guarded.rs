//! An HTTP/1 client's connection, of which hyper reads what passes the guard.
//!
//! In place of a head that is refused, hyper reads one that stands for it ([`is_stand_in`]), behind those that are
//! still to be answered: so the refusal is said in its turn, and hyper ends the connection behind it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ferrypost_http::{
    Refusal,
    guard::{Guard, Step},
};
use http::Method;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use zeroize::Zeroize as _;

use super::busy::Busy;
use crate::net::{scratch::with_scratch, transport::Transport};

/// Octets that are read at once.
const PIECE: usize = 16 << 10;

/// What hyper reads in place of a head that is refused. Whoever sends the like is refused no less.
const STAND_IN: &[u8] = b"REFUSED / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";

/// Why the guard let nothing more through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// What came is refused.
    Refused(Refusal),
    /// A head did not come in time.
    SlowHead,
}

/// What a guarded connection and whoever answers its requests both know.
#[derive(Debug, Default)]
pub(super) struct Watch {
    stopped: OnceLock<Stopped>,
    upgraded: AtomicBool,
    /// An upgrade that was asked for is not to be, and the guard has not heard of it.
    declined: AtomicBool,
    /// A part of a head is held.
    holds: AtomicBool,
}

impl Watch {
    /// Why nothing more comes, if so.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.stopped.get().copied()
    }

    /// Whether nothing is on its way on the connection, in either direction.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_set = |it: &AtomicBool| it.load(Ordering::Relaxed);
        self.stopped().is_none() && !is_set(&self.upgraded) && !is_set(&self.holds)
    }

    /// What follows is no HTTP. To be said before the client hears of it.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }

    /// A request asked for an upgrade and does not get it: what follows is the next request.
    pub(super) fn decline_upgrade(&self) {
        self.declined.store(true, Ordering::Relaxed);
    }

    /// The same of a request that stands for one that was refused.
    pub(super) fn is_stand_in(&self, method: &Method) -> Option<Stopped> {
        self.stopped().filter(|_| method.as_str() == "REFUSED")
    }
}

/// The connection.
pub(super) struct Guarded<T> {
    io: T,
    guard: Guard,
    watch: Arc<Watch>,
    busy: Arc<Busy>,
    /// What was read and not passed.
    held: Vec<u8>,
    /// How much of that may pass.
    passable: usize,
    /// How long a head may take.
    patience: Duration,
    /// Since a part of one is held.
    slow: Option<Pin<Box<Sleep>>>,
}

impl<T: Transport> Guarded<T> {
    /// A connection, with its guard as it was left.
    pub(super) fn new(
        (io, guard): (T, Guard),
        watch: Arc<Watch>,
        busy: Arc<Busy>,
        patience: Duration,
    ) -> Self {
        Self {
            io,
            guard,
            watch,
            busy,
            held: Vec::new(),
            passable: 0,
            patience,
            slow: None,
        }
    }

    /// The connection itself, and its guard if a request may follow. What is held is lost.
    pub(super) fn into_inner(mut self) -> (T, Option<Guard>) {
        // What was said of an upgrade is of this request, not of a later one.
        _ = self.awaits_verdict();
        let is_between = self.held.is_empty() && self.guard.is_between_requests();
        (self.io, is_between.then_some(self.guard))
    }

    /// Whether nobody can say yet what is held: a head, or what was sent in trust that an upgrade is taken.
    fn awaits_verdict(&mut self) -> bool {
        if self.watch.upgraded.load(Ordering::Relaxed) {
            self.guard.upgrade();
        }
        if self.guard.awaits_verdict() && self.watch.declined.swap(false, Ordering::Relaxed) {
            self.guard.decline_upgrade();
        }
        self.guard.awaits_verdict()
    }

    /// Looks at what is held. False: more must be read.
    fn look(&mut self) -> io::Result<bool> {
        match self.guard.step(&self.held) {
            Ok(Step::Pass(count)) => {
                self.passable = count;
                self.slow = None;
                Ok(true)
            }
            Ok(Step::Skip(count)) => {
                self.held.drain(..count);
                // Is there more?
                if self.held.is_empty() {
                    return Ok(false);
                }
                self.look()
            }
            Ok(Step::NeedMore) => Ok(false),
            Err(refusal) => {
                self.stop(Stopped::Refused(refusal));
                if refusal == Refusal::Chunks {
                    // In the middle of a body: its reader is told.
                    return Err(io::Error::new(io::ErrorKind::InvalidData, refusal));
                }
                Ok(true)
            }
        }
    }

    fn stop(&mut self, why: Stopped) {
        _ = self.watch.stopped.set(why);
        self.held = STAND_IN.to_vec();
        self.passable = STAND_IN.len();
    }

    fn pass(&mut self, into: &mut ReadBuf<'_>) {
        let count = self.passable.min(into.remaining());
        into.put_slice(&self.held[..count]);
        self.passable -= count;
        if count == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
    }

    /// Reads once. Zero octets are the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Waits without a buffer.
        ready!(self.io.poll_readable(cx))?;
        with_scratch(|scratch| {
            let mut into = ReadBuf::new(&mut scratch[..PIECE]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            let read = into.filled_mut();
            self.held.extend_from_slice(read);
            // A head has credentials, and the memory is everybody's.
            read.zeroize();
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Gives a head that has begun no more time than it may take. What comes behind a request that is being answered
    /// is nobody's concern before its turn.
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.is_empty() || self.busy.is_busy() {
            self.slow = None;
            return Poll::Pending;
        }
        let patience = self.patience;
        let slow = self.slow.get_or_insert_with(|| Box::pin(sleep(patience)));
        slow.as_mut().poll(cx)
    }
}

impl<T: Transport> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.poll_passable(cx, into);
        self.watch
            .holds
            .store(!self.held.is_empty(), Ordering::Relaxed);
        read
    }
}

impl<T: Transport> Guarded<T> {
    fn poll_passable(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.passable > 0 {
                self.pass(into);
                return Poll::Ready(Ok(()));
            }
            if self.watch.stopped().is_some() {
                // hyper has all that it will get.
                return Poll::Pending;
            }
            if !self.held.is_empty() {
                if self.awaits_verdict() {
                    // hyper asks again when it has answered, and whoever carries a tunnel when that begins.
                    return Poll::Pending;
                }
                if self.look()? {
                    continue;
                }
            }
            match self.poll_more(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.poll_slow(cx));
                    self.stop(Stopped::SlowHead);
                }
            }
        }
    }
}

impl<T: Transport> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
