//! What is left of an exchange on a stream of HTTP/2 when nobody waits for it any more.
//!
//! A stream that is reset may be executed all the same, and other exchanges go on beside it, so that its connection
//! cannot be ended for it. So it is read to its end, which proves as much as if somebody had wanted to know.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    time::timeout,
};

use super::{
    client::Client,
    upstream::{Lease, Left, Sending},
};
use crate::registry::{Exchanged, OnlyAsked};

/// The rest. What of it is dropped on a stream resets that.
pub(super) enum Rest {
    /// All of the response.
    Answer(Sending),
    /// The rest of its body.
    Body(Incoming),
    /// A WebSocket's server.
    Tunnel(TokioIo<Upgraded>),
    /// There is none, or nobody can have it.
    Nothing,
}

impl Rest {
    /// Of a request that was not sent to its end nothing is waited for: it must not become whole.
    pub(super) fn of(self, is_whole: bool) -> Self {
        if is_whole { self } else { Self::Nothing }
    }

    /// Reads it. False: it came to no end.
    async fn read(self) -> bool {
        let mut body = match self {
            Self::Answer(sending) => match sending.await {
                Ok(response) => response.into_body(),
                Err(_) => return false,
            },
            Self::Body(body) => body,
            Self::Tunnel(mut server) => {
                return server.shutdown().await.is_ok()
                    && copy(&mut server, &mut sink()).await.is_ok();
            }
            Self::Nothing => return false,
        };
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    }
}

/// Reads the rest of an exchange, and ends its registration.
pub(super) async fn see_out(
    client: Arc<Client>,
    (left, lease): (Left, Lease),
    rest: Rest,
    limit: Duration,
) {
    match timeout(limit, rest.read()).await {
        Ok(true) => {
            let exchanged = Exchanged::by_reading();
            client.upstreams.keep(lease, exchanged);
            left.guard.closed(exchanged);
        }
        Err(_) if left.only_asks => {
            let proof = OnlyAsked::by_its_kind();
            client.upstreams.keep(lease, proof);
            left.guard.closed(proof);
        }
        // Counted as unconfirmed: nobody saw its end.
        Err(_) => lease.line.end(client.web.services.limits.relay.close),
        // Its server has ended it, or the connection: then that is to end, and says what became of it.
        Ok(false) => {
            let line = Arc::clone(&lease.line);
            line.leave(left);
            line.end(client.web.services.limits.relay.close);
        }
    }
}
