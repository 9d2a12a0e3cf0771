//! Migrations that have ended.

use ferrypost_controlplane::{
    domain::state::ENDED_MIGRATIONS,
    store::{Txn, keys, value::Stored},
    wall_clock,
};
use ferrypost_proto::{
    MigrationId,
    store::v1::{MigrationRecord, RequestEntry},
    v1::{self, MigrationState, Phase},
};
use ferrypost_runtime::Random;

use super::{migrate, moved};
use crate::api::{
    data_plane::{DataPlane, Manner},
    world::{PATIENCE, World, eventually, milliseconds, reason},
};

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
    let first = v1::ListMigrationsRequest {
        page_size: 1,
        ..v1::ListMigrationsRequest::default()
    };
    let page = world.migrations().list_migrations(first).await;
    let of_all = page.expect("listed").into_inner().next_page_token;
    let labels = [("wave".to_owned(), "1".to_owned())].into();
    for bad in [
        v1::ListMigrationsRequest {
            page_token: "junk".to_owned(),
            ..v1::ListMigrationsRequest::default()
        },
        v1::ListMigrationsRequest {
            page_token: of_all.clone(),
            ..of("alice@example.org", MigrationState::Unspecified)
        },
        v1::ListMigrationsRequest {
            page_token: of_all.clone(),
            ..of("", MigrationState::Succeeded)
        },
        v1::ListMigrationsRequest {
            page_token: of_all,
            labels,
            ..v1::ListMigrationsRequest::default()
        },
    ] {
        assert_eq!(
            reason(world.migrations().list_migrations(bad).await),
            "PAGE_TOKEN_INVALID"
        );
    }
    let missing = v1::GetMigrationRequest {
        migration_id: "move-x".to_owned(),
    };
    assert_eq!(
        reason(world.migrations().get_migration(missing).await),
        "MIGRATION_NOT_FOUND"
    );
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
