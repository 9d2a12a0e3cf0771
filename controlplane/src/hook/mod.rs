//! The delta hook: a program of the operator's that brings the target up to date while the account is
//! quiesced.
//!
//! ```text
//!   control plane ──stdin──▶ guard ──stdin──▶ guard ──stdin──▶ the hook, a process group
//!        ▲                     each kills all that is below it at the deadline, and when
//!        └── exit code, output ┘  the pipe from above closes
//! ```
//!
//! A hook that outlives its deadline could write to a server that clients use again, so the deadline does
//! not rest on the control plane being alive, nor on one process: two guards (our own binary, `hook-guard`), one
//! below the other, hold it as a point on `CLOCK_BOOTTIME` that was chosen before the store learnt of the run. A
//! leader that takes over releases the account at once, and waits the same deadline out before it fences again;
//! until then the hook may run beside clients of the source. The guards are subreapers, so that a process which leaves
//! the group (`setsid`, a double fork) is found all the same; and the kernel kills the hook itself when the guard
//! above it dies (`PR_SET_PDEATHSIG`). A kernel that offers neither runs no hook.
//!
//! What escapes: children of the hook where both guards are killed (or stopped until after the deadline) at once, unless
//! the whole container or unit ends with them; a program that has become another user (`sudo`), which we may not
//! kill unless we are root; one that forks faster than we look, each time into a session of its own; and work that the
//! hook has given away, to a daemon or to another machine (`ssh`, `at`, a queue). Not used, because a hook would see and
//! reach other processes than without: a PID namespace. Seldom ours to make: a cgroup.
//!
//! # What a hook gets
//!
//! One line of JSON on standard input, then its end:
//!
//! ```json
//! {"schema":1,"migration_id":"move-…","kind":"migrate","source":"old","target":"new",
//!  "accounts":[{"account_id":"acct-…","names":["alice@example.org"]}],
//!  "deadline_seconds":9.5,"attempt":1}
//! ```
//!
//! `kind` is `migrate` or `rollback`; on a rollback source and target are the sides of the rollback, so a
//! hook copies from `source` to `target` always, and writes to the target alone. `attempt` is above 1 when an
//! earlier run may have been cut in the middle: a hook must be repeatable. Exit code 0 means that the target is up to
//! date; everything else, and being late, aborts the move, and so does what a hook leaves running and cannot be ended.
//! The environment is `PATH` and `LANG`; the working directory is `/`.

mod descendants;
pub mod guard;
mod run;

use std::time::Duration;

use async_trait::async_trait;
use ferrypost_proto::{store::v1::MigrationRecord, v1};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use run::GuardedHook;

/// The version of [`Order`]'s meaning.
pub const SCHEMA: u32 = 1;

/// What a hook is told: the move, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Order {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The migration.
    pub migration_id: String,
    /// `migrate` or `rollback`.
    pub kind: &'static str,
    /// The destination to copy from.
    pub source: String,
    /// The destination to copy to.
    pub target: String,
    /// The accounts.
    pub accounts: Vec<OrderAccount>,
    /// Seconds until the hook is killed.
    pub deadline_seconds: f64,
    /// Counts from 1; higher when an earlier run may have been cut in the middle.
    pub attempt: u32,
}

/// An account of an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderAccount {
    /// Its id.
    pub account_id: String,
    /// Its canonical names.
    pub names: Vec<String>,
}

impl Order {
    /// The order for a move.
    pub fn new(migration_id: &str, migration: &MigrationRecord, attempt: u32) -> Self {
        Self {
            schema: SCHEMA,
            migration_id: migration_id.to_owned(),
            kind: match migration.kind() {
                v1::MigrationKind::Rollback => "rollback",
                v1::MigrationKind::Migrate | v1::MigrationKind::Unspecified => "migrate",
            },
            source: migration.source.clone(),
            target: migration.target.clone(),
            accounts: migration
                .accounts
                .iter()
                .map(|account| OrderAccount {
                    account_id: account.account_id.clone(),
                    names: account.names.clone(),
                })
                .collect(),
            deadline_seconds: 0.0,
            attempt,
        }
    }
}

/// When a run is over at the latest, on both clocks that watch it: ours, and that of the guard, which is
/// another process. Chosen in one moment, so that a freeze between the choice and the start does not
/// make it later.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    since_boot: Duration,
}

impl Deadline {
    /// So much from now.
    pub fn after(limit: Duration) -> Self {
        let since_boot = guard::since_boot() + limit;
        Self {
            at: Instant::now() + limit,
            since_boot,
        }
    }

    /// How long it is until then.
    pub fn left(&self) -> Duration {
        let left = self.since_boot.saturating_sub(guard::since_boot());
        left.min(self.at.saturating_duration_since(Instant::now()))
    }
}

/// Why a hook did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("the delta hook could not be started: {0}")]
    Start(String),
    /// It ended with another code than 0.
    #[error("the delta hook ended with code {0}")]
    Code(i32),
    /// It was killed by somebody else.
    #[error("the delta hook was killed by signal {0}")]
    Signal(i32),
    /// It was late and was killed.
    #[error("the delta hook was not done in time")]
    Late,
    /// It has started something that could not be ended, and that may still write.
    #[error("the delta hook left processes behind that could not be ended: see its output")]
    Left,
    /// It was killed because nobody wants its work any more.
    #[error("the delta hook was stopped")]
    Stopped,
}

/// A delta hook. Behind a trait so that the orchestrator's tests can decide what becomes of it.
#[async_trait]
pub trait DeltaHook: Send + Sync + 'static {
    /// How long a run may take.
    fn timeout(&self) -> Duration;

    /// Runs the hook until it ends, `deadline` or `stop`; when this returns, nothing of it runs any more.
    /// `deadline` was chosen before the store learnt of the run. Dropping the future kills it too,
    /// without waiting for its end.
    async fn run(
        &self,
        order: Order,
        deadline: Deadline,
        stop: CancellationToken,
    ) -> Result<(), HookError>;
}
