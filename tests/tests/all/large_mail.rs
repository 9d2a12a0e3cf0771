//! What a message weighs is the business of those who send and store it: a data plane keeps none of it, however slow one of
//! its servers is.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ferrypost_proto::v1::{Protocol, RoutingConfig};
use ferrypost_tests::dovecot::{Dovecot, Role};
use ferrypost_tests::story::{SOON, migrate, move_to, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::announcement::{endpoint_of, reconfigure};
use super::lmtp::Sender;
use super::memory::Memory;

/// 204.8 MB.
const LARGE: u32 = 3200;
/// Enough for every buffer to be as large as it becomes.
const SMALL: u32 = 20;
/// Where the slow server stops reading.
const STALLS_AT: u32 = LARGE / 4;

/// What a process may take for a message that is on its way, beyond its buffers.
const MAY_GROW: u64 = 1 << 20;

/// A part of a message of 64,000 octets that says which one it is.
fn block(number: u32, line_end: &str) -> Vec<u8> {
    let first = format!("{number:0998}{line_end}");
    let other = "x".repeat(998) + line_end;
    (first + &other.repeat(63)).into_bytes()
}

/// An LMTP server that takes everything, and a large message to the end when it is let go on.
struct SlowServer {
    address: SocketAddr,
    /// Whether it has stopped reading.
    stalls: watch::Receiver<bool>,
    goes_on: watch::Sender<bool>,
}

impl SlowServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stalled, stalls) = watch::channel(false);
        let (goes_on, go_on) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, stalled.clone(), go_on.clone()));
            }
        });
        Self {
            address,
            stalls,
            goes_on,
        }
    }
}

async fn serve(
    stream: TcpStream,
    stalled: watch::Sender<bool>,
    mut go_on: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut stream = tokio::io::BufReader::new(stream);
    stream.write_all(b"220 slow LMTP\r\n").await?;
    let mut lines = Vec::new();
    while stream.read_until(b'\n', &mut lines).await? > 0 {
        let answer: &[u8] = match lines.get(..4) {
            Some(b"LHLO") => b"250-slow\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            Some(b"DATA") => {
                stream.write_all(b"354 go on\r\n").await?;
                take(&mut stream, &stalled, &mut go_on).await?;
                b"250 2.0.0 whole\r\n"
            }
            _ => b"250 2.0.0 fine\r\n",
        };
        stream.write_all(answer).await?;
        lines.clear();
    }
    Ok(())
}

/// Reads a message and insists on every octet of it.
async fn take(
    stream: &mut tokio::io::BufReader<TcpStream>,
    stalled: &watch::Sender<bool>,
    go_on: &mut watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut header = String::new();
    while !header.ends_with("\r\n\r\n") {
        stream.read_line(&mut header).await?;
    }
    let (_, count) = header.split_once("Subject: ").unwrap();
    for number in 0..count.trim_end().parse().unwrap() {
        if number == STALLS_AT {
            stalled.send_replace(true);
            go_on.wait_for(|&go_on| go_on).await.unwrap();
        }
        let expected = block(number, "\r\n");
        let mut there = vec![0; expected.len()];
        stream.read_exact(&mut there).await?;
        assert!(there == expected, "block {number} has changed on its way");
    }
    let mut end = [0; 3];
    stream.read_exact(&mut end).await?;
    assert_eq!(&end, b".\r\n");
    Ok(())
}

/// Sends a message of `count` blocks to both, and counts them. Returns what they are answered.
async fn send(sender: &mut Sender, to: [&str; 2], count: u32, sent: &AtomicU32) -> [String; 2] {
    sender.begin(&to).await;
    let header = format!("Subject: {count}\r\n\r\n");
    sender.0.send(header).await.unwrap();
    for number in 0..count {
        sender.0.send(block(number, "\r\n")).await.unwrap();
        sent.fetch_add(1, Ordering::Relaxed);
    }
    sender.0.send(".\r\n").await.unwrap();
    [sender.reply().await, sender.reply().await]
}

/// The largest file in a folder, at whatever depth.
fn largest(folder: &Path) -> Option<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let files = entries.filter_map(|entry| match entry.file_type().ok()? {
        kind if kind.is_dir() => largest(&entry.path()),
        _ => Some((entry.metadata().ok()?.len(), entry.path())),
    });
    files.max()
}

/// Insists that a server has stored a message of `count` blocks, to the octet.
fn is_stored(server: &Dovecot, account: &str, count: u32) {
    let (_, file) = largest(&server.mail().join(account)).unwrap();
    let mut file = BufReader::new(File::open(file).unwrap());
    let subject = format!("Subject: {count}\n");
    let mut line = Vec::new();
    while line != subject.as_bytes() {
        line.clear();
        assert!(file.read_until(b'\n', &mut line).unwrap() > 0, "no message");
    }
    file.read_until(b'\n', &mut line).unwrap();
    for number in 0..count {
        let expected = block(number, "\n");
        let mut there = vec![0; expected.len()];
        file.read_exact(&mut there).unwrap();
        assert!(there == expected, "block {number} has changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_megabytes_for_two_servers_cost_less_than_one_while_one_of_them_stalls() {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder.deliveries().start().await.unwrap();
    let [alice, bob] = [0, 1].map(|n| &*world.accounts()[n]);
    migrate(&world.operator(0), move_to(bob, "target"))
        .await
        .unwrap();
    let mut slow = SlowServer::start().await;
    let edit = |config: &mut RoutingConfig| {
        let endpoint = endpoint_of(config, Role::Target, Protocol::Lmtp);
        endpoint.port = slow.address.port().into();
    };
    reconfigure(&world, "to a slow server", edit).await;

    let plane = &world.data_planes()[0];
    let mut sender = Sender::connect(plane.deliveries().unwrap(), "LHLO").await;
    let sent = AtomicU32::new(0);
    send(&mut sender, [alice, bob], SMALL, &sent).await;
    let memory = Memory::of(plane.plane.id().unwrap());
    memory.forget_peak();
    let before = memory.now();

    sent.store(0, Ordering::Relaxed);
    let watching = async {
        slow.stalls.wait_for(|&stalls| stalls).await.unwrap();
        let seen = AtomicU32::new(0);
        eventually("the mail system has to wait", SOON, || async {
            let sent = sent.load(Ordering::Relaxed);
            let before = seen.swap(sent, Ordering::Relaxed);
            (before == sent).then_some(()).ok_or("it goes on")
        })
        .await
        .unwrap();
        let waits_at = sent.load(Ordering::Relaxed);
        let peak = memory.peak();
        slow.goes_on.send_replace(true);
        (waits_at, peak)
    };
    let sending = send(&mut sender, [alice, bob], LARGE, &sent);
    let ((waits_at, stalled), said) = tokio::join!(watching, sending);
    let after = memory.peak();
    assert!(waits_at < LARGE, "it was not kept waiting");
    assert!(said.iter().all(|it| it.starts_with("250 ")), "{said:?}");
    // The slow one has compared what it got.
    assert_eq!(said[1], "250 2.0.0 whole");
    is_stored(world.source(), alice, LARGE);
    let grown = [stalled, after].map(|peak| peak.saturating_sub(before));
    assert!(grown.iter().all(|&it| it < MAY_GROW), "{grown:?} octets");
    world.stop().await.unwrap();
}
