//! Drives migrations. Every replica runs it; only the leader's does anything.
//!
//! ```text
//!   leader ─▶ one driver for each migration whose turn it is:
//!             mirror + monotonic clock ─▶ Observed ─▶ next() ─▶ guarded transaction ─▶ mirror ─▶ ...
//!          ─▶ settle: waits out what nobody saw close
//!          ─▶ sweep: removes reports that no fence waits for
//!          ─▶ prune: removes what ended long ago
//!          ─▶ keep_cookie_keys: makes the keys by which data planes seal sign-ins, and replaces them
//! ```
//!
//! Nothing is remembered that matters: a leader that takes over finds every move where the store has it. The one
//! thing that it cannot find there is how long a fence has lasted, so it withdraws the fences that it finds. A
//! transaction whose outcome is unknown is not repeated but looked at; whatever it did, the records say.

mod cookie_keys;
mod driver;
mod lead;
mod memory;
mod prune;
mod settle;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;
mod trace;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ferrypost_proto::ReplicaId;
use ferrypost_runtime::{Random, metrics::Metrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    failpoint::Failpoints,
    hook::DeltaHook,
    leader::{self, Candidate},
    mirror::Mirror,
    wall_clock::WallClock,
};

/// How migrations are driven.
#[derive(Clone)]
pub struct OrchestratorOptions {
    /// This replica.
    pub replica: ReplicaId,
    /// For nonces and jitter.
    pub random: Random,
    /// How long after a leader's death another one leads.
    pub leader_ttl: Duration,
    /// How long fences wait after an end whose closes nobody saw.
    pub settle: Duration,
    /// Accounts that may be between FENCING and FLIPPED at once.
    pub fence_budget: usize,
    /// How often a move may be fenced, when fence after fence is lost with its leader.
    pub fence_attempts: u32,
    /// How long the users of a fence that was withdrawn are left in peace before the next one.
    pub respite: Duration,
    /// The delta hook, if there is one.
    pub hook: Option<Arc<dyn DeltaHook>>,
    /// How long ended migrations and request ids are kept.
    pub keep: Duration,
    /// How often it is looked for older ones.
    pub prune_every: Duration,
    /// What they are old by.
    pub clock: WallClock,
    /// Where steps and ends of moves are counted.
    pub metrics: Arc<Metrics>,
    /// What a test has armed.
    pub failpoints: Failpoints,
    /// Looks at moves so far, by queue and drivers: the work of leading, which must not grow with the queue.
    pub looks: Arc<AtomicU64>,
}

impl fmt::Debug for OrchestratorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorOptions")
            .field("replica", &self.replica)
            .field("leader_ttl", &self.leader_ttl)
            .field("settle", &self.settle)
            .field("fence_budget", &self.fence_budget)
            .field("fence_attempts", &self.fence_attempts)
            .field("respite", &self.respite)
            .field("keep", &self.keep)
            .field("hook", &self.hook.is_some())
            .finish_non_exhaustive()
    }
}

/// Starts to campaign and, whenever this replica leads, to drive. Ends with `cancel`.
pub fn start(
    mirror: &Mirror,
    options: OrchestratorOptions,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) {
    tasks.spawn(run(mirror.clone(), options, cancel));
}

async fn run(mirror: Mirror, options: OrchestratorOptions, cancel: CancellationToken) {
    let candidate = Candidate {
        replica: options.replica.clone(),
        ttl: options.leader_ttl,
        random: options.random.clone(),
    };
    let options = Arc::new(options);
    let lead = |leadership| lead::lead(mirror.clone(), options.clone(), leadership);
    leader::campaign(mirror.clone(), candidate, cancel, lead).await;
}
