//! The benchmark: what a session costs beside HAProxy and nginx, what a look-up costs, and how fast moves are.
//!
//! - `relay` drives HAProxy, nginx and Ferrypost in turn; `rig` starts them, `load` is their clients (`visit` logs in and
//!   out, `client` stays), [`backend`] is the server behind them, `meter` reads what the kernel counts.
//! - `web` does the same by HTTP.
//! - `crowd` asks what ten thousand sessions that wait do to those who log in.
//! - `churn` asks what an idle session costs among many that come and go.
//! - `handshakes` asks what TLS costs by the kind of the key.
//! - `deliveries` passes on messages beside Postfix and Dovecot, and `lookups` asks where they go.
//! - `routes` asks routing tables. `moves` moves accounts between two Dovecots,
//!   `queue` thousands of them.
//! - `telemetry` asks what a collector that is away does to those who are served.
//! - `table` prints, `facts` says where and with what.
//!
//! It judges nothing but prints each goal beside its figure: a machine that does something else at the
//! same time fails no build.

pub mod backend;
mod churn;
mod client;
mod connection;
mod crowd;
mod deliveries;
mod facts;
mod handshakes;
mod load;
mod lookups;
mod meter;
mod moves;
mod protocol;
mod queue;
pub mod relay;
mod rig;
mod routes;
mod table;
mod telemetry;
mod visit;
mod web;

use crate::postfix;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use relay::Amounts;

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The routing table.
    Routes,
    /// Sessions beside HAProxy and nginx.
    Relay,
    /// Requests beside HAProxy and nginx.
    Web,
    /// Deliveries beside Postfix and Dovecot.
    Deliveries,
    /// Look-ups by socketmap.
    Lookups,
    /// Logins beside ten thousand idle sessions.
    Crowd,
    /// TLS handshakes by the kind of key.
    Handshakes,
    /// Idle sessions among many that come and go.
    Churn,
    /// Data planes that export to a collector which is away.
    Telemetry,
    /// Moves.
    Moves,
    /// Thousands of moves that wait for their turn.
    Queue,
}

/// Measures everything, or one part, and prints it.
///
/// # Errors
/// When something is not built or installed, does not start, or does not answer as it should.
pub async fn run(only: Option<Part>, amounts: Amounts) -> anyhow::Result<()> {
    let wants = |part| only.is_none_or(|only| only == part);
    allow_open_files()?;
    for fact in facts::facts() {
        println!("{fact}");
    }
    if wants(Part::Routes) {
        table::progress("look-ups and changes of routing tables");
        table::print_routes(&routes::measure());
    }
    if wants(Part::Handshakes) {
        table::progress("TLS handshakes");
        table::print_handshakes(&handshakes::measure()?);
    }
    if wants(Part::Relay) {
        table::print_relay(&Box::pin(relay::measure(amounts)).await?);
    }
    if wants(Part::Web) {
        table::print_web(&Box::pin(web::measure(amounts)).await?);
    }
    if wants(Part::Deliveries) && postfix::can_start() {
        table::print_deliveries(&deliveries::measure(amounts).await?);
    } else if wants(Part::Deliveries) {
        println!("\nno deliveries: only root can start the Postfix beside which they are measured");
    }
    if wants(Part::Lookups) {
        table::print_lookups(lookups::measure(amounts).await?);
    }
    if wants(Part::Crowd) {
        table::progress("logins beside idle sessions");
        table::print_crowd(&crowd::measure(amounts).await?);
    }
    if wants(Part::Churn) {
        table::print_churn(&churn::measure(amounts).await?);
    }
    if wants(Part::Telemetry) {
        table::print_telemetry(&Box::pin(telemetry::measure(amounts)).await?);
    }
    if wants(Part::Moves) {
        table::progress("moves between two Dovecots");
        table::print_moves(&moves::measure().await?);
    }
    if wants(Part::Queue) {
        table::progress("queues of moves (some minutes)");
        table::print_queues(&queue::measure().await?);
    }
    Ok(())
}

/// As many as the system lets us, for this process and those that it starts: a session needs two.
fn allow_open_files() -> anyhow::Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: most,
        maximum: most,
    };
    Ok(setrlimit(Resource::Nofile, all)?)
}
