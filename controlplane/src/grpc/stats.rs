//! `StatsService`.

use ferrypost_proto::{
    Speaks,
    routing::v1::AccountEntry,
    v1::{self, stats_service_server::StatsService},
};
use tonic::{Request, Response, Status};

use super::{
    caller,
    page::{self, List},
    trace_of,
};
use crate::{
    domain::state::State,
    refusal::Refusal,
    service::{
        restore::{Doubtful, Keep, Picture, ResolveOrder, RestoreUseCases},
        stats::{ExpelOrder, StatsUseCases},
    },
};

/// The adapter.
#[derive(Debug)]
pub(crate) struct Stats(pub(crate) StatsUseCases, pub(crate) RestoreUseCases);

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
        let trace = self.0.trace(trace_of(&request));
        let request = request.into_inner();
        let size = page::size(request.page_size);
        let list = List::filtered("sessions", [&*request.account]);
        let after = list.position(&request.page_token, |place| {
            let (serial, instance) = place.split_once('/')?;
            Some((serial.parse().ok()?, instance.to_owned()))
        })?;
        let report = self
            .0
            .sessions(&request.account, after, size, trace)
            .await?;
        let header = self.0.header(&report);
        let page = report.answer;
        let next = page
            .next
            .map(|(serial, instance)| format!("{serial}/{instance}"));
        Ok(Response::new(v1::ListSessionsResponse {
            header: Some(header),
            sessions: page.sessions,
            truncated: page.truncated,
            next_page_token: list.token(next),
        }))
    }

    async fn list_unlisted_logins(
        &self,
        request: Request<v1::ListUnlistedLoginsRequest>,
    ) -> Result<Response<v1::ListUnlistedLoginsResponse>, Status> {
        let trace = self.0.trace(trace_of(&request));
        let request = request.into_inner();
        let size = page::size(request.page_size) as usize;
        let list = List::whole("unlisted");
        let after = list.position(&request.page_token, |name| Some(name.to_owned()))?;
        let report = self.0.unlisted(after, size, trace).await?;
        let header = self.0.header(&report);
        let (logins, next) = report.answer;
        Ok(Response::new(v1::ListUnlistedLoginsResponse {
            header: Some(header),
            logins,
            next_page_token: list.token(next),
        }))
    }

    async fn kick_sessions(
        &self,
        request: Request<v1::KickSessionsRequest>,
    ) -> Result<Response<v1::KickSessionsResponse>, Status> {
        let (by, trace) = (caller(&request), self.0.trace(trace_of(&request)));
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

    async fn get_rewound(
        &self,
        request: Request<v1::GetRewoundRequest>,
    ) -> Result<Response<v1::GetRewoundResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size) as usize;
        let list = List::whole("rewound");
        let after = list.position(&request.page_token, |id| Some(id.to_owned()))?;
        let (state, picture) = self.1.picture().await?;
        let behind = |id: &&String| after.as_ref().is_none_or(|after| *id > after);
        let mut ids: Vec<_> = picture
            .accounts
            .keys()
            .filter(behind)
            .take(size + 1)
            .collect();
        let more = ids.len() > size;
        ids.truncate(size);
        let next = ids.last().filter(|_| more).map(|id| (*id).clone());
        let accounts = ids
            .into_iter()
            .map(|id| doubtful(id, &picture.accounts[id]));
        Ok(Response::new(v1::GetRewoundResponse {
            header: Some(self.1.header(&state, picture.missing_instances())),
            proof: rewound(&state),
            accounts: accounts.collect(),
            next_page_token: list.token(next),
            in_doubt: picture.accounts.len() as u64,
            unknown_to_store: picture.unknown_to_store() as u64,
            digest: state
                .rewound()
                .map(|_| picture.digest())
                .unwrap_or_default(),
            data_planes: rewound_data_planes(&picture),
        }))
    }

    async fn resolve_rewound(
        &self,
        request: Request<v1::ResolveRewoundRequest>,
    ) -> Result<Response<v1::ResolveRewoundResponse>, Status> {
        let requested_by = caller(&request);
        let request = request.into_inner();
        let order = ResolveOrder {
            keep: match request.keep() {
                v1::Keep::Store => Keep::Store,
                v1::Keep::Fleet => Keep::Fleet,
                v1::Keep::Unspecified => return Err(Refusal::required("keep").into()),
            },
            digest: request.digest,
            reason: request.reason,
            request_id: request.request_id,
            requested_by,
        };
        let (state, resolution) = self.1.resolve(&order).await?;
        Ok(Response::new(v1::ResolveRewoundResponse {
            header: Some(self.1.header(&state, Vec::new())),
            accounts: resolution.accounts,
            base: resolution.base,
        }))
    }
}

fn doubtful(id: &str, account: &Doubtful) -> v1::DoubtfulAccount {
    let held = account.held.iter();
    v1::DoubtfulAccount {
        account_id: id.to_owned(),
        names: account.names(),
        stored: account
            .stored
            .as_ref()
            .map(|entry| acknowledged("", Some(entry))),
        held: held
            .map(|(instance, entry)| acknowledged(instance.as_str(), entry.as_ref()))
            .collect(),
    }
}

fn acknowledged(instance: &str, entry: Option<&AccountEntry>) -> v1::AcknowledgedPlacement {
    v1::AcknowledgedPlacement {
        instance: instance.to_owned(),
        destination: entry.map(|entry| entry.home.clone()).unwrap_or_default(),
        phase: entry.map(|entry| entry.phase).unwrap_or_default(),
        epoch: entry.and_then(|entry| entry.epoch),
    }
}

fn rewound_data_planes(picture: &Picture) -> Vec<v1::RewoundDataPlane> {
    let newest = picture.newest();
    let planes = picture.planes.iter();
    planes
        .map(|(instance, word)| v1::RewoundDataPlane {
            instance: instance.as_str().to_owned(),
            held: Some(word.held.revision.into()),
            in_doubt: word.doubts,
            current: word.current,
            newest: newest == Some(instance),
        })
        .collect()
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
