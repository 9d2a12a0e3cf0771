//! What an idle session costs in a process that serves many others meanwhile.
//!
//! A login takes and frees far more memory than the session keeps. An allocator that cannot use the holes between
//! long sessions again, or gives them back late, makes each session look as large as the holes around it. So
//! the sessions here are not opened one behind the other, but with fifty logins between each and the next.

use std::path::{Path, PathBuf};

use super::load;
use super::protocol::Protocol;
use super::relay::{Amounts, WARM_UP, per};
use super::rig::{Kind, Proxy, Rig};
use super::table::progress;

/// Where Debian puts jemalloc (`libjemalloc2`).
const JEMALLOC: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib/aarch64-linux-gnu/libjemalloc.so.2",
];

/// What the sessions of one proxy took.
pub(super) struct Churned {
    /// Which proxy, and over which allocator.
    pub(super) proxy: &'static str,
    /// Octets an idle session, of a process that has served little else.
    pub(super) fresh: f64,
    /// Octets an idle session, with the logins in between.
    pub(super) among_logins: f64,
    /// Octets that the process has grown by when all sessions are gone.
    pub(super) left: u64,
}

/// Measures HAProxy and a data plane, over the system's allocator and, where it is installed, over jemalloc.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<Vec<Churned>> {
    let rig = Rig::start().await?;
    let mut all = Vec::new();
    all.push(sessions("HAProxy", amounts, || rig.proxy(Kind::HaProxy)).await?);
    all.push(
        sessions("Ferrypost, behind it in clear", amounts, || {
            rig.proxy(Kind::InClear)
        })
        .await?,
    );
    all.push(
        sessions("Ferrypost, behind it TLS", amounts, || {
            rig.proxy(Kind::UnderTls)
        })
        .await?,
    );
    if let Some(jemalloc) = jemalloc() {
        let start = || rig.data_plane_over(&jemalloc);
        all.push(sessions("Ferrypost, in clear, jemalloc", amounts, start).await?);
    }
    Ok(all)
}

fn jemalloc() -> Option<PathBuf> {
    let installed = JEMALLOC.iter().find(|path| Path::new(path).exists());
    installed.map(PathBuf::from)
}

async fn sessions(
    name: &'static str,
    amounts: Amounts,
    start: impl AsyncFn() -> anyhow::Result<Proxy>,
) -> anyhow::Result<Churned> {
    progress(&format!("idle sessions among logins: {name}"));
    let (fresh, _) = grown(&start().await?, amounts.sessions, 0).await?;
    let between = amounts.churn / amounts.sessions;
    let (churned, left) = grown(&start().await?, amounts.sessions, between).await?;
    Ok(Churned {
        proxy: name,
        fresh: per(usize::try_from(fresh)?) / per(amounts.sessions),
        among_logins: per(usize::try_from(churned)?) / per(amounts.sessions),
        left,
    })
}

/// Octets that a process grows by for so many sessions with so many logins between each and the next, and octets of them
/// that it still has when the sessions are gone.
async fn grown(proxy: &Proxy, sessions: usize, logins: usize) -> anyhow::Result<(u64, u64)> {
    load::logins(proxy.target(Protocol::Imap), WARM_UP).await?;
    proxy.meter.quiet().await?;
    let before = proxy.meter.memory()?;
    let idlers = load::idlers_among_logins(proxy.target(Protocol::Imap), sessions, logins).await?;
    proxy.meter.quiet().await?;
    let with = proxy.meter.memory()?;
    drop(idlers);
    proxy.meter.quiet().await?;
    let after = proxy.meter.memory()?;
    Ok((with.saturating_sub(before), after.saturating_sub(before)))
}
