//! The use cases behind the operators' API, one module a service. No transport shows here: they take
//! plain requests, answer with plain values, and refuse with a [`Refusal`].
//!
//! All of them follow one pattern. Read the mirror (caught up with the store where an older answer
//! could mislead), decide, write one guarded transaction, and when a guard failed begin again: so any
//! replica can serve any call, whoever else is writing.

pub mod file_keeper;
pub mod migration;
pub mod placement;
pub mod restore;
pub mod routing_config;
pub mod stats;
mod subject;
mod unlisted;

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{ReplicaId, RoutingConfig, TraceParent, v1};
use ferrypost_runtime::{Random, telemetry::Tracing};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Migrations,
    domain::state::{Config, State},
    failpoint::{Failpoints, Injected},
    mirror::{BehindError, Mirror},
    refusal::{Answer, Reason, Refusal},
    store::{Rev, StoreError, Txn, TxnOutcome},
};

/// How long a call waits for the store and for this replica to catch up with it.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Attempts at a transaction whose guards others keep breaking.
const ATTEMPTS: usize = 16;

/// What every use case stands on.
#[derive(Debug)]
pub struct Core {
    /// The store, in memory.
    pub mirror: Mirror,
    /// For identifiers and nonces.
    pub random: Random,
    /// How traces begin.
    pub tracing: Tracing,
    /// This replica, named in every answer.
    pub replica: ReplicaId,
    /// The clocks of moves.
    pub migrations: Migrations,
    /// True when moves run a delta hook.
    pub delta_hook: bool,
    /// What a test has armed.
    pub failpoints: Failpoints,
    /// Cancelled when this replica ends: waiting calls are told to come again.
    pub ending: CancellationToken,
}

/// What is to be done after a look at the state.
pub(crate) enum Step<T> {
    /// Nothing is to be written.
    Done(T),
    /// This is, and then the answer is true.
    Write(Txn, T),
}

/// A trace that is not followed is dropped here, so that no process goes on with it and a move is one trace everywhere.
fn begin(tracing: Tracing, of_caller: Option<TraceParent>, random: [u8; 16]) -> TraceParent {
    let of_caller = of_caller.filter(|_| tracing.follows_callers());
    let trace = of_caller.unwrap_or_else(|| TraceParent::generate(random));
    if trace.begins_here() && !tracing.records(trace.trace_id()) {
        trace.unrecorded()
    } else {
        trace
    }
}

impl Core {
    /// The trace that a call belongs to: its caller's, or one of its own.
    pub(crate) fn trace(&self, of_caller: Option<TraceParent>) -> TraceParent {
        begin(self.tracing, of_caller, self.random.bytes())
    }

    /// The state with everything that was acknowledged to anyone before this call.
    pub(crate) async fn caught_up(&self) -> Answer<Arc<State>> {
        Ok(self.mirror.catch_up(CATCH_UP).await?)
    }

    /// The state as this replica has it: for reads that say their revision and mislead nobody.
    pub(crate) fn present(&self) -> Answer<Arc<State>> {
        let state = self.mirror.read();
        if state.revision() == 0 {
            return Err(Refusal::new(
                Reason::Behind,
                "this replica has not loaded the store yet",
            ));
        }
        Ok(state)
    }

    /// Looks, decides, writes; again when somebody else was faster. Answers with a state that holds the
    /// write.
    pub(crate) async fn transact<T>(
        &self,
        mut decide: impl FnMut(&State) -> Answer<Step<T>>,
    ) -> Answer<(Arc<State>, T)> {
        for _ in 0..ATTEMPTS {
            let state = self.caught_up().await?;
            match decide(&state)? {
                Step::Done(answer) => return Ok((state, answer)),
                Step::Write(txn, answer) => {
                    if let Some(state) = self.write(txn).await? {
                        return Ok((state, answer));
                    }
                }
            }
        }
        Err(contended())
    }

    /// Commits a transaction; `None` when a guard did not hold.
    pub(crate) async fn write(&self, txn: Txn) -> Answer<Option<Arc<State>>> {
        match self.mirror.store().transact(txn).await? {
            TxnOutcome::Committed(revision) => self.seen(revision).await.map(Some),
            TxnOutcome::Conflict { .. } => Ok(None),
        }
    }

    /// The state with what was written at `revision`.
    async fn seen(&self, revision: Rev) -> Answer<Arc<State>> {
        self.mirror.at_least(revision, CATCH_UP).await.map_err(|_| {
            Refusal::new(
                Reason::Behind,
                format!(
                    "it is written at store revision {revision}, which this replica cannot show yet"
                ),
            )
            .with("revision", revision)
        })
    }

    /// What every answer says about itself.
    pub(crate) fn header(&self, state: &State, unreachable: Vec<String>) -> v1::ResponseHeader {
        v1::ResponseHeader {
            installation: state
                .installation()
                .cloned()
                .map(String::from)
                .unwrap_or_default(),
            revision: Some(state.wire_revision().into()),
            replica: self.replica.as_str().to_owned(),
            leader: state
                .leader()
                .map(|(replica, _)| replica.as_str().to_owned())
                .unwrap_or_default(),
            unreachable,
            rewound: state.rewound().is_some(),
        }
    }
}

/// The routing configuration in force, with its version.
pub(crate) fn routing(state: &State) -> Answer<(&RoutingConfig, &Arc<Config>)> {
    let Some(config) = state.config() else {
        return Err(Refusal::new(
            Reason::NoRoutingConfig,
            "there is no routing configuration yet; see GetRoutingConfig",
        ));
    };
    match &config.checked {
        Ok(routing) => Ok((routing, config)),
        Err(problems) => Err(Refusal::new(
            Reason::NoRoutingConfig,
            format!("the stored routing configuration is not valid for this version: {problems}"),
        )),
    }
}

/// Nothing is written to a store that was restored, until an operator has resolved it.
pub(crate) fn not_rewound(state: &State) -> Answer<()> {
    match state.rewound() {
        None => Ok(()),
        Some(proof) => Err(Refusal::new(
            Reason::Rewound,
            "the store was found restored to an older state: nothing moves until that is resolved",
        )
        .with("instance", &proof.value.instance)),
    }
}

pub(crate) fn contended() -> Refusal {
    Refusal::new(
        Reason::Contended,
        "others wrote the same records again and again; nothing was written",
    )
}

pub(crate) fn ending() -> Refusal {
    Refusal::new(
        Reason::ShuttingDown,
        "this replica is ending; what was begun goes on elsewhere",
    )
}

impl From<Injected> for Refusal {
    fn from(injected: Injected) -> Self {
        Self::new(Reason::Internal, injected.to_string())
    }
}

impl From<BehindError> for Refusal {
    fn from(error: BehindError) -> Self {
        match error {
            BehindError::Late => Self::new(Reason::Behind, error.to_string()),
            BehindError::Store(StoreError::UnknownOutcome(outage)) => {
                // A read has no outcome that could matter.
                StoreError::Unavailable(outage).into()
            }
            BehindError::Store(error) => error.into(),
        }
    }
}
