//! Waiting for facts instead of sleeping and hoping.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A fact that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {limit:?}; last seen: {last}")]
pub struct Late {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub limit: Duration,
    /// Why the last probe said no.
    pub last: String,
}

/// Asks `probe` until it answers `Ok`, at growing intervals of 2 to 50 ms, and gives that answer
/// back. A probe that hangs is cut off at the limit as well.
///
/// # Errors
/// [`Late`] after `limit`, with the last probe's reason.
pub async fn eventually<T, E, F>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T, Late>
where
    F: Future<Output = Result<T, E>>,
    E: Display,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut last = String::from("the probe did not answer");
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(fact)) => return Ok(fact),
            Ok(Err(reason)) => last = reason.to_string(),
            Err(_) => {}
        }
        if Instant::now() + pause >= deadline {
            return Err(Late {
                what: what.to_owned(),
                limit,
                last,
            });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// [`eventually`] for a plain yes or no.
///
/// # Errors
/// [`Late`] after `limit`.
pub async fn until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> bool,
) -> Result<(), Late> {
    eventually(what, limit, || {
        let verdict = if holds() {
            Ok(())
        } else {
            Err("it does not hold")
        };
        std::future::ready(verdict)
    })
    .await
}
