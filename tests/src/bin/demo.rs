//! The demo: `make demo`, `make demo-up`, `make demo-down`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ferrypost_tests::demo;

/// Two Dovecots, both planes of Ferrypost, and an account that moves.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything in a temporary folder, act out a move and its way back, stop everything.
    Tour,
    /// Start everything and leave it running; `target/demo/env` says where.
    Up,
    /// Stop what `up` has started.
    Down,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Tour => tokio::select! {
            ended = demo::tour(demo::world()) => ended,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        },
        Command::Up => demo::up().await,
        Command::Down => demo::down().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
