//! `MigrationService`.

use ferrypost_controlplane::{
    domain::state::ENDED_MIGRATIONS,
    store::{Txn, keys, value::Stored},
    wall_clock,
};
use ferrypost_proto::{
    MigrationId,
    store::v1::{MigrationRecord, RequestEntry},
    v1::{self, BlockerReason, MigrationState, Phase},
};
use ferrypost_runtime::Random;
use tonic::Code;

use super::{
    data_plane::{DataPlane, Manner, session},
    world::{PATIENCE, QUICK, ROUTING, World, eventually, milliseconds, reason, refusal},
};

fn migrate(account: &str, destination: &str) -> v1::MigrateRequest {
    v1::MigrateRequest {
        account: account.to_owned(),
        destination: destination.to_owned(),
        ..v1::MigrateRequest::default()
    }
}

fn rollback(account: &str) -> v1::RollbackRequest {
    v1::RollbackRequest {
        account: account.to_owned(),
        ..v1::RollbackRequest::default()
    }
}

async fn moved(world: &World, request: v1::MigrateRequest) -> v1::Migration {
    let answer = world
        .migrations()
        .migrate(request)
        .await
        .expect("moved")
        .into_inner();
    assert!(answer.header.expect("a header").revision.is_some());
    answer.migration.expect("a migration")
}

/// Waits for RELEASED and SETTLED, the bookkeeping after the flip.
async fn ended(world: &World, id: &str) -> v1::Migration {
    eventually(async || {
        let request = v1::GetMigrationRequest {
            migration_id: id.to_owned(),
        };
        let answer = world.migrations().get_migration(request).await.ok()?;
        let migration = answer.into_inner().migration?;
        migration.ended_at.is_some().then_some(migration)
    })
    .await
}

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
async fn a_fence_that_is_not_drained_aborts_and_says_who() {
    let world = World::new().await;
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
        super::world::reason(world.migrations().wait_migration(wait).await),
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
    assert!(
        plan.residual_risks
            .iter()
            .any(|risk| risk.contains("since the last copy"))
    );
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
        super::world::reason(world.migrations().migrate(names).await),
        "NAMES_DIFFER"
    );
    let never = world
        .migrations()
        .rollback(rollback("bob@example.org"))
        .await;
    assert_eq!(super::world::reason(never), "NOTHING_TO_ROLL_BACK");
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

#[tokio::test]
async fn migrations_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let mut made = Vec::new();
    for account in ["a@example.org", "b@example.org", "c@example.org"] {
        made.push(moved(&world, migrate(account, "target")).await.migration_id);
    }
    made.reverse();
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListMigrationsRequest {
            page_size: 2,
            page_token: token,
            ..v1::ListMigrationsRequest::default()
        };
        let page = world
            .migrations()
            .list_migrations(request)
            .await
            .expect("listed")
            .into_inner();
        assert!(page.migrations.len() <= 2);
        found.extend(page.migrations.into_iter().map(|m| m.migration_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, made);

    let of = |account: &str, state: MigrationState| v1::ListMigrationsRequest {
        account: account.to_owned(),
        state: state.into(),
        ..v1::ListMigrationsRequest::default()
    };
    let mut migrations = world.migrations();
    let mut count = async |request| {
        let answer = migrations.list_migrations(request).await.expect("listed");
        answer.into_inner().migrations.len()
    };
    assert_eq!(
        count(of("B@example.org", MigrationState::Unspecified)).await,
        1
    );
    assert_eq!(count(of("", MigrationState::Succeeded)).await, 3);
    assert_eq!(count(of("", MigrationState::Aborted)).await, 0);
    let bad = v1::ListMigrationsRequest {
        page_token: "junk".to_owned(),
        ..v1::ListMigrationsRequest::default()
    };
    assert_eq!(
        reason(world.migrations().list_migrations(bad).await),
        "PAGE_TOKEN_INVALID"
    );
    let missing = v1::GetMigrationRequest {
        migration_id: "move-x".to_owned(),
    };
    assert_eq!(
        reason(world.migrations().get_migration(missing).await),
        "MIGRATION_NOT_FOUND"
    );
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

/// Beyond those that every replica remembers: whoever repeats a call of long ago, or waits for its
/// move, must not wait for ever.
#[tokio::test]
async fn waiting_for_a_migration_that_ended_long_ago_ends_at_once() {
    let world = World::new().await;
    let random = Random::from_os();
    let old: Vec<_> = (0..ENDED_MIGRATIONS + 2)
        .map(|_| MigrationId::generate(random.bytes()))
        .collect();
    let ended = |state: MigrationState| {
        Stored::new(MigrationRecord {
            state: state.into(),
            phase: Phase::Settled.into(),
            source: "source".to_owned(),
            target: "target".to_owned(),
            ..MigrationRecord::default()
        })
        .bytes()
    };
    let state_of = |n: usize| match n {
        0 => MigrationState::Aborted,
        _ => MigrationState::Succeeded,
    };
    let records: Vec<_> = old.iter().enumerate().collect();
    let txns = records.chunks(100).map(|chunk| {
        chunk.iter().fold(Txn::new(), |txn, (n, id)| {
            txn.put(keys::migration(id), ended(state_of(*n)))
        })
    });
    let world = world.restart_after(txns.collect::<Vec<_>>()).await;
    let wait = |n: usize| v1::WaitMigrationRequest {
        migration_id: old[n].as_str().to_owned(),
        ..v1::WaitMigrationRequest::default()
    };
    for n in [1, 2, old.len() - 1] {
        let mut migrations = world.migrations();
        let answer = tokio::time::timeout(PATIENCE, migrations.wait_migration(wait(n)));
        let answer = answer.await.expect("it does not hang").expect("decided");
        let migration = answer.into_inner().migration.expect("a migration");
        assert_eq!(migration.state(), MigrationState::Succeeded);
    }
    let mut migrations = world.migrations();
    let answer = tokio::time::timeout(PATIENCE, migrations.wait_migration(wait(0)));
    let answer = answer.await.expect("it does not hang");
    assert_eq!(reason(answer), "MIGRATION_ABORTED");
    let request = v1::WatchMigrationRequest {
        migration_id: old[1].as_str().to_owned(),
    };
    let mut watch = world
        .migrations()
        .watch_migration(request)
        .await
        .expect("a watch")
        .into_inner();
    assert!(watch.message().await.expect("shown").is_some());
    let end = tokio::time::timeout(PATIENCE, watch.message()).await;
    assert!(end.expect("it ends").expect("without an error").is_none());
    let request = v1::AbortMigrationRequest {
        migration_id: old[1].as_str().to_owned(),
        ..v1::AbortMigrationRequest::default()
    };
    let answer = world.migrations().abort_migration(request).await;
    assert_eq!(reason(answer), "ALREADY_DECIDED");
}

/// Thirty days by default. Whoever asks for it learns why it is gone, and its request id is free again.
#[tokio::test]
async fn a_migration_that_was_pruned_is_not_found_and_its_request_id_may_be_used_anew() {
    let world = World::new().await;
    let old = MigrationId::generate(Random::from_os().bytes());
    let mut long_ago = wall_clock::now();
    long_ago.seconds -= 31 * 24 * 60 * 60;
    let record = MigrationRecord {
        state: MigrationState::Succeeded.into(),
        phase: Phase::Settled.into(),
        ended_at: Some(long_ago),
        request_id: "wave 1".to_owned(),
        ..MigrationRecord::default()
    };
    let request = RequestEntry {
        migration_id: old.as_str().to_owned(),
        fingerprint: b"another request's".to_vec().into(),
        ..RequestEntry::default()
    };
    let txn = Txn::new()
        .put(keys::migration(&old), Stored::new(record).bytes())
        .put(keys::request("wave 1"), Stored::new(request).bytes());
    let world = world.restart_after([txn]).await;
    let message = eventually(async || {
        let request = v1::GetMigrationRequest {
            migration_id: old.as_str().to_owned(),
        };
        let answer = world.migrations().get_migration(request).await;
        answer.err().map(|status| status.message().to_owned())
    })
    .await;
    assert!(message.contains("longer ago than the 30 days"), "{message}");
    let request = v1::MigrateRequest {
        request_id: "wave 1".to_owned(),
        validate_only: false,
        wait: milliseconds(0),
        ..migrate("alice@example.org", "target")
    };
    let answer = world.migrations().migrate(request).await.expect("begins");
    let migration = answer.into_inner().migration.expect("a migration");
    assert_ne!(migration.migration_id, old.as_str());
}
