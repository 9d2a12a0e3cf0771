//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

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

/// What the program is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Run under this configuration.
    Run(PathBuf),
    /// Check this configuration.
    Check(PathBuf),
}

/// Reads the command line of this process; ends the process when it makes no sense.
pub fn order() -> Order {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Command::Check { config }), _) => Order::Check(config),
        (None, Some(config)) => Order::Run(config),
        (None, None) => Arguments::command()
            .error(ErrorKind::MissingRequiredArgument, "--config is missing")
            .exit(),
    }
}
