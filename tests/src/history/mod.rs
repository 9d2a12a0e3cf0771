//! What happened, as the clients saw it: the evidence that [`crate::checker`] judges.
//!
//! Everything is on one clock, the system's monotonic one, which clients, the mover and the delta
//! hook read alike. An operation's `begun` is read before the bytes are sent without which a server
//! cannot act on it, and its `ended` after the answer was received, so that whatever the server did
//! lies between them.

mod disturbance;
mod journal;
mod recorder;
mod summary;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub use disturbance::Disturbance;
pub use journal::{HookRun, JournalError, read_journal};
pub use recorder::Recorder;
pub use summary::Summary;
pub use waits::{LongestWait, longest_wait};

/// A point on the system's monotonic clock, as the time since that clock began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        Self(Duration::try_from(now).expect("the monotonic clock begins at zero"))
    }

    /// How long after `earlier`; nothing when it was before.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0.as_secs_f64())
    }
}

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where accounts live at first.
    Source,
    /// Where they move to.
    Target,
}

impl Side {
    /// As the destination and the server call themselves.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }

    /// The side of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Source, Self::Target]
            .into_iter()
            .find(|side| side.name() == name)
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Reads and writes mail.
    Imap,
    /// Fetches and deletes mail.
    Pop3,
    /// Keeps scripts.
    ManageSieve,
    /// Sends mail.
    Submission,
    /// Delivers mail. There is no login.
    Lmtp,
    /// Keeps files, and listens. The first request of a connection stands for a login.
    Http,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Imap,
        Self::Pop3,
        Self::ManageSieve,
        Self::Submission,
        Self::Lmtp,
        Self::Http,
    ];

    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::ManageSieve => "ManageSieve",
            Self::Submission => "submission",
            Self::Lmtp => "LMTP",
            Self::Http => "HTTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What identifies a message on any server: the left half of its Message-ID.
pub type MessageId = Arc<str>;

/// A system flag, as `\Flagged`.
pub type Flag = &'static str;

/// An operation that a server answered, or owes an answer.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// What it speaks.
    pub protocol: Protocol,
    /// The account, by its address.
    pub account: Arc<str>,
    /// Which data plane, counted from 0.
    pub data_plane: usize,
    /// The server that the session reached; `None` when it ended before the client could ask.
    pub server: Option<Side>,
    /// Before the last byte was sent.
    pub begun: Moment,
    /// After the answer was received.
    pub ended: Moment,
    /// What it was.
    pub action: Action,
}

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A login with the right password, accepted. `lost` is when the client lost the session before,
    /// if it had one that it did not end itself.
    Login {
        /// When the session before was lost.
        lost: Option<Moment>,
    },
    /// A login with the right password, refused; with HTTP any request, since each is one.
    LoginRefused {
        /// The response code, for example `UNAVAILABLE`; with submission the reply's number, with HTTP the status.
        code: Option<String>,
        /// The client's end of the connection, as the data plane's log has it.
        from: Option<SocketAddr>,
    },
    /// A message stored.
    Append(MessageId),
    /// A flag set on a message that the client had stored.
    Flag(MessageId, Flag),
    /// NOOP, or another command that changes nothing and shows nothing.
    Noop,
    /// An untagged response that ended a wait in IDLE.
    Woken,
    /// The mailbox shown with so many messages, as it was not before the operation began.
    Counted(usize),
    /// A message shown, of a mailbox as it was not before the operation began.
    Retrieved(MessageId),
    /// A message deleted for good.
    Delete(MessageId),
    /// A version of a client's own script stored. Versions of one script only grow.
    PutScript {
        /// Its name.
        name: Arc<str>,
        /// Which version.
        version: u64,
    },
    /// A version of a client's own file stored. Versions of one file only grow, and each is sent once.
    PutFile {
        /// Its name.
        name: Arc<str>,
        /// Which version.
        version: u64,
    },
    /// A client's own file shown, as it was not before the operation began.
    SawFile {
        /// Its name.
        name: Arc<str>,
        /// Which version; 0 where there is no such file.
        version: u64,
    },
    /// A message taken for sending.
    Submit(MessageId),
    /// A message delivered, each sent once.
    Deliver(MessageId),
    /// What the server had all of, and the connection ended before an answer.
    Unanswered(Box<Action>),
}

impl Action {
    /// Whether it changed something on the server.
    pub const fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Append(_)
                | Self::Flag(..)
                | Self::Delete(_)
                | Self::PutScript { .. }
                | Self::PutFile { .. }
                | Self::Submit(_)
                | Self::Deliver(_)
        )
    }

    /// Whether a server accepted it.
    pub const fn is_accepted(&self) -> bool {
        !matches!(self, Self::LoginRefused { .. } | Self::Unanswered(_))
    }

    /// Whether it is a login, however it ended.
    pub fn is_login(&self) -> bool {
        match self {
            Self::Login { .. } | Self::LoginRefused { .. } => true,
            Self::Unanswered(sent) => sent.is_login(),
            _ => false,
        }
    }
}

/// How a move ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The account lives on the other side.
    Flipped,
    /// The account stayed.
    Stayed,
}

/// A `Migrate` or `Rollback` that has an outcome.
#[derive(Debug, Clone)]
pub struct Move {
    /// The account, by its address.
    pub account: Arc<str>,
    /// The migration's id.
    pub migration: String,
    /// The side that it was to leave.
    pub from: Side,
    /// Before the call was made.
    pub asked: Moment,
    /// After the answer came that says how it ended.
    pub answered: Moment,
    /// How it ended.
    pub outcome: Outcome,
    /// FENCING to FLIPPED as the leader measured it.
    pub held: Option<Duration>,
    /// The account was fenced once, and that fence ended with the outcome. Else a fence was withdrawn, and it
    /// was served in between; or nobody knows.
    pub one_fence: bool,
}

/// All the evidence of a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What clients did, in no order.
    pub operations: Vec<Operation>,
    /// What servers did by their own account, each at one moment, whether or not its client heard of it: files stored.
    pub executed: Vec<Operation>,
    /// Moves, in any order; those of one account do not overlap.
    pub moves: Vec<Move>,
    /// Runs of the delta hook.
    pub hook_runs: Vec<HookRun>,
    /// When something was broken on purpose.
    pub disturbances: Vec<Disturbance>,
}

/// What a server holds of an account at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// Messages with their flags.
    pub messages: BTreeMap<MessageId, BTreeSet<String>>,
    /// Messages that are there more than once.
    pub twice: BTreeSet<MessageId>,
    /// Scripts by name, with their versions.
    pub scripts: BTreeMap<Arc<str>, u64>,
    /// Files by name, with their versions.
    pub files: BTreeMap<Arc<str>, u64>,
}

/// The mailboxes on their final homes, by account.
pub type FinalState = BTreeMap<Arc<str>, Mailbox>;

impl History {
    /// The moves that ended with the account on the other side.
    pub fn flips(&self) -> impl Iterator<Item = &Move> {
        self.moves
            .iter()
            .filter(|movement| movement.outcome == Outcome::Flipped)
    }
}
