//! Networks that are cut, and processes that stand still, at the worst moments of a move.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::path::PathBuf;

use ferrypost_proto::v1::{BlockerReason, Migration, MigrationState, Phase};
use ferrypost_tests::story::{
    SOON, data_plane, data_planes, landing, migrate, migration, migration_until, move_to,
    placement, roll_back, session, short_limits,
};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Builder, Operator, StoreKind, Traffic, World};
use prost_types::Duration as Wait;
use tokio::time::timeout;

const FAILPOINTS: &str = "FERRYPOST_FAILPOINTS";

/// Moves without a hook: what is slow in these stories is on purpose.
fn world() -> Builder {
    World::builder()
        .limits(short_limits())
        .delta_hook(false)
        .links()
}

fn replicated() -> Builder {
    world().store(StoreKind::Etcd).control_planes(2)
}

/// What a replica logs when its time as the leader begins.
const LEADS: &[&str] = &["this replica drives migrations now"];

/// Asks for a move and does not wait for it.
async fn begin(operator: &Operator, account: &str) -> Migration {
    let mut request = move_to(account, "target");
    request.wait = Some(Wait::default());
    migrate(operator, request).await.unwrap()
}

fn succeeded(migration: &Migration) -> bool {
    migration.state() == MigrationState::Succeeded
}

/// Moves an account, and logs it in on its new home through every data plane.
async fn goes_on(world: &World, operator: &Operator, account: &str) {
    let moved = begin(operator, account).await;
    migration_until(operator, &moved.migration_id, "it goes on", succeeded)
        .await
        .unwrap();
    for data_plane in 0..world.data_planes().len() {
        let landed = landing(&world.imaps(data_plane), account, world.password()).await;
        assert_eq!(landed.unwrap(), "target");
    }
}

/// The first replica leads, and stops before it flips until the file exists.
async fn stops_before_the_flip(world: &mut World) -> PathBuf {
    let file = world.folder().join("go on");
    let pause = format!("flipped.before=pause({})", file.display());
    world.control_plane(1).kill();
    world.control_plane(0).kill();
    let log = world.control_plane(0).log();
    let before = log.lines_with(LEADS).len();
    world.control_plane(0).set_env(FAILPOINTS, &pause);
    world.control_plane(0).start().unwrap();
    // By its own word: the store names a leader until its lease ends, and it may have been this one before.
    eventually("the first replica leads", SOON, || {
        let terms = log.lines_with(LEADS).len();
        std::future::ready(if terms > before { Ok(()) } else { Err(terms) })
    })
    .await
    .unwrap();
    world.control_plane(1).start().unwrap();
    world.wait_for_leader(1).await.unwrap();
    all_connected(world, 1).await;
    file
}

async fn all_connected(world: &World, replica: usize) {
    let operator = world.operator(replica);
    let planes = u32::try_from(world.data_planes().len()).unwrap();
    eventually("every data plane is connected", SOON, || async {
        let stats = operator.get_stats().await.map_err(|it| it.to_string())?;
        if stats.data_planes_connected == planes {
            Ok(())
        } else {
            Err(format!("{stats:?}"))
        }
    })
    .await
    .unwrap();
}

/// How a leader loses touch.
#[derive(Debug, Clone, Copy)]
enum Absence {
    /// It stands still.
    Frozen,
    /// What it writes arrives later.
    Stalled,
}

/// A leader decides to flip, and its write comes when others have long moved the account there and back.
async fn decides_late(absence: Absence) {
    let mut world = replicated().start().await.unwrap();
    let file = stops_before_the_flip(&mut world).await;
    let account = world.accounts()[0].clone();
    let (old, new) = (world.operator(0), world.operator(1));
    let there = begin(&old, &account).await;
    let quiesced = |it: &Migration| it.phase() == Phase::Quiesced;
    migration_until(&new, &there.migration_id, "it stops", quiesced)
        .await
        .unwrap();

    match absence {
        Absence::Frozen => world.control_plane(0).freeze().unwrap(),
        Absence::Stalled => {
            let link = world.control_planes()[0].store_link().unwrap();
            link.set(Traffic::Stalls);
        }
    }
    std::fs::write(&file, "").unwrap();
    migration_until(
        &new,
        &there.migration_id,
        "the next leader flips",
        succeeded,
    )
    .await
    .unwrap();
    let back = timeout(SOON, roll_back(&new, &account)).await;
    let back = back.expect("the way back is open").unwrap();
    assert!(succeeded(&back));

    match absence {
        Absence::Frozen => world.control_plane(0).resume().unwrap(),
        Absence::Stalled => {
            let link = world.control_planes()[0].store_link().unwrap();
            link.set(Traffic::Flows);
        }
    }
    // It has caught up, and whatever it had to say has been said and refused.
    world.wait_for_leader(0).await.unwrap();
    all_connected(&world, 0).await;
    let settled = |it: &Migration| it.ended_at.is_some();
    for id in [&there.migration_id, &back.migration_id] {
        let ended = migration_until(&old, id, "it has ended", settled).await;
        assert!(succeeded(&ended.unwrap()), "{absence:?}");
        assert!(
            succeeded(&migration(&new, id).await.unwrap()),
            "{absence:?}"
        );
    }
    for operator in [&old, &new] {
        let placed = placement(operator, &account).await.unwrap();
        assert_eq!(placed.destination, "source", "{absence:?}");
    }
    for data_plane in 0..world.data_planes().len() {
        let landed = landing(&world.imaps(data_plane), &account, world.password()).await;
        assert_eq!(landed.unwrap(), "source", "{absence:?}");
    }
}

#[tokio::test]
async fn a_leader_that_sleeps_past_its_lease_changes_nothing_when_it_wakes() {
    decides_late(Absence::Frozen).await;
}

#[tokio::test]
async fn a_leaders_write_that_arrives_after_its_successors_changes_nothing() {
    decides_late(Absence::Stalled).await;
}

/// It tells its data planes that it is there, and cannot tell anybody what they say.
#[tokio::test]
async fn a_replica_that_has_lost_its_store_does_not_keep_its_data_planes() {
    let mut world = replicated().start().await.unwrap();
    let account = world.accounts()[0].clone();
    // Both data planes at the first replica.
    for data_plane in world.data_planes() {
        data_plane.link(1).unwrap().set(Traffic::Broken);
    }
    // Only the replica that serves a stream knows this of it.
    let first = world.operator(0);
    eventually("the first replica serves all streams", SOON, || async {
        let planes = data_planes(&first).await.map_err(|it| it.to_string())?;
        if planes.data_planes.iter().all(|it| it.applied.is_some()) {
            Ok(())
        } else {
            Err(format!("{planes:?}"))
        }
    })
    .await
    .unwrap();
    for data_plane in world.data_planes() {
        data_plane.link(1).unwrap().set(Traffic::Flows);
    }
    let lost = world.control_planes()[0].store_link().unwrap();
    lost.set(Traffic::Stalls);
    world.wait_for_leader(1).await.unwrap();
    let operator = world.operator(1);
    goes_on(&world, &operator, &account).await;
}

#[tokio::test]
async fn a_data_plane_that_loses_one_replica_goes_on_with_the_other() {
    let world = replicated().start().await.unwrap();
    let account = world.accounts()[0].clone();
    for data_plane in world.data_planes() {
        data_plane.link(0).unwrap().set(Traffic::Stalls);
    }
    let operator = world.operator(0);
    goes_on(&world, &operator, &account).await;
}

#[tokio::test]
async fn a_data_plane_that_is_cut_off_serves_on_and_moves_wait_unfenced() {
    let world = world().start().await.unwrap();
    let operator = world.operator(0);
    let (account, password) = (world.accounts()[0].clone(), world.password().to_owned());
    let link = world.data_planes()[1].link(0).unwrap();
    let mut client = session(&world.imaps(1), &account, &password).await.unwrap();
    link.set(Traffic::Stalls);
    let moved = begin(&operator, &account).await;
    let id = &moved.migration_id;
    migration_until(&operator, id, "it names who is missing", |it| {
        let blockers = &it.blockers;
        blockers.iter().any(|blocker| {
            blocker.who == "gateway-2" && blocker.reason() == BlockerReason::DataPlaneSilent
        })
    })
    .await
    .unwrap();
    assert_eq!(
        migration(&operator, id).await.unwrap().phase(),
        Phase::Copying
    );
    client.noop().await.unwrap().accepted().unwrap();
    for data_plane in 0..2 {
        let landed = landing(&world.imaps(data_plane), &account, &password).await;
        assert_eq!(landed.unwrap(), "source");
    }
    link.set(Traffic::Flows);
    migration_until(&operator, id, "it goes on", succeeded)
        .await
        .unwrap();
    for data_plane in 0..2 {
        let landed = landing(&world.imaps(data_plane), &account, &password).await;
        assert_eq!(landed.unwrap(), "target");
    }
}

/// It was frozen after it had said drained, and slept through the flip: it wakes with its fence up, and
/// admits nobody anywhere before it knows better.
#[tokio::test]
async fn a_data_plane_that_sleeps_through_the_flip_wakes_fenced() {
    let mut world = replicated().start().await.unwrap();
    let file = stops_before_the_flip(&mut world).await;
    let (account, password) = (world.accounts()[0].clone(), world.password().to_owned());
    let operator = world.operator(1);
    let _session = session(&world.imaps(1), &account, &password).await.unwrap();
    let moved = begin(&operator, &account).await;
    let quiesced = |it: &Migration| it.phase() == Phase::Quiesced;
    migration_until(&operator, &moved.migration_id, "it stops", quiesced)
        .await
        .unwrap();
    world.data_plane(1).freeze().unwrap();
    // A login that lies in its socket when it wakes.
    let late = tokio::spawn({
        let connect = world.imaps(1);
        let (account, password) = (account.clone(), password.clone());
        async move { landing(&connect, &account, &password).await }
    });
    std::fs::write(&file, "").unwrap();
    migration_until(&operator, &moved.migration_id, "it flips", succeeded)
        .await
        .unwrap();
    let landed = landing(&world.imaps(0), &account, &password).await;
    assert_eq!(landed.unwrap(), "target");
    // Long enough for its stream to be given up.
    eventually("it counts as silent", SOON, || async {
        match data_plane(&operator, "gateway-2").await {
            Ok(plane) if !plane.connected => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    world.data_plane(1).resume().unwrap();
    assert_eq!(late.await.unwrap().unwrap(), "target");
    world.wait_until_ready(1).await.unwrap();
    let landed = landing(&world.imaps(1), &account, &password).await;
    assert_eq!(landed.unwrap(), "target");
}
