//! `RoutingConfigService`.

use ferrypost_proto::v1::{self, routing_config_service_server::RoutingConfigService};
use tonic::{Request, Response, Status};

use super::caller;
use crate::refusal::Refusal;
use crate::service::routing_config::{ConfigOrder, RoutingUseCases};

/// The adapter.
#[derive(Debug)]
pub(crate) struct RoutingConfigs(pub(crate) RoutingUseCases);

#[tonic::async_trait]
impl RoutingConfigService for RoutingConfigs {
    async fn get_routing_config(
        &self,
        _request: Request<v1::GetRoutingConfigRequest>,
    ) -> Result<Response<v1::GetRoutingConfigResponse>, Status> {
        let in_force = self.0.get().await?;
        Ok(Response::new(v1::GetRoutingConfigResponse {
            header: Some(self.0.header(&in_force.state)),
            config: in_force.config,
            version: Some(in_force.version.into()),
            source: in_force.source.word().to_owned(),
            file_difference: in_force.difference.unwrap_or_default(),
        }))
    }

    async fn apply_routing_config(
        &self,
        request: Request<v1::ApplyRoutingConfigRequest>,
    ) -> Result<Response<v1::ApplyRoutingConfigResponse>, Status> {
        let requested_by = caller(&request);
        let request = request.into_inner();
        let order = ConfigOrder {
            config: request.config.ok_or_else(|| Refusal::required("config"))?,
            expected_version: request.expected_version.map(Into::into),
            validate_only: request.validate_only,
            reason: request.reason,
            requested_by,
        };
        let applied = self.0.apply(&order).await?;
        Ok(Response::new(v1::ApplyRoutingConfigResponse {
            header: Some(self.0.header(&applied.state)),
            version: Some(applied.version.into()),
            warnings: applied.warnings,
        }))
    }
}
