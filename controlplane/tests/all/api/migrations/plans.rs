//! What is said before a move, and what holds it back.

use ferrypost_proto::v1::{self, BlockerReason};
use tonic::Code;

use super::{migrate, moved, rollback};
use crate::api::{
    data_plane::{DataPlane, Manner, session},
    world::{World, eventually, milliseconds, reason, refusal},
};

#[tokio::test]
async fn a_plan_says_whom_it_disconnects_what_blocks_and_what_stays_behind() {
    let world = World::new().await;
    let manner = Manner {
        sessions: vec![
            session("alice@example.org", "relaying"),
            session("alice", "relaying"),
            session("bob@example.org", "relaying"),
        ],
        ..Manner::default()
    };
    let _plane = DataPlane::join(&world, "dp-1", manner).await;
    let request = v1::MigrateRequest {
        names: vec!["alice".to_owned()],
        validate_only: true,
        ..migrate("alice@example.org", "target")
    };
    let answer = world
        .migrations()
        .migrate(request)
        .await
        .expect("planned")
        .into_inner();
    assert!(answer.migration.is_none());
    let plan = answer.plan.expect("a plan");
    assert_eq!(plan.accounts[0].names, ["alice", "alice@example.org"]);
    let disconnect = &plan.disconnects[0];
    assert_eq!((&*disconnect.instance, disconnect.sessions), ("dp-1", 2));
    assert_eq!(disconnect.protocol(), v1::Protocol::Imap);
    for risk in [
        "since the last copy",
        "Nobody has said who decides which server gets the mail",
    ] {
        let mut named = plan.residual_risks.iter();
        assert!(named.any(|named| named.contains(risk)), "{risk}: {plan:?}");
    }
    // Nothing was written.
    let stats = world
        .stats()
        .get_stats(v1::GetStatsRequest {})
        .await
        .expect("stats")
        .into_inner();
    assert_eq!((stats.accounts, stats.names), (0, 0));
}

#[tokio::test]
async fn what_cannot_move_is_refused_with_its_reason() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let mut migrations = world.migrations();
    let mut refused = async |request| reason(migrations.migrate(request).await);

    assert_eq!(refused(migrate("", "target")).await, "FIELD_REQUIRED");
    assert_eq!(
        refused(migrate("alice@example.org", "")).await,
        "FIELD_REQUIRED"
    );
    assert_eq!(
        refused(migrate("a@b@example.org", "target")).await,
        "NAME_INVALID"
    );
    assert_eq!(
        refused(migrate("alice@elsewhere.example", "target")).await,
        "NAME_NOT_SERVED"
    );
    assert_eq!(
        refused(migrate("alice@closed.example", "target")).await,
        "NAME_NOT_SERVED"
    );
    assert_eq!(
        refused(migrate("alice@example.org", "source")).await,
        "ALREADY_THERE"
    );
    let nobody = format!("acct-{}", "0".repeat(26));
    assert_eq!(
        refused(migrate(&nobody, "target")).await,
        "ACCOUNT_NOT_FOUND"
    );
    let split = v1::MigrateRequest {
        names: vec!["alice@new.example".to_owned()],
        ..migrate("alice@example.org", "target")
    };
    assert_eq!(refused(split).await, "WOULD_CHANGE_ROUTE");
    let elsewhere = v1::MigrateRequest {
        expected_source: "target".to_owned(),
        ..migrate("alice@example.org", "target")
    };
    assert_eq!(refused(elsewhere).await, "SOURCE_MISMATCH");
    let long = v1::MigrateRequest {
        request_id: "x".repeat(129),
        ..migrate("alice@example.org", "target")
    };
    assert_eq!(refused(long).await, "FIELD_INVALID");
    let negative = v1::MigrateRequest {
        wait: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
        ..migrate("alice@example.org", "target")
    };
    assert_eq!(refused(negative).await, "FIELD_INVALID");
    let (code, reason, metadata) = refusal(
        world
            .migrations()
            .migrate(migrate("alice@example.org", "nowhere"))
            .await,
    );
    assert_eq!(
        (code, &*reason),
        (Code::InvalidArgument, "DESTINATION_UNKNOWN")
    );
    assert_eq!(metadata["known"], "source, target");

    moved(&world, migrate("alice@example.org", "target")).await;
    let names = v1::MigrateRequest {
        names: vec!["alice".to_owned()],
        ..migrate("alice@example.org", "source")
    };
    assert_eq!(
        crate::api::world::reason(world.migrations().migrate(names).await),
        "NAMES_DIFFER"
    );
    let never = world
        .migrations()
        .rollback(rollback("bob@example.org"))
        .await;
    assert_eq!(crate::api::world::reason(never), "NOTHING_TO_ROLL_BACK");
}

#[tokio::test]
async fn a_rejected_entry_holds_a_move_back() {
    let world = World::new().await;
    let manner = Manner {
        rejects: true,
        ..Manner::default()
    };
    let _plane = DataPlane::join(&world, "dp-1", manner).await;
    let request = v1::MigrateRequest {
        wait: milliseconds(0),
        ..migrate("alice@example.org", "target")
    };
    let id = moved(&world, request).await.migration_id;
    eventually(async || {
        let request = v1::GetMigrationRequest {
            migration_id: id.clone(),
        };
        let answer = world.migrations().get_migration(request).await.ok()?;
        let blockers = answer.into_inner().migration?.blockers;
        blockers
            .iter()
            .any(|b| b.reason() == BlockerReason::EntryRejected && b.who == "dp-1")
            .then_some(())
    })
    .await;
    let planes = world
        .stats()
        .list_data_planes(v1::ListDataPlanesRequest {})
        .await;
    let plane = planes.expect("listed").into_inner().data_planes.remove(0);
    assert_eq!(plane.sync(), v1::SyncState::Error);
    assert_eq!(plane.rejected[0].reason, "REJECT_REASON_BAD_NAME");
}
