//! The way up: what the data plane says to the control plane.

use std::time::Duration;

use ferrypost_proto::routing::v1::{StreamRequest, stream_request::Message};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::error::FeedError;

/// Messages under way. Reports are few; when this is full, the peer does not read.
const QUEUE: usize = 64;

/// Sends requests on one stream.
pub(super) struct Uplink {
    queue: mpsc::Sender<StreamRequest>,
    /// How long a full queue is waited for.
    patience: Duration,
}

impl Uplink {
    pub(super) fn new(patience: Duration) -> (Self, ReceiverStream<StreamRequest>) {
        let (queue, requests) = mpsc::channel(QUEUE);
        (Self { queue, patience }, ReceiverStream::new(requests))
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Queues a message. If the stream is over that is no error here: the way down knows why.
    pub(super) async fn send(&self, message: Message) -> Result<(), FeedError> {
        let request = StreamRequest {
            message: Some(message),
        };
        match timeout(self.patience, self.queue.send(request)).await {
            Ok(Ok(()) | Err(_)) => Ok(()),
            Err(_) => Err(FeedError::Stuck),
        }
    }
}
