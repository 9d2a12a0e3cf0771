//! Drives one migration from where it stands to its end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ferrypost_proto::MigrationId;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    lead::{DriverContext, Written, wait_changed},
    memory::Memory,
    tally::step_of,
    trace::{self, Trace},
};
use crate::{
    domain::state::State,
    domain::{
        migration::{Action, Drain, Observed, next},
        transition::{Move, NotDriven, TransitionWriter, observe},
    },
    failpoint,
    hook::{Deadline, Order},
    store::{Rev, Txn},
};

/// Pause after a step that failed without the store's doing.
const PAUSE: Duration = Duration::from_millis(200);

/// The driver of one migration.
pub(super) struct Driver {
    term: Arc<DriverContext>,
    id: MigrationId,
    changed: watch::Receiver<Rev>,
    memory: Memory,
    trace: Trace,
}

impl Driver {
    /// `began`: when drivers took over from whoever ran hooks before.
    pub(super) fn new(term: Arc<DriverContext>, id: MigrationId, began: Instant) -> Self {
        Self {
            changed: term.mirror.changed(),
            term,
            id,
            memory: Memory::new(began),
            trace: Trace::default(),
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
        let options = &self.term.options;
        let mut observed = observe(state, of, options.fence_budget);
        self.memory.add_to(&mut observed, state, of, options);
        let settled = self.term.seen().settled(state, options.settle);
        observed.settles_late = self.memory.is_too_late(of, settled);
        if failpoint::releases_early() && of.phase().is_fenced() {
            observed.drain = Drain::Complete;
        }
        observed
    }

    async fn act(&mut self, state: &State, of: &Move, action: Action) {
        match action {
            Action::Wait => self.wait(of).await,
            Action::Show(blockers) if blockers == of.migration.value.blockers => {
                self.wait(of).await;
            }
            Action::Show(blockers) => {
                self.write(|pen| pen.show(of, blockers)).await;
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
            Action::Withdraw => self.withdraw(state, of).await,
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
                if self.write(|pen| pen.finish(of)).await == Written::Yes {
                    self.trace_end();
                }
            }
        }
    }

    /// Waits for a change, or for the moment at which the clock alone changes the decision.
    async fn wait(&mut self, of: &Move) {
        let wake = self.memory.next_look(of, &self.term.options);
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
        self.memory.fences();
        self.step("fencing.before", "fencing.after", |pen| {
            pen.fence(&state, &of)
        })
        .await;
    }

    /// Ends a fence that somebody else has begun, before anything else is done about the move.
    async fn withdraw(&mut self, state: &State, of: &Move) {
        let written = self
            .step("withdrawn.before", "withdrawn.after", |pen| {
                pen.withdraw(state, of)
            })
            .await;
        if written == Written::Yes {
            tracing::warn!(migration = %self.id, phase = ?of.phase(), attempts = of.attempts(),
                "the fence of a leader that is gone is withdrawn: the accounts are served where they live");
        }
    }

    async fn flip(&mut self, state: &State, of: &Move) {
        let written = self
            .step("flipped.before", "flipped.after", |pen| pen.flip(state, of))
            .await;
        if written == Written::Yes {
            tracing::info!(migration = %self.id, "the move has flipped");
        }
    }

    /// Says in the store that the hook runs, and until when; then runs it. The deadline is chosen first, so
    /// that a leader that takes over and waits as long has waited long enough.
    async fn run_hook(&mut self, of: &Move) {
        let options = &self.term.options;
        let run_time = self.memory.run_time(of, options);
        let (Some(hook), Some(limit)) = (options.hook.clone(), run_time) else {
            return;
        };
        let deadline = Deadline::after(limit);
        let written = self
            .step("delta.before", "delta.after", |pen| pen.run_hook(of, limit))
            .await;
        if written != Written::Yes {
            return;
        }
        let attempt = of.migration.value.hook_runs + 1;
        let order = Order::new(self.id.as_str(), &of.migration.value, attempt);
        if self.reach("hook.before").await.is_err() {
            return;
        }
        tracing::info!(migration = %self.id, ?limit, "the delta hook runs");
        let began = Instant::now();
        let stop = CancellationToken::new();
        let span = trace::hook(&self.id, &of.migration.value);
        let run = hook.run(order, deadline, stop.clone()).instrument(span);
        let outcome = tokio::select! {
            outcome = run => outcome,
            never = self.stop_when_aborted(&stop) => match never {},
        };
        if let Err(error) = &outcome {
            tracing::warn!(migration = %self.id, %error, "the delta hook failed");
        }
        self.memory.hook_ended(attempt, began.elapsed(), outcome);
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
        &mut self,
        before: &'static str,
        after: &'static str,
        txn: impl FnOnce(TransitionWriter<'_>) -> Txn,
    ) -> Written {
        if self.reach(before).await.is_err() {
            return Written::Unknown;
        }
        let written = self.write(txn).await;
        tracing::debug!(migration = %self.id, step = after, ?written, "a step of a move");
        if written == Written::Yes {
            self.term.count(after, &self.id);
            self.trace(after);
        }
        if written == Written::Yes && self.reach(after).await.is_err() {
            return Written::Unknown;
        }
        written
    }

    /// Lets the move's trace have a step that is written.
    fn trace(&mut self, after: &str) {
        let state = self.term.mirror.read();
        let written = step_of(after).zip(state.migration(&self.id));
        if let Some((step, migration)) = written {
            let now = self.term.options.clock.now();
            self.trace.step(&self.id, &migration.value, step, &now);
        }
    }

    /// The same of a move that ends without a step: another one has gone on from where it came to.
    fn trace_end(&mut self) {
        let state = self.term.mirror.read();
        if let Some(migration) = state.migration(&self.id) {
            let now = self.term.options.clock.now();
            self.trace.end(&self.id, &migration.value, &now);
        }
    }

    /// One write, with what there is to be written down.
    async fn write(&mut self, txn: impl FnOnce(TransitionWriter<'_>) -> Txn) -> Written {
        let term = self.term.clone();
        let notes = self.memory.notes(&term.options.replica);
        let written = term.write(txn(term.pen(notes))).await;
        if written == Written::Yes {
            self.memory.written();
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
