//! A machine's network of its own, for processes that are to be as far apart as two machines: a network namespace of
//! Linux, joined by virtual cables to where the tests run and to another one.
//!
//! ```text
//!   the tests ── 198.18.x.1 ═══ 198.18.x.2 ─ Network ─ 192.0.2.1 ═══ 192.0.2.2 ─ Network ─ 198.18.y.2 ═══ the tests
//! ```
//!
//! Its loopback addresses are its own: what listens there cannot be reached from anywhere else. A process holds it, and
//! with that process it goes, cables and all, however the test ends. Only root can make one.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{Process, Spawn, find_program};
use crate::wait::eventually;

/// Each of them takes a few milliseconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// 198.18.0.0/15, which is for networks of tests (RFC 2544): nothing that we could cut off is there. Four
/// addresses a cable.
const CABLES: u32 = 1 << 15;
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// The two ends of the cable between two of them; nobody else sees it (RFC 5737).
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// A machine's network. Cheap to clone; it goes with the last clone and with whatever runs in it.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    holder: Process,
    address: Ipv4Addr,
    outside: Ipv4Addr,
    neighbour: Ipv4Addr,
}

impl Network {
    /// Two of them, each joined to where the tests run and to the other. Their logs go to `folder`.
    ///
    /// # Errors
    /// When we are not root, or `ip` is not installed or refuses.
    pub async fn pair(folder: &Path) -> io::Result<[Self; 2]> {
        let first = hold(folder, "network-1.log").await?;
        let second = hold(folder, "network-2.log").await?;
        let ids = [first.id(), second.id()];
        let cable = format!("link add inner type veth peer name inner netns {}", ids[1]);
        within(ids[0], "ip", &words(&cable)).await?;
        for (id, address) in ids.iter().zip(INNER) {
            plug(*id, "inner", address).await?;
        }
        let [near, far] = INNER;
        Ok([
            Self::joined(first, far).await?,
            Self::joined(second, near).await?,
        ])
    }

    async fn joined(holder: Process, neighbour: Ipv4Addr) -> io::Result<Self> {
        let (outside, address) = join(holder.id()).await?;
        let inner = Inner {
            holder,
            address,
            outside,
            neighbour,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Where the tests reach what listens in it on all addresses.
    pub fn addr(&self) -> IpAddr {
        self.0.address.into()
    }

    /// Where what runs in it reaches the tests, and where connections of theirs come from.
    pub fn outside(&self) -> IpAddr {
        self.0.outside.into()
    }

    /// Where what runs in it reaches the other one, and where connections of that one come from.
    pub fn neighbour(&self) -> IpAddr {
        self.0.neighbour.into()
    }

    /// The words in front of a command that is to run in it.
    ///
    /// # Errors
    /// `NotFound` without util-linux.
    pub fn entry(&self) -> io::Result<Vec<String>> {
        entry(self.0.holder.id())
    }

    /// Connects to an address from within, and closes the connection.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there; otherwise what was said instead.
    pub async fn reach(&self, address: SocketAddr) -> io::Result<()> {
        let (host, port) = (address.ip(), address.port());
        let connect = format!("exec 3<>/dev/tcp/{host}/{port}");
        let connected = within(self.0.holder.id(), "bash", &["-c", &connect]).await;
        connected.map_err(|error| {
            if error.to_string().contains("Connection refused") {
                io::ErrorKind::ConnectionRefused.into()
            } else {
                error
            }
        })
    }
}

/// A process with a network of its own, in which nothing is up yet but loopback.
async fn hold(folder: &Path, log: &str) -> io::Result<Process> {
    let sleep = find_program(Path::new("sleep"))?;
    let holder = Spawn::new("unshare", folder.join(log))?
        .args(["--net", "--"])
        .arg(sleep)
        .arg("infinity")
        .start()?;
    let id = holder.id();
    let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net"));
    let entered = eventually("a network of its own", COMMAND_LIMIT, || {
        // Until then it may still be on its way through `setpriv` and `unshare`.
        let asleep =
            fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|it| it.trim() == "sleep");
        let parted = network(&id.to_string()).ok() != network("self").ok();
        let said = holder.log().tail();
        std::future::ready(if asleep && parted { Ok(()) } else { Err(said) })
    });
    entered.await.map_err(io::Error::other)?;
    within(id, "ip", &words("link set lo up")).await?;
    Ok(holder)
}

/// Lays a cable from where we run, and gives back the addresses of its two ends. The name of our end is the lock on its
/// addresses: the kernel lets nobody take it twice, and takes it back when the other end goes.
async fn join(id: u32) -> io::Result<(Ipv4Addr, Ipv4Addr)> {
    let start = id.wrapping_mul(257);
    for step in 0..CABLES {
        let cable = start.wrapping_add(step) % CABLES;
        let name = format!("ferrypost{cable:x}");
        let lay = format!("link add {name} type veth peer name outer netns {id}");
        match run("ip", &words(&lay)).await {
            Ok(()) => {
                let base = FIRST + 4 * cable;
                let (ours, theirs) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
                run("ip", &words(&format!("addr add {ours}/30 dev {name}"))).await?;
                run("ip", &words(&format!("link set {name} up"))).await?;
                plug(id, "outer", theirs).await?;
                return Ok((ours, theirs));
            }
            Err(taken) if taken.to_string().contains("File exists") => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Gives the end of a cable within its address.
async fn plug(id: u32, device: &str, address: Ipv4Addr) -> io::Result<()> {
    within(
        id,
        "ip",
        &words(&format!("addr add {address}/30 dev {device}")),
    )
    .await?;
    within(id, "ip", &words(&format!("link set {device} up"))).await
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn entry(id: u32) -> io::Result<Vec<String>> {
    let nsenter = find_program(Path::new("nsenter"))?.display().to_string();
    Ok(vec![
        nsenter,
        format!("--net=/proc/{id}/ns/net"),
        "--".to_owned(),
    ])
}

async fn within(id: u32, program: &str, args: &[&str]) -> io::Result<()> {
    let entry = entry(id)?;
    let program = find_program(Path::new(program))?.display().to_string();
    let words: Vec<&str> = entry[1..]
        .iter()
        .chain([&program])
        .map(String::as_str)
        .chain(args.iter().copied())
        .collect();
    run(&entry[0], &words).await
}

async fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let mut command = Command::new(find_program(Path::new(program))?);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(COMMAND_LIMIT, command.output()).await;
    let Output { status, stderr, .. } = ended.map_err(|_| io::ErrorKind::TimedOut)??;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "{program} {}: {said}",
        args.join(" ")
    )))
}
