//! The machine of a move: what comes next, from where it stands and what is observed.
//!
//! ```text
//!   COPYING ──▶ FENCING ──▶ QUIESCED ──▶ DELTA ──▶ FLIPPED ──▶ RELEASED ──▶ SETTLED (new home)
//!      │  ▲        │            │  └───────▶│──────▶ │
//!      │  └────────┴────────────┴───────────┤ withdrawn: the leader that fenced is gone
//!      └───────────┴────────────┴───────────┴──▶ SETTLED (old home): aborted
//! ```
//!
//! How long users have waited is known to the leader that fenced them alone, by its monotonic clock. So
//! whoever takes over a fence *withdraws* it: they are served where they live, at once, and the move goes on
//! unfenced (decision 0021).
//!
//! A rollback is the same machine with the sides swapped. What is here decides; whether a decision still
//! holds when it is written is the transaction's to say (see [`super::transition`]).

use ferrypost_proto::{
    Phase,
    v1::{self, Blocker, BlockerReason, MigrationState},
};

/// What became of the delta hook, as far as this leader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// This move has none.
    None,
    /// It may be started; `fits`: there is time for it inside the window.
    Pending {
        /// False: the window is over before the hook could do anything.
        fits: bool,
    },
    /// It has succeeded, for this leader, inside this window.
    Succeeded,
    /// It failed or was late.
    Failed(String),
}

/// Whether the registered data planes have no session of the accounts left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drain {
    /// Not all have said so; who has not.
    Waiting(Vec<Blocker>),
    /// One closed a session without seeing the backend's close.
    Unconfirmed(Vec<Blocker>),
    /// All have said so.
    Complete,
}

/// What the leader sees of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub struct Observed {
    /// The store was restored: nothing moves.
    pub rewound: bool,
    /// The account's record belongs to another move by now, or is settled.
    pub superseded: bool,
    /// An operator wants it to end.
    pub abort_requested: Option<Blocker>,
    /// The fence was begun by a leader that is gone, or at a time that this one does not know.
    pub inherited: bool,
    /// The hook of an earlier leader, which may still write to the target.
    pub hook_may_run: Option<Blocker>,
    /// The move was fenced as often as it may be.
    pub attempts_used_up: Option<Blocker>,
    /// What stands in the way of a fence (G15).
    pub before_fence: Vec<Blocker>,
    /// Whether the fence is complete.
    pub drain: Drain,
    /// Data planes that ended without anybody having seen their backends' close.
    pub unsettled: Vec<Blocker>,
    /// The settle time of one of them is longer than what is left of the window.
    pub settles_late: bool,
    /// The held window is over, on the leader's monotonic clock.
    pub window_over: bool,
    /// The delta hook.
    pub hook: Hook,
    /// A registered data plane has not applied the record as it is.
    pub unapplied: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Wait,
    /// Wait unfenced, and show why.
    Show(Vec<Blocker>),
    /// COPYING → FENCING.
    Fence,
    /// FENCING → QUIESCED.
    Quiesce,
    /// QUIESCED or DELTA → DELTA, then run the hook.
    RunHook,
    /// → FLIPPED.
    Flip,
    /// → COPYING: the accounts are served where they live, and the move goes on unfenced.
    Withdraw,
    /// FLIPPED → RELEASED.
    Release,
    /// RELEASED → SETTLED, at the new home.
    Settle,
    /// → SETTLED, at the old home.
    Abort(Vec<Blocker>),
    /// Write down that the move has ended; its records are no longer its own.
    Finish,
}

/// Decides.
pub fn next(phase: Phase, observed: &Observed) -> Action {
    if observed.rewound {
        return Action::Wait;
    }
    if observed.superseded {
        return Action::Finish;
    }
    match phase {
        Phase::Settled | Phase::Retired => Action::Finish,
        Phase::Copying => unfenced(observed),
        // Whatever else is to be said of the move, nobody waits for it.
        Phase::Fencing | Phase::Quiesced | Phase::Delta | Phase::Verified if observed.inherited => {
            Action::Withdraw
        }
        Phase::Fencing | Phase::Quiesced | Phase::Delta | Phase::Verified => {
            fenced(phase, observed)
        }
        Phase::Flipped if observed.unapplied => Action::Wait,
        Phase::Flipped => Action::Release,
        Phase::Released => Action::Settle,
    }
}

fn unfenced(observed: &Observed) -> Action {
    // What an earlier leader has started may still write to the target. Until it is dead for certain the
    // account is not fenced, and not given free for a move that knows nothing of it either.
    if let Some(hook) = &observed.hook_may_run {
        let shown = [hook].into_iter().chain(&observed.before_fence);
        return Action::Show(shown.cloned().collect());
    }
    if let Some(why) = observed
        .abort_requested
        .as_ref()
        .or(observed.attempts_used_up.as_ref())
    {
        Action::Abort(vec![why.clone()])
    } else if observed.before_fence.is_empty() {
        Action::Fence
    } else {
        Action::Show(observed.before_fence.clone())
    }
}

/// Inside the held window every way leads to the flip or the abort.
fn fenced(phase: Phase, observed: &Observed) -> Action {
    if let Some(operator) = &observed.abort_requested {
        return Action::Abort(vec![operator.clone()]);
    }
    // There is nothing to wait for any more.
    if phase == Phase::Fencing && observed.settles_late {
        return Action::Abort(observed.unsettled.clone());
    }
    let missing = match &observed.drain {
        Drain::Unconfirmed(who) => return Action::Abort(who.clone()),
        Drain::Waiting(who) => who.clone(),
        // Later phases come after a moment in which all were drained. Whoever ended since then had no
        // session left to lose sight of.
        Drain::Complete if phase == Phase::Fencing => observed.unsettled.clone(),
        Drain::Complete => Vec::new(),
    };
    if observed.window_over {
        return Action::Abort(if missing.is_empty() {
            vec![too_late()]
        } else {
            missing
        });
    }
    if !missing.is_empty() {
        // Whoever is missing would come too late.
        return match observed.hook {
            Hook::Pending { fits: false } => {
                Action::Abort(missing.into_iter().chain([no_time_for_hook()]).collect())
            }
            _ => Action::Wait,
        };
    }
    match phase {
        Phase::Fencing => Action::Quiesce,
        Phase::Verified => Action::Flip,
        _ => after_quiesce(&observed.hook),
    }
}

fn after_quiesce(hook: &Hook) -> Action {
    match hook {
        Hook::None | Hook::Succeeded => Action::Flip,
        Hook::Pending { fits: true } => Action::RunHook,
        Hook::Pending { fits: false } => Action::Abort(vec![no_time_for_hook()]),
        Hook::Failed(why) => Action::Abort(vec![hook_failed(why)]),
    }
}

fn no_time_for_hook() -> Blocker {
    hook_failed("the held window leaves no time for the delta hook")
}

fn hook_failed(why: &str) -> Blocker {
    blocker(BlockerReason::HookFailed, "", why)
}

fn too_late() -> Blocker {
    blocker(
        BlockerReason::NotDrained,
        "",
        "the held window ended before the move could be finished",
    )
}

/// A blocker.
pub(crate) fn blocker(reason: BlockerReason, who: &str, message: impl Into<String>) -> Blocker {
    Blocker {
        reason: reason.into(),
        who: who.to_owned(),
        message: message.into(),
    }
}

/// Every change of phase that a move may write: the matrix that [`next`] keeps to.
pub const fn is_transition(from: Phase, to: Phase) -> bool {
    use Phase::{Copying, Delta, Fencing, Flipped, Quiesced, Released, Settled, Verified};
    match to {
        // The start of a move, or a fence that is withdrawn.
        Copying => matches!(
            from,
            Settled | Flipped | Released | Fencing | Quiesced | Delta | Verified
        ),
        Fencing => matches!(from, Copying),
        Quiesced => matches!(from, Fencing),
        // A hook that was cut runs again.
        Delta => matches!(from, Quiesced | Delta),
        Flipped => matches!(from, Quiesced | Delta | Verified),
        Released => matches!(from, Flipped),
        // The end of a move, or its abort.
        Settled => matches!(
            from,
            Released | Copying | Fencing | Quiesced | Delta | Verified
        ),
        // Verification and the end of the way back come later.
        Verified | Phase::Retired => false,
    }
}

/// The state that goes with a phase of a move that was not aborted.
pub const fn state_in(phase: Phase) -> MigrationState {
    match phase {
        Phase::Copying => MigrationState::Queued,
        Phase::Fencing | Phase::Quiesced | Phase::Delta | Phase::Verified => {
            MigrationState::Running
        }
        Phase::Flipped | Phase::Released | Phase::Settled | Phase::Retired => {
            MigrationState::Succeeded
        }
    }
}

/// The calls that make sense for a migration. `latest`: it is the account's last one.
pub fn next_calls(
    state: MigrationState,
    phase: v1::Phase,
    latest: bool,
) -> &'static [&'static str] {
    match (state, phase) {
        (MigrationState::Queued | MigrationState::Running, _) => {
            &["WaitMigration", "WatchMigration", "AbortMigration"]
        }
        (MigrationState::Succeeded, v1::Phase::Retired) => &[],
        (MigrationState::Succeeded, _) if latest => &["Rollback"],
        (MigrationState::Aborted, _) if latest => &["Migrate"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
