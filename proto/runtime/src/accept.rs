//! The loop in which a listener takes connections, and what it does when it cannot.

use std::{
    convert::Infallible,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long to wait when the system has no more descriptors or memory for a connection: others end
/// meanwhile, while an immediate retry would spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// How often a listener complains.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Takes connections for as long as it is polled: `accept` waits for one, `take` starts what serves it and
/// returns at once. A connection that went away before it was taken is nobody's business; any other failure
/// is complained of and waited out.
pub async fn connections<C, F>(
    complaints: &Complaints,
    accept: impl Fn() -> F,
    mut take: impl FnMut(C),
) -> Infallible
where
    F: Future<Output = io::Result<C>>,
{
    loop {
        match accept().await {
            Ok(connection) => take(connection),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                complaints.about(&error);
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Whether `accept` failed for a connection and not for the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// One listener's complaints, which would otherwise be one a connection at a time when there are too many.
#[derive(Debug)]
pub struct Complaints {
    listener: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Those of the listener of this name.
    pub fn of(listener: &str) -> Self {
        Self {
            listener: listener.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Logs why a connection is not taken, or counts it for the next line.
    pub fn about(&self, reason: &dyn fmt::Display) {
        if let Some(untold) = self.due() {
            tracing::warn!(listener = self.listener, %reason, untold, "cannot take connections");
        }
    }

    /// How many were kept back since the last line, if it is time for another.
    fn due(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .last
            .is_some_and(|last| last.elapsed() < COMPLAINT_PAUSE)
        {
            state.untold += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// No more descriptors.
    const EMFILE: i32 = 24;

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_cannot_accept_waits_and_goes_on() {
        let answers = Mutex::new(VecDeque::from([
            Err(io::Error::from_raw_os_error(EMFILE)),
            Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(1),
            Ok(2),
        ]));
        let (complaints, begun) = (Complaints::of("imaps"), Instant::now());
        let mut taken = Vec::new();
        let accept = || async {
            let answer = answers.lock().unwrap().pop_front();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        };
        let serving = connections(&complaints, accept, |number| {
            taken.push((number, begun.elapsed()));
        });
        let limit = tokio::time::timeout(Duration::from_mins(1), serving).await;
        assert!(limit.is_err(), "it goes on for as long as it is polled");
        assert_eq!(taken, [(1, EXHAUSTED_PAUSE), (2, EXHAUSTED_PAUSE)]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_complaints_are_one_line_with_their_number() {
        let complaints = Complaints::of("imaps");
        assert_eq!(complaints.due(), Some(0));
        for _ in 0..5 {
            assert_eq!(complaints.due(), None);
        }
        tokio::time::advance(COMPLAINT_PAUSE).await;
        assert_eq!(complaints.due(), Some(5));
    }
}
