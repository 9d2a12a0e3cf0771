//! The part of a relay in which bytes move.

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use ferrypost_wire::{Follower, Safety, Then};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Cause, Parties, Party,
    budget::{Budget, Piece, Share},
    side::Side,
};
use crate::{
    limits::RelayLimits,
    metrics::RelayIo,
    net::scratch::with_scratch,
    registry::{CloseReason, SessionGuard},
};

/// How often both directions are served before other sessions get their turn.
const ROUNDS: usize = 8;

/// Two sides and the follower between them.
pub(super) struct Moving<F> {
    pub(super) client: Side,
    pub(super) backend: Side,
    pub(super) follower: F,
    pub(super) limits: RelayLimits,
    /// What the client sent and the follower has not let through.
    withheld: Vec<u8>,
    /// Since when.
    withheld_since: Option<Instant>,
    /// Something came from the backend since the follower withheld it, so it is to be asked again.
    ask_again: bool,
    /// What the backend sent behind its OK.
    early: Vec<u8>,
    share: Share,
    piece_up: Piece,
    piece_down: Piece,
    up: u64,
    down: u64,
    /// All relays' counters: an IDLE may last for days, and what it moves is to be seen meanwhile.
    io: RelayIo,
    last_move: Instant,
    draining: Option<Draining>,
}

/// The session has been told to end.
#[derive(Clone, Copy)]
struct Draining {
    reason: CloseReason,
    /// When it is cut.
    limit: Instant,
    /// The client has come to a command boundary: nothing more is read from it.
    stopped: bool,
}

impl<F: Follower> Moving<F> {
    pub(super) fn new(
        parties: Parties<F>,
        limits: RelayLimits,
        budget: &Budget,
        io: RelayIo,
    ) -> Self {
        // The legs' buffers are wiped and freed here, before the session settles down.
        let Party {
            io: client,
            said: pipelined,
        } = parties.client;
        let Party {
            io: backend,
            said: early,
        } = parties.backend;
        Self {
            client: Side::new(client, parties.welcome),
            backend: Side::new(backend, Vec::new()),
            follower: parties.follower,
            limits,
            withheld: pipelined.filled().to_vec(),
            withheld_since: None,
            ask_again: true,
            early: early.filled().to_vec(),
            share: budget.share(),
            piece_up: Piece::default(),
            piece_down: Piece::default(),
            up: 0,
            down: 0,
            io,
            last_move: Instant::now(),
            draining: None,
        }
    }

    /// Octets moved up and down.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.up, self.down)
    }

    /// Moves bytes until something ends it.
    pub(super) async fn until_end(&mut self, guard: &SessionGuard) -> Cause {
        let mut told = pin!(guard.closing());
        let mut timer = pin!(sleep_until(self.deadline()));
        poll_fn(|cx| {
            if self.draining.is_none()
                && let Poll::Ready(reason) = told.as_mut().poll(cx)
            {
                self.drain(reason);
            }
            match self.poll(cx, guard, timer.as_mut()) {
                Poll::Pending if !self.book() => Poll::Ready(Cause::NoRoom),
                poll => poll,
            }
        })
        .await
    }

    /// Books what is kept while nothing moves; false if that is too much.
    fn book(&mut self) -> bool {
        let up = self.backend.kept() + self.withheld.capacity();
        let down = self.client.kept();
        self.piece_up.rests(up);
        self.piece_down.rests(down);
        self.share.book(up + down)
    }

    fn drain(&mut self, reason: CloseReason) {
        self.draining = Some(Draining {
            reason,
            limit: Instant::now() + self.limits.drain,
            stopped: false,
        });
        self.ask_again = true;
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        guard: &SessionGuard,
        timer: Pin<&mut Sleep>,
    ) -> Poll<Cause> {
        let now = Instant::now();
        for _ in 0..ROUNDS {
            let mut moved = false;
            for step in [self.poll_up(cx, now), self.poll_down(cx, now)] {
                match step {
                    Poll::Ready(Err(cause)) => return Poll::Ready(cause),
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Pending => {}
                }
            }
            if let Some(cause) = self.settled() {
                return Poll::Ready(cause);
            }
            if !moved {
                return self.poll_time(cx, timer);
            }
            // A fence must not wait until a busy session pauses.
            if self.draining.is_none()
                && let Some(reason) = guard.close_reason()
            {
                self.drain(reason);
            }
        }
        cx.waker().wake_by_ref();
        self.poll_time(cx, timer)
    }

    /// One step from the client to the backend. Pending when there is nothing to do for now.
    fn poll_up(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), Cause>> {
        let Poll::Ready(ready) = self.backend.poll_ready(cx, now) else {
            self.piece_up.is_stuck();
            return Poll::Pending;
        };
        ready.map_err(|error| backend_failed(&error))?;
        if self.draining.is_some_and(|draining| draining.stopped) {
            return Poll::Pending;
        }
        let waiting = !self.withheld.is_empty();
        if (waiting || self.draining.is_some()) && std::mem::take(&mut self.ask_again) {
            let withheld = std::mem::take(&mut self.withheld);
            return self.forward(cx, &withheld, now);
        }
        if waiting {
            return Poll::Pending;
        }
        if self.client.ended {
            return self.poll_end_up(cx);
        }
        ready!(self.client.poll_readable(cx)).map_err(|error| client_failed(&error))?;
        with_scratch(|scratch| {
            let room = self.piece_up.next(&self.share);
            let count = ready!(self.client.poll_read(cx, &mut scratch[..room]))
                .map_err(|error| client_failed(&error))?;
            self.piece_up.was_read(count);
            self.forward(cx, &scratch[..count], now)
        })
    }

    /// Shows a chunk to the follower and forwards what it lets through.
    fn forward(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &[u8],
        now: Instant,
    ) -> Poll<Result<(), Cause>> {
        let verdict = self.follower.client(chunk, self.draining.is_some());
        let (through, rest) = chunk.split_at(verdict.forward);
        if !through.is_empty() {
            self.backend
                .write(cx, through)
                .map_err(|error| backend_failed(&error))?;
            self.up += through.len() as u64;
            self.io.up.add(through.len() as u64);
            self.last_move = now;
        }
        let waiting_since = self.withheld_since.take().unwrap_or(now);
        match verdict.then {
            Then::Continue => {}
            Then::Hold => {
                self.withheld = rest.to_vec();
                self.withheld_since = (!rest.is_empty()).then_some(waiting_since);
            }
            Then::Stop => {
                if let Some(draining) = &mut self.draining {
                    draining.stopped = true;
                }
            }
            Then::Refuse(refusal) => return Poll::Ready(Err(Cause::Refused(refusal))),
        }
        Poll::Ready(Ok(()))
    }

    /// The client has ended its side. The backend learns of it when it has answered everything that it can: a
    /// server that sees the end first may leave commands undone.
    fn poll_end_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        if !self.follower.safety().is_open() || self.follower.awaits_the_client() {
            ready!(self.backend.poll_finish(cx)).map_err(|error| backend_failed(&error))?;
        }
        Poll::Pending
    }

    /// One step from the backend to the client.
    fn poll_down(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), Cause>> {
        let Poll::Ready(ready) = self.client.poll_ready(cx, now) else {
            self.piece_down.is_stuck();
            return Poll::Pending;
        };
        ready.map_err(|error| client_failed(&error))?;
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            return self.deliver(cx, &early, now);
        }
        if self.backend.ended {
            return Poll::Pending;
        }
        ready!(self.backend.poll_readable(cx)).map_err(|error| backend_failed(&error))?;
        with_scratch(|scratch| {
            let room = self.piece_down.next(&self.share);
            let count = ready!(self.backend.poll_read(cx, &mut scratch[..room]))
                .map_err(|error| backend_failed(&error))?;
            self.piece_down.was_read(count);
            self.deliver(cx, &scratch[..count], now)
        })
    }

    fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &[u8],
        now: Instant,
    ) -> Poll<Result<(), Cause>> {
        if chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.follower.server(chunk);
        self.ask_again = true;
        self.client
            .write(cx, chunk)
            .map_err(|error| client_failed(&error))?;
        self.down += chunk.len() as u64;
        self.io.down.add(chunk.len() as u64);
        self.last_move = now;
        Poll::Ready(Ok(()))
    }

    /// Whether there is nothing left to do.
    fn settled(&self) -> Option<Cause> {
        if !self.client.is_drained() {
            return None;
        }
        if self.backend.ended {
            return Some(if self.client.ended {
                Cause::ClientEnded
            } else {
                Cause::BackendEnded
            });
        }
        let reason = self.draining?.reason;
        // Of an opaque stream nobody can tell when it would be safe: there is nothing to wait for.
        let done = !self.follower.safety().is_open();
        done.then_some(Cause::Told { reason, cut: false })
    }

    fn poll_time(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Cause> {
        // Set earlier when a nearer limit has come up; a later one is looked at when it fires.
        let deadline = self.deadline();
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if let Some(cause) = self.expired(timer.deadline()) {
                return Poll::Ready(cause);
            }
            if self.release_overdue(timer.deadline()) {
                cx.waker().wake_by_ref();
            }
            timer.as_mut().reset(self.deadline());
        }
        Poll::Pending
    }

    /// Lets go on what has waited too long for an answer; whether there was something.
    fn release_overdue(&mut self, now: Instant) -> bool {
        let overdue = |since: &mut Instant| now >= *since + self.limits.answer;
        let is_overdue = self.withheld_since.take_if(overdue).is_some();
        if is_overdue {
            self.follower.release();
            self.ask_again = true;
        }
        is_overdue
    }

    /// Whether an end here might make the client do again what the backend has taken over: no limit cuts
    /// that.
    fn is_committed(&self) -> bool {
        self.follower.safety() == Safety::Committed
    }

    /// When the next limit is hit, if nothing happens until then.
    fn deadline(&self) -> Instant {
        if self.is_committed() {
            // What ends it is the backend's word or its connection's end, and either wakes us.
            return Instant::now() + self.limits.idle;
        }
        let stuck = |side: &Side| side.stuck_since().map(|since| since + self.limits.stalled);
        [
            Some(self.last_move + self.limits.idle),
            self.draining.map(|draining| draining.limit),
            self.withheld_since.map(|since| since + self.limits.answer),
            stuck(&self.client),
            stuck(&self.backend),
        ]
        .into_iter()
        .flatten()
        .min()
        .expect("the idle limit is always there")
    }

    fn expired(&self, now: Instant) -> Option<Cause> {
        if self.is_committed() {
            return None;
        }
        let stuck = |side: &Side| {
            side.stuck_since()
                .is_some_and(|since| now >= since + self.limits.stalled)
        };
        if let Some(Draining { reason, limit, .. }) = self.draining
            && now >= limit
        {
            return Some(Cause::Told { reason, cut: true });
        }
        if stuck(&self.client) {
            return Some(Cause::ClientStuck);
        }
        if stuck(&self.backend) {
            return Some(Cause::BackendStuck);
        }
        (now >= self.last_move + self.limits.idle).then_some(Cause::Idle)
    }
}

fn client_failed(error: &io::Error) -> Cause {
    Cause::ClientFailed(error.kind())
}

fn backend_failed(error: &io::Error) -> Cause {
    Cause::BackendFailed(error.kind())
}
