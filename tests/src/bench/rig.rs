//! HAProxy and Ferrypost in front of the same server.
//!
//! ```text
//!   load ─TLS─▶ HAProxy ──────────────────────▶ backend in clear
//!   load ─TLS─▶ data plane "in-clear" ────────▶ backend in clear
//!   load ─TLS─▶ data plane "under-tls" ─TLS───▶ backend under TLS
//!                    └── control plane
//! ```
//!
//! All show the same certificate and run a thread a core.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferrypost_runtime::core_dump;
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::client::{Target, without_resumption};
use super::meter::Meter;
use crate::certs::Authority;
use crate::dovecot::scratch;
use crate::ports::Port;
use crate::process::{Process, Spawn};
use crate::wait::eventually;
use crate::world::{Admin, CONTROL_PLANE, DATA_PLANE, program};

const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a proxy may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The token of the admin endpoints, which listen on loopback for the length of a run.
const TOKEN: &str = "a-token-for-the-length-of-a-benchmark";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// HAProxy, which passes on what it does not read.
    HaProxy,
    /// A data plane whose backend is reached in clear.
    InClear,
    /// A data plane whose backend is reached under TLS.
    UnderTls,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::HaProxy, Self::InClear, Self::UnderTls];

    const fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "haproxy",
            Self::InClear => "in-clear",
            Self::UnderTls => "under-tls",
        }
    }

    /// A login that goes to the backend as this proxy is to reach it.
    const fn login(self) -> &'static str {
        match self {
            Self::HaProxy | Self::InClear => "reader@clear.example",
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
    _backend_under_tls: Port,
    tls: Arc<ClientConfig>,
    backend_in_clear: Port,
    streams: Port,
    folder: TempDir,
}

/// A running proxy.
pub(super) struct Proxy {
    process: Process,
    /// Where clients connect, and as whom.
    pub(super) target: Target,
    /// What it uses.
    pub(super) meter: Meter,
    _ports: Vec<Port>,
}

impl Rig {
    /// Starts the backend and the control plane.
    pub(super) async fn start() -> anyhow::Result<Self> {
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
        let (in_clear, under_tls) = (Port::reserve()?, Port::reserve()?);
        let backend = Spawn::new(std::env::current_exe()?, folder.path().join("backend.log"))?
            .arg("backend")
            .args(["--plain", &in_clear.addr().to_string()])
            .args(["--tls", &under_tls.addr().to_string()])
            .arg("--certificate")
            .arg(&identity.certificate)
            .arg("--key")
            .arg(&identity.key)
            .start()?;
        accepts("the backend", &in_clear).await?;
        let (streams, operators) = (Port::reserve()?, Port::reserve()?);
        write_routing(folder.path(), &in_clear, &under_tls)?;
        let control_plane = start_control_plane(folder.path(), &operators, &streams)?;
        Ok(Self {
            _control_plane: control_plane,
            _operators: operators,
            _backend: backend,
            _backend_under_tls: under_tls,
            tls: without_resumption(&*authority.client_config()?),
            backend_in_clear: in_clear,
            streams,
            folder,
        })
    }

    /// Starts a proxy afresh and waits until it serves.
    pub(super) async fn proxy(&self, kind: Kind) -> anyhow::Result<Proxy> {
        match kind {
            Kind::HaProxy => self.haproxy().await,
            Kind::InClear | Kind::UnderTls => self.data_plane(kind, None).await,
        }
    }

    /// A data plane that takes its memory from this library's allocator.
    pub(super) async fn data_plane_over(&self, allocator: &Path) -> anyhow::Result<Proxy> {
        self.data_plane(Kind::InClear, Some(allocator)).await
    }

    async fn haproxy(&self) -> anyhow::Result<Proxy> {
        let port = Port::reserve()?;
        let config = self.path("haproxy.cfg");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // No resumption on either side, as here. Everything else is its default.
        fs::write(
            &config,
            format!(
                "global\n nbthread {threads}\n maxconn 9000\n tune.ssl.cachesize 0\n \
                 ssl-default-bind-options no-tls-tickets\n\
                 defaults\n mode tcp\n timeout connect 5s\n timeout client 35m\n timeout server 35m\n\
                 listen imaps\n bind {} ssl crt {}\n server backend {}\n",
                port.addr(),
                self.path("haproxy.pem").display(),
                self.backend_in_clear.addr()
            ),
        )?;
        let process = Spawn::new("haproxy", self.path("haproxy.log"))?
            .arg("-db")
            .arg("-f")
            .arg(&config)
            .start()?;
        accepts("HAProxy", &port).await?;
        Ok(self.running(Kind::HaProxy, process, vec![port]))
    }

    async fn data_plane(&self, kind: Kind, allocator: Option<&Path>) -> anyhow::Result<Proxy> {
        let (port, admin) = (Port::reserve()?, Port::reserve()?);
        let name = kind.name();
        let config = self.path(&format!("{name}.toml"));
        // Every client comes from one address. Everything else is the default, the log included.
        fs::write(
            &config,
            format!(
                "instance = \"{name}\"\nstate_directory = \"{name}-state\"\n\
                 [control_plane]\nendpoints = [\"http://{}\"]\n\
                 [[listeners]]\nname = \"imaps\"\nprotocol = \"imap\"\naddress = \"{}\"\n\
                 tls = \"implicit\"\ncertificates = [{{ cert_file = \"mail.pem\", key_file = \"mail.key\" }}]\n\
                 [admin]\nlisten = \"{}\"\ncert_file = \"mail.pem\"\nkey_file = \"mail.key\"\n\
                 token_file = \"admin.token\"\n\
                 [limits.connections]\ntotal = 9000\nper_address = 9000\nper_network = 9000\n",
                self.streams.addr(),
                port.addr(),
                admin.addr()
            ),
        )?;
        let mut spawn = Spawn::new(program(DATA_PLANE)?, self.path(&format!("{name}.log")))?
            .arg("--config")
            .arg(&config)
            // What an idle session costs is read from its memory's map.
            .env(core_dump::VARIABLE, "allow");
        if let Some(allocator) = allocator {
            spawn = spawn.env("LD_PRELOAD", allocator);
        }
        let process = spawn.start()?;
        let log = process.log().clone();
        let asked = Admin::new(admin.addr(), TOKEN, Arc::clone(&self.tls));
        let ready = eventually("the data plane is ready", START_LIMIT, || asked.ready()).await;
        ready.map_err(|mut late| {
            late.last = format!("{}\n{}", late.last, log.tail());
            late
        })?;
        Ok(self.running(kind, process, vec![port, admin]))
    }

    fn running(&self, kind: Kind, process: Process, ports: Vec<Port>) -> Proxy {
        Proxy {
            meter: Meter::of(process.id()),
            process,
            target: Target {
                address: ports[0].addr(),
                login: kind.login(),
                tls: Arc::clone(&self.tls),
            },
            _ports: ports,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Proxy {
    /// Ends it as an operator would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.process.terminate(STOP_LIMIT).await?;
        Ok(())
    }
}

fn start_control_plane(folder: &Path, operators: &Port, streams: &Port) -> anyhow::Result<Process> {
    let config = folder.join("control-plane.toml");
    fs::write(
        &config,
        format!(
            "[store]\nkind = \"embedded\"\n[operators]\nlisten = \"{}\"\n\
             [data_planes]\nlisten = \"{}\"\n[routing]\nsource = \"file\"\nfile = \"routing.toml\"\n",
            operators.addr(),
            streams.addr()
        ),
    )?;
    let process = Spawn::new(program(CONTROL_PLANE)?, folder.join("control-plane.log"))?
        .arg("--config")
        .arg(&config)
        .start()?;
    Ok(process)
}

/// One server as two destinations, each for the names of a domain.
fn write_routing(folder: &Path, in_clear: &Port, under_tls: &Port) -> anyhow::Result<()> {
    let endpoint = |id: &str, port: &Port, tls: &str| {
        format!(
            "[[destinations]]\nid = \"{id}\"\n[[destinations.endpoints]]\nprotocol = \"imap\"\n\
             host = \"127.0.0.1\"\nport = {}\nannouncement = \"none\"\n{tls}\n",
            port.number()
        )
    };
    let text = format!(
        "default_destination = \"in-clear\"\n[names]\nbare_names = \"refuse\"\n\
         [[domains]]\nname = \"clear.example\"\n\
         [[domains]]\nname = \"tls.example\"\nunlisted = {{ destination = \"under-tls\" }}\n{}{}",
        endpoint(
            "in-clear",
            in_clear,
            "tls = \"none\"\nplaintext_consent = true"
        ),
        endpoint(
            "under-tls",
            under_tls,
            "tls = \"implicit\"\nca_file = \"ca.pem\""
        ),
    );
    Ok(fs::write(folder.join("routing.toml"), text)?)
}

async fn accepts(who: &str, port: &Port) -> anyhow::Result<()> {
    let address = port.addr();
    let what = format!("{who} takes connections");
    eventually(&what, START_LIMIT, || TcpStream::connect(address)).await?;
    Ok(())
}
