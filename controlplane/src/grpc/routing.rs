//! The data planes' stream.

use std::pin::Pin;

use ferrypost_proto::routing::v1::{
    StreamRequest, StreamResponse, routing_service_server::RoutingService,
};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::fleet::Fleet;

/// Serves `ferrypost.routing.v1.RoutingService`.
#[derive(Debug, Clone)]
pub(crate) struct Routing {
    fleet: Fleet,
}

impl Routing {
    /// Over this replica's fleet.
    pub(crate) fn new(fleet: Fleet) -> Self {
        Self { fleet }
    }
}

#[tonic::async_trait]
impl RoutingService for Routing {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let responses = self.fleet.serve(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}
