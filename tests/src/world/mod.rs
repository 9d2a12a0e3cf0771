//! A whole installation on loopback: two Dovecots, the control plane with its store, data planes.
//!
//! ```text
//!   clients ─▶ gateway-1, gateway-2 … ─▶ source (believes IMAP ID), target (PROXY required)
//!                    │ mTLS
//!              control-plane-1 … ─▶ redb file | etcd       operators ─▶ gRPC in clear, token
//! ```
//!
//! Everything lies in one folder, runs on ports of its own, and ends with the [`World`], unless the
//! world was built to survive. Every process of ours can be killed, frozen and started again.

mod admin;
mod build;
mod error;
mod etcd;
mod files;
mod link;
mod operator;
mod plane;
mod programs;
mod web;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::cyrus::Cyrus;
use crate::dovecot::{Dovecot, DovecotError, Role};
use crate::grpcurl::Grpcurl;
use crate::imap::{Connect, Security};
use crate::postfix::Postfix;
use crate::turn::Turn;
use crate::wait::eventually;

pub use admin::Admin;
pub use build::{Builder, PASSWORD};
pub use error::WorldError;
pub use etcd::Etcd;
pub use link::{Link, Traffic};
pub use operator::{Authorized, Bearer, Operator, reason};
pub use plane::{ControlPlane, DataPlane, Entrance, Plane};
pub use programs::{COMMAND_LINE, CONTROL_PLANE, DATA_PLANE, program};
pub use web::{Family, Shipped, Sites};

/// How long starting may take on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How long a copy may take that nobody waits for.
const COPY_LIMIT: Duration = Duration::from_mins(1);

/// Where the control plane keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A redb file.
    Embedded,
    /// An etcd member of the world's own.
    Etcd,
}

/// What a login without a domain means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNames {
    /// `alice` is `alice@example.org`.
    OfDefaultDomain,
    /// `alice` is a name of its own.
    Listed,
}

/// Times that decide how long things take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// FENCING to FLIPPED at most.
    pub window: Duration,
    /// A run of the delta hook at most.
    pub hook: Duration,
    /// Fences wait this long after a data plane was succeeded or expelled.
    pub settle: Duration,
    /// How often data planes are asked.
    pub heartbeat: Duration,
    /// How long after a leader's death another one leads.
    pub leader_ttl: Duration,
    /// Open commands get this long before a session is cut.
    pub drain: Duration,
    /// The server's own close is waited for this long.
    pub close: Duration,
    /// A held login waits this long.
    pub hold: Duration,
}

impl Default for Limits {
    /// The products' own defaults.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(20),
            hook: Duration::from_secs(10),
            settle: Duration::from_secs(30),
            heartbeat: Duration::from_secs(2),
            leader_ttl: Duration::from_secs(6),
            drain: Duration::from_secs(10),
            close: Duration::from_secs(5),
            hold: Duration::from_secs(25),
        }
    }
}

/// A running installation.
pub struct World {
    // Clients of the others go first: fields are dropped in order.
    data_planes: Vec<DataPlane>,
    control_planes: Vec<ControlPlane>,
    etcd: Option<Etcd>,
    source: Dovecot,
    target: Dovecot,
    postfixes: Option<[Postfix; 2]>,
    cyruses: Option<[Cyrus; 2]>,
    /// What copies calendars and contacts between them.
    dav: Option<Vec<String>>,
    accounts: Vec<String>,
    password: String,
    operator_token: String,
    admin_token: String,
    drain_token: String,
    trust: Arc<ClientConfig>,
    journal: PathBuf,
    folder: Folder,
    _turn: Turn,
}

/// Where a world lies.
enum Folder {
    /// Removed with the world.
    Temporary(TempDir),
    /// Left for somebody else to remove.
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

impl World {
    /// A world of two data planes, one control plane on the embedded store and four accounts.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Where all of its files lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server where every account lives at first.
    pub fn source(&self) -> &Dovecot {
        &self.source
    }

    /// The server that accounts move to.
    pub fn target(&self) -> &Dovecot {
        &self.target
    }

    /// The Postfix beside a Dovecot, in a world that has them.
    pub fn postfix(&self, role: Role) -> Option<&Postfix> {
        let [source, target] = self.postfixes.as_ref()?;
        Some(match role {
            Role::Source => source,
            Role::Target => target,
        })
    }

    /// The Cyrus beside a Dovecot, in a world that has them.
    pub fn cyrus(&self, role: Role) -> Option<&Cyrus> {
        let [source, target] = self.cyruses.as_ref()?;
        Some(match role {
            Role::Source => source,
            Role::Target => target,
        })
    }

    /// The server of a destination's name.
    pub fn server(&self, destination: &str) -> Option<&Dovecot> {
        [&self.source, &self.target]
            .into_iter()
            .find(|server| server.role().name() == destination)
    }

    /// The accounts' addresses, which exist on both servers.
    pub fn accounts(&self) -> &[String] {
        &self.accounts
    }

    /// The password of all of them.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The data planes in order; instance ids are `gateway-1` and on.
    pub fn data_planes(&self) -> &[DataPlane] {
        &self.data_planes
    }

    /// A data plane's process, counted from 0.
    pub fn data_plane(&mut self, n: usize) -> &mut Plane {
        &mut self.data_planes[n].plane
    }

    /// The replicas of the control plane; ids are `control-plane-1` and on.
    pub fn control_planes(&self) -> &[ControlPlane] {
        &self.control_planes
    }

    /// A replica's process, counted from 0.
    pub fn control_plane(&mut self, n: usize) -> &mut Plane {
        &mut self.control_planes[n].plane
    }

    /// The etcd member; `None` on the embedded store.
    pub fn etcd(&mut self) -> Option<&mut Etcd> {
        self.etcd.as_mut()
    }

    /// The file with the certificate that all others are signed with.
    pub fn authority(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// The file with the token of the operators' API.
    pub fn operator_token_file(&self) -> PathBuf {
        self.folder().join("operator.token")
    }

    /// The file with the token of the admin endpoints.
    pub fn admin_token_file(&self) -> PathBuf {
        self.folder().join("admin.token")
    }

    /// The routing configuration.
    pub fn routing_config(&self) -> PathBuf {
        self.folder().join("routing.toml")
    }

    /// Where the delta hook writes when it ran.
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// The socket at which mail systems ask the first data plane for the way of a recipient.
    pub fn lookups(&self) -> PathBuf {
        self.folder().join("gateway-1").join(files::LOOKUPS)
    }

    /// A TLS client that trusts the world's authority.
    pub fn trust(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.trust)
    }

    /// How a client reaches a data plane over TLS.
    pub fn imaps(&self, data_plane: usize) -> Connect {
        let address = self.data_planes[data_plane].imaps();
        Connect::new(address, Security::Tls(self.trust()))
    }

    /// How a client reaches a data plane by HTTP.
    ///
    /// # Panics
    /// In a world without servers of it.
    pub fn web(&self, data_plane: usize) -> Connect {
        let address = self.data_planes[data_plane].web();
        let address = address.expect("a world with servers of HTTP");
        Connect::new(address, Security::Tls(self.trust()))
    }

    /// How a client reaches a data plane by STARTTLS.
    pub fn imap_starttls(&self, data_plane: usize) -> Connect {
        let address = self.data_planes[data_plane].imap();
        Connect::new(address, Security::StartTls(self.trust()))
    }

    /// The admin endpoint of a data plane.
    pub fn admin(&self, data_plane: usize) -> Admin {
        let address = self.data_planes[data_plane].admin();
        Admin::new(address, &self.admin_token, self.trust()).draining(&self.drain_token)
    }

    /// The admin endpoint of a replica of the control plane.
    pub fn admin_of_replica(&self, replica: usize) -> Admin {
        let address = self.control_planes[replica].admin();
        Admin::new(address, &self.admin_token, self.trust())
    }

    /// An operator at a replica of the control plane.
    pub fn operator(&self, replica: usize) -> Operator {
        let address = self.control_planes[replica].operators();
        Operator::new(address, &self.operator_token)
    }

    /// The real grpcurl at a replica of the control plane.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn grpcurl(&self, replica: usize) -> Result<Grpcurl, WorldError> {
        let address = self.control_planes[replica].operators();
        Ok(Grpcurl::plaintext(address.to_string())?.token(&self.operator_token))
    }

    /// Waits until a data plane accepts clients.
    ///
    /// # Errors
    /// When it has ended, or does not within a minute.
    pub async fn wait_until_ready(&mut self, data_plane: usize) -> Result<(), WorldError> {
        let admin = self.admin(data_plane);
        let plane = &mut self.data_planes[data_plane].plane;
        let what = format!("{} is ready", plane.name());
        let tail = plane.log();
        let waited = eventually(&what, START_LIMIT, || {
            let running = plane.check();
            let admin = &admin;
            async move {
                running?;
                admin.ready().await
            }
        })
        .await;
        plane.check()?;
        waited.map_err(|mut late| {
            late.last = format!("{}\n{}", late.last, tail.tail());
            late.into()
        })
    }

    /// Waits until a leader drives migrations, as a replica sees it.
    ///
    /// # Errors
    /// When the replica has ended, or there is none within a minute.
    pub async fn wait_for_leader(&mut self, replica: usize) -> Result<(), WorldError> {
        let operator = self.operator(replica);
        let plane = &mut self.control_planes[replica].plane;
        let what = format!("{} knows a leader", plane.name());
        let tail = plane.log();
        let waited = eventually(&what, START_LIMIT, || {
            let running = plane.check().map_err(|error| error.to_string());
            let operator = &operator;
            async move {
                running?;
                let stats = operator.get_stats().await.map_err(|s| s.to_string())?;
                let leader = stats.header.map(|header| header.leader);
                match leader.filter(|leader| !leader.is_empty()) {
                    Some(_) => Ok(()),
                    None => Err("there is no leader".to_owned()),
                }
            }
        })
        .await;
        plane.check()?;
        waited.map_err(|mut late| {
            late.last = format!("{}\n{}", late.last, tail.tail());
            late.into()
        })
    }

    /// Brings the target's copy of an account up to date while the account is in use, as an operator
    /// does before a move.
    ///
    /// # Errors
    /// When doveadm fails.
    pub async fn copy(&self, account: &str) -> Result<(), DovecotError> {
        self.source.sync_to(&self.target, account).await
    }

    /// The command by which an operator does the same with calendars and contacts; `None` in a world without Cyruses.
    pub fn dav_copy(&self, account: &str) -> Option<String> {
        let [source, target] = self.cyruses.as_ref()?;
        let job = serde_json::json!({
            "source": source.role().name(),
            "target": target.role().name(),
            "accounts": [{"names": [account]}],
            "deadline_seconds": COPY_LIMIT.as_secs(),
        });
        let words = self.dav.as_ref()?.join(" ");
        Some(format!("{words} <<'END'\n{job}\nEND\n"))
    }

    /// Ends the planes as an operator would, the data planes first, and leaves the servers.
    ///
    /// # Errors
    /// When a process does not end, or not with success.
    pub async fn stop_ferrypost(&mut self) -> Result<(), WorldError> {
        let data_planes = self.data_planes.iter_mut();
        try_join_all(data_planes.map(|it| it.plane.stop())).await?;
        let control_planes = self.control_planes.iter_mut();
        try_join_all(control_planes.map(|it| it.plane.stop())).await?;
        Ok(())
    }

    /// Ends the planes as an operator would: data planes first, which close their sessions and say goodbye. The
    /// servers, which are nobody's any more, are killed.
    ///
    /// # Errors
    /// When a program of ours does not end, or not with success.
    pub async fn stop(mut self) -> Result<(), WorldError> {
        self.stop_ferrypost().await
    }

    /// Kills everything and leaves the files, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        match self.folder {
            Folder::Temporary(folder) => folder.keep(),
            Folder::Kept(folder) => folder,
        }
    }
}
