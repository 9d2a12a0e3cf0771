//! A restore that is resolved while whoever resolves it dies, fails, or is not the only one, on real stores.

mod plane;
mod world;

use super::Keep;
use crate::{
    failpoint::{Action, OF_A_RESTORE},
    refusal::Reason,
    store::testing::on_both_stores,
    wall_clock,
};
use prost_types::Timestamp;
use world::{MOVED, STAYED, World, eventually, pause_at, reached};

on_both_stores! {
    the_fleets_word_survives_the_death_of_its_replica_at_every_step,
    the_stores_word_survives_the_death_of_its_replica_at_every_step,
    a_proof_survives_the_death_of_its_replica,
    a_resolution_survives_the_failure_of_every_step,
    who_came_before_the_proof_holds_at_once_what_others_have_in_doubt,
    nothing_is_written_before_every_data_plane_holds_what_is_in_doubt,
    what_was_decided_on_first_is_kept_and_the_other_is_told,
    the_stores_word_that_ends_first_counts_and_the_other_is_told,
    who_is_refused_its_place_holds_a_decision_up,
    two_of_one_mind_are_one_decision,
    what_a_data_plane_that_is_gone_was_decided_for_is_read_before_it_is_decided_anew,
}

/// The steps of a call that keeps this word.
fn passed_by(keep: Keep) -> impl Iterator<Item = &'static str> {
    OF_A_RESTORE.iter().copied().filter(move |name| match keep {
        Keep::Fleet => !name.starts_with("rewound"),
        Keep::Store => name.starts_with("resolved"),
    })
}

/// A replica dies at the step, and the next one is called again.
async fn dies_at(world: &mut World, name: &'static str, keep: Keep) {
    let first = world.replica("cp-1").await;
    world.found_out(&first).await;
    first.failpoints.arm(name, Action::Halt);
    let mut order = first.order(keep).await;
    order.request_id = format!("at {name}");
    let call = first.resolving(order.clone());
    reached(&first.failpoints, name).await;
    first.dies(world, [call]).await;

    let second = world.replica("cp-2").await;
    if name != "resolved.after" {
        second.compared().await;
    }
    let (_, resolved) = second.restore.resolve(&order).await.unwrap();
    assert_eq!(resolved.base, 1, "after {name}");
    world.judge(&second, keep).await;
    let (_, again) = second.restore.resolve(&order).await.unwrap();
    assert_eq!(again, resolved, "the request id is known");
}

async fn the_fleets_word_survives_the_death_of_its_replica_at_every_step(world: World) {
    for name in passed_by(Keep::Fleet) {
        dies_at(&mut world.another().await, name, Keep::Fleet).await;
    }
}

async fn the_stores_word_survives_the_death_of_its_replica_at_every_step(world: World) {
    for name in passed_by(Keep::Store) {
        dies_at(&mut world.another().await, name, Keep::Store).await;
    }
}

async fn a_proof_survives_the_death_of_its_replica(world: World) {
    for name in ["rewound.before", "rewound.after"] {
        let mut world = world.another().await;
        let first = world.replica("cp-1").await;
        first.failpoints.arm(name, Action::Halt);
        world.comes_later(&first).await;
        world.remembers(&first);
        reached(&first.failpoints, name).await;
        first.dies(&world, []).await;
        let second = world.replica("cp-2").await;
        second.compared().await;
        let order = second.order(Keep::Fleet).await;
        second.restore.resolve(&order).await.unwrap();
        world.judge(&second, Keep::Fleet).await;
    }
}

async fn a_resolution_survives_the_failure_of_every_step(world: World) {
    for keep in [Keep::Fleet, Keep::Store] {
        for name in passed_by(keep) {
            let mut world = world.another().await;
            let replica = world.replica("cp-1").await;
            world.found_out(&replica).await;
            replica.failpoints.arm(name, Action::Error);
            let mut order = replica.order(keep).await;
            order.request_id = format!("at {name}");
            let failed = replica.restore.resolve(&order).await.unwrap_err();
            assert_eq!(failed.reason, Reason::Internal, "{name}");
            replica.failpoints.disarm();
            let (_, resolved) = replica.restore.resolve(&order).await.unwrap();
            assert_eq!(resolved.base, 1, "after {name}");
            world.judge(&replica, keep).await;
        }
    }
}

/// Without it the two served one account on both sides until an operator came.
async fn who_came_before_the_proof_holds_at_once_what_others_have_in_doubt(mut world: World) {
    let replica = world.replica("cp-1").await;
    replica.keeps_apart();
    world.found_out(&replica).await;
    let sent = |home: &str| Some(home.to_owned());
    for name in MOVED {
        let apart = || (world.sends(name) == [sent("target"), None]).then_some(());
        eventually(name, apart).await;
    }
    assert_eq!(world.sends(STAYED), [sent("source"), sent("source")]);
    let order = replica.order(Keep::Fleet).await;
    replica.restore.resolve(&order).await.unwrap();
    world.judge(&replica, Keep::Fleet).await;
}

async fn nothing_is_written_before_every_data_plane_holds_what_is_in_doubt(mut world: World) {
    let replica = world.replica("cp-1").await;
    world.found_out(&replica).await;
    let go_on = pause_at(&replica.failpoints, "chosen.before");
    let call = replica.resolving(replica.order(Keep::Fleet).await);
    reached(&replica.failpoints, "chosen.before").await;
    assert!(world.holds());
    go_on.now();
    call.await.unwrap().unwrap();
    world.judge(&replica, Keep::Fleet).await;
}

async fn what_was_decided_on_first_is_kept_and_the_other_is_told(mut world: World) {
    let replica = world.replica("cp-1").await;
    world.found_out(&replica).await;
    // Both have asked, held and waited before either writes.
    let (other, others) = replica.beside();
    let store_goes_on = pause_at(&others, "resolved.before");
    let order = replica.order(Keep::Store).await;
    let store = tokio::spawn({
        let (other, order) = (other.clone(), order.clone());
        async move { other.resolve(&order).await }
    });
    reached(&others, "resolved.before").await;
    let fleet_goes_on = pause_at(&replica.failpoints, "resolving.after");
    let fleet = replica.resolving(replica.order(Keep::Fleet).await);
    reached(&replica.failpoints, "resolving.after").await;
    store_goes_on.now();
    let told = store.await.unwrap().unwrap_err();
    assert_eq!(told.reason, Reason::DecidedOtherwise, "{told}");
    // Also who reads the list anew does not mix two decisions.
    let order = replica.order(Keep::Store).await;
    let told = other.resolve(&order).await.unwrap_err();
    assert_eq!(told.reason, Reason::DecidedOtherwise, "{told}");
    fleet_goes_on.now();
    fleet.await.unwrap().unwrap();
    world.judge(&replica, Keep::Fleet).await;
    let told = other.resolve(&order).await.unwrap_err();
    assert_eq!(told.reason, Reason::NotRewound, "{told}");
}

async fn the_stores_word_that_ends_first_counts_and_the_other_is_told(mut world: World) {
    let replica = world.replica("cp-1").await;
    world.found_out(&replica).await;
    let (other, others) = replica.beside();
    let fleet_goes_on = pause_at(&others, "chosen.before");
    let order = replica.order(Keep::Fleet).await;
    let fleet = tokio::spawn(async move { other.resolve(&order).await });
    reached(&others, "chosen.before").await;
    let order = replica.order(Keep::Store).await;
    replica.restore.resolve(&order).await.unwrap();
    fleet_goes_on.now();
    let told = fleet.await.unwrap().unwrap_err();
    assert_eq!(told.reason, Reason::NotRewound, "{told}");
    world.judge(&replica, Keep::Store).await;
}

/// A gateway whose host was replaced after the backup: the restored store knows the old one, so the new one is refused,
/// and goes on serving what it has acknowledged.
async fn who_is_refused_its_place_holds_a_decision_up(mut world: World) {
    let replica = world.replica("cp-1").await;
    world.found_out(&replica).await;
    let order = replica.order(Keep::Fleet).await;
    world
        .claims_a_place(&replica, "came-later", wall_clock::now())
        .await;
    let refused = replica.restore.resolve(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::DataPlaneSilent, "{refused}");
    assert!(refused.message.contains("asks for its place"), "{refused}");
    // One that asks no more is gone.
    world
        .claims_a_place(&replica, "came-later", Timestamp::default())
        .await;
    replica.restore.resolve(&order).await.unwrap();
    world.judge(&replica, Keep::Fleet).await;
}

/// An operator who has lost patience calls again while the first call goes on.
async fn two_of_one_mind_are_one_decision(mut world: World) {
    let replica = world.replica("cp-1").await;
    world.found_out(&replica).await;
    let (other, others) = replica.beside();
    let first_goes_on = pause_at(&others, "resolving.after");
    let order = replica.order(Keep::Fleet).await;
    let first = tokio::spawn({
        let order = order.clone();
        async move { other.resolve(&order).await }
    });
    reached(&others, "resolving.after").await;
    replica.restore.resolve(&order).await.unwrap();
    first_goes_on.now();
    let told = first.await.unwrap().unwrap_err();
    assert_eq!(told.reason, Reason::NotRewound, "{told}");
    world.judge(&replica, Keep::Fleet).await;
}

/// One record is written by its word when it is gone for good. What is left says something else of that record
/// alone, so nothing may be decided unread.
async fn what_a_data_plane_that_is_gone_was_decided_for_is_read_before_it_is_decided_anew(
    mut world: World,
) {
    let first = world.replica("cp-1").await;
    world.found_out(&first).await;
    first.failpoints.arm("resolving.after", Action::Halt);
    let call = first.resolving(first.order(Keep::Fleet).await);
    reached(&first.failpoints, "resolving.after").await;
    first.dies(&world, [call]).await;

    world.remembers = None;
    let second = world.replica("cp-2").await;
    second.expels(&world, "remembers").await;
    second.compared_by(1).await;
    for keep in [Keep::Fleet, Keep::Store] {
        let mut order = second.order(keep).await;
        order.digest.clear();
        let refused = second.restore.resolve(&order).await.unwrap_err();
        assert_eq!(refused.reason, Reason::DigestMismatch, "{refused}");
    }
    let order = second.order(Keep::Store).await;
    second.restore.resolve(&order).await.unwrap();
}
