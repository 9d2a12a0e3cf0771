//! What the program can be asked to do.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A call of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Run with this configuration.
    Run(PathBuf),
    /// Say everything that is wrong with it, and start nothing.
    Check(PathBuf),
}

impl Call {
    /// Reads the process's arguments; for help, or if they are wrong, says so and exits.
    pub fn parse() -> Self {
        Arguments::parse().into()
    }
}

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

impl From<Arguments> for Call {
    fn from(arguments: Arguments) -> Self {
        match (arguments.command, arguments.config) {
            (Some(Command::Check { config }), _) => Self::Check(config),
            (None, Some(config)) => Self::Run(config),
            (None, None) => unreachable!("clap demands --config where there is no command"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &[&str]) -> Result<Call, clap::Error> {
        let program = std::iter::once(&"ferrypost-dataplane");
        Arguments::try_parse_from(program.chain(arguments)).map(Into::into)
    }

    #[test]
    fn it_runs_or_checks_one_configuration() {
        assert_eq!(
            call(&["--config", "a.toml"]).unwrap(),
            Call::Run("a.toml".into())
        );
        let check = call(&["check", "--config", "a.toml"]).unwrap();
        assert_eq!(check, Call::Check("a.toml".into()));
        for wrong in [&[] as &[&str], &["check"], &["a.toml"], &["--config"]] {
            assert!(call(wrong).is_err(), "{wrong:?}");
        }
    }
}
