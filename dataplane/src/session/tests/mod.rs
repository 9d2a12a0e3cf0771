//! The driver acted out: a whole data plane without its control plane, scripted servers behind it, clients
//! that speak by hand.

mod addresses;
pub(crate) mod backend;
mod breakers;
mod by_hand;
pub(crate) mod client;
mod hostile;
mod legs;
mod limits;
mod lines;
pub(crate) mod log;
mod logins;
mod loops;
mod moves;
mod pop3;
mod relays;
mod second_names;
mod sieve;
mod stuck;
mod submission;
mod tokens;
mod tokens_by_line;
mod toy;
#[path = "../../../wire/tests/toy/mod.rs"]
mod toy_protocol;
pub(crate) mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use client::PATIENCE;

/// Waits for a fact.
pub(crate) async fn eventually(what: &str, fact: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < limit, "it never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// That many commands, tagged n0, n1 and so on.
fn noops(count: usize) -> Vec<u8> {
    let commands = (0..count).map(|n| format!("n{n} NOOP\r\n").into_bytes());
    commands.collect::<Vec<_>>().concat()
}
