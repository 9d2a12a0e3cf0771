//! etcd servers that live as long as the test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::{sync::OnceCell, time::Instant};

use crate::store::etcd::{EtcdConfig, EtcdStore, EtcdTls};
use crate::store::{Store, StoreError};

/// Names the etcd binary to test against; `etcd` from the search path if unset.
const BINARY: &str = "FERRYPOST_TEST_ETCD";

/// How long a server may take until it answers. It takes half a second on an idle machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Starts etcd (the arguments from the second on), says its process id, and kills it as soon as standard
/// input ends: the server does not outlive the test, however the test dies. In the end it removes the folder
/// that is the first argument, unless that is empty.
const KEEPER: &str = r#"
exec 3<&0
folder=$1
shift
"$@" 3<&- &
server=$!
echo $server
{ read -r _ <&3; kill -KILL $server; } >/dev/null 2>&1 &
keeper=$!
wait $server
kill $keeper
[ -z "$folder" ] || rm -rf "$folder"
"#;

/// An etcd server with a data directory of its own, on free loopback ports.
///
/// It is killed when dropped.
#[derive(Debug)]
pub struct EtcdServer {
    directory: TempDir,
    name: String,
    /// All members of its cluster, as `name=address,...`.
    cluster: String,
    arguments: Vec<String>,
    tls: Option<EtcdTls>,
    /// Nobody drops it, and its folder goes with the process.
    is_static: bool,
    client_port: u16,
    peer_port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    /// Closing it kills the server.
    life: Option<ChildStdin>,
    server: u32,
}

impl EtcdServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One server for all tests of the process, each under a prefix of its own.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or it does not start.
    pub async fn shared() -> &'static Self {
        static SERVER: OnceCell<EtcdServer> = OnceCell::const_new();
        SERVER.get_or_init(Self::start_static).await
    }

    /// Starts a server for a static, which is never dropped: its folder goes with the process.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or it does not start.
    pub async fn start_static() -> Self {
        let mut server = Self::prepare("test", &[], None);
        server.is_static = true;
        server.restart().await;
        server
    }

    /// Starts a server with further arguments, such as `--quota-backend-bytes=20000000`.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or it does not start.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::prepare("test", arguments, None);
        server.restart().await;
        server
    }

    /// Starts a server that speaks TLS, as `arguments` say, to clients that are set up as `tls`.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or it does not start.
    pub async fn start_tls(arguments: &[&str], tls: EtcdTls) -> Self {
        let mut server = Self::prepare("test", arguments, Some(tls));
        server.restart().await;
        server
    }

    /// Starts a cluster of several members.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or they do not find together.
    pub async fn cluster(size: usize) -> Vec<Self> {
        let mut members: Vec<_> = (0..size)
            .map(|member| Self::prepare(&format!("member{member}"), &[], None))
            .collect();
        let cluster: Vec<_> = members
            .iter()
            .map(|member| member.cluster.clone())
            .collect();
        for member in &mut members {
            member.cluster = cluster.join(",");
            member.spawn();
        }
        let deadline = Instant::now() + START_LIMIT;
        for member in &mut members {
            let answers = member.answers_before(deadline).await;
            assert!(answers, "the cluster does not come up:\n{}", member.log());
        }
        members
    }

    fn prepare(name: &str, arguments: &[&str], tls: Option<EtcdTls>) -> Self {
        let peer_port = free_port();
        Self {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
            name: name.to_owned(),
            cluster: format!("{name}=http://127.0.0.1:{peer_port}"),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            tls,
            is_static: false,
            client_port: free_port(),
            peer_port,
            running: None,
        }
    }

    /// The address of the server for clients. It stays the same across restarts.
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// A configuration for a store under `prefix`.
    pub fn config(&self, prefix: &str) -> EtcdConfig {
        let mut config = EtcdConfig::new(vec![self.endpoint()], prefix);
        config.tls.clone_from(&self.tls);
        config
    }

    /// A store under `prefix`.
    ///
    /// # Panics
    ///
    /// If the store cannot be made.
    pub async fn store(&self, prefix: &str) -> EtcdStore {
        EtcdStore::connect(self.config(prefix))
            .await
            .expect("the configuration is sound")
    }

    /// Kills the server with SIGKILL and waits for its end. The data directory stays.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts the server again on its data directory and addresses, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub async fn restart(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.kill();
            self.spawn();
            if self.answers_before(deadline).await {
                return;
            }
            // Somebody took one of the ports between finding it free and listening on it.
            assert!(
                Instant::now() < deadline,
                "etcd does not start:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops the server without ending it, as a machine does that swaps or a virtual one that is
    /// frozen. It stands still when this returns.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn freeze(&self) {
        let server = self.signal("-STOP");
        let status = format!("/proc/{server}/status");
        while !fs::read_to_string(&status).is_ok_and(|status| status.contains("State:\tT")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets a frozen server go on.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// What the server has logged since it was last started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal and says to which process.
    fn signal(&self, signal: &str) -> String {
        let server = self
            .running
            .as_ref()
            .expect("the server runs")
            .server
            .to_string();
        let sent = Command::new("kill").args([signal, &server]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "kill {signal} {server}"
        );
        server
    }

    fn spawn(&mut self) {
        let log = File::create(self.directory.path().join("log")).expect("a log can be written");
        let folder = if self.is_static {
            self.directory.path().as_os_str()
        } else {
            OsStr::new("")
        };
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(folder)
            .arg(binary())
            .args(self.etcd_arguments())
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell can be started");
        let life = keeper.stdin.take();
        let mut answer = String::new();
        BufReader::new(keeper.stdout.take().expect("it is piped"))
            .read_line(&mut answer)
            .expect("the shell says which process it started");
        let server = answer.trim().parse().expect("the shell says a process id");
        self.running = Some(Running {
            keeper,
            life,
            server,
        });
    }

    fn etcd_arguments(&self) -> Vec<OsString> {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let pairs = [
            ("--name", self.name.as_str()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &self.cluster),
        ];
        let mut arguments: Vec<OsString> = pairs
            .iter()
            .flat_map(|(name, value)| [(*name).into(), (*value).into()])
            .collect();
        arguments.push("--data-dir".into());
        arguments.push(self.directory.path().join("data").into());
        arguments
    }

    /// Whether the server answers a linearizable read before it ends or time is up. Being told
    /// that we may not read is an answer.
    async fn answers_before(&mut self, deadline: Instant) -> bool {
        let store = self.store("readiness").await;
        while Instant::now() < deadline {
            if matches!(store.revision().await, Ok(_) | Err(StoreError::Denied)) {
                return true;
            }
            let running = self.running.as_mut().expect("it was just started");
            if running.keeper.try_wait().is_ok_and(|ended| ended.is_some()) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.life = None;
        let _ = self.keeper.wait();
    }
}

fn binary() -> OsString {
    let binary = std::env::var_os(BINARY).unwrap_or_else(|| "etcd".into());
    let version = Command::new(&binary)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    assert!(
        version.is_ok_and(|status| status.success()),
        "no etcd to test against: install Debian's etcd-server (`apt-get install etcd-server`), or \
         name an etcd binary in {BINARY}"
    );
    binary
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is served: it only finds a free port"
)]
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}
