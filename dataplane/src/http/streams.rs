//! The exchanges of an HTTP/2 connection whose responses are on their way.
//!
//! A stream has a window of its own, and a response that its client does not take waits for that while everything else
//! on the connection goes on. Nobody polls it meanwhile, so that it is looked for here.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::time::sleep;

use super::running::Running;

/// The exchanges.
#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<Weak<Running>>>);

impl Streams {
    /// Adds one.
    pub(super) fn add(&self, running: &Arc<Running>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|running| running.strong_count() > 0);
        }
        all.push(Arc::downgrade(running));
    }

    /// Ends those whose clients take nothing for so long, for as long as this is polled.
    pub(super) async fn tend(&self, patience: Duration) -> Infallible {
        loop {
            sleep(patience).await;
            for running in self.all() {
                running.end_if_stuck(patience);
            }
        }
    }

    fn all(&self) -> Vec<Arc<Running>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}
