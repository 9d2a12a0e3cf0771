//! Moves that end where they began.

use ferrypost_proto::v1::{self, BlockerReason, MigrationState, Phase};
use tonic::Code;

use super::{migrate, moved};
use crate::api::{
    data_plane::{DataPlane, Manner},
    world::{ROUTING, SHORT_WINDOW, World, milliseconds, reason, refusal},
};

#[tokio::test]
async fn a_fence_that_is_not_drained_aborts_and_says_who() {
    let world = World::with(SHORT_WINDOW, ROUTING).await;
    let plane = DataPlane::join(
        &world,
        "dp-1",
        Manner {
            drains: false,
            ..Manner::default()
        },
    )
    .await;
    let (code, reason, metadata) = refusal(
        world
            .migrations()
            .migrate(migrate("alice@example.org", "target"))
            .await,
    );
    assert_eq!((code, &*reason), (Code::Aborted, "MIGRATION_ABORTED"));
    assert_eq!(metadata["who"], "dp-1");
    assert_eq!(metadata["cause"], "NOT_DRAINED");
    assert_eq!(metadata["phase"], "FENCING");
    let route = world.route("alice@example.org").await;
    assert_eq!(route.destination, "source");

    let wait = v1::WaitMigrationRequest {
        migration_id: metadata["migration"].clone(),
        wait: None,
    };
    assert_eq!(
        crate::api::world::reason(world.migrations().wait_migration(wait).await),
        "MIGRATION_ABORTED"
    );
    let get = v1::GetMigrationRequest {
        migration_id: metadata["migration"].clone(),
    };
    let answer = world
        .migrations()
        .get_migration(get)
        .await
        .expect("found")
        .into_inner();
    let migration = answer.migration.expect("a migration");
    assert_eq!(migration.state(), MigrationState::Aborted);
    let cause = migration.abort_cause.expect("a cause");
    assert_eq!(cause.phase(), Phase::Fencing);
    assert_eq!(cause.blockers[0].reason(), BlockerReason::NotDrained);

    // Nothing retries it; asked for again it succeeds once the data plane drains.
    plane.change(|manner| manner.drains = true);
    let done = moved(&world, migrate("alice@example.org", "target")).await;
    assert_eq!(done.state(), MigrationState::Succeeded);
    assert_ne!(done.migration_id, migration.migration_id);
}

#[tokio::test]
async fn an_unconfirmed_close_aborts() {
    let world = World::new().await;
    let manner = Manner {
        unconfirmed: 1,
        ..Manner::default()
    };
    let _plane = DataPlane::join(&world, "dp-1", manner).await;
    let (_, reason, metadata) = refusal(
        world
            .migrations()
            .migrate(migrate("alice@example.org", "target"))
            .await,
    );
    assert_eq!(reason, "MIGRATION_ABORTED");
    assert_eq!(metadata["cause"], "CLOSE_UNCONFIRMED");
}

#[tokio::test]
async fn an_operator_ends_a_move_that_waits() {
    let world = World::new().await;
    let waiting = v1::MigrateRequest {
        wait: milliseconds(0),
        ..migrate("alice@example.org", "target")
    };
    let id = moved(&world, waiting).await.migration_id;
    let mut watch = world
        .migrations()
        .watch_migration(v1::WatchMigrationRequest {
            migration_id: id.clone(),
        })
        .await
        .expect("watched")
        .into_inner();
    let first = watch.message().await.expect("sent").expect("a first");
    assert_eq!(first.migration.expect("it").state(), MigrationState::Queued);

    let request = v1::AbortMigrationRequest {
        migration_id: id.clone(),
        reason: "not today".to_owned(),
    };
    let answer = world
        .migrations()
        .abort_migration(request.clone())
        .await
        .expect("aborted");
    let aborted = answer.into_inner().migration.expect("it");
    assert_eq!(aborted.state(), MigrationState::Aborted);
    let cause = &aborted.abort_cause.as_ref().expect("a cause").blockers[0];
    assert_eq!(cause.reason(), BlockerReason::Operator);
    assert!(cause.message.contains("not today"));
    // Once more is no error.
    world
        .migrations()
        .abort_migration(request)
        .await
        .expect("still aborted");

    let mut last = None;
    while let Some(message) = watch.message().await.expect("sent") {
        last = message.migration;
    }
    assert_eq!(last.expect("a last one").state(), MigrationState::Aborted);
    assert_eq!(world.route("alice@example.org").await.destination, "source");
}

#[tokio::test]
async fn a_move_that_has_flipped_is_not_aborted() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let done = moved(&world, migrate("alice@example.org", "target")).await;
    let request = v1::AbortMigrationRequest {
        migration_id: done.migration_id,
        reason: String::new(),
    };
    let answer = world.migrations().abort_migration(request).await;
    assert_eq!(reason(answer), "ALREADY_DECIDED");
}
