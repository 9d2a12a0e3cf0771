//! The order to drain: from a caller of the admin endpoint to the program, and the outcome back.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Cheap to clone; clones share one order.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: CancellationToken,
    outcome: watch::Sender<Option<Drained>>,
}

/// How it went, as a caller reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// Sessions that did not end within `limits.shutdown.grace` and were dropped.
    pub dropped: usize,
    /// Sessions whose server's own end nobody saw: the next moves of their accounts wait for the settle time.
    pub unconfirmed: usize,
    /// `accepted` where the control plane took note, so that no move waits for this data plane; else why not.
    pub goodbye: String,
}

impl Draining {
    /// Gives the order, or joins whoever did.
    pub fn ask(&self) {
        self.0.asked.cancel();
    }

    /// Resolves when the order was given. Cancel-safe.
    pub async fn asked(&self) {
        self.0.asked.cancelled().await;
    }

    /// Tells everybody who asked.
    pub fn is_over(&self, outcome: Drained) {
        self.0.outcome.send_replace(Some(outcome));
    }

    /// How it went, when it is over. Cancel-safe.
    pub async fn outcome(&self) -> Drained {
        let mut outcome = self.0.outcome.subscribe();
        let over = outcome.wait_for(Option::is_some).await;
        let over = over.expect("the sender is ours");
        over.clone().expect("it was waited for")
    }
}
