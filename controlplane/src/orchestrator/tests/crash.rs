//! A leader that dies, freezes or fails at every step: whoever comes next finishes the move, once.

use std::time::Duration;

use async_trait::async_trait;
use ferrypost_proto::{Phase, v1::MigrationState};
use tokio_util::sync::CancellationToken;

use super::{on_both_stores, plane::Drains, world::World};
use crate::{
    domain::{
        evidence::Notes,
        transition::{Move, TransitionWriter},
    },
    failpoint::{ALL, Action},
    hook::{Deadline, DeltaHook, HookError, Order},
    store::{TxnOutcome, keys},
    wall_clock,
};

on_both_stores! {
    a_move_survives_the_death_of_its_leader_at_every_step,
    a_withdrawal_survives_the_death_of_its_leader,
    an_abort_survives_the_death_of_its_leader,
    a_move_survives_the_failure_of_every_step,
    a_frozen_leader_can_write_nothing_any_more,
    flip_and_abort_compete_for_one_epoch,
    two_candidates_drive_one_move_once,
}

/// A hook that is quick.
struct Quick;

#[async_trait]
impl DeltaHook for Quick {
    fn timeout(&self) -> Duration {
        Duration::from_millis(700)
    }

    async fn run(
        &self,
        _order: Order,
        _deadline: Deadline,
        _stop: CancellationToken,
    ) -> Result<(), HookError> {
        Ok(())
    }
}

/// The names that the orchestrator passes in a move with a hook that is not aborted.
fn passed_by_a_move() -> impl Iterator<Item = &'static str> {
    ALL.iter().copied().filter(|name| {
        !["registration", "copying", "drained", "withdrawn", "aborted"]
            .iter()
            .any(|other| name.starts_with(other))
    })
}

/// The records, once the move is over, and nothing of it is left.
async fn judge(world: &World, id: &ferrypost_proto::MigrationId) -> MigrationState {
    let migration = world.ended(id).await;
    let alice = world.alice().await;
    assert_eq!((alice.phase, &alice.target), (Phase::Settled, &None));
    assert_eq!(alice.fence_epoch, None);
    let home = match migration.state() {
        MigrationState::Succeeded => "target",
        MigrationState::Aborted => "source",
        other => panic!("{other:?} is no end"),
    };
    assert_eq!(alice.home.as_str(), home);
    world
        .eventually("the removal of the reports", |state| {
            state.drained(id).is_none().then_some(())
        })
        .await;
    migration.state()
}

async fn a_move_survives_the_death_of_its_leader_at_every_step(world: World) {
    let _planes = [world.plane("dp-1").await, world.plane("dp-2").await];
    for name in passed_by_a_move() {
        let first = world.orchestrator_with_hook("cp-1", Quick);
        first.failpoints.arm(name, Action::Halt);
        let id = world.migrate_with_hook("target").await;
        first.reached(name).await;
        first.kill().await;
        world.leader_lease_ends().await;
        let second = world.orchestrator_with_hook("cp-2", Quick);
        assert_eq!(
            judge(&world, &id).await,
            MigrationState::Succeeded,
            "after {name}"
        );
        let back = world.rollback().await;
        world.succeeds(&back).await;
        second.stop().await;
    }
}

async fn a_withdrawal_survives_the_death_of_its_leader(world: World) {
    let _plane = world.plane("dp-1").await;
    for name in ["withdrawn.before", "withdrawn.after"] {
        let mut id = None;
        for (replica, dies_at) in [("cp-1", "quiesced.after"), ("cp-2", name)] {
            let leader = world.orchestrator_up_to(replica, dies_at);
            if id.is_none() {
                id = Some(world.migrate("target").await);
            }
            leader.reached(dies_at).await;
            leader.kill().await;
            world.leader_lease_ends().await;
        }
        let id = id.expect("a move was asked for");
        let third = world.orchestrator("cp-3");
        assert_eq!(
            judge(&world, &id).await,
            MigrationState::Succeeded,
            "after {name}"
        );
        let back = world.rollback().await;
        world.succeeds(&back).await;
        third.stop().await;
    }
}

async fn an_abort_survives_the_death_of_its_leader(mut world: World) {
    world.window = Duration::from_millis(300);
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.drains = Drains::No);
    for name in ["aborted.before", "aborted.after"] {
        let first = world.orchestrator("cp-1");
        first.failpoints.arm(name, Action::Halt);
        let id = world.migrate("target").await;
        first.reached(name).await;
        first.kill().await;
        world.leader_lease_ends().await;
        let second = world.orchestrator("cp-2");
        assert_eq!(
            judge(&world, &id).await,
            MigrationState::Aborted,
            "after {name}"
        );
        second.stop().await;
    }
}

async fn a_move_survives_the_failure_of_every_step(world: World) {
    let _plane = world.plane("dp-1").await;
    for name in passed_by_a_move() {
        let orchestrator = world.orchestrator_with_hook("cp-1", Quick);
        orchestrator.failpoints.arm(name, Action::Error);
        let id = world.migrate_with_hook("target").await;
        orchestrator.reached(name).await;
        orchestrator.failpoints.disarm();
        assert_eq!(
            judge(&world, &id).await,
            MigrationState::Succeeded,
            "after {name}"
        );
        let back = world.rollback().await;
        world.succeeds(&back).await;
        orchestrator.stop().await;
    }
}

/// What a leader was about to write when it froze, written after its lease has ended and another one
/// leads.
async fn a_frozen_leader_can_write_nothing_any_more(world: World) {
    let _plane = world.plane("dp-1").await;
    let first = world.orchestrator("cp-1");
    first.failpoints.arm("flipped.before", Action::Halt);
    let id = world.migrate("target").await;
    first.reached("flipped.before").await;
    let state = world.state().await;
    let of = Move::of(&state, &id).unwrap();
    let frozen = TransitionWriter {
        random: &world.random,
        token: state.leader().unwrap().1,
        now: wall_clock::now(),
        notes: &Notes::default(),
    };
    first.kill().await;
    world.leader_lease_ends().await;
    let second = world.orchestrator_up_to("cp-2", "flipped.before");
    second.reached("flipped.before").await;

    for txn in [frozen.flip(&state, &of), frozen.abort(&state, &of, vec![])] {
        let outcome = world.store.transact(txn).await.unwrap();
        assert!(matches!(outcome, TxnOutcome::Conflict { .. }));
    }
    assert_eq!(world.alice().await.phase, Phase::Quiesced);
    second.kill().await;
    world.leader_lease_ends().await;
    let _third = world.orchestrator("cp-3");
    assert_eq!(judge(&world, &id).await, MigrationState::Succeeded);
}

async fn flip_and_abort_compete_for_one_epoch(world: World) {
    let _plane = world.plane("dp-1").await;
    for flip_first in [true, false] {
        let orchestrator = world.orchestrator("cp-1");
        orchestrator.failpoints.arm("flipped.before", Action::Halt);
        let id = world.migrate("target").await;
        orchestrator.reached("flipped.before").await;
        let state = world.state().await;
        let of = Move::of(&state, &id).unwrap();
        let pen = TransitionWriter {
            random: &world.random,
            token: state.leader().unwrap().1,
            now: wall_clock::now(),
            notes: &Notes::default(),
        };
        let mut txns = [pen.flip(&state, &of), pen.abort(&state, &of, vec![])];
        if !flip_first {
            txns.reverse();
        }
        let [first, second] = txns;
        assert!(
            world
                .store
                .transact(first)
                .await
                .unwrap()
                .committed()
                .is_some()
        );
        assert!(
            world
                .store
                .transact(second)
                .await
                .unwrap()
                .committed()
                .is_none()
        );
        orchestrator.kill().await;
        world.leader_lease_ends().await;
        let next = world.orchestrator("cp-2");
        let outcome = judge(&world, &id).await;
        assert_eq!(outcome == MigrationState::Succeeded, flip_first);
        if flip_first {
            let back = world.rollback().await;
            world.succeeds(&back).await;
        }
        next.stop().await;
    }
}

async fn two_candidates_drive_one_move_once(world: World) {
    let _plane = world.plane("dp-1").await;
    let both = [world.orchestrator("cp-1"), world.orchestrator("cp-2")];
    let id = world.migrate("target").await;
    world.succeeds(&id).await;
    let flips = both
        .iter()
        .flat_map(|orchestrator| orchestrator.failpoints.passed())
        .filter(|name| *name == "flipped.after")
        .count();
    assert_eq!(flips, 1);
    // The one that led ends, and the other one goes on.
    let leader = world.state().await.leader().unwrap().0.clone();
    let [first, second] = both;
    let (leads, waits) = match leader.as_str() {
        "cp-1" => (first, second),
        _ => (second, first),
    };
    leads.stop().await;
    let back = world.rollback().await;
    world.succeeds(&back).await;
    waits.stop().await;
    let (leader, _) = world.store.get(keys::LEADER).await.unwrap();
    assert_eq!(leader, None);
}
