//! A leader that takes over a fence, or comes back to one: nobody waits for what it cannot know.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ferrypost_proto::{
    MigrationId, Phase,
    v1::{self, BlockerReason, MigrationState},
};
use tokio::time::Instant;

use super::{
    hooks::Scripted,
    on_both_stores,
    plane::Drains,
    world::{GoOn, Orchestrator, World},
};
use crate::{
    failpoint::Action,
    store::{
        KeyValue, LeaseError, LeaseId, Outage, Range, Rev, Store, StoreError, Txn, TxnOutcome,
        WatchStream,
    },
};

on_both_stores! {
    whoever_takes_over_releases_the_account_at_once,
    a_release_does_not_wait_for_the_hook_and_the_next_fence_does,
    a_move_that_is_ended_after_a_take_over_waits_for_the_hook_unfenced,
    users_are_served_between_two_fences,
    a_move_whose_leaders_keep_dying_is_given_up,
    a_leader_that_was_cut_off_releases_what_it_had_fenced,
}

/// Where a leader may die inside the held window, in order.
const INSIDE: [&str; 8] = [
    "fencing.after",
    "quiesced.before",
    "quiesced.after",
    "delta.before",
    "delta.after",
    "hook.before",
    "hook.after",
    "flipped.before",
];

/// A leader that dies at a failpoint of the move.
async fn dies(world: &World, leader: Orchestrator, at: &'static str) {
    leader.reached(at).await;
    leader.kill().await;
    world.leader_lease_ends().await;
}

/// Waits until the move, released, waits unfenced for exactly these reasons.
async fn shows(world: &World, id: &MigrationId, reasons: &[BlockerReason]) {
    world
        .eventually(&format!("blockers {reasons:?}"), |state| {
            let migration = &state.migration(id)?.value;
            let shown = migration.blockers.iter().map(v1::Blocker::reason);
            let is_it = shown.eq(reasons.iter().copied());
            (migration.phase() == v1::Phase::Copying && is_it).then_some(())
        })
        .await;
}

async fn attempts(world: &World, id: &MigrationId) -> u32 {
    world.state().await.migration(id).unwrap().value.attempts
}

/// Everything but FLIPPED may be written: the account goes back all the same, since only a clock that is gone
/// knew whether its window was over.
async fn whoever_takes_over_releases_the_account_at_once(world: World) {
    let _plane = world.plane("dp-1").await;
    for name in INSIDE {
        let first = world.orchestrator_with_hook("cp-1", Scripted::that(Ok(())));
        first.failpoints.arm(name, Action::Halt);
        let id = world.migrate_with_hook("target").await;
        dies(&world, first, name).await;
        assert!(world.alice().await.phase.is_fenced(), "{name}");

        let second = world.orchestrator_with("cp-2", |options| {
            options.hook = Some(Arc::new(Scripted::that(Ok(()))));
            options.failpoints.arm("withdrawn.after", Action::Halt);
        });
        second.reached("withdrawn.after").await;
        world.reaches(Phase::Copying).await;
        let alice = world.alice().await;
        assert_eq!((alice.fence(), alice.trace.is_some()), (None, false));
        assert_eq!(alice.home.as_str(), "source");
        assert_eq!(alice.target.as_ref().unwrap().as_str(), "target");
        let state = world.state().await;
        let migration = &state.migration(&id).unwrap().value;
        assert_eq!(migration.state(), MigrationState::Queued, "it goes on");
        assert_eq!(migration.attempts, 1);

        second.kill().await;
        world.leader_lease_ends().await;
        let third = world.orchestrator_with_hook("cp-3", Scripted::that(Ok(())));
        world.succeeds(&id).await;
        assert_eq!(attempts(&world, &id).await, 2, "{name}");
        let back = world.rollback().await;
        world.succeeds(&back).await;
        third.stop().await;
    }
}

async fn a_release_does_not_wait_for_the_hook_and_the_next_fence_does(world: World) {
    let _plane = world.plane("dp-1").await;
    let limit = Duration::from_secs(2);
    let first = world.orchestrator_with_hook("cp-1", Scripted::hanging(limit));
    let id = world.migrate_with_hook("target").await;
    first.reached("hook.before").await;
    let started = Instant::now();
    first.kill().await;
    world.leader_lease_ends().await;

    let scripted = Scripted::that(Ok(()));
    let mut go_on = None;
    let second = world.orchestrator_with("cp-2", |options| {
        options.hook = Some(Arc::new(scripted.clone()));
        go_on = Some(GoOn::from(&options.failpoints, "fencing.before"));
    });
    // Released, and only then is the hook waited for: users are not held by it.
    shows(&world, &id, &[BlockerReason::HookMayRun]).await;
    assert_eq!(world.alice().await.phase, Phase::Copying);
    second.reached("fencing.before").await;
    assert!(
        started.elapsed() >= limit,
        "the first run could have lasted so long"
    );
    let go_on = go_on.expect("it was armed");
    go_on.now();
    let migration = world.succeeds(&id).await;
    assert_eq!(
        *scripted.attempts.lock().unwrap(),
        [2],
        "it is told that it may be a repetition"
    );
    assert_eq!(migration.hook_deadline, None);
}

async fn a_move_that_is_ended_after_a_take_over_waits_for_the_hook_unfenced(world: World) {
    let _plane = world.plane("dp-1").await;
    let limit = Duration::from_secs(2);
    let first = world.orchestrator_with_hook("cp-1", Scripted::hanging(limit));
    let id = world.migrate_with_hook("target").await;
    first.reached("hook.before").await;
    let started = Instant::now();
    first.kill().await;
    world.leader_lease_ends().await;
    world.abort(&id).await;

    let mut go_on = None;
    let second = world.orchestrator_with("cp-2", |options| {
        options.hook = Some(Arc::new(Scripted::that(Ok(()))));
        go_on = Some(GoOn::from(&options.failpoints, "aborted.before"));
    });
    shows(&world, &id, &[BlockerReason::HookMayRun]).await;
    second.reached("aborted.before").await;
    assert!(
        started.elapsed() >= limit,
        "the next move of the account would know nothing of that hook"
    );
    let go_on = go_on.expect("it was armed");
    go_on.now();
    let cause = world.aborts(&id).await;
    assert_eq!(cause, (Phase::Copying, vec![BlockerReason::Operator]));
}

async fn users_are_served_between_two_fences(world: World) {
    let _plane = world.plane("dp-1").await;
    let first = world.orchestrator("cp-1");
    first.failpoints.arm("flipped.before", Action::Halt);
    let id = world.migrate("target").await;
    dies(&world, first, "flipped.before").await;
    let respite = Duration::from_secs(1);
    let mut go_on = None;
    let second = world.orchestrator_with("cp-2", |options| {
        options.respite = respite;
        go_on = Some(GoOn::from(&options.failpoints, "fencing.before"));
    });
    shows(&world, &id, &[BlockerReason::FenceWithdrawn]).await;
    second.reached("fencing.before").await;
    let go_on = go_on.expect("it was armed");
    go_on.now();
    let evidence = world.succeeds(&id).await.evidence.unwrap();
    let waited = evidence.waits.iter();
    let mut waited = waited.filter(|wait| wait.reason() == BlockerReason::FenceWithdrawn);
    let served = waited.next().and_then(|wait| wait.time).expect("it waited");
    assert!(
        Duration::try_from(served).unwrap() >= respite / 2,
        "{served}"
    );
}

async fn a_move_whose_leaders_keep_dying_is_given_up(world: World) {
    let _plane = world.plane("dp-1").await;
    let mut id = None;
    for name in ["cp-1", "cp-2", "cp-3"] {
        let leader = world.orchestrator_up_to(name, "quiesced.after");
        if id.is_none() {
            id = Some(world.migrate("target").await);
        }
        dies(&world, leader, "quiesced.after").await;
    }
    let id = id.expect("a move was asked for");
    let _last = world.orchestrator("cp-4");
    let cause = world.aborts(&id).await;
    assert_eq!(cause, (Phase::Copying, vec![BlockerReason::AttemptsUsedUp]));
    assert_eq!(attempts(&world, &id).await, 3);
    assert_eq!(world.alice().await.home.as_str(), "source");
}

/// A way to a store that can be cut.
struct Severed {
    inner: Arc<dyn Store>,
    away: AtomicBool,
}

impl Severed {
    fn there(&self) -> Result<&dyn Store, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable(Outage::Connection));
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl Store for Severed {
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        self.there()?.get(key).await
    }

    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        self.there()?.range(prefix, at).await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.there()?.transact(txn).await
    }

    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError> {
        self.there()?.watch(from).await
    }

    async fn revision(&self) -> Result<Rev, StoreError> {
        self.there()?.revision().await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.there()?.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        self.there()?.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.there()?.revoke(lease).await
    }

    async fn compact(&self, to: Rev) -> Result<(), StoreError> {
        self.there()?.compact(to).await
    }
}

/// Its store is away for longer than its lease. When it is back no window begins anew: at the end of one, the
/// move would be aborted.
async fn a_leader_that_was_cut_off_releases_what_it_had_fenced(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.drains = Drains::No);
    let severed = Arc::new(Severed {
        inner: world.store.clone(),
        away: AtomicBool::new(false),
    });
    let leader = world.orchestrator_on_a_short_lease("cp-1", severed.clone());
    let id = world.migrate("target").await;
    world.reaches(Phase::Fencing).await;
    let before = world.state().await.leader().unwrap().1;
    severed.away.store(true, Ordering::SeqCst);
    world
        .eventually("the end of its lease", |state| {
            state.leader().is_none().then_some(())
        })
        .await;
    assert!(world.alice().await.phase.is_fenced(), "nobody could write");
    leader.failpoints.arm("withdrawn.after", Action::Halt);
    severed.away.store(false, Ordering::SeqCst);
    leader.reached("withdrawn.after").await;
    assert_eq!(world.alice().await.phase, Phase::Copying);
    assert!(world.state().await.leader().unwrap().1 > before);
    assert_eq!(attempts(&world, &id).await, 1);
}
