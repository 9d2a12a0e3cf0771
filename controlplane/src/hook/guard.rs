//! The guard: a small process of our own between the control plane and a hook, which kills the hook's
//! process group at its deadline, or when the control plane is gone, whichever is first.

use std::{
    ffi::OsString,
    io,
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process_group},
    time::{ClockId, clock_gettime},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::pipe,
    process::{Child, Command},
    runtime::Builder,
    time,
};

use super::HookError;

/// The word on the command line that makes the binary a guard.
pub const SUBCOMMAND: &str = "hook-guard";

/// The hook was late.
const LATE: u8 = 124;
/// The hook could not be started.
const NOT_STARTED: u8 = 125;
/// The hook was killed by a signal; the signal follows as the exit code of nothing else does.
const KILLED_BASE: u8 = 128;

/// How often the deadline is looked at: timers stand still while the machine is suspended, the deadline's
/// clock does not.
const LOOK: Duration = Duration::from_millis(100);

/// The longest order, in bytes.
const MAX_ORDER: u64 = 1 << 20;

/// The clock of deadlines that another process must understand, and that a suspended machine does not
/// stop: `CLOCK_BOOTTIME`.
pub(super) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// How a hook ended, from the guard's own end.
pub(super) fn outcome(status: ExitStatus) -> Result<(), HookError> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(LATE) => Err(HookError::Late),
        Some(code) if code == i32::from(NOT_STARTED) => {
            Err(HookError::Start("see its output".to_owned()))
        }
        Some(code) if code > i32::from(KILLED_BASE) => {
            Err(HookError::Signal(code - i32::from(KILLED_BASE)))
        }
        Some(code) => Err(HookError::Code(code)),
        None => Err(HookError::Signal(status.signal().unwrap_or_default())),
    }
}

/// Is the guard, on a small runtime of its own: `arguments` are what follows [`SUBCOMMAND`], the deadline,
/// the program and its arguments.
///
/// Its standard input is the order, one line, for the hook, and after that the lifeline: its end means
/// that the control plane is gone.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{SUBCOMMAND}: {error}");
            return ExitCode::from(NOT_STARTED);
        }
    };
    runtime.block_on(run(arguments))
}

async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let deadline = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .map(Duration::from_nanos);
    let (Some(deadline), Some(program)) = (deadline, arguments.next()) else {
        eprintln!("{SUBCOMMAND} is for the control plane's own use");
        return ExitCode::from(NOT_STARTED);
    };
    let Ok(lifeline) = lifeline() else {
        eprintln!("{SUBCOMMAND}: standard input is not the control plane's pipe");
        return ExitCode::from(NOT_STARTED);
    };
    let mut lifeline = BufReader::new(lifeline);
    let mut order = Vec::new();
    let mut bounded = (&mut lifeline).take(MAX_ORDER);
    let read = bounded.read_until(b'\n', &mut order).await;
    if read.is_err() || !order.ends_with(b"\n") || since_boot() >= deadline {
        return ExitCode::from(LATE);
    }
    let started = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut hook = match started {
        Ok(hook) => hook,
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            return ExitCode::from(NOT_STARTED);
        }
    };
    let group = group_of(&hook);
    let code = tokio::select! {
        biased;
        ended = obey(&mut hook, order) => ended,
        () = passed(deadline) => LATE,
        () = gone(lifeline) => LATE,
    };
    // What the hook has started and left behind ends with it, also after a success.
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = hook.wait().await;
    ExitCode::from(code)
}

/// The pipe that the control plane holds the other end of.
fn lifeline() -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)
}

/// The hook leads its group, so the group has its id.
fn group_of(hook: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(hook.id()?).ok()?)
}

/// Hands the order over and waits for the hook's end.
async fn obey(hook: &mut Child, order: Vec<u8>) -> u8 {
    if let Some(mut stdin) = hook.stdin.take() {
        // A hook that does not read its order may still do its work.
        let hand_over = async move {
            let _ = stdin.write_all(&order).await;
        };
        tokio::select! {
            () = hand_over => {}
            ended = hook.wait() => return ended.map_or(NOT_STARTED, code_of),
        }
    }
    hook.wait().await.map_or(NOT_STARTED, code_of)
}

/// The hook's own code, as far as it cannot be taken for one of ours.
fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => match u8::try_from(code) {
            Ok(code) if code < LATE => code,
            _ => LATE - 1,
        },
        (None, Some(signal)) => KILLED_BASE.saturating_add(u8::try_from(signal).unwrap_or(1)),
        (None, None) => NOT_STARTED,
    }
}

async fn passed(deadline: Duration) {
    while let Some(left) = deadline
        .checked_sub(since_boot())
        .filter(|left| !left.is_zero())
    {
        time::sleep(left.min(LOOK)).await;
    }
}

/// Ends when the control plane's end of the pipe closes.
async fn gone(mut lifeline: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = [0; 64];
    while let Ok(1..) = lifeline.read(&mut rest).await {}
}
