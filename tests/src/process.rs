//! Child processes that cannot outlive the test that started them.
//!
//! Each child leads a process group of its own, which is killed when its [`Process`] is dropped. For
//! the case that the test itself is killed, the child is started through `setpriv --pdeathsig`
//! (util-linux): the kernel then signals it when its parent goes. That signal follows the *thread*
//! that started the child and not the process, so one thread that never ends starts them all.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::log_file::LogFile;
use crate::network::Network;
use crate::wait::{Late, eventually, until};

/// What to start, and how.
#[derive(Debug)]
pub struct Spawn {
    entry: Vec<String>,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    log: PathBuf,
    on_parent_death: &'static str,
    in_session: bool,
    survives: bool,
}

impl Spawn {
    /// `program` (a path, or a name to look for as [`find_program`] does), whose standard output and
    /// error are appended to the file `log`.
    ///
    /// # Errors
    /// `NotFound` when there is no such program.
    pub fn new(program: impl AsRef<Path>, log: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            entry: Vec::new(),
            program: find_program(program.as_ref())?,
            args: Vec::new(),
            envs: Vec::new(),
            log: log.into(),
            on_parent_death: "KILL",
            in_session: false,
            survives: false,
        })
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable on top of the inherited ones.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// When the parent dies, the child is asked by SIGTERM instead of killed: for one that has
    /// children of its own to take along.
    #[must_use]
    pub fn terminate_with_parent(mut self) -> Self {
        self.on_parent_death = "TERM";
        self
    }

    /// The child runs in a network of its own. Not together with [`Spawn::survives`].
    ///
    /// # Errors
    /// As [`Network::entry`].
    pub fn within(mut self, network: &Network) -> io::Result<Self> {
        self.entry = network.entry()?;
        Ok(self)
    }

    /// The child leads a session, too: for one that insists on it, as Postfix does.
    #[must_use]
    pub fn in_session(mut self) -> Self {
        self.in_session = true;
        self
    }

    /// The child goes on when the [`Process`] is dropped or the parent ends; stop it later with
    /// [`ProcessMark::stop_group`].
    #[must_use]
    pub fn survives(mut self) -> Self {
        self.survives = true;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the log cannot be opened or the process not be started.
    pub fn start(self) -> io::Result<Process> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = if self.survives {
            // A session of its own, and with it a group: no terminal's end reaches it.
            let mut command = Command::new(find_program(Path::new("setsid"))?);
            command.arg(&self.program);
            command
        } else {
            let mut command = Command::new(find_program(Path::new("setpriv"))?);
            command.args(["--pdeathsig", self.on_parent_death, "--"]);
            if self.in_session {
                // It makes a group as well, and must not be in one of its own before.
                command.arg(find_program(Path::new("setsid"))?);
            } else {
                command.process_group(0);
            }
            command.args(&self.entry).arg(&self.program);
            command
        };
        command
            .args(&self.args)
            .envs(self.envs)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = start_on_lasting_thread(command)?;
        Ok(Process {
            child,
            log: LogFile::new(self.log),
            survives: self.survives,
            status: None,
        })
    }
}

/// A child, leader of its own process group. Dropping it kills the group and reaps the child, unless
/// it was started with [`Spawn::survives`].
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: LogFile,
    survives: bool,
    status: Option<ExitStatus>,
}

impl Process {
    /// The process id, which is the group's id, too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed.
    pub fn log(&self) -> &LogFile {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// [`Late`] when it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Late> {
        let what = format!("the end of process {}", self.id());
        eventually(&what, limit, || {
            let verdict = match self.status() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(format!("it still runs\n{}", self.log.tail())),
                Err(error) => Err(error.to_string()),
            };
            std::future::ready(verdict)
        })
        .await
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.status()?.is_some() {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(kill_process(pid(self.id())?, signal)?)
    }

    /// Stops its clock by SIGSTOP, until [`Process::resume`].
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn resume(&mut self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to stop by SIGTERM and waits for that.
    ///
    /// # Errors
    /// [`Late`] when it still runs after `grace`; it is left running.
    pub async fn terminate(&mut self, grace: Duration) -> Result<ExitStatus, Late> {
        // One that has ended already is what was asked for.
        let _ = self.signal(Signal::TERM);
        self.wait(grace).await
    }

    /// Kills the whole group by SIGKILL, as a power cut would, and reaps the child.
    pub fn kill(&mut self) {
        if matches!(self.status(), Ok(Some(_))) {
            return;
        }
        kill_group(self.id(), Signal::KILL);
        self.status = self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.survives {
            self.kill();
        }
    }
}

/// A process that can be told from a later one under the same id: its id and when it started, in the
/// kernel's ticks. Written as `id@started`, it survives in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMark {
    id: u32,
    started: u64,
}

impl ProcessMark {
    /// The mark of the process that has this id now; `None` when there is none, or only a zombie.
    pub fn of(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The fields after the command's name, which is in parentheses: proc_pid_stat(5), from 3.
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        Some(Self {
            id,
            started: fields.nth(18)?.parse().ok()?,
        })
    }

    /// Whether that very process still runs.
    pub fn is_running(self) -> bool {
        Self::of(self.id) == Some(self)
    }

    /// Stops its process group, when it leads one and still runs: SIGTERM to the leader, SIGKILL to
    /// the group when the leader is still there after `grace`.
    pub async fn stop_group(self, grace: Duration) {
        let Ok(leader) = pid(self.id) else { return };
        if !self.is_running() || kill_process(leader, Signal::TERM).is_err() {
            return;
        }
        let gone = until("the end of the leader", grace, || !self.is_running()).await;
        if gone.is_err() {
            kill_group(self.id, Signal::KILL);
        }
    }
}

impl std::fmt::Display for ProcessMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.id, self.started)
    }
}

impl std::str::FromStr for ProcessMark {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, started) = text.split_once('@').unwrap_or((text, ""));
        Ok(Self {
            id: id.parse()?,
            started: started.parse()?,
        })
    }
}

/// Whether a process of that id is there and not a zombie.
pub fn is_running(id: u32) -> bool {
    ProcessMark::of(id).is_some()
}

/// Looks for a program: a path as it is, a name along `PATH` and then in the system folders that an
/// ordinary user's `PATH` leaves out.
///
/// # Errors
/// `NotFound`, with the name.
pub fn find_program(program: &Path) -> io::Result<PathBuf> {
    let not_found = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no program {}", program.display()),
        )
    };
    if program.components().count() > 1 {
        return if program.is_file() {
            Ok(program.to_owned())
        } else {
            Err(not_found())
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(not_found)
}

fn pid(id: u32) -> io::Result<Pid> {
    i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// A group that is gone already is no failure.
fn kill_group(leader: u32, signal: Signal) {
    if let Ok(id) = pid(leader) {
        let _ = kill_process_group(id, signal);
    }
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

fn start_on_lasting_thread(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, queue) = mpsc::sync_channel::<Order>(1);
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                // The caller below always waits for its answer.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = mpsc::sync_channel(1);
    starter.send((command, answer)).map_err(io::Error::other)?;
    result.recv().map_err(io::Error::other)?
}
