//! Moves, and calls that ask for them.

use ferrypost_proto::v1::{self, BlockerReason, MigrationState, Phase};
use tonic::Code;

use super::{ended, migrate, moved, rollback};
use crate::api::{
    data_plane::{DataPlane, Manner},
    world::{QUICK, ROUTING, World, eventually, milliseconds, refusal},
};

#[tokio::test]
async fn an_account_moves_and_comes_back() {
    let world = World::new().await;
    let plane = DataPlane::join(&world, "dp-1", Manner::default()).await;

    let there = moved(&world, migrate("Alice@Example.org", "target")).await;
    assert_eq!(there.state(), MigrationState::Succeeded);
    assert_eq!(there.kind(), v1::MigrationKind::Migrate);
    assert_eq!((&*there.source, &*there.target), ("source", "target"));
    assert_eq!(there.accounts[0].names, ["alice@example.org"]);
    assert!(there.next_calls.contains(&"Rollback".to_owned()));
    assert!(!there.residual_risks.is_empty());
    let route = world.route("ALICE@example.org").await;
    assert_eq!(route.destination, "target");
    assert_eq!(route.rule(), v1::RouteRule::Placement);

    let back = world
        .migrations()
        .rollback(rollback("alice@example.org"))
        .await;
    let back = back
        .expect("back")
        .into_inner()
        .migration
        .expect("a migration");
    assert_eq!(back.state(), MigrationState::Succeeded);
    assert_eq!((&*back.source, &*back.target), ("target", "source"));
    assert_eq!(world.route("alice@example.org").await.destination, "source");
    let settled = ended(&world, &back.migration_id).await;
    assert_eq!(settled.phase(), Phase::Settled);
    assert!(settled.held.is_some());
    eventually(async || {
        let entry = plane.entry(&back.accounts[0].account_id)?;
        (entry.home == "source" && entry.phase() == Phase::Settled).then_some(())
    })
    .await;
    world.shut_down().await;
}

#[tokio::test]
async fn a_repeated_request_id_answers_with_the_first_move() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let request = v1::MigrateRequest {
        request_id: "wave 1, alice".to_owned(),
        ..migrate("alice@example.org", "target")
    };
    let first = moved(&world, request.clone()).await;
    ended(&world, &first.migration_id).await;
    let again = moved(&world, request.clone()).await;
    assert_eq!(again.migration_id, first.migration_id);
    let other = v1::MigrateRequest {
        account: "bob@example.org".to_owned(),
        ..request
    };
    let (code, reason, metadata) = refusal(world.migrations().migrate(other).await);
    assert_eq!((code, &*reason), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    assert_eq!(metadata["migration"], first.migration_id);
}

#[tokio::test]
async fn a_second_call_joins_and_another_destination_is_refused() {
    let routing = format!(
        "{ROUTING}\n[[destinations]]\nid = \"third\"\nendpoints = [{{ protocol = \"imap\", host = \"h\", \
         port = 3, tls = \"implicit\", announcement = \"none\" }}]\n"
    );
    let world = World::with(QUICK, &routing).await;
    // Nobody is registered: the move waits unfenced.
    let at_once = |destination: &str, request_id: &str| v1::MigrateRequest {
        wait: milliseconds(0),
        request_id: request_id.to_owned(),
        ..migrate("alice@example.org", destination)
    };
    let first = moved(&world, at_once("target", "")).await;
    assert_eq!(first.state(), MigrationState::Queued);
    assert_eq!(first.phase(), Phase::Copying);
    let second = moved(&world, at_once("target", "mine")).await;
    assert_eq!(second.migration_id, first.migration_id);
    let (code, reason, metadata) = refusal(world.migrations().migrate(at_once("third", "")).await);
    assert_eq!(
        (code, &*reason),
        (Code::FailedPrecondition, "MOVE_UNDER_WAY")
    );
    assert_eq!(metadata["migration"], first.migration_id);

    let waiting = eventually(async || {
        let request = v1::GetMigrationRequest {
            migration_id: first.migration_id.clone(),
        };
        let answer = world.migrations().get_migration(request).await.ok()?;
        let migration = answer.into_inner().migration?;
        (!migration.blockers.is_empty()).then_some(migration)
    })
    .await;
    assert_eq!(waiting.blockers[0].reason(), BlockerReason::NoDataPlane);

    // A data plane comes, the move goes on, and the id of the one who joined stands for it.
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let mine = v1::MigrateRequest {
        wait: None,
        ..at_once("target", "mine")
    };
    let done = moved(&world, mine).await;
    assert_eq!(done.migration_id, first.migration_id);
    assert_eq!(done.state(), MigrationState::Succeeded);
}

#[tokio::test]
async fn a_move_outlives_its_caller_and_a_restart() {
    let world = World::new().await;
    let request = v1::MigrateRequest {
        request_id: "r".to_owned(),
        wait: milliseconds(50),
        ..migrate("alice@example.org", "target")
    };
    let first = moved(&world, request.clone()).await;
    assert_eq!(first.state(), MigrationState::Queued);
    let world = world.restart(QUICK).await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let again = moved(
        &world,
        v1::MigrateRequest {
            wait: None,
            ..request
        },
    )
    .await;
    assert_eq!(again.migration_id, first.migration_id);
    assert_eq!(again.state(), MigrationState::Succeeded);
}

#[tokio::test]
async fn a_caller_who_hangs_up_changes_nothing() {
    let world = World::new().await;
    let mut migrations = world.migrations();
    let request = migrate("alice@example.org", "target");
    let calling = tokio::spawn(async move { migrations.migrate(request).await });
    let list = v1::ListMigrationsRequest::default();
    let begun = eventually(async || {
        let answer = world
            .migrations()
            .list_migrations(list.clone())
            .await
            .ok()?;
        answer.into_inner().migrations.pop()
    })
    .await;
    calling.abort();
    assert!(calling.await.expect_err("hung up").is_cancelled());
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let done = ended(&world, &begun.migration_id).await;
    assert_eq!(done.state(), MigrationState::Succeeded);
}

#[tokio::test]
async fn the_next_move_may_be_asked_for_before_everybody_knows_of_the_last() {
    let world = World::new().await;
    let plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let there = moved(&world, migrate("alice@example.org", "target")).await;
    ended(&world, &there.migration_id).await;
    // From here on it says nothing of what it applies, so no fence can begin.
    plane.change(|manner| manner.applies = false);
    let at_once = v1::RollbackRequest {
        wait: milliseconds(0),
        ..rollback("alice@example.org")
    };
    let answer = world
        .migrations()
        .rollback(at_once.clone())
        .await
        .expect("waits");
    let id = answer.into_inner().migration.expect("it").migration_id;
    let blocker = eventually(async || {
        let request = v1::GetMigrationRequest {
            migration_id: id.clone(),
        };
        let answer = world.migrations().get_migration(request).await.ok()?;
        let migration = answer.into_inner().migration?;
        assert_eq!(migration.state(), MigrationState::Queued);
        migration.blockers.into_iter().next()
    })
    .await;
    assert_eq!(
        (blocker.reason(), &*blocker.who),
        (BlockerReason::NotApplied, "dp-1")
    );
    // The same once more joins it.
    let joined = world
        .migrations()
        .rollback(at_once)
        .await
        .expect("joins")
        .into_inner();
    assert_eq!(joined.migration.expect("it").migration_id, id);
}
