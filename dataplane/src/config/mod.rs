//! What belongs to this machine: listeners, certificates, limits, how to reach the control plane.
//! Where accounts live is not configured here; the control plane says it.
//!
//! ```text
//!   file ── text ──▶ sections, key by key ──▶ validate ──▶ Config
//! ```
//!
//! A [`Config`] in hand is valid: its only constructors, [`Config::load`] and [`Config::parse`], report every
//! mistake at once, each with its line and key.

mod deliveries;
mod keys;
mod local;
mod lookups;
mod pass_throughs;
#[cfg(test)]
mod tests;
mod tokens;
mod validate;
mod web;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ferrypost_proto::{DestinationId, InstanceId, v1};
use ferrypost_runtime::{
    config::{ConfigFile, Mistakes},
    logging,
    tls::CertificateFiles,
};
use ferrypost_wire::ProtocolKind;

use crate::{
    limits::{KnownNetwork, Limits, ShutdownLimits},
    lookup::settings::LookupSettings,
    net::{local::Place, source::Sources},
    network::Network,
    redact::Redact,
    tokens::settings::Settings,
};

pub use keys::KEYS;
pub use pass_throughs::PassThrough;
pub use web::WebListener;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    instance: InstanceId,
    group: String,
    state_directory: PathBuf,
    control_plane: ControlPlane,
    listeners: Vec<Listener>,
    pass_throughs: Vec<PassThrough>,
    deliveries: Vec<DeliveryListener>,
    web: Vec<WebListener>,
    servers: Vec<ServerMeans>,
    lookups: Vec<LookupSettings>,
    limits: Limits,
    known_networks: Vec<KnownNetwork>,
    tokens: Option<Settings>,
    admin: Admin,
    log: Log,
}

/// How the control plane is reached.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Its replicas, as `https://host:port`, tried in turn; never empty. `http` only to loopback.
    pub endpoints: Vec<String>,
    /// `None`: every endpoint is `http`.
    pub tls: Option<ControlPlaneTls>,
}

/// Mutual TLS with the control plane. The files are read anew for every connection, so that renewed
/// certificates need no restart.
#[derive(Debug, Clone)]
pub struct ControlPlaneTls {
    /// Who vouches for the control plane's certificate. `None`: the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate: who we are to the control plane.
    pub identity: CertificateFiles,
    /// The name to verify in place of the endpoint's host.
    pub server_name: Option<String>,
}

/// Where clients connect.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in logs and statistics.
    pub name: String,
    /// What is spoken there.
    pub protocol: ProtocolKind,
    /// Where it is bound. Port 0: any free one.
    pub address: SocketAddr,
    /// How the connection is encrypted.
    pub tls: ListenerTls,
    /// The certificates to choose from by server name; never empty. The first is for clients that name
    /// none that fits.
    pub certificates: Vec<CertificateFiles>,
    /// Peers whose PROXY header is believed, and who must send one. Empty: nobody may.
    pub proxy_protocol_from: Vec<Network>,
    /// Client connections at once on this listener. `None`: only the limits for all listeners.
    pub connections: Option<usize>,
}

/// How a client's connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTls {
    /// From the first byte.
    Implicit,
    /// By the protocol's upgrade command; nothing can be logged in to before it.
    StartTls,
}

impl ListenerTls {
    /// As configuration and `/stats` write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Implicit => "implicit",
            Self::StartTls => "starttls",
        }
    }
}

/// Where mail systems deliver.
#[derive(Debug, Clone)]
pub struct DeliveryListener {
    /// Its name in logs and statistics.
    pub name: String,
    /// What is spoken there.
    pub protocol: DeliveryProtocol,
    /// Where it is bound.
    pub place: Place,
    /// Who may come to an address: whoever delivers is not asked for a password.
    pub from: Vec<Network>,
    /// What mail systems are shown. By LMTP they must say STARTTLS first, by SMTP they may. Empty: in clear.
    pub certificates: Vec<CertificateFiles>,
    /// Mail systems' connections at once on this listener. `None`: only the limit for all listeners.
    pub connections: Option<usize>,
}

/// What mail systems deliver by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryProtocol {
    /// LMTP (RFC 2033): each recipient's server has the message, and gives its own word.
    Lmtp,
    /// SMTP (RFC 5321): the first recipient's server has the message, and the others' come again by themselves.
    Smtp,
}

impl DeliveryProtocol {
    /// As configuration and `/stats` write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lmtp => "lmtp",
            Self::Smtp => "smtp",
        }
    }
}

/// What this machine has for its connections to some of the servers.
#[derive(Debug, Clone)]
pub struct ServerMeans {
    /// Those of a destination. `None`: of all.
    pub destination: Option<DestinationId>,
    /// Those that speak this. `None`: all.
    pub protocol: Option<v1::Protocol>,
    /// Where the connections come from.
    pub sources: Sources,
    /// What servers that ask for a certificate are shown.
    pub client_certificate: Option<CertificateFiles>,
}

/// The admin endpoint.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it is bound.
    pub listen: SocketAddr,
    /// What it shows to callers.
    pub certificate: CertificateFiles,
    /// Holds the bearer token of who may read; reread when it changes.
    pub token_file: PathBuf,
    /// Holds that of who may have this data plane drained, and nothing else. `None`: nobody may.
    pub drain_token_file: Option<PathBuf>,
    /// Where `/healthz` and `/readyz`, and nothing else, are served in clear.
    pub health_listen: Option<SocketAddr>,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is written and how.
    pub lines: logging::Settings,
    /// How accounts are shown.
    pub redact: Redact,
}

impl Config {
    /// Reads and checks a file, and what this process's environment says in its place. Relative paths in it are
    /// relative to its own directory.
    ///
    /// # Errors
    /// Every mistake, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        Self::of(&ConfigFile::read(path)?)
    }

    /// Checks a file that was read. Files that it names are read to see that they are what they should be.
    ///
    /// # Errors
    /// Every mistake, each with its line and key.
    pub fn of(file: &ConfigFile) -> Result<Self, Mistakes> {
        validate::config(file)
    }

    /// What somebody needs who gives an order to the data plane of this file. The rest is not looked at: it may name what
    /// is for the next process already, as a certificate that this machine does not have yet.
    ///
    /// # Errors
    /// Every mistake, each with its line and key, where `[admin]` cannot be read.
    pub fn for_order(file: &ConfigFile) -> Result<(Admin, ShutdownLimits), Mistakes> {
        validate::for_order(file)
    }

    /// Checks a text; `path` names it in messages and is what its relative paths are relative to. See [`of`](Self::of).
    ///
    /// # Errors
    /// Every mistake, each with its line and key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Mistakes> {
        Self::of(&ConfigFile::of_text(text, path))
    }

    /// This data plane's name among all of the installation's.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Chooses endpoints in the routing configuration. May be empty.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Where this data plane keeps who it is. Never shared by two processes.
    pub fn state_directory(&self) -> &Path {
        &self.state_directory
    }

    /// How the control plane is reached.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Where clients connect to log in. Empty only where something else is served.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Where mail systems connect to be passed through.
    pub fn pass_throughs(&self) -> &[PassThrough] {
        &self.pass_throughs
    }

    /// Where mail systems deliver. May be empty.
    pub fn deliveries(&self) -> &[DeliveryListener] {
        &self.deliveries
    }

    /// Where clients speak HTTP. May be empty.
    pub fn web(&self) -> &[WebListener] {
        &self.web
    }

    /// What there is for the connections to servers; no two for the same ones.
    pub fn servers(&self) -> &[ServerMeans] {
        &self.servers
    }

    /// Where mail systems ask. May be empty.
    pub fn lookups(&self) -> &[LookupSettings] {
        &self.lookups
    }

    /// All limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Networks with a limit on connections of their own, each once.
    pub fn known_networks(&self) -> &[KnownNetwork] {
        &self.known_networks
    }

    /// How it is told whose bearer tokens are. `None`: nobody can tell, and none is asked for.
    pub fn tokens(&self) -> Option<&Settings> {
        self.tokens.as_ref()
    }

    /// The admin endpoint.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// What is logged and how.
    pub fn log(&self) -> &Log {
        &self.log
    }
}

/// Whether an address is reachable from this machine alone.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
