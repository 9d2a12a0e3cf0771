//! The replica's lease: what it writes under it is gone soon after the replica is.

use std::{sync::Arc, time::Duration};

use ferrypost_runtime::{Backoff, Random};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::store::{LeaseError, LeaseId, Store};

/// How long `/live` outlives its replica. A fence that is under way ends within its window anyway;
/// this only delays the moment at which a lost replica's data planes count as silent.
const TIME_TO_LIVE: Duration = Duration::from_secs(10);

/// Three renewals fit into the time to live.
const RENEWAL: Duration = Duration::from_secs(3);

/// Keeps a lease alive, and takes another one when it is lost. `None` while there is none, which is also
/// what a replica is told that has lost its store for so long that the lease has ended there.
pub(super) fn keep(
    store: Arc<dyn Store>,
    random: Random,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> watch::Receiver<Option<LeaseId>> {
    let (current, lease) = watch::channel(None);
    tasks.spawn(async move {
        cancel
            .run_until_cancelled(renew(&*store, random, &current))
            .await;
        let held = *current.borrow();
        if let Some(held) = held {
            // Without an answer it ends by itself.
            let _ = time::timeout(RENEWAL, store.revoke(held)).await;
        }
    });
    lease
}

async fn renew(store: &dyn Store, random: Random, current: &watch::Sender<Option<LeaseId>>) {
    let mut backoff = Backoff::new(random, Duration::from_millis(100), RENEWAL);
    loop {
        let mut confirmed = Instant::now();
        let Ok(lease) = store.grant(TIME_TO_LIVE).await else {
            time::sleep(backoff.pause()).await;
            continue;
        };
        backoff.reset();
        current.send_replace(Some(lease));
        loop {
            time::sleep(RENEWAL).await;
            let called = Instant::now();
            match store.keep_alive(lease).await {
                Ok(()) => confirmed = called,
                // Without an answer it may live on, until its time is over.
                Err(LeaseError::Store(_)) if confirmed.elapsed() < TIME_TO_LIVE => {}
                Err(LeaseError::Lost | LeaseError::Store(_)) => break,
            }
        }
        current.send_replace(None);
    }
}
