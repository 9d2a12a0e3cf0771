//! The machine of a move: what comes next, from where it stands and what is observed.
//!
//! ```text
//!   COPYING ──▶ FENCING ──▶ QUIESCED ──▶ DELTA ──▶ FLIPPED ──▶ RELEASED ──▶ SETTLED (new home)
//!      │           │            │  └───────────────▶ │
//!      └───────────┴────────────┴──────────┴──▶ SETTLED (old home): aborted
//! ```
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
    /// An earlier leader has started it, and its deadline is not over.
    Foreign,
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
    /// What stands in the way of a fence (G15).
    pub before_fence: Vec<Blocker>,
    /// Whether the fence is complete.
    pub drain: Drain,
    /// Data planes that ended without anybody having seen their backends' close.
    pub unsettled: Vec<Blocker>,
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
        Phase::Fencing | Phase::Quiesced | Phase::Delta | Phase::Verified => {
            fenced(phase, observed)
        }
        Phase::Flipped if observed.unapplied => Action::Wait,
        Phase::Flipped => Action::Release,
        Phase::Released => Action::Settle,
    }
}

fn unfenced(observed: &Observed) -> Action {
    if let Some(operator) = &observed.abort_requested {
        Action::Abort(vec![operator.clone()])
    } else if observed.before_fence.is_empty() {
        Action::Fence
    } else {
        Action::Show(observed.before_fence.clone())
    }
}

/// Inside the held window every way leads to the flip or the abort.
fn fenced(phase: Phase, observed: &Observed) -> Action {
    // What an earlier leader has started may still write to the target: nothing is decided before it
    // is dead for certain.
    if phase == Phase::Delta && observed.hook == Hook::Foreign {
        return Action::Wait;
    }
    if let Some(operator) = &observed.abort_requested {
        return Action::Abort(vec![operator.clone()]);
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
        return Action::Wait;
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
        Hook::Foreign => Action::Wait,
        Hook::Pending { fits: true } => Action::RunHook,
        Hook::Pending { fits: false } => Action::Abort(vec![hook_failed(
            "the held window leaves no time for the delta hook",
        )]),
        Hook::Failed(why) => Action::Abort(vec![hook_failed(why)]),
    }
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
        Copying => matches!(from, Settled | Flipped | Released),
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHASES: [Phase; 9] = [
        Phase::Settled,
        Phase::Copying,
        Phase::Fencing,
        Phase::Quiesced,
        Phase::Delta,
        Phase::Verified,
        Phase::Flipped,
        Phase::Released,
        Phase::Retired,
    ];

    fn named(reason: BlockerReason) -> Blocker {
        blocker(reason, "dp-1", "")
    }

    /// Every combination of what can be observed.
    fn all_observed() -> Vec<Observed> {
        let flags = [false, true];
        let drains = [
            Drain::Complete,
            Drain::Waiting(vec![named(BlockerReason::NotDrained)]),
            Drain::Unconfirmed(vec![named(BlockerReason::CloseUnconfirmed)]),
        ];
        let hooks = [
            Hook::None,
            Hook::Pending { fits: true },
            Hook::Pending { fits: false },
            Hook::Foreign,
            Hook::Succeeded,
            Hook::Failed("it failed".into()),
        ];
        let mut all = Vec::new();
        for bits in 0_u32..64 {
            let bit = |n: u32| flags[(bits >> n & 1) as usize];
            for drain in &drains {
                for hook in &hooks {
                    all.push(Observed {
                        rewound: bit(0),
                        superseded: bit(1),
                        abort_requested: bit(2).then(|| named(BlockerReason::Operator)),
                        before_fence: bit(3)
                            .then(|| named(BlockerReason::DataPlaneSilent))
                            .into_iter()
                            .collect(),
                        drain: drain.clone(),
                        unsettled: bit(4)
                            .then(|| named(BlockerReason::Settling))
                            .into_iter()
                            .collect(),
                        window_over: bit(5),
                        hook: hook.clone(),
                        unapplied: bit(3),
                    });
                }
            }
        }
        all
    }

    fn writes(action: &Action) -> Option<Phase> {
        match action {
            Action::Wait | Action::Show(_) | Action::Finish => None,
            Action::Fence => Some(Phase::Fencing),
            Action::Quiesce => Some(Phase::Quiesced),
            Action::RunHook => Some(Phase::Delta),
            Action::Flip => Some(Phase::Flipped),
            Action::Release => Some(Phase::Released),
            Action::Settle | Action::Abort(_) => Some(Phase::Settled),
        }
    }

    #[test]
    fn every_decision_keeps_to_the_matrix() {
        for phase in PHASES {
            for observed in all_observed() {
                let action = next(phase, &observed);
                if let Some(to) = writes(&action) {
                    assert!(
                        is_transition(phase, to),
                        "{phase:?} {observed:?} {action:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_flip_needs_every_guard() {
        let mut flips = 0;
        for phase in PHASES {
            for observed in all_observed() {
                if next(phase, &observed) != Action::Flip {
                    continue;
                }
                flips += 1;
                assert!(matches!(
                    phase,
                    Phase::Quiesced | Phase::Delta | Phase::Verified
                ));
                assert_eq!(observed.drain, Drain::Complete);
                assert!(!observed.rewound && !observed.superseded && !observed.window_over);
                assert_eq!(observed.abort_requested, None);
                assert!(
                    phase == Phase::Verified
                        || matches!(observed.hook, Hook::None | Hook::Succeeded)
                );
            }
        }
        assert!(flips > 0);
    }

    #[test]
    fn a_fence_needs_every_look() {
        for observed in all_observed() {
            let fenced = next(Phase::Copying, &observed) == Action::Fence;
            let clear = !observed.rewound
                && !observed.superseded
                && observed.abort_requested.is_none()
                && observed.before_fence.is_empty();
            assert_eq!(fenced, clear, "{observed:?}");
        }
    }

    #[test]
    fn quiesced_needs_drained_and_settled() {
        for observed in all_observed() {
            if next(Phase::Fencing, &observed) == Action::Quiesce {
                assert_eq!(observed.drain, Drain::Complete);
                assert!(observed.unsettled.is_empty());
            }
        }
    }

    #[test]
    fn nothing_is_aborted_after_the_flip_and_nothing_moves_while_rewound() {
        for observed in all_observed() {
            for phase in [Phase::Flipped, Phase::Released] {
                assert!(!matches!(next(phase, &observed), Action::Abort(_)));
            }
            if observed.rewound {
                for phase in PHASES {
                    assert_eq!(next(phase, &observed), Action::Wait);
                }
            }
        }
    }

    /// The end of the window decides, unless the store cannot or another's hook may still write.
    #[test]
    fn no_fence_outlives_its_window() {
        for observed in all_observed() {
            if !observed.window_over || observed.rewound || observed.superseded {
                continue;
            }
            for phase in PHASES.into_iter().filter(|phase| phase.is_fenced()) {
                let foreign = phase == Phase::Delta && observed.hook == Hook::Foreign;
                let aborted = matches!(next(phase, &observed), Action::Abort(_));
                assert_ne!(foreign, aborted, "{phase:?} {observed:?}");
            }
        }
    }

    #[test]
    fn an_abort_says_why() {
        for phase in PHASES {
            for observed in all_observed() {
                if let Action::Abort(why) = next(phase, &observed) {
                    assert!(!why.is_empty());
                }
            }
        }
    }

    fn any_observed() -> impl Strategy<Value = Observed> {
        prop::sample::select(all_observed())
    }

    proptest! {
        /// A move that is driven through whatever happens flips or aborts, once, and never goes back.
        #[test]
        fn a_driven_move_ends_once(mut seen in prop::collection::vec(any_observed(), 0..60)) {
            let quiet = Observed {
                rewound: false,
                superseded: false,
                abort_requested: None,
                before_fence: vec![],
                drain: Drain::Complete,
                unsettled: vec![],
                window_over: false,
                hook: Hook::Succeeded,
                unapplied: false,
            };
            for observed in &mut seen {
                observed.superseded = false;
            }
            seen.extend(std::iter::repeat_n(quiet, 8));
            let (mut phase, mut flips, mut aborts) = (Phase::Copying, 0, 0);
            for observed in seen {
                let action = next(phase, &observed);
                flips += usize::from(action == Action::Flip);
                aborts += usize::from(matches!(action, Action::Abort(_)));
                if let Some(to) = writes(&action) {
                    prop_assert!(to == Phase::Settled || to >= phase, "{:?} after {:?}", to, phase);
                    phase = to;
                }
                if phase == Phase::Settled {
                    break;
                }
            }
            prop_assert_eq!(phase, Phase::Settled);
            prop_assert_eq!(flips + aborts, 1);
        }
    }

    #[test]
    fn states_on_the_wire_follow_the_phase() {
        for phase in PHASES {
            let state = state_in(phase);
            assert_eq!(state == MigrationState::Queued, phase == Phase::Copying);
            assert_eq!(state == MigrationState::Running, phase.is_fenced());
        }
        let calls = next_calls(MigrationState::Running, v1::Phase::Fencing, true);
        assert!(calls.contains(&"AbortMigration"));
        let calls = next_calls(MigrationState::Succeeded, v1::Phase::Flipped, true);
        assert_eq!(calls, ["Rollback"]);
        assert!(next_calls(MigrationState::Succeeded, v1::Phase::Settled, false).is_empty());
    }
}
