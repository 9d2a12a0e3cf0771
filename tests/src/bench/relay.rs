//! What a login, a byte and an idle session cost, beside HAProxy and nginx.
//!
//! CPU is measured in short slices, each proxy in turn, because a machine that others use too drifts by
//! more within a minute than the proxies differ. Memory is measured in proxies that have just been
//! started: a process that has freed much does not show what it takes.

use std::time::Duration;

use super::client::Client;
use super::load::{self, Direction};
use super::protocol::Protocol;
use super::rig::{Kind, Proxy, Rig};
use super::table::{median, progress};

/// How much is done.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Amounts {
    /// Rounds, each with fresh proxies; the median is shown.
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: usize,
    /// Logins a round and protocol, and connections with one request.
    #[arg(long, default_value_t = 2000)]
    pub(super) logins: usize,
    /// Mebibytes each way a round, and version of HTTP.
    #[arg(long, default_value_t = 1024)]
    pub(super) mebibytes: usize,
    /// Idle sessions; idle connections by HTTP, and as many with an open WebSocket.
    #[arg(long, default_value_t = 2000)]
    pub(super) sessions: usize,
    /// Logins between the first idle session and the last, in the part `churn`.
    #[arg(long, default_value_t = 100_000)]
    pub(super) churn: usize,
    /// Idle sessions on each of two data planes, in the part `crowd`.
    #[arg(long, default_value_t = 5000)]
    pub(super) crowd: usize,
    /// Messages a round that each mail system is given to pass on.
    #[arg(long, default_value_t = 2000)]
    pub(super) deliveries: usize,
    /// Requests a round and version of HTTP.
    #[arg(long, default_value_t = 20_000)]
    pub(super) requests: usize,
    /// Look-ups a round.
    #[arg(long, default_value_t = 100_000)]
    pub(super) lookups: usize,
    /// NOOPs a round, for the time that one takes.
    #[arg(long, default_value_t = 1000)]
    pub(super) noops: usize,
}

/// Slices of a round's logins and bulk.
pub(super) const SLICES: usize = 4;

/// Logins before anything is measured.
pub(super) const WARM_UP: usize = 200;

/// What one proxy used, or several medians of that.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Costs {
    /// CPU seconds, by protocol in the order of [`Protocol::MAIL`].
    pub(super) login: [f64; 3],
    /// CPU seconds.
    pub(super) gibibyte_down: f64,
    /// CPU seconds.
    pub(super) gibibyte_up: f64,
    /// Octets.
    pub(super) idle_session: f64,
    /// Seconds, as a client sees it.
    pub(super) noop: f64,
}

/// Medians, and what was agreed with the client.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) costs: Costs,
    pub(super) agreed: String,
}

/// One value for each kind of proxy, in the order of [`Kind::ALL`].
pub(super) type ByKind<T> = [T; 4];

/// Measures every kind of proxy.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<ByKind<Measured>> {
    let rig = Rig::start().await?;
    let mut rounds: ByKind<Vec<Costs>> = Default::default();
    let mut agreed: ByKind<String> = Default::default();
    for round in 1..=amounts.rounds {
        progress(&format!(
            "beside HAProxy and nginx, round {round} of {}",
            amounts.rounds
        ));
        let proxies = start(&rig).await?;
        for (n, costs) in run(&proxies, amounts).await?.into_iter().enumerate() {
            rounds[n].push(costs);
            agreed[n] = self::agreed(&proxies[n]).await?;
        }
        for proxy in proxies {
            proxy.stop().await?;
        }
    }
    let mut agreed = agreed.into_iter();
    Ok(rounds.map(|rounds| Measured {
        costs: medians(&rounds),
        agreed: agreed.next().unwrap_or_default(),
    }))
}

pub(super) async fn start(rig: &Rig) -> anyhow::Result<ByKind<Proxy>> {
    let [haproxy, nginx, in_clear, under_tls] = Kind::ALL.map(|kind| rig.proxy(kind));
    Ok([
        haproxy.await?,
        nginx.await?,
        in_clear.await?,
        under_tls.await?,
    ])
}

async fn agreed(proxy: &Proxy) -> anyhow::Result<String> {
    let client = Client::logged_in(proxy.target(Protocol::Imap)).await?;
    let agreed = client.agreed().unwrap_or_default();
    client.logout().await?;
    Ok(agreed)
}

async fn run(proxies: &ByKind<Proxy>, amounts: Amounts) -> anyhow::Result<ByKind<Costs>> {
    let mut costs: ByKind<Costs> = Default::default();
    for (proxy, costs) in proxies.iter().zip(&mut costs) {
        costs.idle_session = idle_session(proxy, amounts.sessions).await?;
    }
    let slice = amounts.logins.div_ceil(SLICES);
    for protocol in Protocol::MAIL.repeat(SLICES) {
        for (proxy, costs) in proxies.iter().zip(&mut costs) {
            let used = used(proxy, load::logins(proxy.target(protocol), slice)).await?;
            costs.login[protocol as usize] += used.as_secs_f64() / per(slice * SLICES);
        }
    }
    let messages = (amounts.mebibytes << 20).div_ceil(load::octets(1) * SLICES);
    for direction in [Direction::Down, Direction::Up].repeat(SLICES) {
        for (proxy, costs) in proxies.iter().zip(&mut costs) {
            let bulk = load::bulk(proxy.target(Protocol::Imap), direction, messages);
            let used = used(proxy, bulk).await?;
            let gibibyte = used.as_secs_f64() * per(1 << 30) / per(load::octets(messages) * SLICES);
            match direction {
                Direction::Down => costs.gibibyte_down += gibibyte,
                Direction::Up => costs.gibibyte_up += gibibyte,
            }
        }
    }
    for (proxy, costs) in proxies.iter().zip(&mut costs) {
        let noop = load::noops(proxy.target(Protocol::Imap), amounts.noops).await?;
        costs.noop = noop.as_secs_f64();
    }
    Ok(costs)
}

/// Octets that each of so many sessions adds to a proxy that has just been started.
async fn idle_session(proxy: &Proxy, sessions: usize) -> anyhow::Result<f64> {
    load::logins(proxy.target(Protocol::Imap), WARM_UP).await?;
    proxy.meter.quiet().await?;
    let before = proxy.meter.memory()?;
    let idlers = load::idlers(proxy.target(Protocol::Imap), sessions).await?;
    proxy.meter.quiet().await?;
    let grown = proxy.meter.memory()?.saturating_sub(before);
    drop(idlers);
    proxy.meter.quiet().await?;
    Ok(per(usize::try_from(grown)?) / per(sessions))
}

/// The CPU time that a proxy uses for some work, its aftermath included.
pub(super) async fn used(
    proxy: &Proxy,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Duration> {
    let before = proxy.meter.cpu()?;
    work.await?;
    proxy.meter.quiet().await?;
    Ok(proxy.meter.cpu()?.saturating_sub(before))
}

fn medians(rounds: &[Costs]) -> Costs {
    let of = |what: fn(&Costs) -> f64| median(rounds.iter().map(what));
    Costs {
        login: Protocol::MAIL
            .map(|protocol| median(rounds.iter().map(|costs| costs.login[protocol as usize]))),
        gibibyte_down: of(|costs| costs.gibibyte_down),
        gibibyte_up: of(|costs| costs.gibibyte_up),
        idle_session: of(|costs| costs.idle_session),
        noop: of(|costs| costs.noop),
    }
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts here are far below the 2^53 that f64 holds exactly"
)]
pub(super) fn per(count: usize) -> f64 {
    count as f64
}
