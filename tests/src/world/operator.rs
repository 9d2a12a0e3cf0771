//! The operators' API through the generated clients.

use std::net::SocketAddr;
use std::time::Duration;

use ferrypost_proto::v1;
use ferrypost_proto::v1::migration_service_client::MigrationServiceClient;
use ferrypost_proto::v1::placement_service_client::PlacementServiceClient;
use ferrypost_proto::v1::routing_config_service_client::RoutingConfigServiceClient;
use ferrypost_proto::v1::stats_service_client::StatsServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

/// A connection that shows its token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// An operator at one replica of the control plane. Connects when it is first used, and again after
/// the replica was away.
#[derive(Debug, Clone)]
pub struct Operator {
    channel: Authorized,
}

impl Operator {
    /// An operator with a token that must be printable ASCII.
    ///
    /// # Panics
    /// When it is not.
    pub fn new(replica: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{replica}"))
            .expect("an address is an authority")
            .connect_timeout(Duration::from_secs(2))
            // A frozen replica keeps its connections; its silence ends them.
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        let token = format!("Bearer {token}");
        let bearer = Bearer(token.parse().expect("a token is printable ASCII"));
        Self {
            channel: InterceptedService::new(endpoint.connect_lazy(), bearer),
        }
    }

    /// Moves and moves back.
    pub fn migrations(&self) -> MigrationServiceClient<Authorized> {
        MigrationServiceClient::new(self.channel.clone())
    }

    /// Where accounts live.
    pub fn placements(&self) -> PlacementServiceClient<Authorized> {
        PlacementServiceClient::new(self.channel.clone())
    }

    /// What is going on.
    pub fn stats(&self) -> StatsServiceClient<Authorized> {
        StatsServiceClient::new(self.channel.clone())
    }

    /// The routing configuration.
    pub fn routing_config(&self) -> RoutingConfigServiceClient<Authorized> {
        RoutingConfigServiceClient::new(self.channel.clone())
    }

    /// `GetStats`.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn get_stats(&self) -> Result<v1::GetStatsResponse, Status> {
        let answer = self.stats().get_stats(v1::GetStatsRequest {}).await?;
        Ok(answer.into_inner())
    }
}

/// Adds the bearer token to every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The reason of a refusal, one of those in docs/errors.md.
pub fn reason(status: &Status) -> Option<String> {
    Some(status.get_details_error_info()?.reason)
}
