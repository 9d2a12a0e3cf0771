//! A real Postfix of its own: private folders, free loopback ports for submission and for mail that arrives, the accounts
//! of a Dovecot.
//!
//! Nothing that it accepts is delivered: it goes to Postfix's own `discard`, unless it asks a data plane for the way of each
//! recipient, as `docs/examples/postfix-split.cf` and `postfix-split-master.cf` have it. What makes the server trust Ferrypost is appended from
//! `docs/examples/postfix-source.cf` or `postfix-target.cf`, and what lets mail arrive from `postfix-mx.cf`, word for word
//! what the manual shows. Only root can start one, since its queue belongs to a user of its own.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::certs::Identity;
use crate::dovecot::Role;
use crate::log_file::LogFile;
use crate::network::Network;
use crate::ports::Port;
use crate::process::{Process, Spawn, find_program};
use crate::wait::{Late, eventually};

const MAIN: &str = include_str!("../config/postfix-main.cf");
const MASTER: &str = include_str!("../config/postfix-master.cf");
const ARRIVAL: &str = include_str!("../../docs/examples/postfix-mx.cf");
const SCREENED: &str = include_str!("../../docs/examples/postfix-postscreen-master.cf");
const SCREENS: &str = include_str!("../../docs/examples/postfix-postscreen.cf");
const SOURCE_TRUST: &str = include_str!("../../docs/examples/postfix-source.cf");
const SPLIT: &str = include_str!("../../docs/examples/postfix-split.cf");
const SPLIT_MASTER: &str = include_str!("../../docs/examples/postfix-split-master.cf");
const TARGET_TRUST: &str = include_str!("../../docs/examples/postfix-target.cf");

/// Starting takes a second, most of it for the queue's folders.
const START_LIMIT: Duration = Duration::from_mins(1);
const CHECK_LIMIT: Duration = Duration::from_mins(1);

/// Why a Postfix did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum PostfixError {
    /// A file, a process or a port.
    #[error("Postfix: {0}")]
    Io(#[from] io::Error),
    /// It did not start in time.
    #[error("Postfix: {0}")]
    Late(#[from] Late),
    /// It finds fault with its configuration.
    #[error("Postfix: {0}")]
    Check(String),
}

/// What to start.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// How it is told the client's address: by XCLIENT, or by a PROXY header.
    pub role: Role,
    /// The certificate that it shows.
    pub identity: &'a Identity,
    /// Where a Dovecot judges its logins.
    pub accounts: SocketAddr,
    /// The socket at which it asks for the way of each recipient; `None`: it throws all mail away.
    pub lookups: Option<&'a Path>,
    /// Whether it goes on after this process ([`crate::process::ProcessMark`] stops it then).
    pub survives: bool,
    /// The network that it runs in; `None`: where the tests do.
    pub network: Option<&'a Network>,
    /// What mail arrives at.
    pub arrival: Arrival,
    /// A mail system: it takes whatever this machine sends, and delivers there. `None`: it takes
    /// submissions, and throws them away.
    pub delivers_to: Option<Onward<'a>>,
}

/// What mail arrives at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// smtpd.
    Direct,
    /// postscreen, with smtpd behind it.
    Screened,
}

/// Where a mail system delivers, and by what.
#[derive(Debug, Clone, Copy)]
pub enum Onward<'a> {
    /// By LMTP.
    Lmtp(SocketAddr),
    /// By LMTP under TLS, to whom this authority vouches for.
    LmtpOverTls(SocketAddr, &'a Path),
    /// By SMTP.
    Smtp(SocketAddr),
}

/// Whether one can be started here.
pub fn can_start() -> bool {
    rustix::process::geteuid().is_root() && find_program(Path::new("postfix")).is_ok()
}

/// The version of the one that is installed, such as `3.7.11`.
///
/// # Errors
/// When none is installed.
pub fn version() -> io::Result<String> {
    let mut command = std::process::Command::new(find_program(Path::new("postconf"))?);
    let output = command.args(["-d", "-h", "mail_version"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A running server. Dropping it kills it with all its sessions.
pub struct Postfix {
    folder: PathBuf,
    port: Port,
    mx: Port,
    process: Process,
}

impl Postfix {
    /// Writes a server's folder, `<parent>/postfix-<role>`, starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When Postfix is not installed, refuses its configuration or does not come up.
    pub async fn start(parent: &Path, setup: Setup<'_>) -> Result<Self, PostfixError> {
        let folder = parent.join(format!("postfix-{}", setup.role.name()));
        let [port, mx] = [Port::reserve()?, Port::reserve()?];
        write(&folder, &setup, [&port, &mx])?;
        check(&folder).await?;
        // Beside the programs that people call lie those that the server is made of.
        let mut spawn = Spawn::new("/usr/lib/postfix/sbin/master", folder.join("postfix.out"))?
            .args(["-d", "-c"])
            .arg(folder.join("etc"))
            .terminate_with_parent()
            .in_session();
        if let Some(network) = setup.network {
            spawn = spawn.within(network)?;
        }
        let process = if setup.survives {
            spawn.survives().start()?
        } else {
            spawn.start()?
        };
        let mut server = Self {
            folder,
            port,
            mx,
            process,
        };
        server.wait_until_up(setup.network).await?;
        Ok(server)
    }

    /// The id of its master process, which leads the process group of all its processes.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its configuration's folder, for `postfix -c`.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("etc")
    }

    /// Where submission with STARTTLS listens: in its own network, if it has one.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Where mail for its own domain arrives, behind a PROXY header.
    pub fn mx(&self) -> SocketAddr {
        self.mx.addr()
    }

    /// Has it try again at once what it has deferred.
    ///
    /// # Errors
    /// When `postqueue` fails.
    pub async fn flush(&self) -> io::Result<()> {
        let mut command = Command::new(find_program(Path::new("postqueue"))?);
        command.arg("-c").arg(self.configuration()).arg("-f");
        let output = tokio::time::timeout(CHECK_LIMIT, command.kill_on_drop(true).output());
        let output = output
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "postqueue does not end"))??;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(said))
    }

    /// Its log: `client=` of every message, and its `Received:` with `helo=`, as the server believes them.
    pub fn log(&self) -> LogFile {
        LogFile::new(log(&self.folder))
    }

    async fn wait_until_up(&mut self, network: Option<&Network>) -> Result<(), PostfixError> {
        let (address, log) = (self.addr(), self.log());
        let process = &mut self.process;
        eventually("Postfix takes connections", START_LIMIT, || {
            let ended = process.status();
            let log = log.clone();
            async move {
                if let Some(status) = ended.map_err(|error| error.to_string())? {
                    return Err(format!("it ended with {status}\n{}", log.tail()));
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

fn log(folder: &Path) -> PathBuf {
    folder.join("postfix.log")
}

fn write(folder: &Path, setup: &Setup<'_>, ports: [&Port; 2]) -> Result<(), PostfixError> {
    let [submission, mx] = ports.map(|port| port.number().to_string());
    for name in ["etc", "queue", "data"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let user = user_of("postfix")?;
    chown(folder.join("data"), Some(user), None)?;
    setup.identity.write(folder, "server")?;
    let trust = match (setup.delivers_to, setup.role) {
        (Some(address), _) => mail_system(address),
        (None, Role::Source) => SOURCE_TRUST.to_owned(),
        (None, Role::Target) => TARGET_TRUST.to_owned(),
    };
    let (arrival, screens) = match setup.arrival {
        Arrival::Direct => (ARRIVAL, ""),
        Arrival::Screened => (SCREENED, SCREENS),
    };
    let (services, outside) = match setup.lookups {
        Some(_) => (SPLIT_MASTER, "  -o rewrite_service_name=rewrite-outside"),
        None => ("", ""),
    };
    let values = [
        ("state", folder.display().to_string()),
        ("log", log(folder).display().to_string()),
        ("submission", submission),
        (
            "arrival",
            arrival.replace("smtp inet", &format!("127.0.0.1:{mx} inet")),
        ),
        ("screens", screens.to_owned()),
        ("accounts", setup.accounts.to_string()),
        ("name", setup.role.name().to_owned()),
        ("trust", trust),
        ("split", setup.lookups.map(split).unwrap_or_default()),
        ("services", services.to_owned()),
        ("outside", outside.to_owned()),
    ];
    let fill = |text: &str| {
        values.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), value)
        })
    };
    let main = match setup.delivers_to {
        Some(_) => without(MAIN, &SAID_BY_MAIL_SYSTEM),
        None => MAIN.to_owned(),
    };
    fs::write(folder.join("etc/main.cf"), fill(&main))?;
    fs::write(folder.join("etc/master.cf"), fill(MASTER))?;
    fs::write(folder.join("headers"), "/^Received:/ INFO\n")?;
    Ok(())
}

/// The manual's lines for a server that asks, with the socket in place of the manual's address.
fn split(lookups: &Path) -> String {
    SPLIT.replace(
        "inet:127.0.0.1:2527",
        &format!("unix:{}", lookups.display()),
    )
}

/// What [`mail_system`] says otherwise.
const SAID_BY_MAIL_SYSTEM: [&str; 5] = [
    "mynetworks",
    "smtpd_sasl_auth_enable",
    "smtpd_relay_restrictions",
    "default_transport",
    "relay_transport",
];

/// The configuration without some of its parameters. What is said twice is warned of by every process, and a few such
/// warnings are more than Postfix's own log takes before it runs.
fn without(text: &str, parameters: &[&str]) -> String {
    let is_other = |line: &&str| {
        let name = line.split_once(" =").map_or("", |(name, _)| name);
        !parameters.contains(&name)
    };
    let lines: Vec<_> = text.lines().filter(is_other).collect();
    lines.join("\n")
}

/// What makes a mail system of it: its connections are kept, so that one lives through a move. It believes whoever is
/// on this machine and says by XCLIENT that he is another.
fn mail_system(onward: Onward<'_>) -> String {
    let (transport, at, authority) = match onward {
        Onward::Lmtp(at) => ("lmtp:inet", at, None),
        Onward::LmtpOverTls(at, authority) => ("lmtp:inet", at, Some(authority)),
        Onward::Smtp(at) => ("smtp", at, None),
    };
    let tls = authority.map_or_else(String::new, |authority| {
        format!(
            "lmtp_tls_security_level = verify\nlmtp_tls_verify_cert_match = mail.example.org\n\
             lmtp_tls_CAfile = {}\nlmtp_tls_loglevel = 1\n",
            authority.display()
        )
    });
    let (ip, port) = (at.ip(), at.port());
    format!(
        "mynetworks = 127.0.0.0/8\nsmtpd_sasl_auth_enable = no\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         smtpd_authorized_xclient_hosts = 127.0.0.0/8\n\
         default_transport = {transport}:[{ip}]:{port}\nrelay_transport = $default_transport\n\
         lmtp_connection_cache_destinations = [{ip}]:{port}\n\
         lmtp_connection_cache_time_limit = 60s\nconnection_cache_ttl_limit = 60s\n\
         default_destination_concurrency_limit = 2\n{tls}"
    )
}

fn user_of(name: &str) -> io::Result<u32> {
    let output = std::process::Command::new("id")
        .args(["-u", name])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.trim().parse();
    number.map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("no user {name}")))
}

/// Has Postfix make its queue's folders, and say what is wrong.
async fn check(folder: &Path) -> Result<(), PostfixError> {
    let mut command = Command::new(find_program(Path::new("postfix"))?);
    command.arg("-c").arg(folder.join("etc")).arg("check");
    let output = tokio::time::timeout(CHECK_LIMIT, command.kill_on_drop(true).output());
    let output = output
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "postfix check does not end"))??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(PostfixError::Check(
        said + &LogFile::new(log(folder)).tail(),
    ))
}
