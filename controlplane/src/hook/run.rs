//! Starts the guard, and hears how the hook ended.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{Deadline, DeltaHook, HookError, Order, guard};

/// Output of a hook that is kept for the log, its last bytes.
const OUTPUT_TAIL: usize = 4 * 1024;

/// How long after the deadline the guard may take to kill and to say so.
const GUARD_GRACE: Duration = Duration::from_secs(2);

/// How long output is still read after the end: a process that we may not end may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// The operator's program, run under our guard.
#[derive(Debug, Clone)]
pub struct GuardedHook {
    guard: PathBuf,
    command: Vec<OsString>,
    timeout: Duration,
}

impl GuardedHook {
    /// `guard`: the control plane's own binary. `command`: the program by its absolute path, and its
    /// arguments. `timeout`: how long a run may take.
    pub fn new(guard: PathBuf, command: Vec<OsString>, timeout: Duration) -> Self {
        Self {
            guard,
            command,
            timeout,
        }
    }

    fn start(&self, deadline: Deadline) -> io::Result<Child> {
        Command::new(&self.guard)
            .arg(guard::SUBCOMMAND)
            .arg(guard::OUTER)
            .arg(deadline.since_boot.as_nanos().to_string())
            .args(&self.command)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
            )
            .env("LANG", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The guard must outlive a signal to our own group: it has a hook to kill.
            .process_group(0)
            .spawn()
    }
}

/// Where programs are when our own environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[async_trait]
impl DeltaHook for GuardedHook {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn run(
        &self,
        mut order: Order,
        deadline: Deadline,
        stop: CancellationToken,
    ) -> Result<(), HookError> {
        let left = deadline.left();
        if left.is_zero() {
            return Err(HookError::Late);
        }
        order.deadline_seconds = left.as_secs_f64();
        let mut guard = self
            .start(deadline)
            .map_err(|error| HookError::Start(error.to_string()))?;
        // The lifeline: when it is dropped, here or with our process, the guard kills the hook.
        let lifeline = guard.stdin.take().expect("stdin is piped");
        let stdout = guard.stdout.take().expect("stdout is piped");
        let stderr = guard.stderr.take().expect("stderr is piped");
        let (mut output, mut errors) = (Tail::default(), Tail::default());
        let ended = {
            let reading = async {
                tokio::join!(output.read(stdout), errors.read(stderr));
            };
            let attending = attend(&mut guard, lifeline, &order, &stop);
            time::timeout_at(deadline.at + GUARD_GRACE, both(attending, reading)).await
        };
        output.log(&order.migration_id, "stdout");
        errors.log(&order.migration_id, "stderr");
        match ended {
            // The guard itself hangs: it is of no use any more, its deadline is over.
            Err(_) => {
                let _ = guard.kill().await;
                Err(HookError::Late)
            }
            Ok(Err(error)) => Err(HookError::Start(error.to_string())),
            Ok(Ok(status)) => match guard::outcome(status) {
                Err(HookError::Late) if stop.is_cancelled() => Err(HookError::Stopped),
                outcome => outcome,
            },
        }
    }
}

/// Hands over the order and waits for the guard's end, which a closed lifeline brings about.
async fn attend(
    guard: &mut Child,
    mut lifeline: ChildStdin,
    order: &Order,
    stop: &CancellationToken,
) -> io::Result<ExitStatus> {
    let mut line = serde_json::to_vec(order).expect("an order has no map with odd keys");
    line.push(b'\n');
    // A guard that is dead already will say so by its exit.
    let _ = lifeline.write_all(&line).await;
    tokio::select! {
        ended = guard.wait() => return ended,
        () = stop.cancelled() => {}
    }
    drop(lifeline);
    guard.wait().await
}

/// The end of the process, with its output read as long as it comes, or for a short grace after the end. A guard
/// that was killed has left the end of the hook to the other one, which has the same output: its end is theirs.
async fn both(
    attending: impl Future<Output = io::Result<ExitStatus>>,
    reading: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    tokio::pin!(attending, reading);
    tokio::select! {
        ended = &mut attending => {
            let killed = matches!(&ended, Ok(status) if status.code().is_none());
            if killed {
                reading.await;
            } else {
                let _ = time::timeout(OUTPUT_GRACE, reading).await;
            }
            ended
        }
        () = &mut reading => attending.await,
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    async fn read(&mut self, mut from: impl AsyncRead + Unpin) {
        let mut chunk = [0; 1024];
        while let Ok(n @ 1..) = from.read(&mut chunk).await {
            self.bytes.extend_from_slice(&chunk[..n]);
            if self.bytes.len() > OUTPUT_TAIL {
                self.bytes.drain(..self.bytes.len() - OUTPUT_TAIL);
                self.cut = true;
            }
        }
    }

    /// Line by line, so that no output can be taken for a log line of ours.
    fn log(&self, migration: &str, stream: &str) {
        if self.cut {
            tracing::info!(
                migration,
                stream,
                "the beginning of the hook's output is left out"
            );
        }
        for line in String::from_utf8_lossy(&self.bytes).lines() {
            let line = line.escape_debug();
            tracing::info!(migration, stream, %line, "hook");
        }
    }
}
