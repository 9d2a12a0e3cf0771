//! What an upload weighs is the business of those who send and store it: a data plane keeps none of it, however slow its
//! server is.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrypost_tests::story::{SOON, short_limits};
use ferrypost_tests::wait::until;
use ferrypost_tests::web::{Backend, Question, Sessions, Setup, Version, WebClient};
use ferrypost_tests::world::{PASSWORD, Sites, World};
use futures_util::stream::unfold;
use http::Method;
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::memory::Memory;

/// What a client sends at once.
const PIECE: usize = 1 << 18;
/// 1 GiB; of HTTP/2 less, whose frames take a debug build some time.
const LARGE: [(Version, u64); 2] = [(Version::Http1, 1 << 30), (Version::Http2, 1 << 27)];
/// Enough for every buffer to be as large as it becomes.
const SMALL: u64 = 8 << 20;
/// At which part the server stops reading.
const STALLS_AT: u64 = 4;

/// A client that sends nothing for so long has to wait.
const STILL: Duration = Duration::from_millis(300);

/// What a process may take for an upload that is on its way, beyond its buffers.
const MAY_GROW: u64 = 1 << 20;

/// An upload of so many octets, counted as they are asked for.
fn upload(path: &str, octets: u64, sent: &Arc<AtomicU64>) -> Question {
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let (left, sent) = (octets / PIECE as u64, Arc::clone(sent));
    let pieces = unfold((left, piece, sent), |(left, piece, sent)| async move {
        let left = left.checked_sub(1)?;
        sent.fetch_add(PIECE as u64, Ordering::Relaxed);
        let frame = Ok::<_, Infallible>(Frame::data(piece.clone()));
        Some((frame, (left, piece, sent)))
    });
    Question::new(Method::PUT, path).body("application/octet-stream", StreamBody::new(pieces))
}

async fn a_server(name: &str) -> Backend {
    let setup = Setup {
        name,
        password: PASSWORD,
        identity: None,
        versions: &[Version::Http1],
        announced: false,
        sessions: Sessions::default(),
    };
    Backend::start(setup).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_to_a_server_that_stalls_costs_less_than_a_megabyte() {
    let (source, target) = (a_server("source").await, a_server("target").await);
    let sites = Sites {
        servers: [source.addr(), target.addr()],
        announcements: ["none"; 2],
        versions: "[\"http/1.1\"]",
        rules: "",
    };
    let builder = World::builder().data_planes(1).sites(sites);
    let world = builder.limits(short_limits()).start().await.unwrap();
    let account = &world.accounts()[0];
    let memory = Memory::of(world.data_planes()[0].plane.id().unwrap());
    for (version, large) in LARGE {
        let connect = world.web(0).limit(5 * SOON);
        let mut client = WebClient::open(&connect, version).await.unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let small = upload("/upload/small", SMALL, &sent).of(account, PASSWORD);
        client.ask(small).await.unwrap();
        memory.forget_peak();
        let before = memory.now();

        sent.store(0, Ordering::Relaxed);
        let path = format!("/upload/{version:?}");
        let watching = async {
            let is_there = || source.read_of(&path) >= large / STALLS_AT;
            until("a quarter", 5 * SOON, is_there).await.unwrap();
            source.stall(true);
            let (mut seen, mut since) = (0, Instant::now());
            until("the client has to wait", SOON, || {
                let now = sent.load(Ordering::Relaxed);
                if now != seen {
                    (seen, since) = (now, Instant::now());
                }
                since.elapsed() >= STILL
            })
            .await
            .unwrap();
            let (waits_at, peak) = (sent.load(Ordering::Relaxed), memory.peak());
            source.stall(false);
            (waits_at, peak)
        };
        let asking = client.ask(upload(&path, large, &sent).of(account, PASSWORD));
        let ((waits_at, stalled), said) = tokio::join!(watching, asking);
        let after = memory.peak();
        assert!(waits_at < large, "it was not kept waiting");
        let said = said.unwrap().json().unwrap();
        assert_eq!(said["octets"], large, "{version:?}");
        let grown = [stalled, after].map(|peak| peak.saturating_sub(before));
        let is_little = grown.iter().all(|&it| it < MAY_GROW);
        assert!(is_little, "{grown:?} octets, {version:?}");
    }
    world.stop().await.unwrap();
}
