//! A real Dovecot of its own, of the version that is installed: private folder, private accounts, free
//! loopback ports.
//!
//! The configuration is `tests/config/dovecot-2.3.conf` or `dovecot-2.4.conf`; what makes the server
//! trust Ferrypost is included from `docs/examples/dovecot-source.conf` or `dovecot-target.conf`, word
//! for word what the manual shows. The server runs as root (mail then belongs to `nobody`, for Dovecot opens no mail as
//! root) or as an ordinary user (everything then belongs to that user).

mod folder;
mod version;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::certs::Identity;
use crate::log_file::LogFile;
use crate::network::Network;
use crate::ports::Port;
use crate::process::{Process, Spawn, find_program};
use crate::wait::{Late, eventually};

pub use version::Generation;

/// The field of the server's ID answer, after a login, that names the server.
pub const ID_FIELD: &str = "x-ferrypost-server";

/// What the log's line of an IMAP login holds: 2.3 goes on with `Login:`, 2.4 with `Logged in:`.
pub const LOGIN: &str = "imap-login: Info: Log";

/// The realm of a login without one.
pub const REALM: &str = "example.org";

/// A user who may open every account, as `user%master`, with [`MASTER_PASSWORD`].
pub const MASTER: &str = "master";

/// The password of [`MASTER`].
pub const MASTER_PASSWORD: &str = "master-secret";

/// Starting takes tens of milliseconds; the limit is for a machine under load.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_mins(1);
const DOVEADM_LIMIT: Duration = Duration::from_mins(1);

/// Why a Dovecot did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum DovecotError {
    /// A file, a process or a port.
    #[error("Dovecot: {0}")]
    Io(#[from] io::Error),
    /// It did not start or stop in time.
    #[error("Dovecot: {0}")]
    Late(#[from] Late),
    /// Neither 2.3 nor 2.4.
    #[error("Dovecot {0} is installed; this knows 2.3 and 2.4")]
    Unknown(String),
    /// `doveadm` failed.
    #[error("doveadm {command} ended with {status}: {stderr}")]
    Doveadm {
        /// Its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A folder that `nobody` cannot enter, in which mail could not be stored.
    #[error("Dovecot: {0} must let other users pass (mode 711 or wider)")]
    Closed(PathBuf),
}

/// How a server learns the client's address from Ferrypost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Believes the IMAP ID command, and XCLIENT on POP3, of a trusted peer, serves everybody.
    Source,
    /// Serves IMAP and POP3 only behind a PROXY protocol header.
    Target,
}

impl Role {
    /// `source` or `target`: the folder's name, and what the server calls itself ([`ID_FIELD`]).
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// What a server listens for. All of it takes a cleartext login; on a target, IMAP and POP3
/// begin with a PROXY header and the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// IMAP with STARTTLS.
    Imap,
    /// IMAP over TLS.
    Imaps,
    /// POP3 with STLS.
    Pop3,
    /// POP3 over TLS.
    Pop3s,
    /// ManageSieve with STARTTLS.
    Sieve,
    /// Submission with STARTTLS; it relays to port 25 of the loopback address.
    Submission,
    /// LMTP without TLS.
    Lmtp,
    /// Where a Postfix has logins judged.
    Auth,
}

impl Service {
    /// Every service, in the order of the ports.
    pub const ALL: [Self; 8] = [
        Self::Imap,
        Self::Imaps,
        Self::Pop3,
        Self::Pop3s,
        Self::Sieve,
        Self::Submission,
        Self::Lmtp,
        Self::Auth,
    ];
}

/// What a server does for safety's sake that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As Dovecot comes: what it acknowledges is on the disk, a wrong password is answered late, and
    /// the address that it came from has to wait longer with each further one.
    AsShipped,
    /// None of these.
    Hurried,
}

/// What to start.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Its name.
    pub role: Role,
    /// As which of the two it is told the client's address.
    pub told_as: Role,
    /// The certificate that it shows.
    pub identity: &'a Identity,
    /// The full addresses that exist.
    pub accounts: &'a [String],
    /// The password of all of them.
    pub password: &'a str,
    /// Whether it takes its time.
    pub pace: Pace,
    /// Where it asks whose bearer tokens are (RFC 7662); `None`: it takes no tokens.
    pub introspection: Option<&'a str>,
    /// Whether it goes on after this process ([`crate::process::ProcessMark`] stops it then).
    pub survives: bool,
    /// The network that it runs in; `None`: where the tests do.
    pub network: Option<&'a Network>,
}

/// A folder in the system's temporary folder that other users can pass through, as mail owned by
/// `nobody` needs. It is removed with the value. Its path is short: socket paths end at 107 bytes.
///
/// # Errors
/// When it cannot be made.
pub fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("ferrypost-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
}

/// A running server. Dropping it kills it with all its sessions.
pub struct Dovecot {
    role: Role,
    folder: PathBuf,
    ports: Vec<Port>,
    survives: bool,
    network: Option<Network>,
    process: Process,
}

impl Dovecot {
    /// Writes a server's folder, `<parent>/<role>`, starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When Dovecot is not installed, refuses its configuration (the error holds the end of its log)
    /// or does not come up.
    pub async fn start(parent: &Path, setup: Setup<'_>) -> Result<Self, DovecotError> {
        let folder = parent.join(setup.role.name());
        let ports = Service::ALL
            .iter()
            .map(|_| Port::reserve())
            .collect::<io::Result<Vec<_>>>()?;
        folder::write(&folder, &setup, &ports)?;
        let process = launch(&folder, setup.survives, setup.network)?;
        let mut server = Self {
            role: setup.role,
            folder,
            ports,
            survives: setup.survives,
            network: setup.network.cloned(),
            process,
        };
        server.wait_until_up().await?;
        Ok(server)
    }

    /// How it is told the client's address.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where a service listens: in its own network, if it has one.
    pub fn addr(&self, service: Service) -> SocketAddr {
        self.ports[service as usize].addr()
    }

    /// Its log: one line a login ([`LOGIN`]) with `rip=`, `lip=` and `session=` as the server believes
    /// them.
    pub fn log(&self) -> LogFile {
        LogFile::new(self.folder.join("dovecot.log"))
    }

    /// Where mailboxes lie, one folder an account.
    pub fn mail(&self) -> PathBuf {
        self.folder.join("mail")
    }

    /// Its configuration file, for `doveadm -c`.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("dovecot.conf")
    }

    /// The id of its master process, which leads the process group of all its processes.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The master process, to freeze or to signal it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs `doveadm -c <this server> <args>` and gives back what it prints.
    ///
    /// # Errors
    /// [`DovecotError::Doveadm`] when it fails.
    pub async fn doveadm(&self, args: &[&str]) -> Result<String, DovecotError> {
        let mut command = Command::new(find_program(Path::new("doveadm"))?);
        command.arg("-c").arg(self.configuration()).args(args);
        run(command, args).await
    }

    /// Creates a mailbox of an account.
    ///
    /// # Errors
    /// As [`Dovecot::doveadm`].
    pub async fn create_mailbox(&self, account: &str, mailbox: &str) -> Result<(), DovecotError> {
        self.doveadm(&["mailbox", "create", "-u", account, mailbox])
            .await?;
        Ok(())
    }

    /// Closes all sessions of an account, or of every account by `*`. That nobody is there is no
    /// failure.
    ///
    /// # Errors
    /// As [`Dovecot::doveadm`].
    pub async fn kick(&self, account: &str) -> Result<(), DovecotError> {
        match self.doveadm(&["kick", account]).await {
            Err(DovecotError::Doveadm { status, .. }) if status.contains("68") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Brings `to`'s copy of an account up to date with this server's, by [`sync_command`].
    ///
    /// # Errors
    /// As [`Dovecot::doveadm`].
    pub async fn sync_to(&self, to: &Self, account: &str) -> Result<(), DovecotError> {
        let words = sync_command(&self.configuration(), &to.configuration(), account)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        run(command, &args).await?;
        Ok(())
    }

    /// Stops it as an operator does. Dovecot waits ten seconds for sessions to end by themselves, so
    /// they are kicked first; each is told `* BYE`.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(&mut self) -> Result<(), DovecotError> {
        self.kick("*").await?;
        self.process.terminate(STOP_LIMIT).await?;
        Ok(())
    }

    /// Kills it at once with all its sessions, which are told nothing.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`Dovecot::stop`] or [`Dovecot::kill`]: same folder, same ports.
    ///
    /// # Errors
    /// As [`Dovecot::start`].
    pub async fn start_again(&mut self) -> Result<(), DovecotError> {
        self.process = launch(&self.folder, self.survives, self.network.as_ref())?;
        self.wait_until_up().await
    }

    /// The listeners are there before the master says so; a connection is the proof.
    async fn wait_until_up(&mut self) -> Result<(), DovecotError> {
        let (address, log) = (self.addr(Service::Imap), self.log());
        let network = self.network.as_ref();
        let process = &mut self.process;
        eventually("Dovecot takes connections", START_LIMIT, || {
            let ended = process.status();
            let log = log.clone();
            let said = process.log().tail();
            async move {
                if let Some(status) = ended.map_err(|error| error.to_string())? {
                    return Err(format!("it ended with {status}\n{said}\n{}", log.tail()));
                }
                let reached = match network {
                    Some(network) => network.reach(address).await,
                    None => TcpStream::connect(address).await.map(drop),
                };
                reached.map_err(|error| error.to_string())
            }
        })
        .await?;
        Ok(())
    }
}

/// The command that makes an account's mail on the server configured by `to` equal to that on the
/// server configured by `from`, without changing `from`: what the delta hook of a move runs. It works
/// on the mail stores, while the account is held on both sides or not; the two servers need not run.
///
/// - `sync -1`, not `backup`: new messages, flags, expunges, moves, folders, renames, deletions and Sieve
///   scripts go over, messages with their UIDs and UIDVALIDITY, and a message that only `to` has stays there.
///   It has no memory: when the newest messages of all that both have are deleted from `from`, it takes those
///   of `to` for new, and they come back.
/// - `-f`: without it, dsync compares only UIDNEXT and HIGHESTMODSEQ, and overlooks a folder whose
///   two copies happen to have changed equally often. With it, 5000 messages take 60 ms.
/// - `env -i`: the second doveadm would otherwise take over the first one's configuration from its
///   environment, ignore its own `-c`, and wait for a lock that its parent holds.
/// - `-l 5`: two runs for one account wait for each other, five seconds at most.
///
/// # Errors
/// `NotFound` without doveadm.
pub fn sync_command(from: &Path, to: &Path, account: &str) -> io::Result<Vec<String>> {
    let doveadm = find_program(Path::new("doveadm"))?.display().to_string();
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let local = [
        &doveadm, "-c", &from, "sync", "-1", "-f", "-l", "5", "-u", account,
    ];
    let remote = [
        "env",
        "-i",
        &doveadm,
        "-c",
        &to,
        "dsync-server",
        "-u",
        account,
    ];
    Ok(local
        .iter()
        .chain(&remote)
        .map(|word| (*word).to_owned())
        .collect())
}

fn launch(folder: &Path, survives: bool, network: Option<&Network>) -> io::Result<Process> {
    let mut spawn = Spawn::new("dovecot", folder.join("dovecot.out"))?
        .arg("-F")
        .arg("-c")
        .arg(folder.join("dovecot.conf"))
        .terminate_with_parent();
    if let Some(network) = network {
        spawn = spawn.within(network)?;
    }
    if survives {
        spawn.survives().start()
    } else {
        spawn.start()
    }
}

async fn run(mut command: Command, args: &[&str]) -> Result<String, DovecotError> {
    let child = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DOVEADM_LIMIT, child)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "doveadm does not end"))??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(DovecotError::Doveadm {
        command: args.join(" "),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
