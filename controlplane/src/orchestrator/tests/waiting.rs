//! Moves that wait unfenced, and moves that are given up.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    DestinationId, Phase,
    store::v1::{Departed, Expelled, LiveRejected},
    v1::{self, Blocker, BlockerReason},
};

use super::{
    on_both_stores,
    plane::{Drains, HOLD, Plane, limits},
    world::{PATIENCE, World},
};
use crate::{
    domain::queue,
    metrics::{Operation, STORE, StoreAnswer, TABLE},
    store::{keys, metered::MeteredStore, value::Stored},
};
use ferrypost_runtime::metrics::Metrics;

on_both_stores! {
    without_a_data_plane_nothing_is_fenced,
    a_silent_data_plane_holds_a_move_back_unfenced,
    whatever_stands_in_the_way_is_shown,
    a_succession_is_waited_out,
    an_expel_is_waited_out_and_said_to_be_settled,
    a_session_that_will_not_drain_aborts_the_move_at_its_window,
    a_close_that_nobody_saw_aborts_the_move,
    a_fence_whose_data_plane_was_restarted_is_given_up_at_once,
    a_close_that_was_not_seen_lately_is_waited_for_unfenced,
    a_limit_that_does_not_fit_the_window_is_waited_for_unfenced,
    an_operator_ends_a_move,
    only_so_many_accounts_are_fenced_at_once,
    nothing_moves_in_a_restored_store,
    ends_are_not_written_down_while_rewound_and_the_leader_rests,
}

async fn without_a_data_plane_nothing_is_fenced(world: World) {
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world.waits_for(&id, &[BlockerReason::NoDataPlane]).await;
    let _plane = world.plane("dp-1").await;
    world.succeeds(&id).await;
}

async fn a_silent_data_plane_holds_a_move_back_unfenced(world: World) {
    let _speaks = world.plane("dp-1").await;
    let silent = world.plane("dp-2").await;
    silent.behave(|b| b.answers = false);
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world
        .waits_for(&id, &[BlockerReason::DataPlaneSilent])
        .await;
    let migration = world.state().await.migration(&id).unwrap().clone();
    assert_eq!(migration.value.blockers[0].who, "dp-2");
    silent.behave(|b| b.answers = true);
    let ended = world.succeeds(&id).await;
    assert!(ended.blockers.is_empty());
}

async fn whatever_stands_in_the_way_is_shown(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.unreachable = vec!["target", "elsewhere"]);
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world
        .waits_for(&id, &[BlockerReason::DestinationUnreachable])
        .await;
    let alice = world.alice().await.account;
    plane.behave(|b| {
        b.unreachable.clear();
        b.rejects = vec![LiveRejected {
            account_id: alice.as_str().to_owned(),
            reason: "REJECT_REASON_BAD_NAME".to_owned(),
        }];
    });
    world.waits_for(&id, &[BlockerReason::EntryRejected]).await;
    plane.behave(|b| b.rejects.clear());
    world.succeeds(&id).await;

    plane.behave(|b| b.applies = false);
    let id = world.rollback().await;
    world.waits_for(&id, &[BlockerReason::NotApplied]).await;
    plane.behave(|b| b.applies = true);
    world.succeeds(&id).await;
}

async fn a_succession_is_waited_out(world: World) {
    let old = world.plane("dp-1").await;
    old.behave(|b| b.answers = false);
    let _new = Plane::register_after(&world, "dp-1", Some(&old.boot), |_| ()).await;
    let orchestrator = world.orchestrator_with("cp-1", |options| {
        options.settle = Duration::from_mins(10);
    });
    let id = world.migrate("target").await;
    world.waits_for(&id, &[BlockerReason::Settling]).await;
    orchestrator.stop().await;
    // Only the next leader's own clock counts.
    let _orchestrator = world.orchestrator("cp-2");
    world.succeeds(&id).await;
}

async fn an_expel_is_waited_out_and_said_to_be_settled(world: World) {
    let _stays = world.plane("dp-1").await;
    let dead = world.plane("dp-2").await;
    let expelled = Expelled {
        expelled_by: "operator".to_owned(),
        reason: "its disk is gone".to_owned(),
        ..Expelled::default()
    };
    let key = keys::expelled(&dead.instance, &dead.boot);
    dead.leave(&world, |txn| txn.put(key, Stored::new(expelled).bytes()))
        .await;
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world.succeeds(&id).await;
    let state = world.state().await;
    let expelled = &state.expelled()[&(dead.instance, dead.boot)].value;
    assert!(expelled.settled);
    assert_eq!(
        expelled.reason, "its disk is gone",
        "who, when and why stay"
    );
}

async fn a_session_that_will_not_drain_aborts_the_move_at_its_window(mut world: World) {
    let long = std::mem::replace(&mut world.window, Duration::from_millis(500));
    let _drains = world.plane("dp-1").await;
    let busy = world.plane("dp-2").await;
    busy.behave(|b| b.drains = Drains::Left(3));
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    let (phase, reasons) = world.aborts(&id).await;
    assert_eq!(phase, Phase::Fencing);
    // The other data plane may not have come to its report in half a second either.
    let only_that = |reason: &BlockerReason| *reason == BlockerReason::NotDrained;
    assert!(
        !reasons.is_empty() && reasons.iter().all(only_that),
        "{reasons:?}"
    );
    let alice = world.alice().await;
    assert_eq!((alice.phase, alice.target), (Phase::Settled, None));
    assert_eq!(alice.home, DestinationId::parse("source").unwrap());
    assert_eq!(alice.previous_home, None);

    // The account may be moved again.
    world.window = long;
    busy.behave(|b| b.drains = Drains::Yes);
    let id = world.migrate("target").await;
    world.succeeds(&id).await;
}

async fn a_close_that_nobody_saw_aborts_the_move(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.drains = Drains::Unconfirmed(1));
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    let cause = world.aborts(&id).await;
    assert_eq!(
        cause,
        (Phase::Fencing, vec![BlockerReason::CloseUnconfirmed])
    );
}

/// The settle time is longer than what is left of the window, and either is longer than this test waits: nobody
/// waits for the end of it.
async fn a_fence_whose_data_plane_was_restarted_is_given_up_at_once(mut world: World) {
    world.window = 5 * PATIENCE;
    let dies = world.plane("dp-1").await;
    dies.behave(|b| b.drains = Drains::No);
    let _orchestrator = world.orchestrator_with("cp-1", |options| {
        options.settle = 10 * PATIENCE;
    });
    let id = world.migrate("target").await;
    world.reaches(Phase::Fencing).await;
    dies.behave(|b| b.answers = false);
    let _successor = Plane::register_after(&world, "dp-1", Some(&dies.boot), |_| ()).await;
    let cause = world.aborts(&id).await;
    assert_eq!(cause, (Phase::Fencing, vec![BlockerReason::Settling]));
}

/// It would be counted in the fence, which would come to nothing, again and again.
async fn a_close_that_was_not_seen_lately_is_waited_for_unfenced(world: World) {
    let plane = world.plane("dp-1").await;
    let _orchestrator = world.orchestrator("cp-1");
    let first = world.migrate("target").await;
    world.succeeds(&first).await;
    let alice = world.alice().await.account.as_str().to_owned();
    plane.behave(|b| b.unsettled = vec![alice]);
    world
        .eventually("the word of the data plane", |state| {
            let live = state.live().get(&plane.instance)?;
            (!live.value.unsettled.is_empty()).then_some(())
        })
        .await;
    let id = world.rollback().await;
    world
        .waits_for(&id, &[BlockerReason::CloseUnconfirmed])
        .await;
    // Whoever is not concerned goes before.
    let other = world.ask("bob@example.org", Some("target"), false).await;
    world.succeeds(&other).await;
    plane.behave(|b| b.unsettled.clear());
    let ended = world.succeeds(&id).await;
    assert_eq!(ended.attempts, 1, "one wait, and one fence");
}

async fn a_limit_that_does_not_fit_the_window_is_waited_for_unfenced(world: World) {
    let plane = world.plane("dp-1").await;
    plane.limit(&world, Some(limits(3))).await;
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world.waits_for(&id, &[BlockerReason::Limits]).await;
    let migration = world.state().await.migration(&id).unwrap().clone();
    let blocker = &migration.value.blockers[0];
    assert_eq!(blocker.who, "dp-1");
    assert!(
        blocker.message.contains("limits.hold.timeout"),
        "{blocker:?}"
    );
    plane.limit(&world, None).await;
    world
        .eventually("what it does not say", |state| {
            let blockers = &state.migration(&id)?.value.blockers;
            blockers[0].message.contains("upgrade").then_some(())
        })
        .await;
    plane.limit(&world, Some(limits(HOLD))).await;
    world.succeeds(&id).await;
}

async fn an_operator_ends_a_move(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.answers = false);
    let _orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world
        .waits_for(&id, &[BlockerReason::DataPlaneSilent])
        .await;
    world.abort(&id).await;
    let cause = world.aborts(&id).await;
    assert_eq!(cause, (Phase::Copying, vec![BlockerReason::Operator]));

    plane.behave(|b| {
        b.answers = true;
        b.drains = Drains::No;
    });
    let id = world.migrate("target").await;
    world.reaches(Phase::Fencing).await;
    world.abort(&id).await;
    let cause = world.aborts(&id).await;
    assert_eq!(cause, (Phase::Fencing, vec![BlockerReason::Operator]));
}

async fn only_so_many_accounts_are_fenced_at_once(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.drains = Drains::No);
    let _orchestrator = world.orchestrator_with("cp-1", |options| options.fence_budget = 2);
    let mut moves = Vec::new();
    for n in 0..5 {
        moves.push(
            world
                .ask(&format!("user{n}@example.org"), Some("target"), false)
                .await,
        );
    }
    world
        .eventually("two fences and three that wait", |state| {
            let waiting = moves.iter().filter(|id| {
                let migration = state.migration(id).expect("it is there");
                let waits = migration.value.phase() == v1::Phase::Copying;
                let shown = queue::waits_for(state, &migration.value, 2);
                let reasons: Vec<_> = shown.iter().map(Blocker::reason).collect();
                waits && reasons == [BlockerReason::FenceBudget]
            });
            assert!(state.counts().fenced() <= 2);
            (state.counts().fenced() == 2 && waiting.count() == 3).then_some(())
        })
        .await;
    plane.behave(|b| b.drains = Drains::Yes);
    for id in &moves {
        world.succeeds(id).await;
    }
}

async fn nothing_moves_in_a_restored_store(mut world: World) {
    world.window = Duration::from_secs(2);
    let _plane = world.plane("dp-1").await;
    let orchestrator = world.orchestrator("cp-1");
    let go_on = orchestrator.pause_at("quiesced.before");
    let id = world.migrate("target").await;
    orchestrator.reached("quiesced.before").await;
    world.rewind().await;
    let frozen = world.alice().await;
    assert_eq!(frozen.phase, Phase::Fencing);
    go_on.now();
    // The window ends, and still nothing is written.
    tokio::time::sleep(world.window + Duration::from_millis(200)).await;
    assert_eq!(world.alice().await, frozen);
    world
        .commit(crate::store::Txn::new().delete(keys::REWOUND))
        .await;
    let (phase, _) = world.aborts(&id).await;
    assert_eq!(phase, Phase::Fencing, "its window was over long ago");
}

async fn ends_are_not_written_down_while_rewound_and_the_leader_rests(world: World) {
    let plane = world.plane("dp-1").await;
    let key = keys::departed(&plane.instance, &plane.boot);
    let end = Stored::new(Departed::default());
    plane.leave(&world, |txn| txn.put(key, end.bytes())).await;
    world.rewind().await;
    let metrics = Arc::new(Metrics::new(TABLE));
    let measured = MeteredStore::new(world.store.clone(), Arc::clone(&metrics));
    let _orchestrator = world.orchestrator_over("cp-1", Arc::new(measured));
    // Three settle times: what is absent then was not tried.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let refused = [
        Operation::Transact.into_str(),
        StoreAnswer::Conflict.into_str(),
    ];
    assert_eq!(metrics.histogram(&STORE, &refused).count(), 0);
    assert!(!world.state().await.departed().is_empty());
    world
        .commit(crate::store::Txn::new().delete(keys::REWOUND))
        .await;
    world
        .eventually("it is settled", |state| {
            state.departed().is_empty().then_some(())
        })
        .await;
}
