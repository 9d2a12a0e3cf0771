//! `MigrationService`.

mod aborts;
mod labels;
mod moves;
mod past;
mod plans;

use ferrypost_proto::v1;

use crate::api::world::{World, eventually};

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
