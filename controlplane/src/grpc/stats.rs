//! `StatsService`.

use ferrypost_proto::{
    Speaks,
    v1::{self, stats_service_server::StatsService},
};
use tonic::{Request, Response, Status};

use super::{caller, page, traceparent};
use crate::{
    domain::state::State,
    service::stats::{ExpelOrder, StatsUseCases},
};

/// The adapter.
#[derive(Debug)]
pub(crate) struct Stats(pub(crate) StatsUseCases);

#[tonic::async_trait]
impl StatsService for Stats {
    async fn get_stats(
        &self,
        _request: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        let report = self.0.figures().await?;
        let (state, figures) = (&report.state, &report.answer);
        Ok(Response::new(v1::GetStatsResponse {
            header: Some(self.0.header(&report)),
            accounts: state.account_count() as u64,
            names: state.name_count() as u64,
            placements: placements(state),
            phases: phases(state),
            migrations: migrations(state),
            sessions: figures.sessions,
            held_logins: figures.held_logins,
            data_planes_registered: count(state.registrations().len()),
            data_planes_connected: count(figures.connected),
            rewound: rewound(state),
            store: figures.store_kind.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            contracts: Some(Speaks::here().contracts.into()),
            schemas: Some(Speaks::here().schemas.into()),
        }))
    }

    async fn list_data_planes(
        &self,
        _request: Request<v1::ListDataPlanesRequest>,
    ) -> Result<Response<v1::ListDataPlanesResponse>, Status> {
        let report = self.0.data_planes().await?;
        Ok(Response::new(v1::ListDataPlanesResponse {
            header: Some(self.0.header(&report)),
            expelled: self.0.expelled(&report.state),
            data_planes: report.answer,
        }))
    }

    async fn list_destinations(
        &self,
        _request: Request<v1::ListDestinationsRequest>,
    ) -> Result<Response<v1::ListDestinationsResponse>, Status> {
        let report = self.0.destinations()?;
        Ok(Response::new(v1::ListDestinationsResponse {
            header: Some(self.0.header(&report)),
            destinations: report.answer,
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let trace = self.0.trace(traceparent(&request));
        let request = request.into_inner();
        let size = page::size(request.page_size);
        let report = self.0.sessions(&request.account, size, trace).await?;
        let header = self.0.header(&report);
        let (sessions, truncated) = report.answer;
        Ok(Response::new(v1::ListSessionsResponse {
            header: Some(header),
            sessions,
            truncated,
        }))
    }

    async fn kick_sessions(
        &self,
        request: Request<v1::KickSessionsRequest>,
    ) -> Result<Response<v1::KickSessionsResponse>, Status> {
        let (by, trace) = (caller(&request), self.0.trace(traceparent(&request)));
        let request = request.into_inner();
        let report = self
            .0
            .kick(&request.account, &by, &request.reason, trace)
            .await?;
        Ok(Response::new(v1::KickSessionsResponse {
            header: Some(self.0.header(&report)),
            kicked: report.answer,
        }))
    }

    async fn expel_data_plane(
        &self,
        request: Request<v1::ExpelDataPlaneRequest>,
    ) -> Result<Response<v1::ExpelDataPlaneResponse>, Status> {
        let requested_by = caller(&request);
        let request = request.into_inner();
        let order = ExpelOrder {
            instance: request.instance,
            boot: request.boot,
            reason: request.reason,
            requested_by,
        };
        let report = self.0.expel(&order).await?;
        Ok(Response::new(v1::ExpelDataPlaneResponse {
            header: Some(self.0.header(&report)),
            expelled: Some(report.answer),
        }))
    }
}

fn placements(state: &State) -> Vec<v1::DestinationCount> {
    let homes = state.counts().homes.iter();
    homes
        .map(|(destination, accounts)| v1::DestinationCount {
            destination: destination.as_str().to_owned(),
            accounts: *accounts,
        })
        .collect()
}

fn phases(state: &State) -> Vec<v1::PhaseCount> {
    let phases = state.counts().phases.iter();
    phases
        .map(|(phase, accounts)| v1::PhaseCount {
            phase: v1::Phase::from(*phase).into(),
            accounts: *accounts,
        })
        .collect()
}

fn migrations(state: &State) -> Vec<v1::MigrationCount> {
    let migrations = state.counts().migrations.iter();
    migrations
        .map(|(state, migrations)| v1::MigrationCount {
            state: state
                .as_str_name()
                .trim_start_matches("MIGRATION_STATE_")
                .to_owned(),
            migrations: *migrations,
        })
        .collect()
}

fn rewound(state: &State) -> Option<v1::Rewound> {
    let proof = &state.rewound()?.value;
    Some(v1::Rewound {
        detected_at: proof.detected_at,
        instance: proof.instance.clone(),
        held: proof.held,
        store: proof.store,
    })
}

/// Registrations are few; a fleet of four thousand million would have other troubles.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
