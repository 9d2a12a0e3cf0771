//! `PlacementService`.

use ferrypost_proto::{
    AccountId,
    v1::{self, placement_service_server::PlacementService},
};
use tonic::{Request, Response, Status};

use super::{
    caller,
    page::{self, List},
    trace_of,
};
use crate::refusal::{Reason, Refusal};
use crate::service::{
    placement::{DeleteOrder, PlacementUseCases, RecordOrder},
    stats::{FleetAnswer, StatsUseCases},
};

/// The adapter.
#[derive(Debug)]
pub(crate) struct Placements(pub(crate) PlacementUseCases, pub(crate) StatsUseCases);

#[tonic::async_trait]
impl PlacementService for Placements {
    async fn get_placement(
        &self,
        request: Request<v1::GetPlacementRequest>,
    ) -> Result<Response<v1::GetPlacementResponse>, Status> {
        let (state, placement) = self.0.get(&request.into_inner().account).await?;
        Ok(Response::new(v1::GetPlacementResponse {
            header: Some(self.0.header(&state)),
            placement: Some(placement),
        }))
    }

    async fn list_placements(
        &self,
        request: Request<v1::ListPlacementsRequest>,
    ) -> Result<Response<v1::ListPlacementsResponse>, Status> {
        let request = request.into_inner();
        let list = List::filtered("placements", [&*request.destination]);
        let after = list.position(&request.page_token, |text| AccountId::parse(text).ok())?;
        let size = page::size(request.page_size) as usize;
        let found = self.0.list(&request.destination, after.as_ref(), size)?;
        Ok(Response::new(v1::ListPlacementsResponse {
            header: Some(self.0.header(&found.state)),
            placements: found.placements,
            next_page_token: list.token(found.next.map(String::from)),
        }))
    }

    async fn set_placement(
        &self,
        request: Request<v1::SetPlacementRequest>,
    ) -> Result<Response<v1::SetPlacementResponse>, Status> {
        let requested_by = caller(&request);
        let request = request.into_inner();
        if request.fenced {
            return Err(Refusal::new(
                Reason::FencedUnsupported,
                "`fenced` is not supported yet: a write that changes a route is what Migrate is for",
            )
            .into());
        }
        let order = RecordOrder {
            account: request.account,
            names: request.names,
            destination: request.destination,
            expected_epoch: request.expected_epoch.map(Into::into),
            validate_only: request.validate_only,
            reason: request.reason,
            requested_by,
        };
        let (state, placement) = self.0.set(&order).await?;
        Ok(Response::new(v1::SetPlacementResponse {
            header: Some(self.0.header(&state)),
            placement: Some(placement),
        }))
    }

    async fn delete_placement(
        &self,
        request: Request<v1::DeletePlacementRequest>,
    ) -> Result<Response<v1::DeletePlacementResponse>, Status> {
        let requested_by = caller(&request);
        let request = request.into_inner();
        let order = DeleteOrder {
            account: request.account,
            expected_epoch: request.expected_epoch.map(Into::into),
            validate_only: request.validate_only,
            reason: request.reason,
            requested_by,
        };
        let state = self.0.delete(&order).await?;
        Ok(Response::new(v1::DeletePlacementResponse {
            header: Some(self.0.header(&state)),
        }))
    }

    async fn explain_route(
        &self,
        request: Request<v1::ExplainRouteRequest>,
    ) -> Result<Response<v1::ExplainRouteResponse>, Status> {
        let trace = self.1.trace(trace_of(&request));
        let request = request.into_inner();
        let (state, explanation) = self.0.explain(&request.login).await?;
        let (data_planes, unreachable) = match &explanation.name {
            Some(name) if request.ask_data_planes => self.1.routes(name, trace).await,
            _ => (Vec::new(), Vec::new()),
        };
        let answer = FleetAnswer {
            state,
            unreachable,
            answer: data_planes,
        };
        Ok(Response::new(v1::ExplainRouteResponse {
            header: Some(self.1.header(&answer)),
            data_planes: answer.answer,
            name: explanation
                .name
                .map(|name| name.as_str().to_owned())
                .unwrap_or_default(),
            rule: explanation.rule.into(),
            destination: explanation
                .destination
                .map(String::from)
                .unwrap_or_default(),
            placement: explanation.placement,
            destination_after_move: explanation.after_move.map(String::from).unwrap_or_default(),
            explanation: explanation.sentence,
        }))
    }
}
