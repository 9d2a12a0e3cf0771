//! What a move leaves behind in its record, however it ended and under however many leaders (G13).

use std::time::Duration;

use ferrypost_proto::v1::{
    BlockerReason, FenceEnd, FenceEvidence, MigrationEvidence, Phase, PhaseEvidence, WaitEvidence,
};

use super::{hooks::Scripted, on_both_stores, plane::Drains, world::World};
use crate::{failpoint::Action, hook::HookError};

on_both_stores! {
    a_flip_leaves_behind_who_did_what_when,
    an_abort_leaves_behind_why,
    a_change_of_leader_loses_no_evidence,
    a_wait_leaves_behind_what_it_was_for,
    the_time_without_a_leader_is_left_behind_too,
}

fn phases(fence: &FenceEvidence) -> Vec<Phase> {
    fence.phases.iter().map(PhaseEvidence::phase).collect()
}

fn time(of: Option<prost_types::Duration>) -> Duration {
    Duration::try_from(of.expect("a time")).unwrap()
}

fn wait(evidence: &MigrationEvidence, reason: BlockerReason) -> Option<&WaitEvidence> {
    evidence.waits.iter().find(|wait| wait.reason() == reason)
}

async fn a_flip_leaves_behind_who_did_what_when(world: World) {
    let _planes = [world.plane("dp-1").await, world.plane("dp-2").await];
    let _orchestrator = world.orchestrator_with_hook("cp-1", Scripted::that(Ok(())));
    let id = world.migrate_with_hook("target").await;
    let migration = world.succeeds(&id).await;
    let evidence = migration.evidence.unwrap();
    let [fence] = &evidence.fences[..] else {
        panic!("one fence: {evidence:?}");
    };
    assert_eq!(
        (fence.leader.as_str(), fence.end()),
        ("cp-1", FenceEnd::Flipped)
    );
    let expected = [
        Phase::Fencing,
        Phase::Quiesced,
        Phase::Delta,
        Phase::Flipped,
    ];
    assert_eq!(phases(fence), expected);
    let times: Vec<_> = fence.phases.iter().map(|phase| time(phase.after)).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(fence.phases.last().unwrap().after, migration.held);
    assert_eq!(fence.lasted, migration.held);
    assert!(fence.phases.iter().all(|phase| phase.at.is_some()));
    assert_eq!(fence.sessions_closed, 2, "one each");
    let said: Vec<_> = fence
        .data_planes
        .iter()
        .map(|it| it.instance.as_str())
        .collect();
    assert_eq!(said, ["dp-1", "dp-2"]);
    for plane in &fence.data_planes {
        assert!(plane.drained && plane.closed == 1 && plane.unconfirmed == 0);
        assert!(time(plane.after) <= times[1], "before QUIESCED");
    }
    let [hook] = &fence.hooks[..] else {
        panic!("one run: {fence:?}");
    };
    assert_eq!((hook.attempt, hook.failure.as_str()), (1, ""));
    assert!(hook.took.is_some());
}

async fn an_abort_leaves_behind_why(world: World) {
    let plane = world.plane("dp-1").await;
    plane.behave(|b| b.drains = Drains::Unconfirmed(3));
    let orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    let evidence = world.ended(&id).await.evidence.unwrap();
    let fence = &evidence.fences[0];
    assert_eq!(
        (fence.end(), phases(fence)),
        (FenceEnd::Aborted, vec![Phase::Fencing])
    );
    let said = &fence.data_planes[0];
    assert_eq!((said.drained, said.unconfirmed), (true, 3));
    orchestrator.stop().await;

    plane.behave(|b| b.drains = Drains::Yes);
    let fails = Scripted::that(Err(HookError::Code(3)));
    let _orchestrator = world.orchestrator_with_hook("cp-2", fails);
    let id = world.migrate_with_hook("target").await;
    let evidence = world.ended(&id).await.evidence.unwrap();
    let hook = &evidence.fences[0].hooks[0];
    assert!(hook.failure.contains("code 3"), "{hook:?}");
}

async fn a_change_of_leader_loses_no_evidence(world: World) {
    let _plane = world.plane("dp-1").await;
    let first = world.orchestrator("cp-1");
    first.failpoints.arm("flipped.before", Action::Halt);
    let id = world.migrate("target").await;
    first.reached("flipped.before").await;
    first.kill().await;
    world.leader_lease_ends().await;
    let _second = world.orchestrator("cp-2");
    let evidence = world.succeeds(&id).await.evidence.unwrap();
    let [lost, flipped] = &evidence.fences[..] else {
        panic!("two fences: {evidence:?}");
    };
    assert_eq!(
        (lost.leader.as_str(), lost.end()),
        ("cp-1", FenceEnd::Withdrawn)
    );
    assert_eq!(phases(lost), [Phase::Fencing, Phase::Quiesced]);
    assert_eq!((lost.lasted, lost.ended_at.is_some()), (None, true));
    assert!(
        lost.data_planes[0].drained,
        "the report is still there to be written down"
    );
    assert_eq!(
        (flipped.leader.as_str(), flipped.end()),
        ("cp-2", FenceEnd::Flipped)
    );
    assert!(wait(&evidence, BlockerReason::FenceWithdrawn).is_some());
}

async fn a_wait_leaves_behind_what_it_was_for(world: World) {
    let _speaks = world.plane("dp-1").await;
    let silent = world.plane("dp-2").await;
    silent.behave(|b| b.answers = false);
    let orchestrator = world.orchestrator("cp-1");
    let id = world.migrate("target").await;
    world
        .waits_for(&id, &[BlockerReason::DataPlaneSilent])
        .await;
    // The wait itself: what it took is to be found again.
    tokio::time::sleep(Duration::from_millis(300)).await;
    silent.behave(|b| b.answers = true);
    let evidence = world.succeeds(&id).await.evidence.unwrap();
    let waited = wait(&evidence, BlockerReason::DataPlaneSilent).expect("it says so");
    assert_eq!((waited.who.as_str(), waited.times), ("dp-2", 1));
    assert!(
        time(waited.time) >= Duration::from_millis(250),
        "{waited:?}"
    );
    orchestrator.stop().await;
}

async fn the_time_without_a_leader_is_left_behind_too(world: World) {
    let _plane = world.plane("dp-1").await;
    let asked = tokio::time::Instant::now();
    let id = world.migrate("target").await;
    // The wait itself: what it took is to be found again.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _orchestrator = world.orchestrator("cp-1");
    let evidence = world.succeeds(&id).await.evidence.unwrap();
    let queued = time(evidence.queued);
    assert!(queued >= Duration::from_millis(250), "{queued:?}");
    let longest = asked.elapsed();
    assert!(queued <= longest + Duration::from_secs(1), "{queued:?}");
}
