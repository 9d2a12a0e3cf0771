//! `MigrationService`.

use std::{collections::BTreeMap, pin::Pin};

use ferrypost_proto::{
    MigrationId,
    v1::{self, migration_service_server::MigrationService},
};
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::{
    caller,
    page::{self, List},
    patience, trace_of,
};
use crate::{
    refusal::{Answer, Reason, Refusal},
    service::migration::{MigrationFilter, MigrationUseCases, MoveKind, MoveOrder, Moved},
    store::Rev,
};

/// The adapter.
#[derive(Debug)]
pub(crate) struct Migrations(pub(crate) MigrationUseCases);

impl Migrations {
    async fn moved(
        &self,
        order: &MoveOrder,
        validate_only: bool,
        wait: Option<prost_types::Duration>,
    ) -> Answer<(v1::ResponseHeader, Moved)> {
        let patience = patience(wait)?;
        let moved = if validate_only {
            self.0.plan_move(order).await?
        } else {
            self.0.make_move(order, patience).await?
        };
        Ok((
            self.0.header(&moved.state, moved.unreachable.clone()),
            moved,
        ))
    }
}

#[tonic::async_trait]
impl MigrationService for Migrations {
    async fn migrate(
        &self,
        request: Request<v1::MigrateRequest>,
    ) -> Result<Response<v1::MigrateResponse>, Status> {
        let requested_by = caller(&request);
        let trace = self.0.trace(trace_of(&request));
        let request = request.into_inner();
        let order = MoveOrder {
            kind: MoveKind::Migrate {
                names: request.names,
                destination: request.destination,
            },
            account: request.account,
            expected_source: request.expected_source,
            request_id: request.request_id,
            reason: request.reason,
            labels: request.labels,
            requested_by,
            trace,
        };
        let (header, moved) = self
            .moved(&order, request.validate_only, request.wait)
            .await?;
        Ok(Response::new(v1::MigrateResponse {
            header: Some(header),
            migration: moved.migration,
            plan: Some(moved.plan),
        }))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let requested_by = caller(&request);
        let trace = self.0.trace(trace_of(&request));
        let request = request.into_inner();
        let order = MoveOrder {
            kind: MoveKind::Rollback,
            account: request.account,
            expected_source: request.expected_source,
            request_id: request.request_id,
            reason: request.reason,
            labels: request.labels,
            requested_by,
            trace,
        };
        let (header, moved) = self
            .moved(&order, request.validate_only, request.wait)
            .await?;
        Ok(Response::new(v1::RollbackResponse {
            header: Some(header),
            migration: moved.migration,
            plan: Some(moved.plan),
        }))
    }

    async fn get_migration(
        &self,
        request: Request<v1::GetMigrationRequest>,
    ) -> Result<Response<v1::GetMigrationResponse>, Status> {
        let id = migration_id(&request.into_inner().migration_id)?;
        let (state, migration) = self.0.migration(&id).await?;
        Ok(Response::new(v1::GetMigrationResponse {
            header: Some(self.0.header(&state, Vec::new())),
            migration: Some(migration),
        }))
    }

    async fn list_migrations(
        &self,
        request: Request<v1::ListMigrationsRequest>,
    ) -> Result<Response<v1::ListMigrationsResponse>, Status> {
        let request = request.into_inner();
        let list = list(&request);
        let filter = MigrationFilter {
            account: request.account,
            state: wanted_state(request.state)?,
            labels: request.labels,
        };
        let before = list.position(&request.page_token, |text| text.parse::<Rev>().ok())?;
        let size = page::size(request.page_size) as usize;
        let found = self.0.list(&filter, before, size).await?;
        Ok(Response::new(v1::ListMigrationsResponse {
            header: Some(self.0.header(&found.state, Vec::new())),
            migrations: found.migrations,
            next_page_token: list.token(found.next.map(|next| next.to_string())),
        }))
    }

    async fn wait_migration(
        &self,
        request: Request<v1::WaitMigrationRequest>,
    ) -> Result<Response<v1::WaitMigrationResponse>, Status> {
        let request = request.into_inner();
        let id = migration_id(&request.migration_id)?;
        let (state, migration) = self.0.wait(&id, patience(request.wait)?).await?;
        Ok(Response::new(v1::WaitMigrationResponse {
            header: Some(self.0.header(&state, Vec::new())),
            migration: Some(migration),
        }))
    }

    type WatchMigrationStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchMigrationResponse, Status>> + Send>>;

    async fn watch_migration(
        &self,
        request: Request<v1::WatchMigrationRequest>,
    ) -> Result<Response<Self::WatchMigrationStream>, Status> {
        let id = migration_id(&request.into_inner().migration_id)?;
        let desk = self.0.clone();
        let changes = self.0.watch(&id).await?.map(move |change| {
            let (state, migration) = change?;
            Ok(v1::WatchMigrationResponse {
                header: Some(desk.header(&state, Vec::new())),
                migration: Some(migration),
            })
        });
        Ok(Response::new(Box::pin(changes)))
    }

    type WatchMigrationsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchMigrationsResponse, Status>> + Send>>;

    async fn watch_migrations(
        &self,
        request: Request<v1::WatchMigrationsRequest>,
    ) -> Result<Response<Self::WatchMigrationsStream>, Status> {
        let request = request.into_inner();
        let filter = MigrationFilter {
            account: request.account,
            state: wanted_state(request.state)?,
            labels: request.labels,
        };
        let desk = self.0.clone();
        let changes = self.0.watch_all(&filter).await?.map(move |change| {
            let (state, migration) = change?;
            Ok(v1::WatchMigrationsResponse {
                header: Some(desk.header(&state, Vec::new())),
                migration,
            })
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn abort_migration(
        &self,
        request: Request<v1::AbortMigrationRequest>,
    ) -> Result<Response<v1::AbortMigrationResponse>, Status> {
        let by = caller(&request);
        let request = request.into_inner();
        let id = migration_id(&request.migration_id)?;
        let (state, migration) = self.0.abort(&id, &by, &request.reason).await?;
        Ok(Response::new(v1::AbortMigrationResponse {
            header: Some(self.0.header(&state, Vec::new())),
            migration: Some(migration),
        }))
    }
}

/// The moves that are asked for.
fn list(request: &v1::ListMigrationsRequest) -> List {
    let state = request.state.to_string();
    let labels: BTreeMap<_, _> = request.labels.iter().collect();
    let labels = labels
        .into_iter()
        .flat_map(|(name, value)| [&**name, &**value]);
    List::filtered(
        "migrations",
        [&*request.account, &*state].into_iter().chain(labels),
    )
}

/// What cannot be an id names no migration; an empty one is a mistake of its own.
fn migration_id(text: &str) -> Answer<MigrationId> {
    if text.is_empty() {
        return Err(Refusal::required("migration_id"));
    }
    MigrationId::parse(text).map_err(|_| {
        Refusal::new(
            Reason::MigrationNotFound,
            format!("there is no migration {text:?}"),
        )
        .with("migration", text)
    })
}

fn wanted_state(state: i32) -> Answer<Option<v1::MigrationState>> {
    match v1::MigrationState::try_from(state) {
        Ok(v1::MigrationState::Unspecified) => Ok(None),
        Ok(state) => Ok(Some(state)),
        Err(_) => Err(Refusal::invalid("state", "is no migration state")),
    }
}
