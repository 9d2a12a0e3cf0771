//! When a message on its way must not become whole: a recipient of it was told to end, and had its time.

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, pending},
    stream::FuturesUnordered,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::registry::{CloseReason, Ending};

/// The servers of a message that are to be cut.
pub(super) struct Cuts {
    coming: FuturesUnordered<BoxFuture<'static, (usize, CloseReason)>>,
    cuts: Vec<Cut>,
}

#[derive(Default)]
struct Cut {
    token: CancellationToken,
    reason: Option<CloseReason>,
}

impl Cuts {
    /// For `servers` servers, and recipients of theirs. A move and a stop give a message `grace` to become whole;
    /// nothing else does.
    pub(super) fn new(
        servers: usize,
        recipients: impl Iterator<Item = (usize, Ending)>,
        grace: Duration,
    ) -> Self {
        let coming = recipients.map(|(server, ending)| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let reason = ending.told().await;
                if matches!(reason, CloseReason::Moved | CloseReason::Stopping) {
                    sleep(grace).await;
                }
                (server, reason)
            })
        });
        Self {
            coming: coming.collect(),
            cuts: std::iter::repeat_with(Cut::default).take(servers).collect(),
        }
    }

    /// Waits for the next server to be cut. Cancel-safe; never, once all are.
    pub(super) async fn next(&mut self) -> usize {
        loop {
            let Some((server, reason)) = self.coming.next().await else {
                return pending().await;
            };
            let cut = &mut self.cuts[server];
            cut.token.cancel();
            if cut.reason.is_none() {
                cut.reason = Some(reason);
                return server;
            }
        }
    }

    /// Ends what is done with a server when it is cut.
    pub(super) fn token(&self, server: usize) -> CancellationToken {
        self.cuts[server].token.clone()
    }

    /// Why a server was cut.
    pub(super) fn reason(&self, server: usize) -> Option<CloseReason> {
        self.cuts[server].reason
    }
}
