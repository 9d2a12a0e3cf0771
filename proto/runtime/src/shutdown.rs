//! How a process ends: what it is told, and who waits for whom.

use std::{future::Future, io, time::Duration};

use tokio::{
    runtime::{self, Handle},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a task that is dropped may take to be gone: it is, at its next await.
const DROPPED: Duration = Duration::from_secs(2);

/// The process ends at once, as a second signal asks for.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("ended by a second signal")]
pub struct ToldAgain;

/// Two words and the tasks that obey them. Clones share both.
///
/// *Stop*: take nothing new, finish or close what is open in good manners. *Force*: drop everything
/// now. A task that was spawned here is waited for, and is dropped with the second word.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    force: CancellationToken,
    tasks: TaskTracker,
    /// `None`: where it is said.
    runtime: Option<Handle>,
}

impl Shutdown {
    /// For a new group of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a new group of tasks that run on this runtime, wherever they are started.
    pub fn on(runtime: Handle) -> Self {
        Self {
            runtime: Some(runtime),
            ..Self::default()
        }
    }

    /// Runs a task until it ends or everything is dropped by [`force`](Self::force).
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let force = self.force.clone();
        self.start(async move {
            // A task that is dropped closes what it holds.
            _ = force.run_until_cancelled(task).await;
        });
    }

    /// Runs a task that has nothing to finish: it ends by itself or is dropped when stopping begins.
    pub fn spawn_background<T: Send>(&self, task: impl Future<Output = T> + Send + 'static) {
        let stop = self.stop.clone();
        self.start(async move {
            _ = stop.run_until_cancelled(task).await;
        });
    }

    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.runtime {
            Some(runtime) => self.tasks.spawn_on(task, runtime),
            None => self.tasks.spawn(task),
        };
    }

    /// For whoever starts tasks of its own and lets them end with [`stopping`](Self::stopping): they
    /// are waited for, and not dropped with the second word.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Cancelled when stopping begins.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Says the first word.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Says both words.
    pub fn force(&self) {
        self.stop.cancel();
        self.force.cancel();
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Stops and waits for all tasks, at most for `limit`; then drops those that are left and waits
    /// until they are gone. Returns how many had not ended by themselves.
    pub async fn wait(&self, limit: Duration) -> usize {
        self.stop();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.force();
        // A task that blocks its thread is not worth more: the process ends.
        _ = tokio::time::timeout(DROPPED, self.tasks.wait()).await;
        left
    }
}

/// From now on SIGHUP does not end the process. For the first thing that a program does: whoever starts it may tell it to
/// read its configuration again before it has read it once. Not from within an asynchronous task.
///
/// # Errors
/// What the system says.
pub fn outlive_hangups() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    // What is once taken from the system is never given back.
    runtime.block_on(async { signal(SignalKind::hangup()).map(drop) })
}

/// The signals by which the process is told to end: SIGTERM, and SIGINT from a terminal.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_that_obey_are_waited_for() {
        let shutdown = Shutdown::new();
        let stopping = shutdown.stopping().clone();
        shutdown.spawn(async move {
            stopping.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
        assert_eq!(shutdown.wait(Duration::from_secs(10)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_in_the_background_ends_with_the_first_word() {
        let shutdown = Shutdown::new();
        shutdown.spawn_background(std::future::pending::<()>());
        assert_eq!(shutdown.tasks(), 1);
        assert_eq!(shutdown.wait(Duration::from_secs(10)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_is_dropped_at_the_limit_and_counted() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        let before = tokio::time::Instant::now();
        assert_eq!(shutdown.wait(Duration::from_secs(10)).await, 1);
        assert_eq!(before.elapsed(), Duration::from_secs(10));
        assert_eq!(shutdown.tasks(), 0);
    }
}
