//! The benchmark: `make bench`. What it measures is in `docs/benchmarks.md`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ferrypost_tests::bench::{self, Amounts, Part, backend};

/// What a session costs beside HAProxy, and how fast moves are.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// This part alone.
    #[arg(long)]
    only: Option<Part>,
    #[command(flatten)]
    amounts: Amounts,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The mail server behind the proxies. The benchmark starts it itself.
    #[command(hide = true)]
    Backend(backend::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None => bench::run(arguments.only, arguments.amounts).await,
        Some(Command::Backend(options)) => backend::run(options).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
