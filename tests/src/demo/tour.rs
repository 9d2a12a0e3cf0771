//! The tour: an account moves to another server while people use it, and comes back.

mod judgement;
mod mail;
mod steps;
mod typed;

use std::time::Duration;

use serde_json::Value;

use crate::history::{Recorder, Side};
use crate::workload::Workload;
use crate::world::{Builder, World};

use super::console::Console;

/// Who moves.
const TRAVELLER: &str = super::ACCOUNTS[0];

/// What the clients' decisions come from; another number is another tour.
const SEED: u64 = 9;

/// Acts out the tour in a world, which is [`super::world`] but for its times, and stops everything. Whatever was
/// started goes when this is dropped.
///
/// # Errors
/// When something does not come up, or a promise was broken, in words.
pub async fn tour(world: Builder) -> anyhow::Result<()> {
    println!("Ferrypost: an account changes servers while people use it, and comes back.");
    let mut console = Console::new();
    console.step("Two mail servers, the control plane and two data planes are started");
    let world = world.start().await?;
    let recorder = Recorder::new();
    let workload = Workload::new(&world, recorder.clone(), SEED);
    let mut tour = Tour {
        console,
        world,
        recorder,
        workload,
        travellers: 0,
        mail: Vec::new(),
    };
    match tour.act().await {
        Ok(()) => {
            tour.world.stop().await?;
            Ok(())
        }
        Err(error) => {
            let folder = tour.world.keep();
            println!(
                "\nEverything that was logged is kept in {}.",
                folder.display()
            );
            Err(error)
        }
    }
}

/// The tour's stage and its actors.
struct Tour {
    console: Console,
    world: World,
    recorder: Recorder,
    workload: Workload,
    /// How many clients the traveller has.
    travellers: usize,
    /// The subjects of the messages that have come to the traveller.
    mail: Vec<String>,
}

impl Tour {
    async fn act(&mut self) -> anyhow::Result<()> {
        self.show_what_runs();
        self.reload_source().await?;
        self.check_health().await?;
        self.try_protocols().await?;
        self.try_mail().await?;
        self.start_clients(Duration::from_secs(3)).await?;
        self.copy_mailbox().await?;
        let there = self.migrate().await?;
        self.receive_after("after", Side::Target).await?;
        self.watch_arrival(&there, Duration::from_secs(1)).await?;
        self.validate(Side::Target).await?;
        self.show_stats().await?;
        let back = self.roll_back().await?;
        self.receive_after("back", Side::Source).await?;
        self.watch_arrival(&back, Duration::from_secs(1)).await?;
        self.validate(Side::Source).await?;
        self.end_the_day().await?;
        self.undo().await?;
        self.conclude([there, back]).await
    }
}

/// A JSON value as people read it: protobuf's 64-bit numbers are strings in JSON, and what is zero
/// or empty is left out.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    }
}

/// What a line of the log has behind a key.
fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, behind) = line.split_once(key)?;
    Some(behind.split_whitespace().next()?.trim_matches('"'))
}
