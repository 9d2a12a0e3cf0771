//! One connection to a server: driven by hyper, ended by us.
//!
//! Whatever the cause, it ends with our FIN, and then it is read until the server's own end. A request that was sent and
//! not answered is executed all the same, by some servers after a reset too, so that only the server's end says that it
//! is over. Who needs to know it leaves the registration here, and it ends with that proof.

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

use super::super::lent::Loan;
use crate::{
    net::{
        CloseProof,
        transport::{AnyTransport, Transport as _},
    },
    registry::{Exchanged, SETTLE_TIME, SessionGuard},
};

/// What the connection's task and those who use it share.
#[derive(Debug, Default)]
pub(in super::super) struct Line {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Registrations that end with the connection.
    left: Vec<SessionGuard>,
    /// Its own, while nothing goes on: with the proof for what went on before, and until when it is kept.
    idle: Option<Idle>,
    /// It is to end, and the server is given so long for it.
    end: Option<Duration>,
    /// It is over.
    over: Option<Over>,
}

/// How a connection ended: whether the server's own end was seen.
#[derive(Debug, Clone, Copy)]
struct Over(Option<CloseProof>);

#[derive(Debug)]
struct Idle {
    guard: SessionGuard,
    last: Exchanged,
    until: Instant,
}

impl Line {
    /// Ends the connection. The server is given so long for its own end; of several times the shortest.
    pub(in super::super) fn end(&self, limit: Duration) {
        let mut state = self.lock();
        let shorter = state.end.map_or(limit, |end| end.min(limit));
        state.end = Some(shorter);
        drop(state);
        self.changed.notify_one();
    }

    /// Leaves a registration here, to end with the connection.
    pub(in super::super) fn leave(&self, guard: SessionGuard) {
        let mut state = self.lock();
        match state.over {
            None => state.left.push(guard),
            Some(Over(proof)) => {
                drop(state);
                conclude(guard, proof);
            }
        }
    }

    /// Keeps the connection while nothing goes on. False: it is to end, or is over.
    pub(in super::super) fn rest(
        &self,
        guard: SessionGuard,
        last: Exchanged,
        until: Instant,
    ) -> bool {
        let mut state = self.lock();
        if state.end.is_some() || state.over.is_some() {
            drop(state);
            guard.closed(last);
            return false;
        }
        state.idle = Some(Idle { guard, last, until });
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Takes it into use again. False: it is to end, or is over.
    pub(in super::super) fn wake(&self) -> bool {
        let mut state = self.lock();
        if state.end.is_some() || state.over.is_some() {
            return false;
        }
        let idle = state.idle.take();
        drop(state);
        if let Some(idle) = idle {
            idle.guard.closed(idle.last);
        }
        true
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
        for guard in left.into_iter().chain(idle.map(|idle| idle.guard)) {
            conclude(guard, proof);
        }
    }
}

fn conclude(guard: SessionGuard, proof: Option<CloseProof>) {
    match proof {
        Some(proof) => guard.closed(proof),
        // Counted as unconfirmed, if anything was sent for it.
        None => drop(guard),
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
            () = over => SETTLE_TIME,
        }
    };
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
