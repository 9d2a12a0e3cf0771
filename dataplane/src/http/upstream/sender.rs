//! How a connection is asked, whichever version is spoken there.

use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use super::super::body::Upload;

/// A response that is waited for.
pub(in super::super) type Sending = BoxFuture<'static, Result<Response<Incoming>, Unsent>>;

/// Why there is none, with the request if nothing of it was sent.
pub(in super::super) type Unsent = TrySendError<Request<Upload>>;

/// The way in.
#[derive(Debug)]
pub(super) enum Sender {
    /// For one exchange at a time.
    Http1(http1::SendRequest<Upload>),
    /// For several.
    Http2(http2::SendRequest<Upload>),
}

impl Sender {
    /// Waits until it can be asked.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Asks.
    pub(super) fn ask(&mut self, request: Request<Upload>) -> Sending {
        match self {
            Self::Http1(sender) => Box::pin(sender.try_send_request(request)),
            Self::Http2(sender) => Box::pin(sender.try_send_request(request)),
        }
    }

    /// The same way for another exchange.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }
}
