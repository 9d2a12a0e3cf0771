//! Labels, and watching all that have one.

use std::{collections::BTreeMap, time::Duration};

use ferrypost_proto::v1::{self, MigrationState};
use tonic::Streaming;

use super::{migrate, moved, rollback};
use crate::api::{
    data_plane::{DataPlane, Manner},
    world::{PATIENCE, World, milliseconds, reason},
};

fn wave(number: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("wave".to_owned(), number.to_owned())])
}

fn labelled(account: &str, number: &str) -> v1::MigrateRequest {
    v1::MigrateRequest {
        labels: wave(number),
        ..migrate(account, "target")
    }
}

async fn listed(world: &World, labels: BTreeMap<String, String>) -> Vec<String> {
    let request = v1::ListMigrationsRequest {
        labels,
        ..v1::ListMigrationsRequest::default()
    };
    let answer = world.migrations().list_migrations(request).await;
    let migrations = answer.expect("listed").into_inner().migrations;
    migrations.into_iter().map(|it| it.migration_id).collect()
}

#[tokio::test]
async fn moves_are_found_by_their_labels() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let first = moved(&world, labelled("a@example.org", "1")).await;
    assert_eq!(first.labels, wave("1"));
    let second = moved(&world, labelled("b@example.org", "2")).await;
    let back = v1::RollbackRequest {
        labels: wave("1"),
        ..rollback("a@example.org")
    };
    let back = world.migrations().rollback(back).await.expect("back");
    let back = back.into_inner().migration.expect("a migration");

    assert_eq!(
        listed(&world, wave("1")).await,
        [back.migration_id.clone(), first.migration_id]
    );
    assert_eq!(listed(&world, wave("2")).await, [second.migration_id]);
    assert_eq!(listed(&world, wave("3")).await, [""; 0]);
    let mut both = wave("1");
    both.insert("owner".to_owned(), "ada".to_owned());
    assert_eq!(listed(&world, both).await, [""; 0]);
    let bad = v1::MigrateRequest {
        labels: BTreeMap::from([("Not A Key".to_owned(), String::new())]),
        ..migrate("c@example.org", "target")
    };
    assert_eq!(
        reason(world.migrations().migrate(bad).await),
        "FIELD_INVALID"
    );
    world.shut_down().await;
}

async fn next(changes: &mut Streaming<v1::WatchMigrationsResponse>) -> Option<v1::Migration> {
    let change = tokio::time::timeout(PATIENCE, changes.message()).await;
    change
        .expect("in time")
        .expect("a change")
        .expect("no end")
        .migration
}

#[tokio::test]
async fn a_watch_sends_what_there_is_then_a_mark_then_every_change_of_what_fits() {
    let world = World::new().await;
    // Nobody is registered: moves wait unfenced.
    let begin = async |request: v1::MigrateRequest| {
        let request = v1::MigrateRequest {
            wait: milliseconds(0),
            ..request
        };
        moved(&world, request).await.migration_id
    };
    let first = begin(labelled("a@example.org", "1")).await;
    begin(labelled("x@example.org", "2")).await;
    let request = v1::WatchMigrationsRequest {
        labels: wave("1"),
        ..v1::WatchMigrationsRequest::default()
    };
    let watch = world.migrations().watch_migrations(request).await;
    let mut changes = watch.expect("a watch").into_inner();
    let there = next(&mut changes).await.expect("what there is");
    assert_eq!(there.migration_id, first);
    assert_eq!(next(&mut changes).await, None, "the mark");

    let second = begin(labelled("b@example.org", "1")).await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let mut ended = BTreeMap::new();
    while ended.len() < 2 {
        let change = next(&mut changes).await.expect("a change");
        assert_eq!(change.labels, wave("1"));
        if change.ended_at.is_some() {
            ended.insert(change.migration_id.clone(), change.state());
        }
    }
    let wanted = [first, second].map(|id| (id, MigrationState::Succeeded));
    assert_eq!(ended, BTreeMap::from(wanted));
    // Each end is said once, and then nothing.
    let quiet = tokio::time::timeout(Duration::from_secs(1), changes.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    world.shut_down().await;
}

#[tokio::test]
async fn a_watch_for_a_state_says_when_a_move_leaves_it() {
    let world = World::new().await;
    let request = v1::WatchMigrationsRequest {
        state: MigrationState::Queued.into(),
        ..v1::WatchMigrationsRequest::default()
    };
    let watch = world.migrations().watch_migrations(request).await;
    let mut changes = watch.expect("a watch").into_inner();
    assert_eq!(next(&mut changes).await, None, "the mark");
    let request = v1::MigrateRequest {
        wait: milliseconds(0),
        ..migrate("a@example.org", "target")
    };
    let id = moved(&world, request).await.migration_id;
    let begun = next(&mut changes).await.expect("a change");
    assert_eq!(
        (&begun.migration_id, begun.state()),
        (&id, MigrationState::Queued)
    );
    let abort = v1::AbortMigrationRequest {
        migration_id: id.clone(),
        ..v1::AbortMigrationRequest::default()
    };
    world
        .migrations()
        .abort_migration(abort)
        .await
        .expect("aborted");
    loop {
        let change = next(&mut changes).await.expect("a change");
        assert_eq!(change.migration_id, id);
        if change.state() != MigrationState::Queued {
            break;
        }
    }
    world.shut_down().await;
}
