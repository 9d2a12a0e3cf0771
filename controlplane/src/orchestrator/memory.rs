//! What only the leader itself can say of a move: what its monotonic clock and its memory hold. None of it
//! outlives the leader, and none of it needs to: whoever takes over withdraws the fence that it finds.

use std::{collections::BTreeMap, time::Duration};

use ferrypost_proto::{
    InstanceId, Phase, ReplicaId,
    v1::{Blocker, BlockerReason, HookEvidence},
};
use tokio::time::Instant;

use super::OrchestratorOptions;
use crate::{
    domain::{
        evidence::{Notes, wait_for},
        migration::{Hook, Observed, blocker},
        state::State,
        transition::Move,
    },
    hook::HookError,
    store::Rev,
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
    /// When the driver began to look at it.
    looked: Instant,
    /// Whatever hook was started for the move, and is not the driver's own, was started before this.
    began: Instant,
    /// Not later than the FENCING write, while the fence is this driver's own.
    held: Option<Instant>,
    /// When this driver first saw that a fence of the move was withdrawn.
    rests: Option<Instant>,
    /// How the hook ended, if this driver has run it inside this fence.
    hook: Option<Result<(), HookError>>,
    /// What is waited for unfenced, and since when it was not written down.
    waits: Vec<(Blocker, Instant)>,
    /// The revisions of the reports on this fence that were seen.
    heard: BTreeMap<InstanceId, Rev>,
    /// What is written down with the next step.
    notes: Notes,
}

impl Memory {
    /// Nothing yet. `began`: when drivers took over from whoever ran hooks before.
    pub(super) fn new(began: Instant) -> Self {
        Self {
            looked: Instant::now(),
            began,
            held: None,
            rests: None,
            hook: None,
            waits: Vec::new(),
            heard: BTreeMap::new(),
            notes: Notes::default(),
        }
    }

    /// The FENCING write is about to be made: the window begins now at the latest.
    pub(super) fn fences(&mut self) {
        self.held = Some(Instant::now());
    }

    /// The driver's hook has ended.
    pub(super) fn hook_ended(
        &mut self,
        attempt: u32,
        took: Duration,
        outcome: Result<(), HookError>,
    ) {
        let failure = outcome.as_ref().err().map(ToString::to_string);
        self.notes.hook = Some(HookEvidence {
            attempt,
            took: prost_types::Duration::try_from(took).ok(),
            failure: failure.unwrap_or_default(),
        });
        self.hook = Some(outcome);
    }

    /// What is to be written down with a step that is taken now.
    pub(super) fn notes(&mut self, leader: &ReplicaId) -> &Notes {
        leader.as_str().clone_into(&mut self.notes.leader);
        self.notes.driven = self.looked.elapsed();
        self.notes.after = self.held.map(|since| since.elapsed());
        let now = Instant::now();
        let open = self.waits.iter_mut().map(|(blocker, since)| {
            let time = now.saturating_duration_since(std::mem::replace(since, now));
            wait_for(blocker, time, 0)
        });
        self.notes.waits.extend(open);
        &self.notes
    }

    /// The step is written, and the notes with it.
    pub(super) fn written(&mut self) {
        self.notes.waits.clear();
    }

    /// What the move waits for now: each wait that ends or begins with it is noted.
    fn waits_for(&mut self, blockers: &[Blocker]) {
        let same = |a: &Blocker, b: &Blocker| a.reason == b.reason && a.who == b.who;
        let (go_on, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waits)
            .into_iter()
            .partition(|(open, _)| blockers.iter().any(|blocker| same(open, blocker)));
        self.waits = go_on;
        for (blocker, since) in over {
            self.notes
                .waits
                .push(wait_for(&blocker, since.elapsed(), 0));
        }
        for blocker in blockers {
            if !self.waits.iter().any(|(open, _)| same(open, blocker)) {
                self.notes.waits.push(wait_for(blocker, Duration::ZERO, 1));
                self.waits.push((blocker.clone(), Instant::now()));
            }
        }
    }

    /// When each data plane has said its last word on this fence.
    fn hears(&mut self, state: &State, of: &Move) {
        let Some(since) = self.held else { return };
        for (instance, report) in state.drained(&of.id).into_iter().flatten() {
            let known = self.heard.get(instance);
            if known.is_none_or(|known| *known != report.revision) {
                self.heard.insert(instance.clone(), report.revision);
                self.notes.heard.insert(instance.clone(), since.elapsed());
            }
        }
    }

    /// Adds to what the state says what only the leader can say.
    pub(super) fn add_to(
        &mut self,
        observed: &mut Observed,
        state: &State,
        of: &Move,
        options: &OrchestratorOptions,
    ) {
        observed.hook = self.hook_state(of, options);
        if of.phase().is_fenced() {
            self.hears(state, of);
            self.waits.clear();
            observed.inherited = self.held.is_none();
            observed.window_over = self.window_end(of).is_some_and(is_past);
        } else if of.phase() == Phase::Copying {
            self.unfenced(observed, of, options);
        }
    }

    fn unfenced(&mut self, observed: &mut Observed, of: &Move, options: &OrchestratorOptions) {
        (self.held, self.hook) = (None, None);
        (self.notes.hook, self.notes.heard) = (None, BTreeMap::new());
        self.heard.clear();
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
        let hook = observed.hook_may_run.iter();
        let blockers: Vec<_> = hook.chain(&observed.before_fence).cloned().collect();
        self.waits_for(&blockers);
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

    /// Whether the window is over before something that is known to come at a moment, if at all.
    pub(super) fn is_too_late(&self, of: &Move, comes: Option<Instant>) -> bool {
        let end = self.window_end(of);
        comes.zip(end).is_some_and(|(comes, end)| comes >= end)
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
