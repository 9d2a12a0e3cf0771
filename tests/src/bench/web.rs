//! What a request, a body, an idle connection and a WebSocket cost, beside HAProxy and nginx as plain reverse proxies.
//!
//! Measured as sessions are (`relay`). Whoever asks is h2load; who waits are clients of this process.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::backend::MESSAGE;
use super::connection::Target;
use super::load;
use super::protocol::Protocol;
use super::relay::{Amounts, ByKind, SLICES, WARM_UP, per, start, used};
use super::rig::{Proxy, Rig};
use super::table::{median, progress};
use crate::imap::{Connect, Security};
use crate::process::find_program;
use crate::web::client::WebSocket;
use crate::web::{Question, Version, WebClient};

/// Connections at once.
const AT_ONCE: usize = 8;

/// How long a client waits before it counts as idle.
const IDLE_FOR: Duration = Duration::from_secs(3);

/// Requests at once of an HTTP/2 connection.
const STREAMS: usize = 10;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// A connection with one request.
    Visit,
    /// A request for something small on a connection that is there.
    Small(Version),
    /// A request for a mebibyte.
    Down(Version),
    /// A request with a mebibyte.
    Up(Version),
    /// A client that has asked and waits.
    Idle(Version),
    /// A WebSocket in which nothing is said.
    Socket,
}

impl Figure {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::Visit,
        Self::Small(Version::Http1),
        Self::Small(Version::Http2),
        Self::Down(Version::Http1),
        Self::Down(Version::Http2),
        Self::Up(Version::Http1),
        Self::Up(Version::Http2),
        Self::Idle(Version::Http1),
        Self::Idle(Version::Http2),
        Self::Socket,
    ];

    /// As a table calls it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Visit => "CPU a connection with a request, us",
            Self::Small(Version::Http1) => "CPU a request, HTTP/1.1, us",
            Self::Small(Version::Http2) => "CPU a request, HTTP/2, us",
            Self::Down(Version::Http1) => "CPU a MiB down, HTTP/1.1, us",
            Self::Down(Version::Http2) => "CPU a MiB down, HTTP/2, us",
            Self::Up(Version::Http1) => "CPU a MiB up, HTTP/1.1, us",
            Self::Up(Version::Http2) => "CPU a MiB up, HTTP/2, us",
            Self::Idle(Version::Http1) => "memory, idle, HTTP/1.1, KiB",
            Self::Idle(Version::Http2) => "memory, idle, HTTP/2, KiB",
            Self::Socket => "memory, open WebSocket, KiB",
        }
    }

    /// What it is counted in, of seconds or octets.
    pub(super) const fn unit(self) -> f64 {
        if self.is_memory() { 1024.0 } else { 1e-6 }
    }

    pub(super) const fn digits(self) -> usize {
        if self.is_memory() { 1 } else { 0 }
    }

    /// For the ratio to HAProxy's.
    pub(super) const fn goal(self) -> Option<f64> {
        if self.is_memory() { None } else { Some(0.9) }
    }

    const fn is_memory(self) -> bool {
        matches!(self, Self::Idle(_) | Self::Socket)
    }

    fn place(self) -> usize {
        let place = Self::ALL.iter().position(|it| *it == self);
        place.expect("all figures are listed")
    }
}

/// What one proxy used, or several medians of that: CPU seconds and octets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Costs([f64; Figure::ALL.len()]);

impl Costs {
    pub(super) fn of(&self, figure: Figure) -> f64 {
        self.0[figure.place()]
    }

    fn add(&mut self, figure: Figure, cost: f64) {
        self.0[figure.place()] += cost;
    }
}

/// Measures every kind of proxy.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<ByKind<Costs>> {
    let rig = Rig::start().await?;
    let body = rig.folder().join("body");
    std::fs::write(&body, vec![b'x'; MESSAGE])?;
    let mut rounds: ByKind<Vec<Costs>> = Default::default();
    for round in 1..=amounts.rounds {
        progress(&format!("HTTP, round {round} of {}", amounts.rounds));
        let mut costs: ByKind<Costs> = Default::default();
        for figure in Figure::ALL.into_iter().filter(|it| it.is_memory()) {
            with_fresh(&rig, &mut costs, async |proxy, costs| {
                let cost = waiting(proxy, figure, amounts.sessions).await?;
                costs.add(figure, cost);
                Ok(())
            })
            .await?;
        }
        Box::pin(run(&rig, &mut costs, amounts)).await?;
        for (rounds, costs) in rounds.iter_mut().zip(costs) {
            rounds.push(costs);
        }
    }
    Ok(rounds.map(|rounds| {
        let mut medians = Costs::default();
        for figure in Figure::ALL {
            medians.add(figure, median(rounds.iter().map(|it| it.of(figure))));
        }
        medians
    }))
}

/// Does something with each kind of proxy in turn, that has just been started.
async fn with_fresh(
    rig: &Rig,
    costs: &mut ByKind<Costs>,
    work: impl AsyncFn(&Proxy, &mut Costs) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let proxies = start(rig).await?;
    for (proxy, costs) in proxies.iter().zip(costs) {
        load::logins(proxy.target(Protocol::Http), WARM_UP).await?;
        work(proxy, costs).await?;
    }
    for proxy in proxies {
        proxy.stop().await?;
    }
    Ok(())
}

/// What uses CPU, in slices.
async fn run(rig: &Rig, costs: &mut ByKind<Costs>, amounts: Amounts) -> anyhow::Result<()> {
    let proxies = start(rig).await?;
    let body = rig.folder().join("body").display().to_string();
    let busy = Figure::ALL.into_iter().filter(|it| !it.is_memory());
    for figure in busy.collect::<Vec<_>>().repeat(SLICES) {
        let total = match figure {
            Figure::Visit => amounts.logins,
            Figure::Small(_) => amounts.requests,
            _ => amounts.mebibytes,
        };
        let slice = total.div_ceil(SLICES);
        for (proxy, costs) in proxies.iter().zip(costs.iter_mut()) {
            let target = proxy.target(Protocol::Http);
            let spent = match figure {
                Figure::Small(version) => {
                    used(proxy, ask(target, version, slice, "/small")).await?
                }
                Figure::Down(version) => used(proxy, ask(target, version, slice, "/large")).await?,
                Figure::Up(version) => {
                    let with = format!("/ -d {body}");
                    used(proxy, ask(target, version, slice, &with)).await?
                }
                _ => used(proxy, load::logins(target, slice)).await?,
            };
            costs.add(figure, spent.as_secs_f64() / per(slice * SLICES));
        }
    }
    for proxy in proxies {
        proxy.stop().await?;
    }
    Ok(())
}

/// So many requests by h2load. `what` is a path, and options behind it.
async fn ask(target: &Target, version: Version, count: usize, what: &str) -> anyhow::Result<()> {
    let (path, options) = what.split_once(' ').unwrap_or((what, ""));
    let mut words = format!("-t 1 -c {AT_ONCE} -n {count} --tls13-ciphers=TLS_AES_128_GCM_SHA256 ");
    _ = match version {
        Version::Http1 => write!(words, "--h1 {options}"),
        Version::Http2 => write!(words, "-m {STREAMS} {options}"),
    };
    let output = Command::new(find_program("h2load".as_ref())?)
        .args(words.split_whitespace())
        .args(["-H", &format!("Authorization: {}", credentials(target))])
        .arg(format!("https://{}{path}", target.address))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = format!("{count} succeeded, 0 failed, 0 errored");
    ensure!(said.contains(&expected), "h2load says: {said}");
    let line = said.lines().find(|line| line.starts_with("status codes:"));
    let line = line.context("h2load says nothing of statuses")?;
    ensure!(
        line.contains(&format!(" {count} 2xx")),
        "h2load says: {line}"
    );
    Ok(())
}

fn credentials(target: &Target) -> String {
    let encoded = BASE64_STANDARD.encode(format!("{}:secret", target.login));
    format!("Basic {encoded}")
}

/// Octets that each of so many clients that wait adds to a proxy.
async fn waiting(proxy: &Proxy, figure: Figure, count: usize) -> anyhow::Result<f64> {
    proxy.meter.quiet().await?;
    let before = proxy.meter.memory()?;
    let mut opening = JoinSet::new();
    for part in 0..AT_ONCE {
        let target = proxy.target(Protocol::Http).clone();
        let count = count / AT_ONCE + usize::from(part < count % AT_ONCE);
        opening.spawn(async move { open(&target, figure, count).await });
    }
    let mut clients = Vec::new();
    while let Some(opened) = opening.join_next().await {
        clients.push(opened??);
    }
    sleep(IDLE_FOR).await;
    proxy.meter.quiet().await?;
    let grown = proxy.meter.memory()?.saturating_sub(before);
    drop(clients);
    proxy.meter.quiet().await?;
    Ok(per(usize::try_from(grown)?) / per(count))
}

/// A client, and its WebSocket if it has one.
type Waiting = (WebClient, Option<WebSocket>);

/// So many clients that have asked once and ask nothing more, or have opened a WebSocket.
async fn open(target: &Target, figure: Figure, count: usize) -> anyhow::Result<Vec<Waiting>> {
    let connect = Connect::new(target.address, Security::Tls(target.tls.clone()));
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let question = |path| Question::get(path).of(target.login, "secret");
        if let Figure::Idle(version) = figure {
            let mut client = WebClient::open(&connect, version).await?;
            let answer = client.ask(question("/small")).await?;
            ensure!(answer.status.is_success(), "answered {}", answer.status);
            clients.push((client, None));
        } else {
            let mut client = WebClient::open(&connect, Version::Http1).await?;
            let socket = client.socket(question("/ws")).await?;
            clients.push((client, Some(socket)));
        }
    }
    Ok(clients)
}
