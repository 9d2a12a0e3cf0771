//! Moves with a delta hook.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ferrypost_proto::{Phase, v1::BlockerReason};
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

use super::{
    on_both_stores,
    world::{PATIENCE, WINDOW, World},
};
use crate::hook::{Deadline, DeltaHook, HookError, Order};

on_both_stores! {
    the_hook_runs_between_quiesced_and_flipped,
    a_hook_that_fails_aborts_the_move,
    an_operator_ends_a_move_whose_hook_runs,
    a_move_that_needs_the_hook_is_not_fenced_without_it,
    a_hook_is_not_started_without_time_for_it,
}

/// A hook that does as it is told.
#[derive(Clone)]
pub(super) struct Scripted {
    timeout: Duration,
    runs: Arc<AtomicU32>,
    pub(super) attempts: Arc<std::sync::Mutex<Vec<u32>>>,
    ends: Arc<Notify>,
    outcome: Result<(), HookError>,
    hangs: bool,
}

impl Scripted {
    pub(super) fn that(outcome: Result<(), HookError>) -> Self {
        Self {
            timeout: Duration::from_secs(2),
            runs: Arc::default(),
            attempts: Arc::default(),
            ends: Arc::default(),
            outcome,
            hangs: false,
        }
    }

    pub(super) fn hanging(timeout: Duration) -> Self {
        Self {
            timeout,
            hangs: true,
            ..Self::that(Ok(()))
        }
    }
}

/// Counts a run as ended when it is dropped, too.
struct Run(Arc<Notify>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl DeltaHook for Scripted {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn run(
        &self,
        order: Order,
        _deadline: Deadline,
        stop: CancellationToken,
    ) -> Result<(), HookError> {
        let _run = Run(self.ends.clone());
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.attempts.lock().unwrap().push(order.attempt);
        if self.hangs {
            stop.cancelled().await;
            return Err(HookError::Stopped);
        }
        self.outcome.clone()
    }
}

async fn the_hook_runs_between_quiesced_and_flipped(world: World) {
    let _plane = world.plane("dp-1").await;
    let scripted = Scripted::that(Ok(()));
    let orchestrator = world.orchestrator_with_hook("cp-1", scripted.clone());
    let id = world.migrate_with_hook("target").await;
    let migration = world.succeeds(&id).await;
    assert_eq!(migration.hook_deadline, None);
    let passed = orchestrator.failpoints.passed();
    let at = |name| {
        passed
            .iter()
            .position(|passed| *passed == name)
            .expect(name)
    };
    assert!(at("quiesced.after") < at("delta.before"));
    assert!(at("delta.after") < at("hook.before"));
    assert!(at("hook.after") < at("flipped.before"));
    assert_eq!(*scripted.attempts.lock().unwrap(), [1]);

    // A move that was asked for without it does not run it.
    let back = world.rollback().await;
    world.succeeds(&back).await;
    assert_eq!(scripted.runs.load(Ordering::SeqCst), 1);
}

async fn a_hook_that_fails_aborts_the_move(world: World) {
    let _plane = world.plane("dp-1").await;
    for outcome in [HookError::Code(3), HookError::Late] {
        let scripted = Scripted::that(Err(outcome));
        let orchestrator = world.orchestrator_with_hook("cp-1", scripted.clone());
        let id = world.migrate_with_hook("target").await;
        let cause = world.aborts(&id).await;
        assert_eq!(cause, (Phase::Delta, vec![BlockerReason::HookFailed]));
        assert_eq!(
            scripted.runs.load(Ordering::SeqCst),
            1,
            "nothing tries it again"
        );
        orchestrator.stop().await;
    }
}

async fn an_operator_ends_a_move_whose_hook_runs(world: World) {
    let _plane = world.plane("dp-1").await;
    let scripted = Scripted::hanging(WINDOW / 2);
    let _orchestrator = world.orchestrator_with_hook("cp-1", scripted.clone());
    let id = world.migrate_with_hook("target").await;
    world.reaches(Phase::Delta).await;
    world.abort(&id).await;
    let ends = scripted.ends.notified();
    time::timeout(PATIENCE, ends)
        .await
        .expect("the hook is killed");
    let cause = world.aborts(&id).await;
    assert_eq!(cause, (Phase::Delta, vec![BlockerReason::Operator]));
}

async fn a_move_that_needs_the_hook_is_not_fenced_without_it(world: World) {
    let _plane = world.plane("dp-1").await;
    let orchestrator = world.orchestrator("cp-1");
    let id = world.migrate_with_hook("target").await;
    world.waits_for(&id, &[BlockerReason::HookFailed]).await;
    orchestrator.stop().await;
    let scripted = Scripted::that(Ok(()));
    let _orchestrator = world.orchestrator_with_hook("cp-2", scripted);
    world.succeeds(&id).await;
}

async fn a_hook_is_not_started_without_time_for_it(mut world: World) {
    world.window = Duration::from_millis(1400);
    let _plane = world.plane("dp-1").await;
    let scripted = Scripted::that(Ok(()));
    let _orchestrator = world.orchestrator_with_hook("cp-1", scripted.clone());
    loop {
        let id = world.migrate_with_hook("target").await;
        // As soon as it is certain: whether the data plane has reported by then is chance.
        let (phase, reasons) = world.aborts(&id).await;
        assert!(
            matches!(phase, Phase::Fencing | Phase::Quiesced),
            "{phase:?}"
        );
        assert_eq!(scripted.runs.load(Ordering::SeqCst), 0);
        if reasons.last() == Some(&BlockerReason::HookFailed) {
            return;
        }
        // The machine stood still for the whole window.
        assert_eq!(reasons, [BlockerReason::NotDrained]);
    }
}
