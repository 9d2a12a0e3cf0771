//! Bytes both ways between a client and the server that holds its account, until one of them or we end
//! it.
//!
//! ```text
//!   client ──▶ follower.client ──▶ backend      what the follower withholds waits here
//!   client ◀── follower.server ◀── backend      what a side does not take waits here, and stops the reading
//! ```
//!
//! A relay in which nothing moves holds no buffer: it waits for a socket to be readable and is then lent
//! one (`scratch`). Both directions run in one task. Each reads only when the
//! other side has taken everything, so a slow side slows the fast one and nothing piles up here.
//!
//! # How it ends
//!
//! Whatever the cause, the client's side goes first and the backend's side last: `close_notify` and FIN,
//! and then we read until the backend's own end (G2). A session that is told to end takes no
//! more input at the next command boundary, lets the open command finish within the drain limit, says
//! goodbye in the protocol's words and ends in the same way.

mod budget;
mod moving;
mod side;

use std::{future::poll_fn, io, task::Poll, time::Duration};

use ferrypost_wire::{Farewell, Follower, Refusal, WireBuf};
use tokio::time::{Instant, timeout};

use crate::{
    limits::RelayLimits,
    metrics::RelayIo,
    net::{
        CloseProof, TcpStream,
        leg::{BackendLeg, Leg, LegState},
        transport::AnyTransport,
    },
    registry::{CloseReason, SessionGuard},
    session::outcome::farewell,
};
use moving::Moving;

pub use budget::Budget;
#[cfg(test)]
pub(crate) use budget::{LENT, STUCK};

/// How long a client that we have said goodbye to may take to close its side. Closing ours first would
/// reset the connection if anything of the client's was still on its way, and the reset could overtake
/// the goodbye.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What ended a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client closed its side and had all its answers.
    ClientEnded,
    /// The backend closed its side, as it does after a logout.
    BackendEnded,
    /// The client's connection failed.
    ClientFailed(io::ErrorKind),
    /// The backend's connection failed.
    BackendFailed(io::ErrorKind),
    /// Nothing was said for too long.
    Idle,
    /// The client did not take what there was for it.
    ClientStuck,
    /// The backend did not take what there was for it.
    BackendStuck,
    /// One of them did not take what there was for it, and nothing more may be kept for anybody.
    NoRoom,
    /// The client sent what must not reach the backend.
    Refused(Refusal),
    /// It was told to end.
    Told {
        /// Why.
        reason: CloseReason,
        /// A command was still open at the drain limit.
        cut: bool,
    },
}

/// A relay that is over.
#[derive(Debug, Clone, Copy)]
pub struct RelayEnd {
    /// What ended it.
    pub cause: Cause,
    /// Octets from the client to the backend.
    pub up: u64,
    /// Octets from the backend to the client.
    pub down: u64,
    /// Whether the backend's own end was seen, and which.
    pub proof: Option<CloseProof>,
}

impl RelayEnd {
    /// Whether a command was still open when it was ended.
    pub fn is_cut(&self) -> bool {
        matches!(self.cause, Cause::Told { cut: true, .. })
    }
}

/// One of the two, with what it has said and nobody has read.
pub struct Party {
    io: AnyTransport,
    said: WireBuf,
}

impl Party {
    /// Somebody who has just connected, and is to be relayed as it is.
    pub fn fresh(stream: TcpStream) -> Self {
        Self {
            io: AnyTransport::Tcp(stream.into()),
            said: WireBuf::new(1),
        }
    }
}

impl<S: LegState> From<Leg<S>> for Party {
    fn from(leg: Leg<S>) -> Self {
        let (io, said) = leg.into_parts();
        Self { io, said }
    }
}

impl From<BackendLeg> for Party {
    fn from(leg: BackendLeg) -> Self {
        let (io, said) = leg.into_parts();
        Self { io, said }
    }
}

/// Who is relayed, and what watches it.
pub struct Parties<F> {
    /// The client's side.
    pub client: Party,
    /// The server's side.
    pub backend: Party,
    /// The first words for the client: that it is logged in.
    pub welcome: Vec<u8>,
    /// Watches both directions.
    pub follower: F,
}

/// A relay that is about to begin.
pub struct Relay<F>(Moving<F>);

impl<F: Follower> Relay<F> {
    /// Frees all of the legs but their connections and what they have buffered, which goes first.
    pub fn new(parties: Parties<F>, limits: RelayLimits, budget: &Budget, io: RelayIo) -> Self {
        Self(Moving::new(parties, limits, budget, io))
    }

    /// Relays until the end, and hands the guard its proof.
    ///
    /// The guard makes sure that nobody is relayed who is not registered.
    pub async fn run(&mut self, guard: SessionGuard) -> RelayEnd {
        guard.relaying();
        let moving = &mut self.0;
        let cause = moving.until_end(&guard).await;
        moving.leave_client(cause).await;
        let proof = moving.leave_backend().await;
        if let Some(proof) = proof {
            guard.closed(proof);
        } else {
            drop(guard);
        }
        moving.linger(cause).await;
        let (up, down) = moving.moved();
        RelayEnd {
            cause,
            up,
            down,
            proof,
        }
    }
}

impl Cause {
    /// Whether the client is there to be spoken to.
    fn client_hears(self) -> bool {
        !matches!(
            self,
            Self::ClientFailed(_) | Self::ClientStuck | Self::NoRoom
        )
    }

    fn farewell(self) -> Option<Farewell> {
        match self {
            Self::Told { reason, .. } => Some(farewell(reason)),
            Self::Idle => Some(Farewell::IdleTimeout),
            Self::Refused(refusal) => Some(refusal.farewell()),
            Self::ClientEnded
            | Self::BackendEnded
            | Self::ClientFailed(_)
            | Self::BackendFailed(_)
            | Self::ClientStuck
            | Self::BackendStuck
            | Self::NoRoom => None,
        }
    }
}

impl<F: Follower> Moving<F> {
    /// Ends the client's side, with the words that fit the cause.
    async fn leave_client(&mut self, cause: Cause) {
        if !cause.client_hears() {
            self.client.abandon();
            return;
        }
        // A session that is cut has had its time; what the client takes at once is all that it gets.
        let patience = match cause {
            Cause::Told { cut: true, .. } => Duration::ZERO,
            _ => LINGER,
        };
        let goodbye = cause.farewell().and_then(|why| self.follower.goodbye(why));
        let client = &mut self.client;
        let said = async {
            let now = Instant::now();
            poll_fn(|cx| client.poll_ready(cx, now)).await?;
            poll_fn(|cx| Poll::Ready(client.write(cx, goodbye.unwrap_or_default()))).await?;
            poll_fn(|cx| client.poll_ready(cx, now)).await?;
            poll_fn(|cx| client.poll_finish(cx)).await
        };
        _ = timeout(patience, said).await;
    }

    /// Ends the backend's side. Bytes in its socket would be executed after a mere drop, so only its
    /// own end says that it is over.
    async fn leave_backend(&mut self) -> Option<CloseProof> {
        let backend = &mut self.backend;
        // The beginning of a command, perhaps; its end will never come.
        backend.drop_unsent();
        let closed = async {
            let now = Instant::now();
            // What fails here ends the writing and proves nothing: the backend may be reading still.
            _ = poll_fn(|cx| backend.poll_ready(cx, now)).await;
            _ = poll_fn(|cx| backend.poll_finish(cx)).await;
            poll_fn(|cx| backend.poll_peer_closed(cx)).await
        };
        timeout(self.limits.close, closed).await.ok()?.ok()
    }

    /// Lets a client that we have said goodbye to close its side.
    async fn linger(&mut self, cause: Cause) {
        if cause.client_hears() && !self.client.ended {
            let client = &mut self.client;
            _ = timeout(LINGER, poll_fn(|cx| client.poll_peer_closed(cx))).await;
        }
    }
}
