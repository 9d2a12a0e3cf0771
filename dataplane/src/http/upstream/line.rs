//! One connection to a server: driven by hyper, ended by us.
//!
//! Whatever the cause, it ends with our FIN, and then it is read until the server's own end. A request that was sent and
//! not answered is executed all the same, by some servers after a reset too, so that only the server's end says that it
//! is over. Who needs to know it leaves the registration here, and it ends with that proof.
//!
//! With HTTP/2 a FIN beside requests that are under way would prove nothing: many servers answer it with theirs at once,
//! and go on with what they were asked. There the connection takes no more requests, those that it has come to their
//! ends first, and then it says GOAWAY and ends like any other.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncWrite as _,
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::super::{client::Place, lent::Loan};
use crate::{
    net::{
        CloseProof,
        transport::{AnyTransport, Transport as _},
    },
    registry::{OnlyAsked, Proof, SETTLE_TIME, SessionGuard},
};

/// What the connection's task and those who use it share.
#[derive(Debug)]
pub(in super::super) struct Line {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Exchanges that go on there.
    in_use: usize,
    /// How many may.
    room: usize,
    /// It may be asked for a WebSocket: by an upgrade, or by what an HTTP/2 server has allowed (RFC 8441).
    opens_web_sockets: bool,
    /// Registrations that end with the connection.
    left: Vec<Left>,
    /// Its own, while nothing goes on: with the proof for what went on before, and until when it is kept.
    idle: Option<Idle>,
    /// It is to end, and the server is given so long for it.
    end: Option<Duration>,
    /// It is over.
    over: Option<Over>,
}

impl State {
    const fn is_ending(&self) -> bool {
        self.end.is_some() || self.over.is_some()
    }
}

/// How a connection ended: whether the server's own end was seen.
#[derive(Debug, Clone, Copy)]
struct Over(Option<CloseProof>);

/// A registration, which may be left to its connection.
#[derive(Debug)]
pub(in super::super) struct Left {
    pub(in super::super) guard: SessionGuard,
    /// The client's, as long as the server is at it.
    #[expect(dead_code, reason = "held for its end")]
    pub(in super::super) place: Arc<Place>,
    /// What the server was asked changes nothing, so that its end is waited for and not needed.
    pub(in super::super) only_asks: bool,
}

#[derive(Debug)]
struct Idle {
    guard: SessionGuard,
    last: Proof,
    until: Instant,
}

impl Line {
    /// A connection with one exchange, and room for no other.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                in_use: 1,
                room: 1,
                opens_web_sockets: true,
                left: Vec::new(),
                idle: None,
                end: None,
                over: None,
            }),
            changed: Notify::new(),
        }
    }

    /// What an HTTP/2 server has said of what it takes.
    pub(super) fn learn(&self, room: usize, opens_web_sockets: bool) {
        let mut state = self.lock();
        state.room = room;
        state.opens_web_sockets = opens_web_sockets;
    }

    /// Whether a WebSocket may be asked for.
    pub(in super::super) fn opens_web_sockets(&self) -> bool {
        self.lock().opens_web_sockets
    }

    /// Ends the connection. The server is given so long for its own end; of several times the shortest.
    pub(in super::super) fn end(&self, limit: Duration) {
        let mut state = self.lock();
        let shorter = state.end.map_or(limit, |end| end.min(limit));
        state.end = Some(shorter);
        drop(state);
        self.changed.notify_one();
    }

    /// Leaves a registration here, to end with the connection.
    pub(in super::super) fn leave(&self, left: Left) {
        let mut state = self.lock();
        match state.over {
            None => state.left.push(left),
            Some(Over(proof)) => {
                drop(state);
                left.conclude(proof);
            }
        }
    }

    /// One exchange less. False: it is the last one, and goes on as it was.
    pub(super) fn is_left_by_one(&self) -> bool {
        let mut state = self.lock();
        let is_shared = state.in_use > 1;
        if is_shared {
            state.in_use -= 1;
        }
        is_shared
    }

    /// Keeps the connection while nothing goes on. False: it is to end, or is over.
    pub(super) fn rest(&self, guard: SessionGuard, last: Proof, until: Instant) -> bool {
        let mut state = self.lock();
        state.in_use = 0;
        if state.is_ending() {
            drop(state);
            guard.closed(last);
            return false;
        }
        state.idle = Some(Idle { guard, last, until });
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Takes it into use for one exchange more. False: it is to end, or is over, or has no room.
    pub(super) fn wake(&self) -> bool {
        let mut state = self.lock();
        if state.is_ending() || state.in_use >= state.room {
            return false;
        }
        state.in_use += 1;
        let idle = state.idle.take();
        drop(state);
        if let Some(idle) = idle {
            idle.guard.closed(idle.last);
        }
        true
    }

    /// Whether one exchange more may go on there.
    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.in_use < state.room
    }

    /// Whether nothing goes on there.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().idle.is_some()
    }

    /// Whether it is to end, or is over.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().is_ending()
    }

    /// How long the server has, if it was told to end.
    fn limit(&self) -> Option<Duration> {
        self.lock().end
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the connection is to end: told to, or kept for long enough, or because of a fence.
    async fn ended(&self, close: Duration) -> Duration {
        loop {
            let changed = self.changed.notified();
            let (end, idle) = {
                let state = self.lock();
                let idle = state.idle.as_ref();
                (
                    state.end,
                    idle.map(|idle| (idle.guard.ending(), idle.until)),
                )
            };
            if let Some(limit) = end {
                return limit;
            }
            match idle {
                None => changed.await,
                Some((told, until)) => tokio::select! {
                    biased;
                    () = changed => {}
                    _ = told.told() => self.end_if_idle(close),
                    () = sleep_until(until) => self.end_if_idle(close),
                },
            }
        }
    }

    /// It may have been taken into use just now.
    fn end_if_idle(&self, limit: Duration) {
        let mut state = self.lock();
        if state.idle.is_some() {
            state.end.get_or_insert(limit);
        }
    }

    fn conclude(&self, proof: Option<CloseProof>) {
        let (left, idle) = {
            let mut state = self.lock();
            state.over = Some(Over(proof));
            (std::mem::take(&mut state.left), state.idle.take())
        };
        for left in left {
            left.conclude(proof);
        }
        if let Some(idle) = idle {
            // All that was ever asked on it is answered, whether its server ends it or not.
            idle.guard.closed(proof.map_or(idle.last, Proof::from));
        }
    }
}

impl Left {
    fn conclude(self, proof: Option<CloseProof>) {
        match proof {
            Some(proof) => self.guard.closed(proof),
            None if self.only_asks => self.guard.closed(OnlyAsked::by_its_kind()),
            // Counted as unconfirmed, if anything was sent for it.
            None => drop(self.guard),
        }
    }
}

/// Drives a connection to its end. `close`: how long a server may take for its own, when nothing goes on.
pub(super) async fn run(
    line: Arc<Line>,
    connection: impl Future,
    loan: Loan<AnyTransport>,
    close: Duration,
) {
    let limit = {
        let mut connection = Box::pin(connection);
        let over = pin!(async { _ = connection.as_mut().await });
        tokio::select! {
            biased;
            limit = line.ended(close) => limit,
            // The server has ended it, or hyper has: somebody went away.
            () = over => {
                line.end(SETTLE_TIME);
                SETTLE_TIME
            }
        }
    };
    // Streams that are under way go on to their ends.
    let proof = match loan.returned().await {
        // A tunnel had it meanwhile, perhaps, and was told to end.
        Some(transport) => part(transport, line.limit().unwrap_or(limit)).await,
        None => None,
    };
    line.conclude(proof);
}

/// Ends our side, and waits for the server's end.
async fn part(mut transport: AnyTransport, limit: Duration) -> Option<CloseProof> {
    // A part of a request, perhaps, that is not to become whole.
    transport.drop_unsent();
    let parted = async {
        // What fails here ends the writing and proves nothing: the server may be reading still.
        _ = poll_fn(|cx| Pin::new(&mut transport).poll_shutdown(cx)).await;
        poll_fn(|cx| transport.poll_peer_closed(cx)).await
    };
    timeout(limit, parted).await.ok()?.ok()
}
