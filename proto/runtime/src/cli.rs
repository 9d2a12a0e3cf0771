//! What both programs can be asked to do, and what one of them has beside that.

use std::path::PathBuf;

use clap::{Args as _, Command, FromArgMatches as _, Parser, Subcommand};

/// A call of a program that may have orders of its own, `O`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call<O = NoOrder> {
    /// Run with this configuration.
    Run(PathBuf),
    /// Say everything that is wrong with it, and start nothing.
    Check(PathBuf),
    /// An order of the program's own.
    Own(O),
}

/// Of a program without orders of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum NoOrder {}

impl<O: Subcommand> Call<O> {
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
        let command = O::augment_subcommands(Arguments::augment_args(Command::new(program)));
        let command = command.about(about).version(env!("CARGO_PKG_VERSION"));
        let matches = command.try_get_matches_from(arguments)?;
        if matches.subcommand_name().is_some_and(O::has_subcommand) {
            return O::from_arg_matches(&matches).map(Self::Own);
        }
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

impl<O> From<Arguments> for Call<O> {
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

    #[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
    enum Own {
        /// Sings.
        Sing { song: String },
    }

    fn call_with<O: Subcommand>(arguments: &[&str]) -> Result<Call<O>, clap::Error> {
        let program = std::iter::once(&"ferrypost-dataplane");
        Call::read("ferrypost-dataplane", "Relays.", program.chain(arguments))
    }

    fn call(arguments: &[&str]) -> Result<Call, clap::Error> {
        call_with(arguments)
    }

    #[test]
    fn a_program_may_have_orders_of_its_own_beside_those_of_both() {
        let asked = call_with::<Own>(&["sing", "a song"]).unwrap();
        let song = "a song".to_owned();
        assert_eq!(asked, Call::Own(Own::Sing { song }));
        let check = call_with::<Own>(&["check", "--config", "a.toml"]).unwrap();
        assert_eq!(check, Call::Check("a.toml".into()));
        let run = call_with::<Own>(&["--config", "a.toml"]).unwrap();
        assert_eq!(run, Call::Run("a.toml".into()));
        assert!(call(&["sing", "a song"]).is_err());
        let help = call_with::<Own>(&["--help"]).unwrap_err().to_string();
        assert!(help.contains("Sings") && help.contains("check"), "{help}");
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
