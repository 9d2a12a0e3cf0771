//! What exporting costs whoever is served: three data planes beside each other in front of the same server.
//!
//! One exports nothing, one has a collector that nobody has started, one has a collector that takes connections and never
//! answers. What is exported is everything: the standard's defaults, of which a large installation uses a share.

use tokio::net::TcpListener;

use super::load::{self, Direction};
use super::protocol::Protocol;
use super::relay::{Amounts, SLICES, WARM_UP, per, used};
use super::rig::{Proxy, Rig};
use super::table::{median, progress};

/// What one of them used, in medians.
pub(super) struct Exporting {
    /// What its collector does.
    pub(super) collector: &'static str,
    /// CPU seconds of a login.
    pub(super) login: f64,
    /// CPU seconds.
    pub(super) gibibyte_down: f64,
    /// Seconds that a NOOP takes, as a client sees it.
    pub(super) noop: f64,
}

/// In the order in which they are shown.
const COLLECTORS: [&str; 3] = ["none", "away", "silent"];

#[derive(Default)]
struct Rounds {
    login: Vec<f64>,
    gibibyte_down: Vec<f64>,
    noop: Vec<f64>,
}

/// Measures all three, in slices that take turns.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<Vec<Exporting>> {
    let rig = Rig::start().await?;
    // Connections wait in its backlog for ever.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let away = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let endpoints = [
        None,
        Some(format!("http://{away}")),
        Some(format!("http://{}", silent.local_addr()?)),
    ];
    let mut rounds: [Rounds; 3] = Default::default();
    for round in 1..=amounts.rounds {
        progress(&format!(
            "with and without a collector, round {round} of {}",
            amounts.rounds
        ));
        let mut proxies = Vec::new();
        for (name, endpoint) in COLLECTORS.iter().zip(&endpoints) {
            proxies.push(rig.exporting(name, endpoint.as_deref()).await?);
        }
        run(&proxies, amounts, &mut rounds).await?;
        for proxy in proxies {
            proxy.stop().await?;
        }
    }
    let all = COLLECTORS.into_iter().zip(rounds);
    let medians = all.map(|(collector, rounds)| Exporting {
        collector,
        login: median(rounds.login.into_iter()),
        gibibyte_down: median(rounds.gibibyte_down.into_iter()),
        noop: median(rounds.noop.into_iter()),
    });
    Ok(medians.collect())
}

async fn run(proxies: &[Proxy], amounts: Amounts, rounds: &mut [Rounds; 3]) -> anyhow::Result<()> {
    for proxy in proxies {
        load::logins(proxy.target(Protocol::Imap), WARM_UP).await?;
    }
    let slice = amounts.logins.div_ceil(SLICES);
    let messages = (amounts.mebibytes << 20).div_ceil(load::octets(1) * SLICES);
    for _ in 0..SLICES {
        for (proxy, rounds) in proxies.iter().zip(&mut *rounds) {
            let target = proxy.target(Protocol::Imap);
            let login = used(proxy, load::logins(target, slice)).await?;
            rounds.login.push(login.as_secs_f64() / per(slice));
            let bulk = used(proxy, load::bulk(target, Direction::Down, messages)).await?;
            let gibibyte = bulk.as_secs_f64() * per(1 << 30) / per(load::octets(messages));
            rounds.gibibyte_down.push(gibibyte);
            let noop = load::noops(target, amounts.noops).await?;
            rounds.noop.push(noop.as_secs_f64());
        }
    }
    Ok(())
}
