//! What thousands of sessions that wait do to those who log in beside them, and the other way round.
//!
//! Two data planes hold the crowd, and a third holds nobody. Clients log in at each of them in turn, one after the other,
//! so that whatever else the machine does falls on all of them alike, and what differs is the crowd's.

use std::time::Duration;

use super::connection::Target;
use super::load;
use super::protocol::Protocol;
use super::relay::{Amounts, WARM_UP};
use super::rig::{Proxy, Rig};
use super::routes::Times;
use super::table::progress;

/// Logins after which memory is looked at again, for each one whose time is taken.
const MORE: usize = 5;

/// What the crowd did.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Idle sessions altogether.
    pub(super) sessions: usize,
    /// Logins at each data plane between `full` and `later`.
    pub(super) logins: usize,
    /// Logins at the data plane without idle sessions.
    pub(super) alone: Times,
    /// Logins at the others.
    pub(super) beside: Times,
    /// Each data plane's memory.
    pub(super) memory: Vec<Memory>,
}

/// Octets of memory of one data plane.
#[derive(Debug)]
pub(super) struct Memory {
    /// Before the first session.
    pub(super) empty: u64,
    /// With all sessions.
    pub(super) full: u64,
    /// With all sessions, and many logins later.
    pub(super) later: u64,
}

/// Measures two data planes with a crowd beside one without.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<Crowd> {
    let rig = Rig::start().await?;
    let alone = rig.another("alone").await?;
    let crowded = [
        rig.another("crowded-1").await?,
        rig.another("crowded-2").await?,
    ];
    load::logins(imap(&alone), WARM_UP).await?;
    let mut empty = Vec::new();
    for plane in &crowded {
        load::logins(imap(plane), WARM_UP).await?;
        empty.push(rest(plane).await?);
    }
    progress(&format!("{} sessions begin to wait", amounts.crowd * 2));
    let mut idlers = Vec::new();
    let mut full = Vec::new();
    for plane in &crowded {
        idlers.push(load::idlers(imap(plane), amounts.crowd).await?);
        full.push(rest(plane).await?);
    }
    progress("logins beside them");
    let [mut one, mut other, mut nobody] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..amounts.logins {
        one.push(load::login(imap(&crowded[0])).await?);
        nobody.push(load::login(imap(&alone)).await?);
        other.push(load::login(imap(&crowded[1])).await?);
    }
    one.append(&mut other);
    let mut memory = Vec::new();
    for ((plane, empty), full) in crowded.iter().zip(empty).zip(full) {
        load::logins(imap(plane), amounts.logins * MORE).await?;
        let later = rest(plane).await?;
        memory.push(Memory { empty, full, later });
    }
    drop(idlers);
    Ok(Crowd {
        sessions: amounts.crowd * 2,
        logins: amounts.logins * (1 + MORE),
        alone: times(nobody),
        beside: times(one),
        memory,
    })
}

fn imap(plane: &Proxy) -> &Target {
    plane.target(Protocol::Imap)
}

/// A data plane's memory when it has nothing to do.
async fn rest(plane: &Proxy) -> anyhow::Result<u64> {
    plane.meter.quiet().await?;
    plane.meter.memory()
}

fn times(mut all: Vec<Duration>) -> Times {
    all.sort_unstable();
    let at = |percent: usize| all.get(all.len() * percent / 100).copied();
    Times {
        p50: at(50).unwrap_or_default(),
        p99: at(99).unwrap_or_default(),
    }
}
