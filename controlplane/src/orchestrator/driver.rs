//! Drives one migration from where it stands to its end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ferrypost_proto::{MigrationId, Phase, v1::BlockerReason};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::lead::{DriverContext, Written, wait_changed};
use crate::{
    domain::state::State,
    domain::{
        migration::{Action, Drain, Hook, Observed, blocker, next},
        transition::{Move, NotDriven, observe},
    },
    failpoint,
    hook::{Deadline, HookError, Order},
    store::{Rev, Txn},
};

/// Time inside the window that is kept for the flip after the hook.
const FLIP_RESERVE: Duration = Duration::from_millis(500);

/// With less time than this a hook is not started, unless its own limit is shorter.
const SHORTEST_RUN: Duration = Duration::from_secs(1);

/// The configurations of the replicas differ, or have changed since the move was asked for.
const NO_HOOK: &str = "the move needs the delta hook, and the leader has none in its configuration";

/// Pause after a step that failed without the store's doing.
const PAUSE: Duration = Duration::from_millis(200);

/// The driver of one migration.
pub(super) struct Driver {
    term: Arc<DriverContext>,
    id: MigrationId,
    changed: watch::Receiver<Rev>,
    /// When this leader saw the held window begin.
    held: Option<Held>,
    /// How the hook ended, if this leader has run it.
    hook: Option<Result<(), HookError>>,
    runs: u32,
}

/// The held window, on this leader's monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Held {
    since: Instant,
    /// This leader has written FENCING, so `since` is when it began.
    ours: bool,
}

impl Driver {
    pub(super) fn new(term: Arc<DriverContext>, id: MigrationId) -> Self {
        Self {
            changed: term.mirror.changed(),
            term,
            id,
            held: None,
            hook: None,
            runs: 0,
        }
    }

    /// Drives until the migration is over, or waits behind another.
    pub(super) async fn drive(mut self) {
        loop {
            self.changed.borrow_and_update();
            let state = self.term.mirror.read();
            let of = match Move::of(&state, &self.id) {
                Ok(of) => of,
                Err(NotDriven::Over) => return,
                Err(NotDriven::Unreadable) => {
                    wait_changed(&mut self.changed).await;
                    continue;
                }
            };
            let observed = self.observe(&state, &of);
            let action = next(of.phase(), &observed);
            self.term.count_looks(1);
            let nothing_to_do = matches!(action, Action::Wait | Action::Show(_));
            if nothing_to_do && state.moves().is_behind(&self.id, &of.migration) {
                return;
            }
            self.act(&state, &of, action).await;
        }
    }

    /// What the state says, and what only this leader's clock and memory say.
    fn observe(&mut self, state: &State, of: &Move) -> Observed {
        let mut observed = observe(state, of, self.term.options.fence_budget);
        if of.phase().is_fenced() {
            self.held.get_or_insert(Held {
                since: Instant::now(),
                ours: false,
            });
        } else if of.phase() == Phase::Copying {
            self.held = None;
        }
        observed.window_over = self.window_end(of).is_some_and(|end| Instant::now() >= end);
        observed.hook = self.hook_state(of);
        let hook_is_missing = observed.hook != Hook::None && self.term.options.hook.is_none();
        if of.phase() == Phase::Copying && hook_is_missing {
            observed.before_fence.push(blocker(
                BlockerReason::HookFailed,
                self.term.options.replica.as_str(),
                NO_HOOK,
            ));
        }
        if failpoint::releases_early() && of.phase().is_fenced() {
            observed.drain = Drain::Complete;
        }
        observed
    }

    fn window_end(&self, of: &Move) -> Option<Instant> {
        Some(self.held?.since + of.window())
    }

    fn hook_state(&self, of: &Move) -> Hook {
        if !of.migration.value.delta_hook {
            return Hook::None;
        }
        match &self.hook {
            Some(Ok(())) => Hook::Succeeded,
            Some(Err(error)) => Hook::Failed(error.to_string()),
            None if self.term.options.hook.is_none() => Hook::Failed(NO_HOOK.to_owned()),
            None if of.phase() == Phase::Delta && Instant::now() < self.foreign_end(of) => {
                Hook::Foreign
            }
            None => Hook::Pending {
                fits: self.run_time(of).is_some(),
            },
        }
    }

    /// When the hook that a predecessor has started is dead for certain: it was started under the
    /// predecessor's lease, which had ended when this leader's term began.
    fn foreign_end(&self, of: &Move) -> Instant {
        self.term.leadership.since() + of.hook_deadline()
    }

    /// How long a hook that is started now may run; `None`: not long enough.
    fn run_time(&self, of: &Move) -> Option<Duration> {
        let limit = self.term.options.hook.as_ref()?.timeout();
        let left = self
            .window_end(of)
            .unwrap_or_else(|| Instant::now() + of.window())
            .checked_duration_since(Instant::now())?
            .checked_sub(FLIP_RESERVE)?;
        (left >= SHORTEST_RUN.min(limit)).then(|| left.min(limit))
    }

    async fn act(&mut self, state: &State, of: &Move, action: Action) {
        match action {
            Action::Wait => self.wait(of).await,
            Action::Show(blockers) if blockers == of.migration.value.blockers => {
                self.wait(of).await;
            }
            Action::Show(blockers) => {
                self.term.write(self.term.pen().show(of, blockers)).await;
            }
            Action::Fence => self.fence().await,
            Action::Quiesce => {
                self.step("quiesced.before", "quiesced.after", |pen| {
                    pen.quiesce(state, of)
                })
                .await;
            }
            Action::RunHook => self.run_hook(of).await,
            Action::Flip => self.flip(state, of).await,
            Action::Release => {
                self.step("released.before", "released.after", |pen| pen.release(of))
                    .await;
            }
            Action::Settle => {
                self.step("settled.before", "settled.after", |pen| {
                    pen.settle(state, of)
                })
                .await;
            }
            Action::Abort(why) => {
                tracing::info!(migration = %self.id, phase = ?of.phase(), ?why, "the move is aborted");
                self.step("aborted.before", "aborted.after", |pen| {
                    pen.abort(state, of, why)
                })
                .await;
            }
            Action::Finish => {
                self.term.write(self.term.pen().finish(of)).await;
            }
        }
    }

    /// Waits for a change, or for the moment at which the clock alone changes the decision.
    async fn wait(&mut self, of: &Move) {
        let now = Instant::now();
        let foreign =
            (of.phase() == Phase::Delta && self.hook.is_none()).then(|| self.foreign_end(of));
        let wake = [self.window_end(of), foreign]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min();
        let tick = async {
            match wake {
                Some(at) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait_changed(&mut self.changed) => {}
            () = tick => {}
        }
    }

    /// Begins the fence, if nothing stands in its way when it is this move's turn.
    async fn fence(&mut self) {
        let term = self.term.clone();
        let _turn = term.fence_turn.lock().await;
        let state = term.mirror.read();
        let Ok(of) = Move::of(&state, &self.id) else {
            return;
        };
        let observed = self.observe(&state, &of);
        if next(of.phase(), &observed) != Action::Fence {
            return;
        }
        let since = Instant::now();
        let written = self
            .step("fencing.before", "fencing.after", |pen| {
                pen.fence(&state, &of)
            })
            .await;
        if written == Written::Yes {
            self.held = Some(Held { since, ours: true });
        }
    }

    async fn flip(&mut self, state: &State, of: &Move) {
        let held = self
            .held
            .filter(|held| held.ours)
            .map(|held| held.since.elapsed());
        let written = self
            .step("flipped.before", "flipped.after", |pen| {
                pen.flip(state, of, held)
            })
            .await;
        if written == Written::Yes {
            tracing::info!(migration = %self.id, ?held, "the move has flipped");
        }
    }

    /// Says in the store that the hook runs, and until when; then runs it. The deadline is chosen first, so
    /// that a leader that takes over and waits as long has waited long enough.
    async fn run_hook(&mut self, of: &Move) {
        let (Some(hook), Some(limit)) = (self.term.options.hook.clone(), self.run_time(of)) else {
            return;
        };
        let deadline = Deadline::after(limit);
        let written = self
            .step("delta.before", "delta.after", |pen| pen.run_hook(of, limit))
            .await;
        if written != Written::Yes {
            return;
        }
        self.runs += 1;
        let taken_over = u32::from(of.phase() == Phase::Delta);
        let order = Order::new(
            self.id.as_str(),
            &of.migration.value,
            self.runs + taken_over,
        );
        if self.reach("hook.before").await.is_err() {
            return;
        }
        tracing::info!(migration = %self.id, ?limit, "the delta hook runs");
        let stop = CancellationToken::new();
        let run = hook.run(order, deadline, stop.clone());
        let outcome = tokio::select! {
            outcome = run => outcome,
            never = self.stop_when_aborted(&stop) => match never {},
        };
        if let Err(error) = &outcome {
            tracing::warn!(migration = %self.id, %error, "the delta hook failed");
        }
        self.hook = Some(outcome);
        let _ = self.reach("hook.after").await;
    }

    /// Stops a run that an operator does not want any more. It is waited for all the same: nothing may
    /// be decided while it could still write.
    async fn stop_when_aborted(&self, stop: &CancellationToken) -> Infallible {
        let mut changed = self.term.mirror.changed();
        loop {
            let state = self.term.mirror.read();
            let unwanted = state
                .migration(&self.id)
                .is_none_or(|migration| !migration.value.abort_requested_by.is_empty());
            if unwanted {
                stop.cancel();
            }
            wait_changed(&mut changed).await;
        }
    }

    /// One transition, between its failpoints.
    async fn step(
        &self,
        before: &'static str,
        after: &'static str,
        txn: impl FnOnce(crate::domain::transition::TransitionWriter<'_>) -> Txn,
    ) -> Written {
        if self.reach(before).await.is_err() {
            return Written::Unknown;
        }
        let written = self.term.write(txn(self.term.pen())).await;
        tracing::debug!(migration = %self.id, step = after, ?written, "a step of a move");
        if written == Written::Yes {
            self.term.count(after, &self.id);
        }
        if written == Written::Yes && self.reach(after).await.is_err() {
            return Written::Unknown;
        }
        written
    }

    async fn reach(&self, name: &'static str) -> Result<(), failpoint::Injected> {
        let reached = self.term.options.failpoints.reach(name).await;
        if let Err(error) = &reached {
            tracing::warn!(migration = %self.id, %error, "a step of a move failed");
            time::sleep(PAUSE).await;
        }
        reached
    }
}
