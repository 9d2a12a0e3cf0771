//! What only the leader itself can say of a move: what its monotonic clock and its memory hold. None of it
//! outlives the leader, and none of it needs to: whoever takes over withdraws the fence that it finds.

use std::time::Duration;

use ferrypost_proto::{
    Phase,
    v1::{Blocker, BlockerReason},
};
use tokio::time::Instant;

use super::OrchestratorOptions;
use crate::{
    domain::{
        migration::{Hook, Observed, blocker},
        transition::Move,
    },
    hook::HookError,
};

/// Time inside the window that is kept for the flip after the hook.
const FLIP_RESERVE: Duration = Duration::from_millis(500);

/// With less time than this a hook is not started, unless its own limit is shorter.
const SHORTEST_RUN: Duration = Duration::from_secs(1);

/// The configurations of the replicas differ, or have changed since the move was asked for.
const NO_HOOK: &str = "the move needs the delta hook, and the leader has none in its configuration";

/// What a driver remembers of its move.
#[derive(Debug)]
pub(super) struct Memory {
    /// Whatever hook was started for the move, and is not the driver's own, was started before this.
    began: Instant,
    /// Not later than the FENCING write, while the fence is this driver's own.
    held: Option<Instant>,
    /// When this driver first saw that a fence of the move was withdrawn.
    rests: Option<Instant>,
    /// How the hook ended, if this driver has run it inside this fence.
    hook: Option<Result<(), HookError>>,
}

impl Memory {
    /// Nothing yet. `began`: when drivers took over from whoever ran hooks before.
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            held: None,
            rests: None,
            hook: None,
        }
    }

    /// The FENCING write is about to be made: the window begins now at the latest.
    pub(super) fn fences(&mut self) {
        self.held = Some(Instant::now());
    }

    /// The driver's hook has ended.
    pub(super) fn hook_ended(&mut self, outcome: Result<(), HookError>) {
        self.hook = Some(outcome);
    }

    /// For how long the accounts have been held, if the fence is this driver's own.
    pub(super) fn held(&self) -> Option<Duration> {
        Some(self.held?.elapsed())
    }

    /// Adds to what the state says what only the leader can say.
    pub(super) fn add_to(
        &mut self,
        observed: &mut Observed,
        of: &Move,
        options: &OrchestratorOptions,
    ) {
        observed.hook = self.hook_state(of, options);
        if of.phase().is_fenced() {
            observed.inherited = self.held.is_none();
            observed.window_over = self.window_end(of).is_some_and(is_past);
        } else if of.phase() == Phase::Copying {
            self.unfenced(observed, of, options);
        }
    }

    fn unfenced(&mut self, observed: &mut Observed, of: &Move, options: &OrchestratorOptions) {
        (self.held, self.hook) = (None, None);
        observed.hook_may_run = self.foreign_hook(of).map(|_| hook_may_run(of));
        observed.attempts_used_up =
            (of.attempts() >= options.fence_attempts).then(|| attempts_used_up(of));
        if observed.hook != Hook::None && options.hook.is_none() {
            observed.before_fence.push(blocker(
                BlockerReason::HookFailed,
                options.replica.as_str(),
                NO_HOOK,
            ));
        }
        if of.attempts() > 0 {
            self.rests.get_or_insert_with(Instant::now);
            if self.respite_end(options).is_some() {
                observed.before_fence.push(withdrawn(options.respite));
            }
        }
    }

    fn hook_state(&self, of: &Move, options: &OrchestratorOptions) -> Hook {
        if !of.migration.value.delta_hook {
            return Hook::None;
        }
        match &self.hook {
            Some(Ok(())) => Hook::Succeeded,
            Some(Err(error)) => Hook::Failed(error.to_string()),
            None if options.hook.is_none() => Hook::Failed(NO_HOOK.to_owned()),
            None => Hook::Pending {
                fits: self.run_time(of, options).is_some(),
            },
        }
    }

    /// How long a hook that is started now may run; `None`: not long enough.
    pub(super) fn run_time(&self, of: &Move, options: &OrchestratorOptions) -> Option<Duration> {
        let limit = options.hook.as_ref()?.timeout();
        let left = self
            .window_end(of)
            .unwrap_or_else(|| Instant::now() + of.window())
            .checked_duration_since(Instant::now())?
            .checked_sub(FLIP_RESERVE)?;
        (left >= SHORTEST_RUN.min(limit)).then(|| left.min(limit))
    }

    /// The next moment at which the clock alone changes what is decided.
    pub(super) fn next_look(&self, of: &Move, options: &OrchestratorOptions) -> Option<Instant> {
        let moments = if of.phase() == Phase::Copying {
            [self.foreign_hook(of), self.respite_end(options)]
        } else {
            [self.window_end(of), None]
        };
        let moments = moments.into_iter().flatten();
        moments.filter(|at| !is_past(*at)).min()
    }

    fn window_end(&self, of: &Move) -> Option<Instant> {
        Some(self.held? + of.window())
    }

    /// When a hook that a predecessor has started is dead for certain, while it is not. It was started under
    /// the predecessor's lease, which had ended when this leader's term began, and its deadline was chosen
    /// before that.
    fn foreign_hook(&self, of: &Move) -> Option<Instant> {
        let end = self.began + of.hook_deadline()?;
        (!is_past(end)).then_some(end)
    }

    fn respite_end(&self, options: &OrchestratorOptions) -> Option<Instant> {
        let end = self.rests? + options.respite;
        (!is_past(end)).then_some(end)
    }
}

fn is_past(moment: Instant) -> bool {
    Instant::now() >= moment
}

fn hook_may_run(of: &Move) -> Blocker {
    let limit = of.hook_deadline().unwrap_or_default();
    blocker(
        BlockerReason::HookMayRun,
        "",
        format!("the delta hook of a leader that is gone may still run, for {limit:.1?} at most"),
    )
}

fn withdrawn(respite: Duration) -> Blocker {
    blocker(
        BlockerReason::FenceWithdrawn,
        "",
        format!(
            "the leader that had fenced the accounts is gone: they are served for {respite:?} before they \
             are fenced again"
        ),
    )
}

fn attempts_used_up(of: &Move) -> Blocker {
    let attempts = of.attempts();
    blocker(
        BlockerReason::AttemptsUsedUp,
        "",
        format!(
            "fenced {attempts} times, and each time the leader was lost: look why the control plane or its \
             store does not stay, then ask again (migrations.fence_attempts allows no more)"
        ),
    )
}
