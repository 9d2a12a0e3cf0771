//! How a call of the program ends, for scripts.

use std::process::ExitCode;

/// One code for each kind of end. Those above 64 are what `grpcurl` ends with where it has one for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Not done, and nothing was changed.
    Failed,
    /// The command, or a value in it, has no meaning.
    Usage,
    /// A guard refused it.
    Refused,
    /// The move was tried and given up.
    Aborted,
    /// The connection or the store was lost in the middle of a change.
    Unknown,
    /// `check` has found something.
    Findings,
    /// The time that was given is over.
    Deadline,
    /// It is done, and what came of it could not be written.
    Unwritten,
    /// Somebody who waited waits no longer.
    Interrupted,
}

impl Exit {
    /// All of them, as `docs/cli.md` lists them.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Refused,
        Self::Aborted,
        Self::Unknown,
        Self::Findings,
        Self::Deadline,
        Self::Unwritten,
        Self::Interrupted,
    ];

    /// What the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Refused => 73,
            Self::Aborted => 74,
            Self::Unknown => 78,
            Self::Findings => 79,
            Self::Deadline => 124,
            Self::Unwritten => 125,
            Self::Interrupted => 130,
        }
    }

    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::Findings => "findings",
            Self::Deadline => "deadline",
            Self::Unwritten => "unwritten",
            Self::Interrupted => "interrupted",
        }
    }

    /// What it means for whoever reads it in a script.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "It is done; of a move: the account lives at the target.",
            Self::Failed => "It could not be done, and nothing was changed.",
            Self::Usage => "The command, or a value in it, has no meaning.",
            Self::Refused => {
                "A guard refused it and nothing was changed: it will not work until somebody changes something."
            }
            Self::Aborted => "The move was tried and given up: the account is back on the source.",
            Self::Unknown => {
                "The outcome is unknown: an answer was lost. The same command with the same --request-id is safe."
            }
            Self::Findings => "`check` has found something.",
            Self::Deadline => "The time that was given is over; a move that was started goes on.",
            Self::Unwritten => "It is done, but the result could not be written, or not whole.",
            Self::Interrupted => {
                "Ctrl-C, or SIGTERM, while it waited; a move that was started goes on."
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
