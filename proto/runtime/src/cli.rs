//! What both programs can be asked to do.

use std::path::PathBuf;

use clap::{Args as _, Command, FromArgMatches as _, Parser, Subcommand};

/// A call of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Run with this configuration.
    Run(PathBuf),
    /// Say everything that is wrong with it, and start nothing.
    Check(PathBuf),
}

impl Call {
    /// Reads the process's arguments; for help, or if they are wrong, says so and exits. `about` is the
    /// program's one sentence.
    pub fn parse(program: &'static str, about: &'static str) -> Self {
        let read = Self::read(program, about, std::env::args_os());
        read.unwrap_or_else(|error| error.exit())
    }

    fn read<A>(
        program: &'static str,
        about: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, clap::Error>
    where
        A: Into<std::ffi::OsString> + Clone,
    {
        let command = Arguments::augment_args(Command::new(program))
            .about(about)
            .version(env!("CARGO_PKG_VERSION"));
        let matches = command.try_get_matches_from(arguments)?;
        Arguments::from_arg_matches(&matches).map(Into::into)
    }
}

#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    order: Option<Order>,
}

#[derive(Subcommand)]
enum Order {
    /// Says everything that is wrong with a configuration and the files that it names, and starts nothing.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

impl From<Arguments> for Call {
    fn from(arguments: Arguments) -> Self {
        match (arguments.order, arguments.config) {
            (Some(Order::Check { config }), _) => Self::Check(config),
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
        Call::read("ferrypost-dataplane", "Relays.", program.chain(arguments))
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

    #[test]
    fn help_and_version_name_the_program() {
        let help = call(&["--help"]).unwrap_err().to_string();
        assert!(
            help.contains("Relays.") && help.contains("ferrypost-dataplane"),
            "{help}"
        );
        let version = call(&["--version"]).unwrap_err().to_string();
        assert!(version.starts_with("ferrypost-dataplane "), "{version}");
    }
}
