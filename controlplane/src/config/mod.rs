//! The control plane's own configuration file.
//!
//! A [`Config`] in hand is a valid one: its only constructor checks everything and reports every
//! mistake at once, each with its line. What the file may say is documented here, key by key;
//! `controlplane/examples/controlplane.toml` shows all of it.

mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ferrypost_proto::{InstallationId, ReplicaId};
use ferrypost_runtime::{
    config::{ConfigFile, Mistakes},
    logging,
    tls::CertificateFiles,
};

use crate::store::{embedded::EmbeddedConfig, etcd::EtcdTls};

pub use keys::KEYS;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    replica: ReplicaId,
    installation: Option<InstallationId>,
    store: StoreConfig,
    operators: Operators,
    data_planes: DataPlanes,
    routing: Routing,
    migrations: Migrations,
    hooks: Hooks,
    admin: Option<Admin>,
    log: logging::Settings,
}

impl Config {
    /// Reads a file, and what this process's environment says in its place.
    ///
    /// # Errors
    /// Every mistake in it, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        Self::of(&ConfigFile::read(path)?)
    }

    /// Checks a file that was read.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn of(file: &ConfigFile) -> Result<Self, Mistakes> {
        read::config(file)
    }

    /// Reads a text; `path` names it in messages and is what its relative paths are relative to.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Mistakes> {
        Self::of(&ConfigFile::of_text(text, path))
    }

    /// `replica`: this process's name among the replicas. Default: `controlplane`, which is enough
    /// while there is one; needed with etcd, where each replica must have its own.
    pub fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    /// `installation`: refuse a store that belongs to another installation. Default: take the store
    /// as it is.
    pub fn installation(&self) -> Option<&InstallationId> {
        self.installation.as_ref()
    }

    /// `[store]`.
    pub fn store(&self) -> &StoreConfig {
        &self.store
    }

    /// `[operators]`.
    pub fn operators(&self) -> &Operators {
        &self.operators
    }

    /// `[data_planes]`.
    pub fn data_planes(&self) -> &DataPlanes {
        &self.data_planes
    }

    /// `[routing]`.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// `[migrations]`.
    pub fn migrations(&self) -> &Migrations {
        &self.migrations
    }

    /// `[hooks]`.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// `[admin]`. Default: there is no admin endpoint.
    pub fn admin(&self) -> Option<&Admin> {
        self.admin.as_ref()
    }

    /// `[log]`: `format`, `text` (the default) or `json`, and `level`: `error`, `warn`, `info` (the
    /// default) or `debug`.
    pub fn log(&self) -> logging::Settings {
        self.log
    }
}

/// `[store]`: where everything durable lies.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// `kind = "embedded"` (the default): one file, one process. `path`, default
    /// `ferrypost.redb` beside the configuration file.
    Embedded(EmbeddedConfig),
    /// `kind = "etcd"`: a cluster and any number of replicas.
    Etcd(EtcdAccess),
}

/// How to reach an etcd cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EtcdAccess {
    /// `endpoints`: the members' client addresses, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// `prefix`: what all keys begin with. Default `/ferrypost`.
    pub prefix: String,
    /// `ca_file`, and `cert_file` with `key_file`. Needed for `https`.
    pub tls: Option<EtcdTls>,
    /// `username`, and `password_file` that holds its password. The file is read again when it
    /// changes.
    pub user: Option<(String, PathBuf)>,
}

/// `[operators]`: the listener of the operators' API.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Operators {
    /// `listen`: default `127.0.0.1:9080`. Another address than loopback needs TLS and tokens or
    /// identities.
    pub listen: SocketAddr,
    /// `tls`. Without it the listener speaks in clear, on loopback only.
    pub tls: Option<TlsFiles>,
    /// `tokens`: bearer tokens, each in a file of its own that is read again when it changes.
    pub tokens: Vec<TokenConfig>,
    /// `identities`: who a client certificate stands for. Needs `tls.client_ca_file`.
    pub identities: Vec<IdentityConfig>,
}

/// Certificate files, read again when they change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsFiles {
    /// `cert_file` and `key_file`: what callers are shown.
    pub identity: CertificateFiles,
    /// `client_ca_file`: who may have signed client certificates. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// What a caller may do. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Moves accounts and writes placements.
    Operator,
    /// Replaces the routing configuration and expels data planes.
    Admin,
}

/// One entry of `operators.tokens`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenConfig {
    /// `name`: who calls with it, for migrations and the log.
    pub name: String,
    /// `role`: `viewer`, `operator` or `admin`.
    pub role: Role,
    /// `file`: holds the token, at least 32 octets on one line.
    pub file: PathBuf,
}

/// One entry of `operators.identities`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IdentityConfig {
    /// What the certificate must say.
    pub certificate: CertificateName,
    /// `role`: as in `tokens`.
    pub role: Role,
}

/// A name in a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateName {
    /// `common_name`: the subject's common name.
    CommonName(String),
    /// `san`: a DNS name, mail address or URI among the subject's alternative names.
    AlternativeName(String),
}

/// `[data_planes]`: the listener of the stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DataPlanes {
    /// `listen`: default `127.0.0.1:9081`. Another address than loopback needs TLS, and a
    /// `tls.client_ca_file` or a `token_file`.
    pub listen: SocketAddr,
    /// `tls`: with `client_ca_file`, data planes must show a certificate that it signed.
    pub tls: Option<TlsFiles>,
    /// `token_file`: a bearer token that data planes must send, as well as a certificate if one is
    /// asked for.
    pub token: Option<PathBuf>,
    /// `identity`: `any` (the default) or `certificate`, which needs `tls.client_ca_file`.
    pub identity: Identity,
}

/// Which instance id a data plane may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Any: who may open the stream is believed.
    Any,
    /// A DNS name among its certificate's alternative names, in whole.
    Certificate,
}

/// `[routing]`: who owns the routing configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Routing {
    /// `source`: `file` (the default) or `api`.
    pub source: RoutingSource,
    /// `file`: the routing configuration in TOML, default `routing.toml` beside this file. Under
    /// `api` it seeds an empty store and may be absent.
    pub file: PathBuf,
}

/// Who may change the routing configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingSource {
    /// The file, which the leader applies whenever it changes.
    File,
    /// `ApplyRoutingConfig`.
    Api,
}

impl RoutingSource {
    /// The word in the file and in answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// `[migrations]`: the clocks and the budget of moves.
///
/// They fit together: a data plane holds a login for at most H (its own `hold`, 25 s by default),
/// and the window W must end before, so that what was held is admitted rather than sent away. Inside
/// W data planes have their drain limit (10 s by default) and the hook its timeout.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Migrations {
    /// `window`, W: from FENCING to FLIPPED at most this long, then the move aborts. Default `20s`,
    /// 1 s to 24 s (below the data planes' hold limit).
    pub window: Duration,
    /// `fence_budget`: accounts between FENCING and FLIPPED at once. Default 20.
    pub fence_budget: usize,
    /// `fence_attempts`: a move is fenced at most this often, then it aborts. A fence that its leader's death
    /// ends is withdrawn, and the move goes on by itself, after its users were served for as long as `window`.
    /// Default 3, 1 to 100.
    pub fence_attempts: u32,
    /// `settle`: fences wait this long after a data plane was succeeded or expelled, whose backends
    /// nobody saw close. Default `30s`.
    pub settle: Duration,
    /// `heartbeat`: how often data planes are asked; two unanswered ones hold back every fence.
    /// Default `2s`.
    pub heartbeat: Duration,
    /// `leader_ttl`: how long after a leader's death another replica leads. Until then what it held
    /// stays held; then it is released where it lives. Default `6s`, 1 s to 30 s; long enough for the
    /// store's pauses, since a leader that cannot renew its lease stops. etcd counts whole seconds,
    /// rounded up, and at least one and a half of its election timeouts.
    pub leader_ttl: Duration,
    /// `keep_ended`: ended migrations and request ids are removed this long after the end; an account's
    /// last migration stays. Default `720h`, 30 days.
    pub keep_ended: Duration,
}

/// `[admin]`: the endpoint of `/stats`, `/metrics`, `/healthz` and `/readyz`, over TLS.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Admin {
    /// `listen`: default `127.0.0.1:9444`.
    pub listen: SocketAddr,
    /// `cert_file` and `key_file`: what callers are shown. Read again when they change.
    pub certificate: CertificateFiles,
    /// `token_file`: holds the bearer token that callers must know. Read again when it changes.
    pub token_file: PathBuf,
    /// `health_listen`: where `/healthz` and `/readyz`, and nothing else, are served in clear. Default: nowhere.
    pub health_listen: Option<SocketAddr>,
}

/// `[hooks]`: programs of the operator's that are run during a move.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Hooks {
    /// `delta`: brings the target up to date while the account is quiesced. Without it, what was
    /// written since the last copy stays behind.
    pub delta: Option<HookConfig>,
}

/// A hook.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HookConfig {
    /// `command`: the program by its absolute path, and its arguments. No shell is involved.
    pub command: Vec<String>,
    /// `timeout`: killed after this long, and the move aborts. Default `10s`; below
    /// `migrations.window`.
    pub timeout: Duration,
}
