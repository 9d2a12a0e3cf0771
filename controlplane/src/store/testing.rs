//! Real stores for tests: an etcd server of the test's own, and embedded stores that go away.
//!
//! Behind the cargo feature `testing`, so that the tests of other crates can use them. Everything
//! here panics instead of returning errors, with what to do about it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::Store;
use super::embedded::{EmbeddedConfig, EmbeddedStore};
use super::etcd::{EtcdConfig, EtcdStore};

/// Names the etcd binary to test against; `etcd` from the search path if unset.
const BINARY: &str = "FERRYPOST_TEST_ETCD";

/// How long a server may take until it answers. It takes half a second on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Starts etcd (the arguments), says its process id, and kills it as soon as standard input ends:
/// the server does not outlive the test, however the test dies.
const KEEPER: &str = r#"
exec 3<&0
"$@" 3<&- &
server=$!
echo $server
{ read -r _ <&3; kill -KILL $server; } >/dev/null 2>&1 &
keeper=$!
wait $server
kill $keeper
"#;

/// An etcd server with one member and a data directory of its own, on free loopback ports.
///
/// It is killed when dropped.
#[derive(Debug)]
pub struct EtcdServer {
    directory: TempDir,
    arguments: Vec<String>,
    scheme: &'static str,
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

    /// Starts a server with further arguments, such as `--quota-backend-bytes=20000000`.
    ///
    /// # Panics
    ///
    /// If there is no etcd, or it does not start.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::prepare("http", arguments);
        server.restart().await;
        server
    }

    /// Starts a server that speaks TLS, without waiting until it answers.
    ///
    /// # Panics
    ///
    /// If there is no etcd.
    pub fn start_tls(arguments: &[&str]) -> Self {
        let mut server = Self::prepare("https", arguments);
        server.spawn();
        server
    }

    fn prepare(scheme: &'static str, arguments: &[&str]) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            scheme,
            client_port: free_port(),
            peer_port: free_port(),
            running: None,
        }
    }

    /// The address of the server for clients. It stays the same across restarts.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// A configuration for a store under `prefix`, with limits fit for a test.
    pub fn config(&self, prefix: &str) -> EtcdConfig {
        EtcdConfig::new(vec![self.endpoint()], prefix)
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
        self.kill();
        let deadline = Instant::now() + START_LIMIT;
        loop {
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
    /// frozen.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
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
    }

    fn spawn(&mut self) {
        let log = File::create(self.directory.path().join("log")).expect("a log can be written");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(binary())
            .args(self.etcd_arguments())
            .args(&self.arguments)
            .env_remove("ETCD_UNSUPPORTED_ARCH")
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
        let cluster = format!("test={peer}");
        let pairs = [
            ("--name", "test"),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &cluster),
        ];
        let mut arguments: Vec<OsString> = pairs
            .iter()
            .flat_map(|(name, value)| [(*name).into(), (*value).into()])
            .collect();
        arguments.push("--data-dir".into());
        arguments.push(self.directory.path().join("data").into());
        arguments
    }

    /// Whether the server answers a linearizable read before it ends or time is up.
    async fn answers_before(&mut self, deadline: Instant) -> bool {
        let store = self.store("readiness").await;
        while Instant::now() < deadline {
            if store.revision().await.is_ok() {
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

/// An embedded store in a temporary directory that goes away with it.
#[derive(Debug)]
pub struct TempStore {
    /// The store.
    pub store: EmbeddedStore,
    directory: TempDir,
}

impl TempStore {
    /// A new, empty store.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let config = EmbeddedConfig::new(directory.path().join("store"));
        let store = EmbeddedStore::open(config).await.expect("it is a new file");
        Self { store, directory }
    }

    /// The store's file.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }
}
