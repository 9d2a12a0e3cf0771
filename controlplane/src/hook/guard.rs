//! The guards: two small processes of our own between the control plane and a hook, one below the other. Each
//! kills all that is below it at the hook's deadline, or when the process above it is gone, whichever is first. So
//! any one of the three may be killed without a warning, and any two that leave a guard.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::AsFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    process::{
        Pid, Signal, getpid, getppid, kill_process_group, set_child_subreaper,
        set_parent_process_death_signal,
    },
    time::{ClockId, clock_gettime},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::pipe,
    process::{Child, Command},
    runtime::Builder,
    time,
};

use super::{HookError, descendants};

/// The word on the command line that makes the binary a guard.
pub const SUBCOMMAND: &str = "hook-guard";

/// The hook was late.
const LATE: u8 = 124;
/// The hook could not be started. A hook may say so of what it was to start in its turn: `env` and `timeout` do, by
/// the same number.
const NOT_STARTED: u8 = 125;
/// Something that the hook has started could not be ended.
const LEFT: u8 = 126;
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
        Some(code) if code == i32::from(LEFT) => Err(HookError::Left),
        Some(code) if code > i32::from(KILLED_BASE) => {
            Err(HookError::Signal(code - i32::from(KILLED_BASE)))
        }
        Some(code) => Err(HookError::Code(code)),
        None => Err(HookError::Signal(status.signal().unwrap_or_default())),
    }
}

/// The control plane's child, as its first argument says it.
pub(super) const OUTER: &str = "outer";

/// Ourselves, also when the file was replaced.
const OURSELVES: &str = "/proc/self/exe";

/// What `ps` shows of our processes below the first guard.
const SHOWN_AS: &str = "ferrypost-hook-guard";

/// What one of our processes on the way to the hook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The control plane's child.
    Outer,
    /// Its child.
    Inner,
    /// The child of that, which becomes the hook.
    Hook,
}

impl Role {
    const ALL: [Self; 3] = [Self::Outer, Self::Inner, Self::Hook];

    const fn word(self) -> &'static str {
        match self {
            Self::Outer => OUTER,
            Self::Inner => "inner",
            Self::Hook => "hook",
        }
    }

    fn read(word: &OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// The operator's program.
struct Hook {
    program: OsString,
    arguments: Vec<OsString>,
}

/// Is a guard, on a small runtime of its own: `arguments` are what follows [`SUBCOMMAND`], the role, the
/// deadline, the program and its arguments.
///
/// Its standard input is the order, one line, for the hook, and after that the lifeline: its end means
/// that the process above is gone.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let role = arguments.next().and_then(|word| Role::read(&word));
    let number = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok());
    let (Some(role), Some(number), Some(program)) = (role, number, arguments.next()) else {
        eprintln!("{SUBCOMMAND} is for the control plane's own use");
        return ExitCode::from(NOT_STARTED);
    };
    let hook = Hook {
        program,
        arguments: arguments.collect(),
    };
    if role == Role::Hook {
        return become_hook(&hook, number);
    }
    // On one thread: for the kernel, the hook's parent is the thread that has started it.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{SUBCOMMAND}: {error}");
            return ExitCode::from(NOT_STARTED);
        }
    };
    runtime.block_on(run(role, Duration::from_nanos(number), hook))
}

/// Becomes the hook, which the kernel kills when the guard above it, whose process id is `guard`, ends in whatever
/// way. That is for the hook alone: its children do not inherit it, and a setuid program loses it.
fn become_hook(hook: &Hook, guard: u64) -> ExitCode {
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    if let Err(error) = bound {
        eprintln!("{SUBCOMMAND}: the kernel will not end the hook with its guard: {error}");
        return ExitCode::from(NOT_STARTED);
    }
    // The guard may have died before that.
    if getppid().and_then(|parent| u64::try_from(parent.as_raw_pid()).ok()) != Some(guard) {
        return ExitCode::from(LATE);
    }
    let error = std::process::Command::new(&hook.program)
        .args(&hook.arguments)
        .exec();
    eprintln!("{}: {error}", hook.program.display());
    ExitCode::from(NOT_STARTED)
}

async fn run(role: Role, deadline: Duration, hook: Hook) -> ExitCode {
    let Ok(lifeline) = lifeline() else {
        eprintln!("{SUBCOMMAND}: standard input is not the pipe of the process above");
        return ExitCode::from(NOT_STARTED);
    };
    let mut lifeline = BufReader::new(lifeline);
    let mut order = Vec::new();
    let mut bounded = (&mut lifeline).take(MAX_ORDER);
    let read = bounded.read_until(b'\n', &mut order).await;
    if read.is_err() || !order.ends_with(b"\n") || since_boot() >= deadline {
        return ExitCode::from(LATE);
    }
    let mut below = match start(role, deadline, &hook) {
        Ok(below) => below,
        Err(error) => {
            eprintln!("{SUBCOMMAND}: {error}");
            return ExitCode::from(NOT_STARTED);
        }
    };
    // What is below leads its group, so the group has its id.
    let group = below.id();
    let ended = tokio::select! {
        biased;
        code = obey(role, &mut below, order) => Some(code),
        () = passed(deadline) => None,
        () = gone(lifeline) => None,
    };
    // The group at once first, so that none of it can flee; once its leader was waited for, its id may be another's.
    if let (None, Some(group)) = (ended, group.and_then(as_pid)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    if let Err(error) = descendants::end_all().await {
        eprintln!("{SUBCOMMAND}: {error}");
        return ExitCode::from(LEFT);
    }
    ExitCode::from(ended.unwrap_or(LATE))
}

/// Starts what is below: the second guard, or what becomes the hook.
fn start(role: Role, deadline: Duration, hook: &Hook) -> io::Result<Child> {
    // Whatever loses its parent below us becomes our child, so that nothing escapes by leaving its group.
    set_child_subreaper(Some(getpid()))?;
    let (below, number) = match role {
        Role::Outer => (Role::Inner, deadline.as_nanos()),
        Role::Inner | Role::Hook => (Role::Hook, u128::from(std::process::id())),
    };
    Command::new(OURSELVES)
        .arg0(SHOWN_AS)
        .args([SUBCOMMAND, below.word(), &number.to_string()])
        .arg(&hook.program)
        .args(&hook.arguments)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// The pipe that the process above holds the other end of.
fn lifeline() -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)
}

fn as_pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// Hands the order over and waits for the end of what is below. A guard keeps its pipe as a lifeline, the hook
/// hears the end of its order.
async fn obey(role: Role, below: &mut Child, order: Vec<u8>) -> u8 {
    let code = match role {
        Role::Outer => guard_code,
        Role::Inner | Role::Hook => code_of,
    };
    let Some(mut pipe) = below.stdin.take() else {
        return NOT_STARTED;
    };
    // A hook that does not read its order may still do its work.
    tokio::select! {
        _ = pipe.write_all(&order) => {}
        ended = below.wait() => return ended.map_or(NOT_STARTED, code),
    }
    let lifeline = (role == Role::Outer).then_some(pipe);
    let ended = below.wait().await.map_or(NOT_STARTED, code);
    drop(lifeline);
    ended
}

/// The code of the guard below, which is in our words already.
fn guard_code(status: ExitStatus) -> u8 {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) => code,
        _ => code_of(status),
    }
}

/// The hook's own code, as far as it cannot be taken for one of ours.
fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => match u8::try_from(code) {
            Ok(code) if code < LATE || code == NOT_STARTED => code,
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

/// Ends when the other end of the pipe closes: with the process above.
async fn gone(mut lifeline: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = [0; 64];
    while let Ok(1..) = lifeline.read(&mut rest).await {}
}
