//! Many moves that wait for their turn.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ferrypost_proto::{
    store::v1::MigrationRecord,
    v1::{Blocker, BlockerReason, MigrationState},
};

use super::{on_both_stores, world::World};
use crate::domain::{queue, state::State};

on_both_stores! {
    the_work_of_a_move_does_not_grow_with_the_queue,
    what_waits_behind_another_moves_when_its_turn_comes,
    a_lane_that_is_held_back_holds_back_no_other,
    only_the_first_of_a_lane_is_written_for_what_all_wait_for,
}

/// Looks at moves for each of the next `moves` that flip.
async fn looks_a_move(world: &World, moves: u64) -> u64 {
    let flipped = |state: &State| {
        let counts = &state.counts().migrations;
        counts.get(&MigrationState::Succeeded).copied().unwrap_or(0)
    };
    let before = flipped(&world.state().await);
    let looks: Arc<AtomicU64> = Arc::default();
    let orchestrator = world.orchestrator_with("cp-1", |options| options.looks = looks.clone());
    world
        .eventually("the moves at the front", |state| {
            (flipped(state) >= before + moves).then_some(())
        })
        .await;
    let looks = looks.load(Ordering::Relaxed) / moves;
    orchestrator.stop().await;
    looks
}

async fn the_work_of_a_move_does_not_grow_with_the_queue(world: World) {
    for name in ["dp-1", "dp-2", "dp-3"] {
        world.plane(name).await;
    }
    world.queue(0..100).await;
    let few = looks_a_move(&world, 40).await;
    world.queue(100..1_100).await;
    assert!(world.state().await.moves().len() >= 1_000);
    let many = looks_a_move(&world, 40).await;
    assert!(few > 0);
    // Ten times as many moves wait; some more looks are chance, and those at what the first leader left behind.
    assert!(
        many <= 3 * few,
        "{few} looks a move with 100 in the queue, {many} with 1,000 more"
    );
}

async fn what_waits_behind_another_moves_when_its_turn_comes(world: World) {
    let _plane = world.plane("dp-1").await;
    let _orchestrator = world.orchestrator_with("cp-1", |options| options.fence_budget = 3);
    world.queue(0..60).await;
    world
        .eventually("the end of all", |state| {
            assert!(state.counts().fenced() <= 3);
            state.moves().is_empty().then_some(())
        })
        .await;
    let state = world.state().await;
    assert_eq!(state.counts().migrations[&MigrationState::Succeeded], 60);
    assert_eq!(state.counts().migrations.len(), 1);
}

async fn a_lane_that_is_held_back_holds_back_no_other(world: World) {
    let _plane = world.plane("dp-1").await;
    // This leader has no hook to run, and what needs one was asked for first.
    let held_back = world.migrate_with_hook("target").await;
    world.queue(0..30).await;
    let _orchestrator = world.orchestrator("cp-1");
    world
        .waits_for(&held_back, &[BlockerReason::HookFailed])
        .await;
    world
        .eventually("the end of all others", |state| {
            (state.moves().len() == 1).then_some(())
        })
        .await;
    assert!(world.state().await.migration(&held_back).is_some());
}

/// All see what they wait for; thousands of records are not written because one data plane is silent.
async fn only_the_first_of_a_lane_is_written_for_what_all_wait_for(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.unreachable = vec!["target"]);
    world
        .eventually("the word of the data plane", |state| {
            let live = state.live().get(&plane.instance)?;
            (live.value.endpoints.len() == 1).then_some(())
        })
        .await;
    let _orchestrator = world.orchestrator("cp-1");
    world.queue(0..60).await;
    let written = |state: &State| {
        let written = state.migrations().filter(|(_, m)| m.revision != m.created);
        written.count()
    };
    let waits = |state: &State, migration: &MigrationRecord| {
        let shown = queue::waits_for(state, migration, 20);
        let reasons: Vec<_> = shown.iter().map(Blocker::reason).collect();
        reasons == [BlockerReason::DestinationUnreachable]
    };
    world
        .eventually("one reason for all", |state| {
            assert!(written(state) <= 1);
            let all = state.migrations().all(|(_, m)| waits(state, &m.value));
            (written(state) == 1 && all).then_some(())
        })
        .await;
    plane.behave(|b| b.unreachable.clear());
    world
        .eventually("the end of all", |state| {
            state.moves().is_empty().then_some(())
        })
        .await;
}
