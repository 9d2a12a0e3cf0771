//! What must not happen.

use std::fmt;

use crate::history::{Action, HookRun, Move, Operation, Side};

/// Something that must not happen.
#[derive(Debug, Clone)]
pub enum Violation {
    /// A login, write or other command that a server accepted which had no business to.
    Misplaced {
        /// What was accepted.
        operation: Operation,
        /// Why it should not have been.
        how: Misplaced,
    },
    /// Writes of one account acknowledged by both servers in overlapping time.
    BothSides {
        /// The later one, on the side that the account was leaving.
        old: Operation,
        /// The earlier one, on the side that it was going to.
        new: Operation,
    },
    /// An acknowledged write that is not on the account's final home.
    Lost(Operation),
    /// A message that is there after its deletion was acknowledged.
    Undeleted(Operation),
    /// A mailbox that showed fewer messages than had been acknowledged.
    Unseen {
        /// What showed it.
        operation: Operation,
        /// How many were not shown, at least.
        missing: usize,
    },
    /// A file that was shown as it had been before a version that was acknowledged.
    Outdated {
        /// What showed it.
        operation: Operation,
        /// The version that had been acknowledged.
        acknowledged: u64,
    },
    /// A request that was sent once and that servers executed more than once: the last time.
    ExecutedTwice(Operation),
    /// A message that was sent once and is on the account's final home more than once.
    Twice(Operation),
    /// A message taken whole for sending or delivery, and no answer.
    Unanswered(Operation),
    /// A login with the right password that was told it is wrong.
    WronglyRefused(Operation),
    /// A run of the delta hook that went on after its move had ended.
    HookOutlived {
        /// The run.
        run: HookRun,
        /// The move.
        movement: Move,
    },
    /// Two runs of the delta hook for one move at once.
    HookTwice {
        /// The one that was still at work.
        first: HookRun,
        /// The one that began meanwhile.
        second: HookRun,
    },
}

/// Why an operation should not have been accepted where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// The account had left that side.
    AfterFlip,
    /// The account had not come to that side yet.
    BeforeFlip,
    /// The account was held: the delta hook ran.
    WhileHeld,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misplaced { operation, how } => {
                let why = match how {
                    Misplaced::AfterFlip => "which the account had left",
                    Misplaced::BeforeFlip => "to which the account had not come yet",
                    Misplaced::WhileHeld => "while the account was held",
                };
                write!(f, "{}, {why}", Described(operation))
            }
            Self::BothSides { old, new } => {
                write!(
                    f,
                    "both sides took writes: {}, but {} later",
                    Described(new),
                    Described(old)
                )
            }
            Self::Lost(operation) => {
                write!(
                    f,
                    "{}, and it is not on the account's final home",
                    Described(operation)
                )
            }
            Self::Twice(operation) => {
                let sent = Described(operation);
                write!(f, "{sent}, and the account's final home has it twice")
            }
            Self::Outdated {
                operation,
                acknowledged,
            } => {
                let seen = Described(operation);
                write!(
                    f,
                    "{seen}, and version {acknowledged} had been acknowledged"
                )
            }
            Self::ExecutedTwice(operation) => {
                write!(
                    f,
                    "{}, and it had been executed before",
                    Described(operation)
                )
            }
            Self::Undeleted(operation) => {
                write!(f, "{}, and the message came back", Described(operation))
            }
            Self::Unseen { operation, missing } => {
                let seen = Described(operation);
                write!(f, "{seen}, and {missing} more had been acknowledged")
            }
            Self::Unanswered(operation) => {
                write!(f, "{}, though nothing was broken", Described(operation))
            }
            Self::WronglyRefused(operation) => {
                write!(f, "{}, with the right password", Described(operation))
            }
            Self::HookOutlived { run, movement } => {
                let (migration, answered) = (&run.migration, movement.answered);
                write!(
                    f,
                    "the delta hook of {migration} was at work after {answered}, when its move had ended"
                )
            }
            Self::HookTwice { first, second } => {
                let (migration, begun) = (&first.migration, second.begun);
                write!(f, "the delta hook of {migration} ran twice at {begun}")
            }
        }
    }
}

struct Described<'o>(&'o Operation);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.0;
        write!(
            f,
            "{} client {} of {} through data plane {}: ",
            operation.protocol,
            operation.client,
            operation.account,
            operation.data_plane + 1
        )?;
        describe(&operation.action, f)?;
        let server = operation.server.map_or("an unknown server", Side::name);
        write!(
            f,
            " by {server} between {} and {}",
            operation.begun, operation.ended
        )
    }
}

fn describe(action: &Action, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match action {
        Action::Login { .. } => f.write_str("login"),
        Action::LoginRefused { code, .. } => {
            let code = code.as_deref().unwrap_or("no code");
            write!(f, "login refused with {code}")
        }
        Action::Append(message) => write!(f, "APPEND of {message}"),
        Action::Flag(message, flag) => write!(f, "{flag} on {message}"),
        Action::Noop => f.write_str("NOOP"),
        Action::Woken => f.write_str("news in IDLE"),
        Action::Counted(count) => write!(f, "{count} messages"),
        Action::Retrieved(message) => write!(f, "sight of {message}"),
        Action::Delete(message) => write!(f, "deletion of {message}"),
        Action::PutScript { name, version } => write!(f, "version {version} of script {name}"),
        Action::PutFile { name, version } => write!(f, "version {version} of file {name}"),
        Action::SawFile { name, version } => write!(f, "sight of version {version} of file {name}"),
        Action::Submit(message) => write!(f, "submission of {message}"),
        Action::Deliver(message) => write!(f, "delivery of {message}"),
        Action::Unanswered(sent) => {
            f.write_str("no answer to ")?;
            describe(sent, f)
        }
    }
}
