//! How the process ends: tasks are told once, and waited for.

use std::{future::Future, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long tasks may take to end. They only give up the leadership and end streams, none of which
/// needs a store that is away.
const GRACE: Duration = Duration::from_secs(10);

/// Owns every task of a running control plane. Cloned into whatever starts tasks.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The tasks that are waited for: for whoever starts tasks of its own.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Starts a task that ends when the token is cancelled.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Tells every task to end and waits for them.
    ///
    /// # Errors
    /// When some had not ended within the grace period.
    pub async fn run(&self) -> Result<(), StillRunning> {
        self.token.cancel();
        self.tasks.close();
        tokio::time::timeout(GRACE, self.tasks.wait())
            .await
            .map_err(|_| StillRunning {
                tasks: self.tasks.len(),
            })
    }
}

/// Tasks that did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("{tasks} tasks had not ended {GRACE:?} after they were told to")]
pub struct StillRunning {
    /// How many.
    pub tasks: usize,
}

/// The signals that ask a process to end: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on: a signal that comes before anybody waits is not lost.
    ///
    /// # Errors
    /// When the operating system does not let us.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves when the process has been asked to end.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
