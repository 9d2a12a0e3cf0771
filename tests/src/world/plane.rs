//! The processes of ours: a program with its configuration file, which can be killed, frozen and
//! started again in the same place.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::dovecot::Role;
use crate::log_file::LogFile;
use crate::network::Network;
use crate::ports::Port;
use crate::process::{Process, ProcessMark, Spawn};
use crate::wait::Late;

use super::WorldError;
use super::link::Link;

/// Above a data plane's limit for its last sessions (20 s) and its goodbye (5 s).
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// Chooses the versions that a program speaks.
const SPEAKS: &str = "FERRYPOST_SPEAKS";

/// A program and where it runs. Dropping it kills the process, unless it was to survive.
#[derive(Debug)]
pub struct Plane {
    name: String,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    envs: Vec<(String, String)>,
    /// Where the process is written down for `demo-down`; `None` for one that ends with the test.
    marks: Option<PathBuf>,
    /// The network that it runs in; `None`: where the tests do.
    network: Option<Network>,
    process: Option<Process>,
}

impl Plane {
    /// A program that is not started yet. `folder` takes its log.
    pub(super) fn new(
        name: &str,
        program: PathBuf,
        config: PathBuf,
        envs: &[(String, String)],
        marks: Option<&Path>,
    ) -> Self {
        let log = config.with_file_name(format!("{name}.log"));
        Self {
            name: name.to_owned(),
            program,
            config,
            log,
            envs: envs.to_vec(),
            marks: marks.map(Path::to_owned),
            network: None,
            process: None,
        }
    }

    /// Lets it run in a network of its own.
    pub(super) fn within(mut self, network: Option<&Network>) -> Self {
        self.network = network.cloned();
        self
    }

    /// The network that it runs in, if it has one.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// Its instance or replica id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration file that it runs.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Everything that it printed, over all its starts.
    pub fn log(&self) -> LogFile {
        LogFile::new(&self.log)
    }

    /// Its process id; `None` when it was not started or was killed.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts it, again after it has ended. A process that still runs is killed first.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<(), WorldError> {
        self.kill();
        let mut spawn = Spawn::new(&self.program, &self.log)?
            .arg("--config")
            .arg(&self.config);
        for (name, value) in &self.envs {
            spawn = spawn.env(name, value);
        }
        if let Some(network) = &self.network {
            spawn = spawn.within(network)?;
        }
        if self.marks.is_some() {
            spawn = spawn.survives();
        }
        let process = spawn.start()?;
        if let Some(marks) = &self.marks {
            mark(marks, &self.name, process.id())?;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Whether it speaks one version less from the next start on, as a build of the version before does.
    /// The programs must have been built with `--all-features`.
    pub fn speaks_the_previous_version(&mut self, previous: bool) {
        self.envs.retain(|(name, _)| name != SPEAKS);
        if previous {
            self.set_env(SPEAKS, "previous");
        }
    }

    /// Sets an environment variable for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.envs.push((name.to_owned(), value.to_owned()));
    }

    /// Kills it by SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops its clock until [`Plane::resume`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.running()?.freeze()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self) -> io::Result<()> {
        self.running()?.resume()
    }

    /// Asks it to end by SIGTERM and waits for that.
    ///
    /// # Errors
    /// [`Late`] when it still runs after `grace`.
    pub async fn terminate(&mut self, grace: Duration) -> Result<ExitStatus, Late> {
        match &mut self.process {
            Some(process) => process.terminate(grace).await,
            None => Ok(ExitStatus::default()),
        }
    }

    /// Asks it to end and insists that it ends with success.
    ///
    /// # Errors
    /// When it does not end, or fails; the error holds the end of its log.
    pub async fn stop(&mut self) -> Result<(), WorldError> {
        let status = self.terminate(STOP_LIMIT).await?;
        if status.success() {
            return Ok(());
        }
        Err(self.ended(&status.to_string()))
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// [`Late`] when it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Late> {
        match &mut self.process {
            Some(process) => process.wait(limit).await,
            None => Ok(ExitStatus::default()),
        }
    }

    /// Insists that it runs.
    ///
    /// # Errors
    /// [`WorldError::Ended`] with the end of its log.
    pub fn check(&mut self) -> Result<(), WorldError> {
        let Some(process) = &mut self.process else {
            return Err(self.ended("nothing, for it was not started"));
        };
        match process.status()? {
            None => Ok(()),
            Some(status) => Err(self.ended(&status.to_string())),
        }
    }

    fn ended(&self, status: &str) -> WorldError {
        WorldError::Ended {
            name: self.name.clone(),
            status: status.to_owned(),
            log: self.log.clone(),
            tail: self.log().tail(),
        }
    }

    fn running(&mut self) -> io::Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} does not run", self.name),
            )
        })
    }
}

/// A replica of the control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// Its process.
    pub plane: Plane,
    pub(super) operators: Port,
    pub(super) data_planes: Port,
    pub(super) admin: Port,
    pub(super) store_link: Option<Link>,
}

impl ControlPlane {
    /// Where operators call it, in clear.
    pub fn operators(&self) -> SocketAddr {
        self.operators.addr()
    }

    /// Where data planes open their streams.
    pub fn data_planes(&self) -> SocketAddr {
        self.data_planes.addr()
    }

    /// Its admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Its way to etcd, in a world with links.
    pub fn store_link(&self) -> Option<&Link> {
        self.store_link.as_ref()
    }
}

/// Where clients enter a data plane, in every world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// IMAP over TLS.
    Imaps,
    /// IMAP with STARTTLS.
    Imap,
    /// POP3 over TLS.
    Pop3s,
    /// POP3 with STLS.
    Pop3,
    /// `ManageSieve` with STARTTLS.
    Sieve,
}

impl Entrance {
    /// All of them, in the order of the ports.
    pub const ALL: [Self; 5] = [
        Self::Imaps,
        Self::Imap,
        Self::Pop3s,
        Self::Pop3,
        Self::Sieve,
    ];

    /// As the demo's environment file calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Imaps => "IMAPS",
            Self::Imap => "IMAP",
            Self::Pop3s => "POP3S",
            Self::Pop3 => "POP3",
            Self::Sieve => "SIEVE",
        }
    }

    /// The port that the example's listener has.
    pub(super) const fn well_known(self) -> u16 {
        match self {
            Self::Imaps => 993,
            Self::Imap => 143,
            Self::Pop3s => 995,
            Self::Pop3 => 110,
            Self::Sieve => 4190,
        }
    }
}

/// A data plane.
#[derive(Debug)]
pub struct DataPlane {
    /// Its process.
    pub plane: Plane,
    /// The server that it stands beside; `None`: in front of both.
    pub(super) beside: Option<Role>,
    /// In the order of [`Entrance::ALL`].
    pub(super) entrances: Vec<Port>,
    /// Submission with STARTTLS, at `127.0.0.1` and `::1`, and over TLS, in a world with Postfixes.
    pub(super) submission: Option<[Port; 2]>,
    /// Where mail arrives and is passed through, at `127.0.0.1` and `::1`, and where it is taken, in a world with [inbound mail](super::Builder::inbound_mail).
    pub(super) mx: Option<[Port; 2]>,
    /// LMTP, where mail systems deliver: in clear, and by STARTTLS.
    pub(super) deliveries: Option<[Port; 2]>,
    /// Where they ask, by socketmap and by HTTP.
    pub(super) lookups: [Port; 2],
    /// HTTP, in a world with [servers of it](super::Builder::cyruses).
    pub(super) web: Option<Port>,
    pub(super) admin: Port,
    /// One to each replica, or none.
    pub(super) links: Vec<Link>,
}

impl DataPlane {
    /// Where clients reach one of its listeners.
    pub fn addr(&self, entrance: Entrance) -> SocketAddr {
        self.outward(&self.entrances[entrance as usize])
    }

    /// Where one of its listeners is bound: one in a network of its own serves all that it is joined to.
    pub(super) fn bound(&self, entrance: Entrance) -> SocketAddr {
        self.bind(&self.entrances[entrance as usize])
    }

    /// Where its listeners for submission are bound, with STARTTLS and over TLS.
    pub(super) fn submission_bound(&self) -> Option<[SocketAddr; 2]> {
        let ports = self.submission.as_ref()?;
        Some(ports.each_ref().map(|port| self.bind(port)))
    }

    /// Where its listeners for mail systems are bound, in clear and by STARTTLS.
    pub(super) fn deliveries_bound(&self) -> Option<[SocketAddr; 2]> {
        let ports = self.deliveries.as_ref()?;
        Some(ports.each_ref().map(|port| self.bind(port)))
    }

    /// Where its listener for HTTP is bound.
    pub(super) fn web_bound(&self) -> Option<SocketAddr> {
        Some(self.bind(self.web.as_ref()?))
    }

    /// Where its admin endpoint is bound.
    pub(super) fn admin_bound(&self) -> SocketAddr {
        self.bind(&self.admin)
    }

    fn outward(&self, port: &Port) -> SocketAddr {
        match self.plane.network() {
            Some(network) => SocketAddr::new(network.addr(), port.number()),
            None => port.addr(),
        }
    }

    fn bind(&self, port: &Port) -> SocketAddr {
        match self.plane.network() {
            Some(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number())),
            None => port.addr(),
        }
    }

    /// Its listener for submission with STARTTLS, in a world with Postfixes. One at `::1` has the same port.
    pub fn submission(&self) -> Option<SocketAddr> {
        let [starttls, _] = self.submission.as_ref()?;
        Some(self.outward(starttls))
    }

    /// Its listener for submission over TLS, in a world with Postfixes.
    pub fn submissions(&self) -> Option<SocketAddr> {
        let [_, tls] = self.submission.as_ref()?;
        Some(self.outward(tls))
    }

    /// Where it passes mail through to the target, in a world with [inbound mail](super::Builder::inbound_mail). One at
    /// `::1` has the same port.
    pub fn mx(&self) -> Option<SocketAddr> {
        let [through, _] = self.mx.as_ref()?;
        Some(self.outward(through))
    }

    /// Where it takes mail by SMTP for either Postfix, in a world with [inbound mail](super::Builder::inbound_mail).
    pub fn smtp(&self) -> Option<SocketAddr> {
        let [_, taken] = self.mx.as_ref()?;
        Some(self.outward(taken))
    }

    /// Its listener for LMTP in clear, in a world with deliveries.
    pub fn deliveries(&self) -> Option<SocketAddr> {
        let [clear, _] = self.deliveries.as_ref()?;
        Some(self.outward(clear))
    }

    /// Its listener for LMTP at which STARTTLS comes first, in a world with deliveries.
    pub fn secure_deliveries(&self) -> Option<SocketAddr> {
        let [_, secure] = self.deliveries.as_ref()?;
        Some(self.outward(secure))
    }

    /// Its listener for LMTP in the file system, beside its configuration, in a world with deliveries.
    pub fn delivery_socket(&self) -> PathBuf {
        self.plane.config().with_file_name("lmtp")
    }

    /// Where mail systems ask for the way of a recipient, by socketmap and by HTTP: in its own network, if it has one.
    pub fn lookups(&self) -> [SocketAddr; 2] {
        self.lookups.each_ref().map(Port::addr)
    }

    /// Its listener for HTTP, in a world with servers of it.
    pub fn web(&self) -> Option<SocketAddr> {
        Some(self.outward(self.web.as_ref()?))
    }

    /// Its listener for IMAP over TLS.
    pub fn imaps(&self) -> SocketAddr {
        self.addr(Entrance::Imaps)
    }

    /// Its listener for IMAP with STARTTLS.
    pub fn imap(&self) -> SocketAddr {
        self.addr(Entrance::Imap)
    }

    /// Its listener for `ManageSieve` with STARTTLS.
    pub fn sieve(&self) -> SocketAddr {
        self.addr(Entrance::Sieve)
    }

    /// Its way to a replica of the control plane, counted from 0, in a world with links.
    pub fn link(&self, replica: usize) -> Option<&Link> {
        self.links.get(replica)
    }

    /// Its admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.outward(&self.admin)
    }
}

/// Writes down a process that is to outlive us: a line `<name> <id>@<started>`.
pub(super) fn mark(marks: &Path, name: &str, id: u32) -> io::Result<()> {
    let Some(mark) = ProcessMark::of(id) else {
        return Ok(());
    };
    let mut file = fs::File::options().create(true).append(true).open(marks)?;
    io::Write::write_all(&mut file, format!("{name} {mark}\n").as_bytes())
}
