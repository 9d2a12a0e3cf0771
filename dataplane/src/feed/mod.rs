//! The feed: the data plane's end of the stream. Connects, syncs, stays live, resyncs; publishes every
//! table and reports what became of it. Its rules are the documentation of [`ferrypost_proto`].
//!
//! ```text
//!            ┌────────────── pause (backoff, or slow after a refusal) ◀─────────────┐
//!            ▼                                                                      │ lost, gap,
//!   connect ─ Hello ─▶ Welcome (pin, registered) ─▶ snapshot | deltas ─▶ live ──────┤ silence
//!                                                                         │         │
//!                                       goodbye accepted, expelled ◀──────┴─────────┘
//! ```
//!
//! What arrives goes one way, and what became of it the other:
//!
//! ```text
//!   control plane ── stream ──▶ feed ──▶ snapshot / delta ──▶ RoutingTable ──▶ Tables (one swap)
//!                                  ▲                                             │
//!                                  └── applied, drained, rejected ◀── Fences ◀───┘
//! ```
//!
//! Losing the connection changes nothing for clients: the table in force is right as long as no flip
//! happens without this data plane (G3).

mod command;
mod connection;
mod doubt;
mod error;
mod replica;
mod seam;
mod status;
#[cfg(test)]
mod tests;
mod uplink;

use std::sync::{Arc, OnceLock};

use ferrypost_runtime::{Backoff, Random};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, Instant, timeout},
};
use tracing::{error, info, warn};

pub use seam::{BoxFuture, Connect, ConnectError, FeedTiming, HealthSource, Identity, Prober};
pub use status::{ConnectionState, FeedEnd, FeedStatus, StreamRefused};

use self::{
    error::{FeedError, Remedy},
    replica::Replica,
};
use crate::{
    certificates::Certificates,
    cookie_keys::CookieKeys,
    fence::Fences,
    ready::{Blocker, Readiness},
    registry::{CloseReason, Registry},
    state_dir::StateDir,
    tables::Tables,
};

/// What a feed is made of.
pub struct FeedSetup {
    /// Who this data plane is.
    pub identity: Identity,
    /// Opens connections.
    pub connect: Arc<dyn Connect>,
    /// Proves who this data plane is and pins its installation.
    pub state: StateDir,
    /// Where tables are published.
    pub tables: Tables,
    /// Whose sessions are closed.
    pub registry: Arc<Registry>,
    /// Blocked until registered, and until there is a first table.
    pub readiness: Readiness,
    /// Where the keys of cookies are kept.
    pub cookie_keys: CookieKeys,
    /// What is known about the servers.
    pub health: Arc<dyn HealthSource>,
    /// Probes them on demand.
    pub prober: Arc<dyn Prober>,
    /// What is shown to those who connect.
    pub certificates: Certificates,
    /// Keys of tables, jitter.
    pub random: Random,
    /// Pauses and limits.
    pub timing: FeedTiming,
}

/// The running feed. One task, [`Feed::run`].
pub struct Feed {
    identity: Identity,
    connect: Arc<dyn Connect>,
    state: StateDir,
    health: Arc<dyn HealthSource>,
    prober: Arc<dyn Prober>,
    certificates: Certificates,
    registry: Arc<Registry>,
    readiness: Readiness,
    cookie_keys: CookieKeys,
    timing: FeedTiming,
    backoff: Backoff,
    replica: Replica,
    shared: Arc<Shared>,
    unregistered: Option<Blocker>,
    farewells: mpsc::Receiver<Farewell>,
    farewell: Option<Farewell>,
}

/// How the rest of the data plane sees the feed.
#[derive(Clone)]
pub struct FeedHandle {
    shared: Arc<Shared>,
    farewells: mpsc::Sender<Farewell>,
}

/// What feed and handles share.
struct Shared {
    status: watch::Sender<FeedStatus>,
    /// Blocks readiness for as long as anybody looks, once this data plane may serve nobody.
    ended: OnceLock<Blocker>,
}

/// A goodbye that is to be said.
struct Farewell {
    unconfirmed: u32,
    said: oneshot::Sender<Result<(), GoodbyeError>>,
}

/// Why there was no goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GoodbyeError {
    /// This process was never registered, so there is nothing to end.
    #[error("not registered")]
    NotRegistered,
    /// The feed has ended before.
    #[error("the control connection is over")]
    Ended,
    /// The control plane did not accept it in time: the registration stays, and moves wait until a
    /// successor comes or an operator expels it.
    #[error("not accepted in time")]
    TimedOut,
}

impl Feed {
    /// A feed that has not begun yet, but blocks readiness already.
    pub fn new(setup: FeedSetup) -> (Self, FeedHandle) {
        let (asked, farewells) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            status: watch::Sender::new(FeedStatus::new(setup.state.installation().cloned())),
            ended: OnceLock::new(),
        });
        let handle = FeedHandle {
            shared: Arc::clone(&shared),
            farewells: asked,
        };
        let unregistered = setup
            .readiness
            .block("not registered with the control plane");
        let no_table = setup
            .readiness
            .block("no routing table from the control plane yet");
        let FeedTiming {
            first_pause,
            longest_pause,
            ..
        } = setup.timing;
        let feed = Self {
            replica: Replica::new(
                setup.tables,
                Arc::new(Fences::new(Arc::clone(&setup.registry))),
                setup.random.clone(),
                setup.state.witness(),
                no_table,
            ),
            backoff: Backoff::new(setup.random, first_pause, longest_pause),
            identity: setup.identity,
            connect: setup.connect,
            state: setup.state,
            health: setup.health,
            prober: setup.prober,
            certificates: setup.certificates,
            registry: setup.registry,
            readiness: setup.readiness,
            cookie_keys: setup.cookie_keys,
            timing: setup.timing,
            shared,
            unregistered: Some(unregistered),
            farewells,
            farewell: None,
        };
        (feed, handle)
    }

    /// Runs until the goodbye was accepted, or until this data plane may serve nobody any more. In the
    /// latter case every session has been told to end and none will be admitted.
    pub async fn run(mut self) -> FeedEnd {
        let fences = Arc::clone(self.replica.fences());
        let end = tokio::select! {
            end = self.connections() => end,
            never = fences.tend() => match never {},
        };
        self.end(end).await;
        end
    }

    /// One connection after the other.
    async fn connections(&mut self) -> FeedEnd {
        loop {
            self.shared.stands(ConnectionState::Connecting);
            let problem = match self.connection().await {
                Ok(end) => return end,
                Err(problem) => problem,
            };
            let (pause, why) = match problem.remedy() {
                Remedy::End(end) => return end,
                Remedy::Refused(refused) => {
                    self.shared.stands(ConnectionState::Refused(refused));
                    (self.timing.refused_pause, refused.to_string())
                }
                Remedy::Retry => (self.backoff.pause(), problem.to_string()),
            };
            warn!(%problem, ?pause, "no control connection; serving what is known");
            self.note(&problem, why);
            self.pause(pause).await;
        }
    }

    fn note(&mut self, problem: &FeedError, why: String) {
        if problem.needs_snapshot() {
            self.replica.ask_for_snapshot();
        }
        if let Some(blocker) = &self.unregistered {
            blocker.because(format!("not registered with the control plane: {why}"));
        }
        self.shared
            .status
            .send_modify(|status| status.problem = Some(why));
    }

    /// Waits between two attempts; a goodbye that is asked for meanwhile ends the wait.
    async fn pause(&mut self, pause: Duration) {
        if self.farewell.is_some() {
            return tokio::time::sleep(pause).await;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            farewell = next_farewell(&mut self.farewells) => self.take_farewell(farewell),
        }
    }

    /// Keeps a farewell until it is said. Without a registration it is over at once.
    fn take_farewell(&mut self, farewell: Farewell) {
        if self.unregistered.is_some() {
            // Whoever asked may have given up.
            let _ = farewell.said.send(Err(GoodbyeError::NotRegistered));
        } else {
            self.farewell = Some(farewell);
            // Whoever asked waits for this alone.
            self.backoff.reset();
        }
    }

    async fn end(&mut self, end: FeedEnd) {
        match end {
            FeedEnd::Goodbye => info!("said goodbye: the registration has ended"),
            FeedEnd::Expelled | FeedEnd::Superseded => {
                // Not a byte more than can be helped: the control plane goes on without this data plane.
                let blocker = self.readiness.block(end.to_string());
                let _ = self.shared.ended.set(blocker);
                self.registry.close_all(CloseReason::Expelled);
                error!("{end}: closed all sessions, serving nobody");
                if let Err(error) = self.replica.leave().await {
                    warn!(%error, "the end of the registration is not written down");
                }
            }
        }
        self.shared.stands(ConnectionState::Ended(end));
    }
}

impl FeedHandle {
    /// How the control connection stands.
    pub fn status(&self) -> watch::Receiver<FeedStatus> {
        self.shared.status.subscribe()
    }

    /// Ends the registration: call it after [`Registry::close_all`] and [`Registry::empty`].
    /// `unconfirmed`: [`Registry::unconfirmed`]. Connects anew if need be, for at most `within`.
    pub async fn goodbye(&self, unconfirmed: u32, within: Duration) -> Result<(), GoodbyeError> {
        let (said, answer) = oneshot::channel();
        let ask = async {
            self.farewells
                .send(Farewell { unconfirmed, said })
                .await
                .map_err(|_| GoodbyeError::Ended)?;
            answer.await.map_err(|_| GoodbyeError::Ended)?
        };
        timeout(within, ask)
            .await
            .unwrap_or(Err(GoodbyeError::TimedOut))
    }
}

impl Shared {
    fn stands(&self, connection: ConnectionState) {
        self.status.send_modify(|status| {
            if status.connection != connection {
                status.connection = connection;
                status.since = Instant::now();
            }
        });
    }
}

/// Pending once every handle is gone.
async fn next_farewell(farewells: &mut mpsc::Receiver<Farewell>) -> Farewell {
    match farewells.recv().await {
        Some(farewell) => farewell,
        None => std::future::pending().await,
    }
}
