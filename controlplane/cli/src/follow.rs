//! Following a move to its end, whatever becomes of the connection.

use std::{future::pending, pin::pin, time::Duration};

use ferrypost_proto::v1;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};
use tonic::{Code, Status};

use crate::{
    client::Client,
    console::Console,
    exit::Exit,
    failure::{Failure, Intent},
    progress::Progress,
};

/// For how long a lost control plane is looked for. A leader that died has a successor after some six seconds.
pub(crate) const LOST: Duration = Duration::from_secs(30);

/// Between attempts.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// What to follow, and how far.
pub(crate) struct Follow {
    /// The move.
    pub(crate) migration_id: String,
    /// The last thing to wait for.
    pub(crate) until: fn(&v1::Migration) -> bool,
    /// How long.
    pub(crate) wait: Duration,
}

/// What was seen last, and why it was not the end.
pub(crate) struct Followed {
    pub(crate) last: Option<v1::Migration>,
    pub(crate) failure: Option<Failure>,
}

impl Follow {
    /// Follows. `seen` gets every state.
    pub(crate) async fn run(
        &self,
        client: &mut Client,
        console: &mut Console,
        mut seen: impl FnMut(&mut Console, &v1::Migration),
    ) -> Followed {
        let deadline = Instant::now() + self.wait;
        let mut interrupted = pin!(interrupted());
        let mut progress = Progress::default();
        let mut last = None;
        let mut heard = Instant::now();
        loop {
            let mut note = |migration: v1::Migration| {
                if let Some(line) = progress.step(&migration) {
                    console.progress(&line);
                }
                seen(console, &migration);
                heard = Instant::now();
                last = Some(migration);
            };
            let watched = tokio::select! {
                watched = timeout_at(deadline, self.watch(client, &mut note)) => watched,
                () = &mut interrupted => {
                    let failure = Some(self.interrupted());
                    return Followed { last, failure };
                }
            };
            let is_over = last.as_ref().is_some_and(self.until);
            let failure = match watched {
                _ if is_over => None,
                Err(_) => Some(self.late()),
                // The stream has ended as it should, and whoever wants more is answered by a new one.
                Ok(Ok(())) => continue,
                Ok(Err(status)) if is_final(&status) => Some(Failure::of(&status, Intent::Look)),
                Ok(Err(status)) if heard.elapsed() > LOST => Some(self.lost(&status)),
                Ok(Err(_)) => {
                    let again = async {
                        sleep(PAUSE).await;
                        client.reconnect().await
                    };
                    tokio::select! {
                        _ = again => continue,
                        () = &mut interrupted => Some(self.interrupted()),
                    }
                }
            };
            return Followed { last, failure };
        }
    }

    async fn watch(
        &self,
        client: &Client,
        seen: &mut impl FnMut(v1::Migration),
    ) -> Result<(), Status> {
        let request = v1::WatchMigrationRequest {
            migration_id: self.migration_id.clone(),
        };
        let mut changes = client
            .migrations()
            .watch_migration(request)
            .await?
            .into_inner();
        while let Some(change) = changes.message().await? {
            let Some(migration) = change.migration else {
                continue;
            };
            let is_last = (self.until)(&migration);
            seen(migration);
            if is_last {
                break;
            }
        }
        Ok(())
    }

    fn late(&self) -> Failure {
        let within = format!("no outcome within {:?}", self.wait);
        self.goes_on(Exit::Deadline, &within)
    }

    fn interrupted(&self) -> Failure {
        self.goes_on(Exit::Interrupted, "nobody waits for it any more")
    }

    fn goes_on(&self, exit: Exit, why: &str) -> Failure {
        let id = &self.migration_id;
        Failure::new(exit, format!("{why}; the move {id} goes on"))
            .hint(format!("ferrypost watch {id}, or ferrypost abort {id}"))
    }

    fn lost(&self, status: &Status) -> Failure {
        let id = &self.migration_id;
        let message = format!(
            "the control plane is lost ({}), and the move {id} goes on without us",
            status.message()
        );
        Failure::new(Exit::Unknown, message).hint(format!("ferrypost watch {id}"))
    }
}

/// Resolves when somebody stops waiting: Ctrl-C, or SIGTERM.
async fn interrupted() {
    // Without a handler the process ends as it would without us.
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Whether the same question would be answered the same way again.
pub(crate) fn is_final(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::DeadlineExceeded
    )
}
