//! `ferrypost-dataplane`: see [`ferrypost_dataplane`].

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ferrypost_dataplane::{app, config::Config, telemetry};
use ferrypost_proto::Random;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Relays each mail session to the server that holds its account.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Says everything that is wrong with a configuration, and starts nothing.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferrypost-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(Command::Check { config }) = arguments.command {
        Config::load(&config)?;
        println!("{} is valid", config.display());
        return Ok(());
    }
    let config = Config::load(&arguments.config.expect("clap demands it"))?;
    telemetry::install(config.log())?;
    tokio::runtime::Runtime::new()
        .context("no runtime")?
        .block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut stops = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let bound = app::build(&config, Random::from_os())?;
    tracing::info!(instance = %config.instance(), addresses = ?bound.addresses, "started");
    any(&mut stops).await;
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        stopped = bound.shut_down() => tracing::info!(?stopped, "stopped"),
        () = any(&mut stops) => anyhow::bail!("ended by a second signal"),
    }
    Ok(())
}

async fn any([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
