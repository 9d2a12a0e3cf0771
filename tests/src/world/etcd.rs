//! A real etcd member of a test's own.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::ports::Port;
use crate::process::{Process, Spawn, find_program};
use crate::wait::eventually;

use super::WorldError;

const START_LIMIT: Duration = Duration::from_mins(1);

/// One member, which is its whole cluster. Dropping it kills it.
#[derive(Debug)]
pub struct Etcd {
    folder: PathBuf,
    clients: Port,
    peers: Port,
    process: Process,
}

impl Etcd {
    /// Starts a member with an empty store in `<folder>/etcd` and waits until it takes connections.
    ///
    /// # Errors
    /// When Debian's `etcd` is not installed (`tests/tools/install test`) or it does not come up.
    pub async fn start(folder: &Path) -> Result<Self, WorldError> {
        let folder = folder.join("etcd");
        std::fs::create_dir_all(&folder)?;
        let (clients, peers) = (Port::reserve()?, Port::reserve()?);
        let process = launch(&folder, &clients, &peers)?;
        let etcd = Self {
            folder,
            clients,
            peers,
            process,
        };
        etcd.wait_until_up().await?;
        Ok(etcd)
    }

    /// Where clients reach it, in clear.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The same, without the scheme.
    pub fn addr(&self) -> SocketAddr {
        self.clients.addr()
    }

    /// Its process, to freeze or to kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again on the same store.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<(), WorldError> {
        self.process.kill();
        self.process = launch(&self.folder, &self.clients, &self.peers)?;
        self.wait_until_up().await
    }

    /// Forgets all history up to now: whoever follows from further back must begin anew.
    ///
    /// # Errors
    /// When etcdctl is not installed or etcd does not answer it.
    pub async fn compact(&self) -> Result<(), WorldError> {
        let head = self.etcdctl(&["get", "/", "--write-out", "json"]).await?;
        let revision = serde_json::from_str::<serde_json::Value>(&head)
            .ok()
            .and_then(|answer| answer["header"]["revision"].as_i64())
            .ok_or_else(|| io::Error::other("etcdctl: an answer without a revision"))?;
        self.etcdctl(&["compact", &revision.to_string()]).await?;
        Ok(())
    }

    /// Puts a snapshot that `etcdctl snapshot save` has made in the place of the store. It does not run any more
    /// then.
    ///
    /// # Errors
    /// When etcdctl is not installed or refuses the snapshot.
    pub async fn restore(&mut self, snapshot: &Path) -> io::Result<()> {
        self.process.kill();
        let data = self.folder.join("data");
        std::fs::remove_dir_all(&data)?;
        let peers = format!("http://{}", self.peers.addr());
        let cluster = format!("member={peers}");
        let (snapshot, data) = (snapshot.display().to_string(), data.display().to_string());
        let mut restore = vec!["snapshot", "restore", &snapshot, "--data-dir", &data];
        restore.extend(["--name", "member", "--initial-cluster", &cluster]);
        restore.extend(["--initial-advertise-peer-urls", &peers]);
        self.etcdctl(&restore).await?;
        Ok(())
    }

    async fn etcdctl(&self, arguments: &[&str]) -> io::Result<String> {
        let done = Command::new(find_program(Path::new("etcdctl"))?)
            .args(["--endpoints", &self.endpoint(), "--command-timeout", "5s"])
            .args(arguments)
            .env("ETCDCTL_API", "3")
            .kill_on_drop(true)
            .output()
            .await?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(io::Error::other(format!("etcdctl {arguments:?}: {said}")));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    async fn wait_until_up(&self) -> Result<(), WorldError> {
        let address = self.addr();
        eventually("etcd takes connections", START_LIMIT, || {
            TcpStream::connect(address)
        })
        .await?;
        Ok(())
    }
}

fn launch(folder: &Path, clients: &Port, peers: &Port) -> io::Result<Process> {
    let clients = format!("http://{}", clients.addr());
    let peers = format!("http://{}", peers.addr());
    Spawn::new("etcd", folder.join("etcd.log"))?
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--name", "member"])
        .args(["--listen-client-urls", &clients])
        .args(["--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers])
        .args(["--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("member={peers}")])
        .env(
            "ETCD_UNSUPPORTED_ARCH",
            std::env::consts::ARCH.replace("aarch64", "arm64"),
        )
        .start()
}
