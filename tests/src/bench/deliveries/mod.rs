//! What passing on a delivery costs, beside Dovecot's LMTP proxy and Postfix.
//!
//! All of them take messages in clear from clients of ours and pass them on by LMTP to a server of ours that forgets
//! them. Postfix takes them by SMTP and has a queue, which is how it passes on LMTP; the others answer for the server
//! behind. As elsewhere CPU is measured in slices, each proxy in turn.

mod load;
mod rivals;

use std::net::SocketAddr;
use std::time::Duration;

use super::backend::Sink;
use super::meter::Meter;
use super::relay::{Amounts, per};
use super::rig::{Kind, Rig};
use super::table::{median, progress};
use crate::wait::until;
use load::Greeting;

/// Messages before anything is measured: processes that a proxy has need of are there afterwards.
const WARM_UP: usize = 100;

/// How long it may take until all messages have arrived, behind a queue that waits for the disk.
const ARRIVAL: Duration = Duration::from_mins(5);

/// What passes on deliveries, in the order of [`Deliveries::each`].
pub(super) const NAMES: [&str; 3] = ["Postfix", "Dovecot", "Ferrypost"];

/// What deliveries cost.
#[derive(Debug, Clone)]
pub(super) struct Deliveries {
    /// Octets of a message.
    pub(super) octets: usize,
    /// CPU seconds of a delivery.
    pub(super) each: [f64; 3],
}

/// Where messages are handed in, and who is observed.
struct Door<'a> {
    address: SocketAddr,
    greeting: Greeting,
    meter: &'a Meter,
}

/// Measures all of them.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<Deliveries> {
    let sink = Sink::start().await?;
    let rig = Rig::in_front_of(&sink).await?;
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for round in 1..=amounts.rounds {
        progress(&format!("deliveries, round {round} of {}", amounts.rounds));
        let postfix = rivals::postfix(rig.folder(), &sink).await?;
        let dovecot = rivals::dovecot(rig.folder(), &sink).await?;
        let ferrypost = rig.proxy(Kind::InClear).await?;
        let doors = [
            postfix.door(Greeting::Smtp),
            dovecot.door(Greeting::Lmtp),
            Door {
                address: ferrypost.deliveries(),
                greeting: Greeting::Lmtp,
                meter: &ferrypost.meter,
            },
        ];
        for (door, costs) in doors.iter().zip(&mut rounds) {
            used(door, &sink, WARM_UP).await?;
            let used = used(door, &sink, amounts.deliveries).await?;
            costs.push(used.as_secs_f64() / per(amounts.deliveries));
        }
        ferrypost.stop().await?;
    }
    Ok(Deliveries {
        octets: load::OCTETS,
        each: rounds.map(|costs| median(costs.into_iter())),
    })
}

/// The CPU time for so many deliveries, until the last has arrived and nobody has anything left to do.
async fn used(door: &Door<'_>, sink: &Sink, count: usize) -> anyhow::Result<Duration> {
    door.meter.quiet().await?;
    let (before, taken) = (door.meter.cpu()?, sink.taken());
    load::deliver(door.address, door.greeting, count).await?;
    until("every message has arrived", ARRIVAL, || {
        sink.taken() == taken + count
    })
    .await?;
    door.meter.quiet().await?;
    Ok(door.meter.cpu()?.saturating_sub(before))
}
