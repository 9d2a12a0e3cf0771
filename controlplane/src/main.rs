//! `ferrypost-controlplane`: see the library's documentation.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ferrypost_controlplane::{app, config::Config, hook::guard, shutdown, telemetry};
use ferrypost_proto::Random;

/// Ferrypost's control plane.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check the configuration and the routing file that it names, and start nothing.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == guard::SUBCOMMAND)
    {
        return guard::main(arguments);
    }
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> anyhow::Result<()> {
    let path = match (arguments.command, arguments.config) {
        (Some(Command::Check { config }), _) => {
            println!("{}", app::check(&config)?);
            return Ok(());
        }
        (None, path) => path.context("--config is missing")?,
    };
    tokio::runtime::Runtime::new()?.block_on(run(&path))
}

async fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    telemetry::start(config.log())?;
    let mut bound = app::build(config, Random::from_os()).await?;
    let outcome = tokio::select! {
        requested = shutdown::requested() => requested.map_err(Into::into),
        failure = bound.failure() => Err(failure),
    };
    bound.shut_down().await?;
    outcome
}
