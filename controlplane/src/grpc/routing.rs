//! The data planes' stream.

use std::pin::Pin;

use ferrypost_proto::routing::v1::{
    StreamRequest, StreamResponse, routing_service_server::RoutingService,
};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    config::Identity,
    fleet::{Claimable, Fleet},
    net::Peer,
};

/// Serves `ferrypost.routing.v1.RoutingService`.
#[derive(Debug, Clone)]
pub(crate) struct Routing {
    fleet: Fleet,
    identity: Identity,
}

impl Routing {
    /// Over this replica's fleet.
    pub(crate) fn new(fleet: Fleet, identity: Identity) -> Self {
        Self { fleet, identity }
    }

    /// Which instance id a caller may claim. Without a certificate it has no name.
    fn claimable(&self, peer: Option<&Peer>) -> Claimable {
        match self.identity {
            Identity::Any => Claimable::Any,
            Identity::Certificate => {
                let certificate = peer.and_then(|peer| peer.certificate.as_deref());
                let names = certificate.map(|certificate| certificate.dns_names.clone());
                Claimable::Named(names.unwrap_or_default())
            }
        }
    }
}

#[tonic::async_trait]
impl RoutingService for Routing {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let claimable = self.claimable(request.extensions().get::<Peer>());
        let responses = self.fleet.serve(request.into_inner(), &claimable).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}
