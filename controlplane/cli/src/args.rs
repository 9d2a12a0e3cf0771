//! What can be asked for, as it is typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use ferrypost_runtime::config::time;

/// A call of the program.
#[derive(Debug, Parser)]
#[command(
    name = "ferrypost",
    version,
    about = "Moves mail accounts between servers, and shows where they are.",
    after_help = "Exit codes: 0 ok, 1 failed, 64 usage, 73 refused by a guard, 74 aborted and back on the source, \
                  78 outcome unknown, 79 check has findings, 124 deadline, 125 result not written, 130 interrupted. \
                  docs/cli.md explains them.",
    disable_help_subcommand = true
)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) connection: ConnectionFlags,
    /// How results are printed. What is said beside them goes to standard error.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Reads the process's arguments.
    ///
    /// # Errors
    /// For help, for the version, and when they are wrong.
    pub fn of_process() -> Result<Self, clap::Error> {
        Self::try_parse()
    }
}

/// Where the control plane is and who asks. No secret stands on a command line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionFlags {
    /// The control plane's listener for operators; of several, the first that answers. Else `$FERRYPOST_ENDPOINT`,
    /// with commas in between; else `http://127.0.0.1:9080`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Vec<String>,
    /// A file that holds a bearer token. Else `$FERRYPOST_TOKEN_FILE`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authorities that vouch for an https endpoint (PEM). Else `$FERRYPOST_CA_FILE`; else those that this machine
    /// believes.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A client certificate (PEM). Else `$FERRYPOST_CERT_FILE`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key (PEM). Else `$FERRYPOST_KEY_FILE`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns, for people.
    Table,
    /// The API's messages, as grpcurl prints them.
    Json,
    /// Only what names each thing, one a line, for scripts.
    Short,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Moves an account to another server, and waits for the outcome.
    Migrate(Migrate),
    /// Moves an account back to its previous home, by the same machine.
    Rollback(Rollback),
    /// Ends a move that has not flipped: the account stays where it is.
    Abort(Abort),
    /// Lists moves, newest first.
    Migrations(Migrations),
    /// Shows each change of a move until it has ended; without one, of all moves that fit.
    Watch(Watch),
    /// Says where a login goes, and why.
    Explain(Explain),
    /// Lists where accounts live.
    Placements(Placements),
    /// Lists sessions on all data planes.
    Sessions(Sessions),
    /// Closes the sessions of an account. They may come back at once.
    Kick(Kick),
    /// Shows the figures of the whole installation.
    Stats,
    /// Lists data planes, and what stands between them and their work.
    Dataplanes,
    /// Lists the servers with each data plane's verdict.
    Destinations,
    /// Lists logins without a record that moves may have left behind.
    Unlisted,
    /// Ends the registration of a data plane that will never come back.
    Expel(Expel),
    /// Shows what is in doubt after the store was restored; with --keep, decides.
    Rewound(Rewound),
    /// Says what of the installation is not as it should be.
    Check(Check),
    /// Prints a script that completes this command line in a shell.
    Completion(Completion),
}

/// What both directions of a move take.
#[derive(Debug, Clone, Args)]
pub(crate) struct MoveFlags {
    /// Refuse unless the account lives there now.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) from: Option<String>,
    /// Names this intention, so that a repeat is safe: it joins the move that the first call started. One is made if
    /// none is given.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) request_id: Option<String>,
    /// Why, for the record.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// What the move is to be found by, as wave=1.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = a_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for the outcome, as 30s or 10m; 0s: do not wait. The move goes on when it is over.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = a_time)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Migrate {
    /// The account's id or any of its names.
    pub(crate) account: String,
    /// The server to move to.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: String,
    /// Another login of an account without a record; give all of them at its first move.
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: MoveFlags,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Rollback {
    /// The account's id or any of its names.
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) flags: MoveFlags,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Abort {
    /// The move's id.
    pub(crate) migration: String,
    /// Why, for the record.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Migrations {
    /// Only those of this account, by id or name.
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    pub(crate) state: Option<MoveState>,
    /// Only those that have this label; of several, all.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = a_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// At most this many.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) limit: u32,
}

/// The states of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MoveState {
    /// Waits unfenced.
    Queued,
    /// From FENCING on.
    Running,
    /// The account lives at the target.
    Succeeded,
    /// The account stayed where it was.
    Aborted,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Watch {
    /// The move's id.
    pub(crate) migration: Option<String>,
    /// Only moves of this account, by id or name.
    #[arg(long, conflicts_with = "migration")]
    pub(crate) account: Option<String>,
    /// Only moves in this state; one that leaves it is shown once more.
    #[arg(long, value_enum, conflicts_with = "migration")]
    pub(crate) state: Option<MoveState>,
    /// Only moves that have this label; of several, all.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = a_label, conflicts_with = "migration")]
    pub(crate) labels: Vec<(String, String)>,
    /// End when none of those that were shown is under way any more. Of the moves with the given labels, or of the given account,
    /// those that have ended before count as well: the last one of each account.
    #[arg(long, conflicts_with = "migration")]
    pub(crate) until_done: bool,
    /// How long to watch at most.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = a_time)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Explain {
    /// A login as a client would type it.
    pub(crate) login: String,
    /// Ask every data plane as well where it sends that login.
    #[arg(long)]
    pub(crate) data_planes: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Placements {
    /// Only this account, by id or name.
    pub(crate) account: Option<String>,
    /// Only accounts that live there.
    #[arg(long, value_name = "DESTINATION", conflicts_with = "account")]
    pub(crate) destination: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Sessions {
    /// Only those of this account, by id or name.
    pub(crate) account: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Kick {
    /// The account's id or any of its names, or a name without a record.
    pub(crate) account: String,
    /// Why, for the log.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Expel {
    /// The data plane's instance id.
    pub(crate) instance: String,
    /// The boot id that `dataplanes` shows, so that a successor is not hit.
    #[arg(long)]
    pub(crate) boot: String,
    /// Why. If it still serves, it may serve the wrong side: this is your word that it does not.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Rewound {
    /// Whose word counts from now on.
    #[arg(long, value_enum, requires = "reason")]
    pub(crate) keep: Option<Keep>,
    /// The digest of the list that was shown.
    #[arg(long, requires = "keep", default_value = "", hide_default_value = true)]
    pub(crate) digest: String,
    /// Why.
    #[arg(long, value_name = "TEXT", requires = "keep")]
    pub(crate) reason: Option<String>,
    /// Names this decision, so that a repeat is safe. One is made if none is given.
    #[arg(long, value_name = "ID", requires = "keep", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) request_id: Option<String>,
}

/// Whose word counts after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// The store's: accounts in doubt go back to where the backup has them.
    Store,
    /// The data planes': everybody stays where they have served them.
    Fleet,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Check {
    /// Look again until nothing is found, for at most this long.
    #[arg(long, value_name = "TIME", value_parser = a_time)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

fn a_label(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = parts.ok_or_else(|| "give a label as key=value".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

fn a_time(text: &str) -> Result<Duration, String> {
    time(text).ok_or_else(|| "give a time, as 500ms, 10s, 5m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_secret_cannot_be_given_on_the_command_line() {
        for argument in Arguments::command().get_arguments() {
            let name = argument.get_id().as_str();
            let secret = name.contains("token") || name.contains("key");
            assert!(!secret || name.ends_with("_file"), "{name}");
        }
        let told = ["ferrypost", "--token", "abc", "stats"];
        assert!(Arguments::try_parse_from(told).is_err());
    }

    #[test]
    fn a_decision_about_a_restore_needs_a_reason() {
        let without = ["ferrypost", "rewound", "--keep", "fleet"];
        assert!(Arguments::try_parse_from(without).is_err());
        let with = ["ferrypost", "rewound", "--keep", "fleet", "--reason", "x"];
        assert!(Arguments::try_parse_from(with).is_ok());
    }
}
