//! Moves that go through, and back.

use ferrypost_proto::{DestinationId, Phase, store::v1::Departed, v1};

use super::{
    on_both_stores,
    plane::{Behaviour, Drains, Plane},
    world::World,
};
use crate::{
    failpoint::Action,
    store::{keys, value::Stored},
};

on_both_stores! {
    a_move_goes_through_every_phase_and_back,
    the_names_of_a_new_account_are_written_with_the_start,
    the_next_move_may_begin_before_the_last_bookkeeping,
    a_data_plane_that_registers_during_the_fence_must_drain_too,
    a_flip_that_somebody_has_not_applied_is_not_released,
    a_goodbye_during_the_fence_lets_it_go_on,
    what_another_boot_has_reported_does_not_count,
}

fn destination(id: &str) -> DestinationId {
    DestinationId::parse(id).unwrap()
}

async fn a_move_goes_through_every_phase_and_back(world: World) {
    let _planes = [world.plane("dp-1").await, world.plane("dp-2").await];
    let orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    let migration = world.succeeds(&id).await;
    orchestrator.reached("settled.after").await;
    assert_eq!(
        orchestrator.failpoints.passed(),
        [
            "fencing.before",
            "fencing.after",
            "quiesced.before",
            "quiesced.after",
            "flipped.before",
            "flipped.after",
            "released.before",
            "released.after",
            "settled.before",
            "settled.after",
        ]
    );
    assert!(migration.held.is_some(), "one leader saw all of it");
    assert!(migration.ended_at.is_some());
    let alice = world.alice().await;
    assert_eq!(alice.home, destination("target"));
    assert_eq!(alice.previous_home, Some(destination("source")));
    assert_eq!((alice.phase, alice.target), (Phase::Settled, None));
    assert_eq!(alice.fence_epoch, None);
    assert_eq!(alice.migration_id, Some(id.clone()));
    world
        .eventually("the removal of the reports", |state| {
            state.drained(&id).is_none().then_some(())
        })
        .await;

    let back = world.rollback().await;
    let migration = world.succeeds(&back).await;
    assert_eq!(migration.kind(), v1::MigrationKind::Rollback);
    assert_eq!(
        (migration.source.as_str(), migration.target.as_str()),
        ("target", "source")
    );
    let home = world.alice().await;
    assert_eq!(home.home, destination("source"));
    assert_eq!(home.previous_home, Some(destination("target")));
    assert!(home.epoch > alice.epoch);
    orchestrator.stop().await;
    assert!(world.state().await.leader().is_none());
}

async fn the_names_of_a_new_account_are_written_with_the_start(world: World) {
    world.migrate("target").await;
    let alice = world.alice().await;
    assert_eq!(alice.phase, Phase::Copying);
    assert_eq!(
        alice.home,
        destination("source"),
        "nothing has changed where she goes"
    );
    let state = world.state().await;
    assert_eq!(state.account_of("alice@example.org"), Some(&alice.account));
    let stored = world
        .store
        .get(&keys::name("alice@example.org"))
        .await
        .unwrap();
    assert!(stored.0.is_some());
}

async fn the_next_move_may_begin_before_the_last_bookkeeping(world: World) {
    let plane = world.plane("dp-1").await;
    let orchestrator = world.orchestrator("cp-1");
    orchestrator.failpoints.arm("released.before", Action::Halt);
    let first = world.migrate("target").await;
    orchestrator.reached("released.before").await;
    let second = world.rollback().await;
    orchestrator.kill().await;
    world.leader_lease_ends().await;
    let _orchestrator = world.orchestrator("cp-2");
    world.succeeds(&first).await;
    world.succeeds(&second).await;
    assert_eq!(world.alice().await.home, destination("source"));
    drop(plane);
}

async fn a_data_plane_that_registers_during_the_fence_must_drain_too(world: World) {
    let first = world.plane("dp-1").await;
    first.behave(|b| b.drains = Drains::Left(1));
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world.reaches(Phase::Fencing).await;
    let second = world.plane("dp-2").await;
    second.behave(|b| b.drains = Drains::Left(1));
    world
        .eventually("the second one's word", |state| {
            state.drained(&id)?.get(&second.instance).map(drop)
        })
        .await;
    first.behave(|b| b.drains = Drains::Yes);
    world
        .eventually("the first one's report", |state| {
            let report = state.drained(&id)?.get(&first.instance)?;
            (report.value.accounts[0].fence_epoch != 0).then_some(())
        })
        .await;
    assert_eq!(world.alice().await.phase, Phase::Fencing);
    second.behave(|b| b.drains = Drains::Yes);
    world.succeeds(&id).await;
}

async fn a_flip_that_somebody_has_not_applied_is_not_released(world: World) {
    let _planes = [world.plane("dp-1").await];
    let late = world.plane("dp-2").await;
    let orchestrator = world.orchestrator("cp-1");
    let go_on = orchestrator.pause_at("flipped.before");
    let id = world.migrate("target").await;
    orchestrator.reached("flipped.before").await;
    late.behave(|b| b.applies = false);
    go_on.now();
    world.reaches(Phase::Flipped).await;
    // Somebody who expels it lets the move end.
    late.leave(&world, |txn| txn).await;
    world.succeeds(&id).await;
}

async fn a_goodbye_during_the_fence_lets_it_go_on(world: World) {
    let _stays = world.plane("dp-1").await;
    let leaves = world.plane("dp-2").await;
    leaves.behave(|b| b.drains = Drains::No);
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world.reaches(Phase::Fencing).await;
    let departed = Departed {
        unconfirmed: 2,
        ..Departed::default()
    };
    let key = keys::departed(&leaves.instance, &leaves.boot);
    leaves
        .leave(&world, |txn| txn.put(key, Stored::new(departed).bytes()))
        .await;
    // It has not seen all closes, so the settle time is waited out first.
    world.succeeds(&id).await;
    assert!(world.state().await.departed().is_empty());
}

async fn what_another_boot_has_reported_does_not_count(world: World) {
    let old = world.plane("dp-1").await;
    let orchestrator = world.orchestrator("cp-1");
    let go_on = orchestrator.pause_at("quiesced.before");
    let id = world.migrate("target").await;
    orchestrator.reached("quiesced.before").await;
    // The old boot has reported; the one that is registered now has not.
    old.behave(|b| {
        b.drains = Drains::No;
        b.answers = false;
    });
    let drains_nothing = |b: &mut Behaviour| b.drains = Drains::No;
    let new = Plane::register_after(&world, "dp-1", Some(&old.boot), drains_nothing).await;
    go_on.now();
    world
        .eventually("the settled succession", |state| {
            let registration = state.registrations().get(&new.instance)?;
            registration
                .value
                .unsettled_predecessor
                .is_empty()
                .then_some(())
        })
        .await;
    assert_eq!(world.alice().await.phase, Phase::Fencing);
    new.behave(|b| b.drains = Drains::Yes);
    world.succeeds(&id).await;
}
