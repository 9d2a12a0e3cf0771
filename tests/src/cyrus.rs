//! A real Cyrus of its own, for what Dovecot does not speak: JMAP and calendars, over HTTP/1.1 and HTTP/2.
//!
//! Debian's `cyrus-common` and `cyrus-caldav` lie beside Dovecot; `cyrus-imapd` would remove Dovecot's IMAP, and is not
//! needed: LMTP makes the mailboxes. Passwords are judged by a file of SASL's. Started by root it runs as the user of the
//! package, otherwise as whoever started it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::certs::Identity;
use crate::dovecot::{REALM, Role};
use crate::imap::{Connect, ImapError, Security};
use crate::line::LineClient;
use crate::ports::Port;
use crate::process::{Process, Spawn, find_program};
use crate::wait::{Late, eventually};

const SETTINGS: &str = include_str!("../config/cyrus-imapd.conf");
const SERVICES: &str = include_str!("../config/cyrus.conf");

/// Where Debian keeps what the server is made of.
const PROGRAMS: &str = "/usr/lib/cyrus/bin";

/// Starting takes a tenth of a second; the limit is for a machine under load.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_mins(1);
const TOOL_LIMIT: Duration = Duration::from_mins(1);

/// Why a Cyrus did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CyrusError {
    /// A file, a process or a port.
    #[error("Cyrus: {0}")]
    Io(#[from] io::Error),
    /// It did not start or stop in time.
    #[error("Cyrus: {0}")]
    Late(#[from] Late),
    /// A program that belongs to it failed.
    #[error("{program} ended with {status}: {stderr}")]
    Tool {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// Nobody answered at LMTP.
    #[error("Cyrus: LMTP: {0}")]
    Lmtp(#[from] ImapError),
    /// LMTP did not take a mailbox's name.
    #[error("Cyrus: LMTP answered {0:?}")]
    Refused(String),
}

/// What a server listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS, by ALPN.
    Https,
    /// LMTP in clear. Whoever delivers to a name has made its mailbox.
    Lmtp,
}

impl Service {
    /// Every service, in the order of the ports.
    pub const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Lmtp];

    /// Its port in the configuration.
    fn placeholder(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Lmtp => "lmtp",
        }
    }
}

/// What to start.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Which of two servers it is: its folder's name, and [`calls_in_request`].
    pub role: Role,
    /// The certificate that it shows.
    pub identity: &'a Identity,
    /// The full addresses that exist.
    pub accounts: &'a [String],
    /// The password of all of them.
    pub password: &'a str,
    /// Whether it goes on after this process ([`crate::process::ProcessMark`] stops it then).
    pub survives: bool,
}

/// The `maxCallsInRequest` of a server's JMAP session: nothing else in it says which server it is.
pub fn calls_in_request(role: Role) -> u64 {
    match role {
        Role::Source => 50,
        Role::Target => 60,
    }
}

/// What Cyrus calls an account in JMAP and in paths: without the realm of those that have none.
pub fn user_id(account: &str) -> &str {
    match account.split_once('@') {
        Some((user, REALM)) => user,
        _ => account,
    }
}

/// A running server. Dropping it kills it with all that it serves.
pub struct Cyrus {
    role: Role,
    folder: PathBuf,
    ports: Vec<Port>,
    survives: bool,
    owner: Owner,
    process: Process,
}

impl Cyrus {
    /// Writes a server's folder, `<parent>/cyrus-<role>`, starts it and waits until it takes connections and every
    /// account has a mailbox.
    ///
    /// # Errors
    /// When Cyrus or SASL's tools are not installed, or it does not come up.
    pub async fn start(parent: &Path, setup: Setup<'_>) -> Result<Self, CyrusError> {
        let folder = parent.join(format!("cyrus-{}", setup.role.name()));
        let ports = Service::ALL
            .iter()
            .map(|_| Port::reserve())
            .collect::<io::Result<Vec<_>>>()?;
        let owner = Owner::find().await?;
        write(&folder, &setup, &ports, &owner)?;
        owner.take(&folder)?;
        let process = launch(&folder, setup.survives, &owner)?;
        // Each takes a process, and nobody has asked for one yet.
        let passwords = write_passwords(folder.join("sasldb2"), owner.ids, setup);
        let mut server = Self {
            role: setup.role,
            folder,
            ports,
            survives: setup.survives,
            owner,
            process,
        };
        let mailboxes = async {
            server.wait_until_up().await?;
            server.make_mailboxes(setup.accounts).await
        };
        tokio::try_join!(passwords, mailboxes)?;
        Ok(server)
    }

    /// Which of two servers it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where a service listens.
    pub fn addr(&self, service: Service) -> SocketAddr {
        self.ports[service as usize].addr()
    }

    /// The id of its master process, which leads the process group of all its processes.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The master process, to freeze or to signal it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The subjects of the messages in an account's INBOX, sorted.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub async fn subjects(&self, account: &str) -> Result<Vec<String>, CyrusError> {
        let mut command = Command::new(find_program(Path::new("setpriv"))?);
        command
            .args(self.owner.words())
            .arg("--")
            .arg(Path::new(PROGRAMS).join("mbpath"))
            .arg("-C")
            .arg(self.folder.join("imapd.conf"))
            .arg(format!("user/{}", user_id(account)));
        let inbox = run("mbpath", &mut command, None).await?;
        let mut subjects = Vec::new();
        for entry in fs::read_dir(inbox)? {
            // `1.` and on; what else is there is Cyrus's own.
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.trim_end_matches('.').parse::<u32>().is_err() {
                continue;
            }
            let message = fs::read_to_string(&path)?;
            let mut lines = message.lines();
            subjects
                .extend(lines.find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned)));
        }
        subjects.sort();
        Ok(subjects)
    }

    /// Stops it as an operator does.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(&mut self) -> Result<(), CyrusError> {
        self.process.terminate(STOP_LIMIT).await?;
        Ok(())
    }

    /// Kills it at once with all that it serves.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`Cyrus::stop`] or [`Cyrus::kill`]: same folder, same ports.
    ///
    /// # Errors
    /// As [`Cyrus::start`].
    pub async fn start_again(&mut self) -> Result<(), CyrusError> {
        self.process = launch(&self.folder, self.survives, &self.owner)?;
        self.wait_until_up().await
    }

    /// The master listens for its services, and starts one for each connection that none is there for.
    async fn wait_until_up(&mut self) -> Result<(), CyrusError> {
        let address = self.addr(Service::Http);
        let process = &mut self.process;
        eventually("Cyrus takes connections", START_LIMIT, || {
            let ended = process.status();
            let said = process.log().tail();
            async move {
                if let Some(status) = ended.map_err(|error| error.to_string())? {
                    return Err(format!("it ended with {status}\n{said}"));
                }
                let reached = TcpStream::connect(address).await;
                reached.map(drop).map_err(|error| error.to_string())
            }
        })
        .await?;
        Ok(())
    }

    /// A mailbox comes into being when LMTP is asked for it, and nothing is delivered.
    async fn make_mailboxes(&self, accounts: &[String]) -> Result<(), CyrusError> {
        let connect = Connect::new(self.addr(Service::Lmtp), Security::Plain);
        let mut client = LineClient::open(&connect).await?;
        let greeting = client.line().await?;
        if greeting.is_none_or(|line| !line.starts_with("220")) {
            return Err(CyrusError::Refused("no greeting".to_owned()));
        }
        let mut answer = client.ask("LHLO tests").await?;
        while answer.starts_with("250-") {
            answer = client.line().await?.unwrap_or_default();
        }
        let recipients = accounts
            .iter()
            .map(|account| format!("RCPT TO:<{account}>"));
        for command in ["MAIL FROM:<>".to_owned()].into_iter().chain(recipients) {
            let answer = client.ask(&command).await?;
            if !answer.starts_with("250 ") {
                return Err(CyrusError::Refused(answer));
            }
        }
        client.ask("QUIT").await?;
        Ok(())
    }
}

/// Who the server runs as.
struct Owner {
    user: String,
    group: String,
    /// The ids of both, if it is another one than we are.
    ids: Option<[u32; 2]>,
}

impl Owner {
    /// Cyrus serves nobody as root.
    async fn find() -> Result<Self, CyrusError> {
        let of: &[&str] = if rustix::process::geteuid().is_root() {
            &["cyrus"]
        } else {
            &[]
        };
        let id = async |what: &str| {
            let mut command = Command::new(find_program(Path::new("id"))?);
            run("id", command.arg(what).args(of), None).await
        };
        let number = async |what: &str| {
            let number = id(what).await?.parse();
            number.map_err(|_| CyrusError::Io(io::ErrorKind::InvalidData.into()))
        };
        let ids = if of.is_empty() {
            None
        } else {
            Some([number("-u").await?, number("-g").await?])
        };
        Ok(Self {
            user: id("-un").await?,
            group: id("-gn").await?,
            ids,
        })
    }

    /// What `setpriv` is told to become it.
    fn words(&self) -> Vec<String> {
        let Some([user, group]) = self.ids else {
            return Vec::new();
        };
        vec![
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--init-groups".to_owned(),
        ]
    }

    /// Makes all that is in a folder its own.
    fn take(&self, folder: &Path) -> io::Result<()> {
        let Some([user, group]) = self.ids else {
            return Ok(());
        };
        for entry in fs::read_dir(folder)? {
            chown(entry?.path(), Some(user), Some(group))?;
        }
        chown(folder, Some(user), Some(group))
    }
}

fn write(folder: &Path, setup: &Setup<'_>, ports: &[Port], owner: &Owner) -> io::Result<()> {
    for name in ["conf", "mail", "sieve"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    setup.identity.write(folder, "server")?;
    let mut values = vec![
        ("state", folder.display().to_string()),
        ("user", owner.user.clone()),
        ("group", owner.group.clone()),
        ("realm", REALM.to_owned()),
        ("calls", calls_in_request(setup.role).to_string()),
    ];
    for (service, port) in Service::ALL.iter().zip(ports) {
        values.push((service.placeholder(), port.number().to_string()));
    }
    let fill = |text: &str| {
        values.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), value)
        })
    };
    fs::write(folder.join("imapd.conf"), fill(SETTINGS))?;
    fs::write(folder.join("cyrus.conf"), fill(SERVICES))
}

/// SASL's file has no other writer than its own program.
async fn write_passwords(
    file: PathBuf,
    owner: Option<[u32; 2]>,
    setup: Setup<'_>,
) -> Result<(), CyrusError> {
    for account in setup.accounts {
        let (user, realm) = account.split_once('@').unwrap_or((account, REALM));
        let mut command = Command::new(find_program(Path::new("saslpasswd2"))?);
        command.args(["-p", "-c", "-f"]).arg(&file);
        command.args(["-u", realm, user]);
        run("saslpasswd2", &mut command, Some(setup.password)).await?;
    }
    if let Some([user, group]) = owner {
        chown(file, Some(user), Some(group))?;
    }
    Ok(())
}

fn launch(folder: &Path, survives: bool, owner: &Owner) -> io::Result<Process> {
    // Made root's process another user's by itself, it would not be told any more when its parent ends.
    let mut spawn = Spawn::new("setpriv", folder.join("cyrus.out"))?;
    spawn = spawn.args(owner.words());
    if !survives {
        spawn = spawn.args(["--pdeathsig", "TERM"]);
    }
    let spawn = spawn
        .arg("--")
        .arg(Path::new(PROGRAMS).join("master"))
        .arg("-C")
        .arg(folder.join("imapd.conf"))
        .arg("-M")
        .arg(folder.join("cyrus.conf"))
        .arg("-p")
        .arg(folder.join("master.pid"))
        .terminate_with_parent();
    if survives {
        spawn.survives().start()
    } else {
        spawn.start()
    }
}

async fn run(
    program: &'static str,
    command: &mut Command,
    input: Option<&str>,
) -> Result<String, CyrusError> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("{program} does not end"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    let mut stdin = child
        .stdin
        .take()
        .ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
    if let Some(input) = input {
        stdin.write_all(input.as_bytes()).await?;
    }
    drop(stdin);
    let output = tokio::time::timeout(TOOL_LIMIT, child.wait_with_output());
    let output = output.await.map_err(|_| late())??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(CyrusError::Tool {
        program,
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
