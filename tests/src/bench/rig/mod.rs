//! HAProxy, nginx and Ferrypost in front of the same server.
//!
//! ```text
//!   load ─TLS─▶ HAProxy ──────────────────────▶ backend in clear
//!   load ─TLS─▶ nginx ────────────────────────▶ backend in clear
//!                 └── asks the backend's process where a login goes
//!   load ─TLS─▶ data plane "in-clear" ────────▶ backend in clear
//!   load ─TLS─▶ data plane "under-tls" ─TLS───▶ backend under TLS
//!                    └── control plane
//! ```
//!
//! All show the same certificate and run a thread or a process a core.

mod files;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ferrypost_runtime::core_dump;
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::backend::Sink;
use super::connection::{Target, one_suite};
use super::meter::Meter;
use super::protocol::Protocol;
use crate::certs::Authority;
use crate::dovecot::scratch;
use crate::ports::Port;
use crate::process::{Process, Spawn};
use crate::wait::eventually;
use crate::world::{Admin, CONTROL_PLANE, DATA_PLANE, program};
use files::{Ports, reserve, threads};

const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a proxy may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The token of the admin endpoints, which listen on loopback for the length of a run.
const TOKEN: &str = "a-token-for-the-length-of-a-benchmark";

/// Where distributions put nginx's module for mail (Debian: `libnginx-mod-mail`).
const MAIL_MODULES: [&str; 2] = [
    "/usr/lib/nginx/modules/ngx_mail_module.so",
    "/usr/lib64/nginx/modules/ngx_mail_module.so",
];

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// HAProxy, which passes on what it does not read.
    HaProxy,
    /// nginx's mail proxy, which reads logins as we do.
    Nginx,
    /// A data plane whose backend is reached in clear.
    InClear,
    /// A data plane whose backend is reached under TLS.
    UnderTls,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::HaProxy, Self::Nginx, Self::InClear, Self::UnderTls];

    const fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
            Self::InClear => "in-clear",
            Self::UnderTls => "under-tls",
        }
    }

    /// A login that goes to the backend as this proxy is to reach it.
    const fn login(self) -> &'static str {
        match self {
            Self::HaProxy | Self::Nginx | Self::InClear => "reader@clear.example",
            Self::UnderTls => "reader@tls.example",
        }
    }
}

/// What stays while proxies come and go.
pub(super) struct Rig {
    // Clients of the others go first: fields are dropped in order.
    _control_plane: Process,
    _operators: Port,
    _backend: Process,
    _backend_under_tls: Ports,
    tls: Arc<ClientConfig>,
    backend_in_clear: Ports,
    auth_http: Port,
    streams: Port,
    folder: TempDir,
}

/// A running proxy.
pub(super) struct Proxy {
    process: Process,
    targets: [Target; 4],
    /// What it uses.
    pub(super) meter: Meter,
    own: Option<OwnPorts>,
    _ports: Ports,
}

/// What of a proxy only a data plane has.
struct OwnPorts {
    /// Where mail systems deliver, and where they ask.
    mail_systems: [Port; 2],
    _admin: Port,
}

impl Rig {
    /// Starts the backend and the control plane.
    pub(super) async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    /// The same, with a place for mail.
    pub(super) async fn in_front_of(sink: &Sink) -> anyhow::Result<Self> {
        Self::start_with(Some(sink.address())).await
    }

    async fn start_with(sink: Option<SocketAddr>) -> anyhow::Result<Self> {
        let folder = scratch()?;
        let authority = Authority::new("Ferrypost benchmark")?;
        let identity = authority.server()?.write(folder.path(), "mail")?;
        fs::write(folder.path().join("ca.pem"), authority.pem())?;
        fs::write(folder.path().join("admin.token"), TOKEN)?;
        let haproxy_reads = format!(
            "{}{}",
            fs::read_to_string(&identity.certificate)?,
            fs::read_to_string(&identity.key)?
        );
        fs::write(folder.path().join("haproxy.pem"), haproxy_reads)?;
        let (in_clear, under_tls, auth_http) = (reserve()?, reserve()?, Port::reserve()?);
        let addresses = |ports: &Ports| ports.each_ref().map(|port| port.addr().to_string());
        let backend = Spawn::new(std::env::current_exe()?, folder.path().join("backend.log"))?
            .args(["backend", "--auth-http", &auth_http.addr().to_string()])
            .arg("--plain")
            .args(addresses(&in_clear))
            .arg("--tls")
            .args(addresses(&under_tls))
            .arg("--certificate")
            .arg(&identity.certificate)
            .arg("--key")
            .arg(&identity.key)
            .start()?;
        accepts("the backend", &auth_http).await?;
        let (streams, operators) = (Port::reserve()?, Port::reserve()?);
        fs::write(
            folder.path().join("routing.toml"),
            files::routing(&in_clear, &under_tls, sink),
        )?;
        let control_plane = start_control_plane(folder.path(), &operators, &streams)?;
        Ok(Self {
            _control_plane: control_plane,
            _operators: operators,
            _backend: backend,
            _backend_under_tls: under_tls,
            tls: one_suite(authority.pem())?,
            backend_in_clear: in_clear,
            auth_http,
            streams,
            folder,
        })
    }

    /// Starts a proxy afresh and waits until it serves.
    pub(super) async fn proxy(&self, kind: Kind) -> anyhow::Result<Proxy> {
        match kind {
            Kind::HaProxy => self.haproxy().await,
            Kind::Nginx => self.nginx().await,
            Kind::InClear | Kind::UnderTls => self.data_plane(kind, kind.name(), &[]).await,
        }
    }

    /// A data plane beside others.
    pub(super) async fn another(&self, name: &str) -> anyhow::Result<Proxy> {
        self.data_plane(Kind::InClear, name, &[]).await
    }

    /// A data plane that exports all that it can to a collector there.
    pub(super) async fn exporting(
        &self,
        name: &str,
        collector: Option<&str>,
    ) -> anyhow::Result<Proxy> {
        let variable = collector.map(|it| ("OTEL_EXPORTER_OTLP_ENDPOINT", it));
        self.data_plane(Kind::InClear, name, variable.as_slice())
            .await
    }

    /// A data plane that takes its memory from this library's allocator.
    pub(super) async fn data_plane_over(&self, allocator: &Path) -> anyhow::Result<Proxy> {
        let kind = Kind::InClear;
        let allocator = allocator.to_string_lossy();
        let variable = ("LD_PRELOAD", &*allocator);
        self.data_plane(kind, kind.name(), &[variable]).await
    }

    async fn haproxy(&self) -> anyhow::Result<Proxy> {
        let ports = reserve()?;
        let config = self.path("haproxy.cfg");
        let certificate = self.path("haproxy.pem");
        let text = files::haproxy(&ports, &self.backend_in_clear, &certificate);
        fs::write(&config, text)?;
        let process = Spawn::new("haproxy", self.path("haproxy.log"))?
            .arg("-db")
            .arg("-f")
            .arg(&config)
            .start()?;
        accepts("HAProxy", &ports[0]).await?;
        self.running(Kind::HaProxy, process, ports, None)
    }

    async fn nginx(&self) -> anyhow::Result<Proxy> {
        let module = MAIL_MODULES.iter().map(Path::new).find(|it| it.exists());
        let module = module.context("nginx's module for mail is not installed")?;
        let ports = reserve()?;
        let config = self.path("nginx.conf");
        fs::write(
            &config,
            files::nginx(&ports, &self.backend_in_clear, &self.auth_http, module),
        )?;
        let process = Spawn::new("nginx", self.path("nginx.log"))?
            .arg("-p")
            .arg(self.folder.path())
            .arg("-e")
            .arg(self.path("nginx-errors.log"))
            .arg("-c")
            .arg(&config)
            .start()?;
        let id = process.id();
        eventually("nginx has its workers", START_LIMIT, || {
            let processes = Meter::of(id).map(|meter| meter.processes());
            std::future::ready(match processes {
                Ok(count) if count > threads() => Ok(()),
                other => Err(format!("{other:?} processes")),
            })
        })
        .await?;
        self.running(Kind::Nginx, process, ports, None)
    }

    async fn data_plane(
        &self,
        kind: Kind,
        name: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Proxy> {
        let (ports, admin) = (reserve()?, Port::reserve()?);
        let mail_systems = [Port::reserve()?, Port::reserve()?];
        let config = self.path(&format!("{name}.toml"));
        let text = files::data_plane(name, &ports, &mail_systems, &self.streams, &admin);
        fs::write(&config, text)?;
        let mut spawn = Spawn::new(program(DATA_PLANE)?, self.path(&format!("{name}.log")))?
            .arg("--config")
            .arg(&config)
            // What an idle session costs is read from its memory's map.
            .env(core_dump::VARIABLE, "allow");
        for (name, value) in variables {
            spawn = spawn.env(name, value);
        }
        let process = spawn.start()?;
        let log = process.log().clone();
        let asked = Admin::new(admin.addr(), TOKEN, Arc::clone(&self.tls));
        let ready = eventually("the data plane is ready", START_LIMIT, || asked.ready()).await;
        ready.map_err(|mut late| {
            late.last = format!("{}\n{}", late.last, log.tail());
            late
        })?;
        let own = OwnPorts {
            mail_systems,
            _admin: admin,
        };
        self.running(kind, process, ports, Some(own))
    }

    fn running(
        &self,
        kind: Kind,
        process: Process,
        ports: Ports,
        own: Option<OwnPorts>,
    ) -> anyhow::Result<Proxy> {
        let target = |protocol: Protocol| Target {
            address: ports[protocol as usize].addr(),
            protocol,
            login: kind.login(),
            tls: Arc::clone(&self.tls),
        };
        Ok(Proxy {
            meter: Meter::of(process.id())?,
            process,
            targets: Protocol::ALL.map(target),
            own,
            _ports: ports,
        })
    }

    /// Where everything lies.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Proxy {
    /// Where clients of a protocol connect, and as whom.
    pub(super) fn target(&self, protocol: Protocol) -> &Target {
        &self.targets[protocol as usize]
    }

    /// Where mail systems deliver, to a data plane.
    pub(super) fn deliveries(&self) -> SocketAddr {
        self.mail_system(0)
    }

    /// Where mail systems ask a data plane.
    pub(super) fn lookups(&self) -> SocketAddr {
        self.mail_system(1)
    }

    fn mail_system(&self, place: usize) -> SocketAddr {
        let own = self
            .own
            .as_ref()
            .expect("only a data plane is asked for these");
        own.mail_systems[place].addr()
    }

    /// Ends it as an operator would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.process.terminate(STOP_LIMIT).await?;
        Ok(())
    }
}

fn start_control_plane(folder: &Path, operators: &Port, streams: &Port) -> anyhow::Result<Process> {
    let config = folder.join("control-plane.toml");
    fs::write(&config, files::control_plane(operators, streams))?;
    let process = Spawn::new(program(CONTROL_PLANE)?, folder.join("control-plane.log"))?
        .arg("--config")
        .arg(&config)
        .start()?;
    Ok(process)
}

async fn accepts(who: &str, port: &Port) -> anyhow::Result<()> {
    let address = port.addr();
    let what = format!("{who} takes connections");
    eventually(&what, START_LIMIT, || TcpStream::connect(address)).await?;
    Ok(())
}
