//! Every decision, over every combination of what can be observed.

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
        Hook::Succeeded,
        Hook::Failed("it failed".into()),
    ];
    let mut all = Vec::new();
    for bits in 0_u32..1024 {
        let bit = |n: u32| flags[(bits >> n & 1) as usize];
        for drain in &drains {
            for hook in &hooks {
                all.push(Observed {
                    rewound: bit(0),
                    superseded: bit(1),
                    abort_requested: bit(2).then(|| named(BlockerReason::Operator)),
                    inherited: bit(6),
                    hook_may_run: bit(7).then(|| named(BlockerReason::HookMayRun)),
                    attempts_used_up: bit(8).then(|| named(BlockerReason::AttemptsUsedUp)),
                    before_fence: bit(3)
                        .then(|| named(BlockerReason::DataPlaneSilent))
                        .into_iter()
                        .collect(),
                    drain: drain.clone(),
                    unsettled: bit(4)
                        .then(|| named(BlockerReason::Settling))
                        .into_iter()
                        .collect(),
                    settles_late: bit(4) && bit(9),
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
        Action::Withdraw => Some(Phase::Copying),
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
            assert!(!observed.inherited, "nobody knows how long it lasts");
            assert_eq!(observed.abort_requested, None);
            assert!(
                phase == Phase::Verified || matches!(observed.hook, Hook::None | Hook::Succeeded)
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
            && observed.hook_may_run.is_none()
            && observed.attempts_used_up.is_none()
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

/// The end of the window decides, unless the store cannot; and so does a change of leader.
#[test]
fn no_fence_outlives_its_window_or_its_leader() {
    for observed in all_observed() {
        if observed.rewound || observed.superseded {
            continue;
        }
        for phase in PHASES.into_iter().filter(|phase| phase.is_fenced()) {
            let action = next(phase, &observed);
            if observed.inherited {
                assert_eq!(action, Action::Withdraw, "{phase:?} {observed:?}");
            } else if observed.window_over {
                assert!(
                    matches!(action, Action::Abort(_)),
                    "{phase:?} {observed:?} {action:?}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_withdrawn_but_a_fence_that_another_leader_began() {
    for phase in PHASES {
        for observed in all_observed() {
            if next(phase, &observed) == Action::Withdraw {
                assert!(phase.is_fenced() && observed.inherited);
            }
        }
    }
}

/// A move that ends frees its account for the next one, which knows nothing of this one's hook.
#[test]
fn nothing_is_fenced_or_given_up_while_an_earlier_leaders_hook_may_run() {
    for observed in all_observed() {
        if observed.hook_may_run.is_some() && !observed.rewound && !observed.superseded {
            let action = next(Phase::Copying, &observed);
            assert!(matches!(action, Action::Show(_)), "{action:?}");
        }
    }
}

/// Nobody waits for an abort that is certain.
#[test]
fn a_fence_that_is_lost_is_given_up_at_once() {
    for observed in all_observed() {
        let decided = observed.rewound || observed.superseded || observed.inherited;
        let in_vain = observed.hook == Hook::Pending { fits: false };
        let lost =
            observed.settles_late || in_vain || matches!(observed.drain, Drain::Unconfirmed(_));
        if lost && !decided {
            let action = next(Phase::Fencing, &observed);
            let goes_on = action == Action::Quiesce && in_vain && !observed.settles_late;
            assert!(
                matches!(action, Action::Abort(_)) || goes_on,
                "{observed:?} {action:?}"
            );
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
    /// A move that is driven through whatever happens flips or aborts, once; it goes back only when its fence
    /// is withdrawn.
    #[test]
    fn a_driven_move_ends_once(mut seen in prop::collection::vec(any_observed(), 0..60)) {
        let quiet = Observed {
            rewound: false,
            superseded: false,
            abort_requested: None,
            inherited: false,
            hook_may_run: None,
            attempts_used_up: None,
            before_fence: vec![],
            drain: Drain::Complete,
            unsettled: vec![],
            settles_late: false,
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
                prop_assert!(action == Action::Withdraw || to == Phase::Settled || to >= phase, "{:?} after {:?}", to, phase);
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
