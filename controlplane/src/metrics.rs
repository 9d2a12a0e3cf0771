//! What the control plane counts while it works. What is so at the moment of asking is in
//! `admin::levels`; `docs/metrics.md` is written from both tables.
//!
//! Every attribute's values are those of an enum; none of them can name an account.

use ferrypost_proto::v1::BlockerReason;
use ferrypost_runtime::metrics::{Attribute, Instrument, Kind, Metrics, Values};
use strum::{IntoStaticStr, VariantNames};

/// A step of a move, as the leader writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames, strum::EnumString)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Step {
    /// Sessions are closed and logins held from now on.
    Fencing,
    /// No session is left.
    Quiesced,
    /// The delta hook is going to run.
    Delta,
    /// The names go to the target.
    Flipped,
    /// Every data plane has that.
    Released,
    /// Over, at the new home.
    Settled,
    /// The fence of a leader that is gone is lifted, at the old home; the move goes on.
    Withdrawn,
    /// Over, at the old home.
    Aborted,
}

/// How a move ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Outcome {
    /// At its target.
    Succeeded,
    /// Where it was.
    Aborted,
}

/// Why a move was aborted: what the first of its blockers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Reason {
    /// It was not, or nothing was said.
    None,
    /// A data plane had not answered.
    DataPlaneSilent,
    /// A data plane had rejected an entry.
    EntryRejected,
    /// A destination could not be reached.
    DestinationUnreachable,
    /// Backends of a data plane that is gone could still be finishing.
    Settling,
    /// Too many accounts were fenced.
    FenceBudget,
    /// The store was restored.
    Rewound,
    /// Nobody led.
    NoLeader,
    /// There was no data plane.
    NoDataPlane,
    /// A data plane had not drained.
    NotDrained,
    /// The close of a backend was not seen.
    CloseUnconfirmed,
    /// The hook failed or was late.
    HookFailed,
    /// A data plane had not applied the table.
    NotApplied,
    /// An operator ended it.
    Operator,
    /// The previous move was not known everywhere.
    PreviousNotReleased,
    /// A hook of a leader that is gone could still run.
    HookMayRun,
    /// A fence had just been withdrawn.
    FenceWithdrawn,
    /// It was fenced as often as it may be.
    AttemptsUsedUp,
    /// A limit of a data plane did not fit the window.
    Limits,
}

impl From<BlockerReason> for Reason {
    fn from(reason: BlockerReason) -> Self {
        match reason {
            BlockerReason::Unspecified => Self::None,
            BlockerReason::DataPlaneSilent => Self::DataPlaneSilent,
            BlockerReason::EntryRejected => Self::EntryRejected,
            BlockerReason::DestinationUnreachable => Self::DestinationUnreachable,
            BlockerReason::Settling => Self::Settling,
            BlockerReason::FenceBudget => Self::FenceBudget,
            BlockerReason::Rewound => Self::Rewound,
            BlockerReason::NoLeader => Self::NoLeader,
            BlockerReason::NoDataPlane => Self::NoDataPlane,
            BlockerReason::NotDrained => Self::NotDrained,
            BlockerReason::CloseUnconfirmed => Self::CloseUnconfirmed,
            BlockerReason::HookFailed => Self::HookFailed,
            BlockerReason::NotApplied => Self::NotApplied,
            BlockerReason::Operator => Self::Operator,
            BlockerReason::PreviousNotReleased => Self::PreviousNotReleased,
            BlockerReason::HookMayRun => Self::HookMayRun,
            BlockerReason::FenceWithdrawn => Self::FenceWithdrawn,
            BlockerReason::AttemptsUsedUp => Self::AttemptsUsedUp,
            BlockerReason::Limits => Self::Limits,
        }
    }
}

/// What the store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Operation {
    /// One key.
    Get,
    /// Keys of a prefix.
    Range,
    /// A guarded write.
    Transact,
    /// To tell what happens; the beginning of it.
    Watch,
    /// Its present revision.
    Revision,
    /// A lease.
    Grant,
    /// To let a lease live on.
    KeepAlive,
    /// To end a lease.
    Revoke,
    /// To forget its history.
    Compact,
}

/// How the store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum StoreAnswer {
    /// As it should.
    Ok,
    /// A guard did not hold.
    Conflict,
    /// It cannot serve now.
    Unavailable,
    /// Nobody knows whether the write happened.
    UnknownOutcome,
    /// The history that was asked for is gone.
    Compacted,
    /// It has not come so far.
    Future,
    /// Too much for it.
    TooLarge,
    /// A mistake of ours.
    Malformed,
    /// The lease has ended.
    LeaseLost,
    /// It does not accept our credentials.
    Denied,
    /// It cannot be read.
    Corrupt,
    /// It was closed.
    Closed,
}

/// Steps of moves.
pub static STEPS: Instrument = Instrument {
    name: "ferrypost.controlplane.migration.steps",
    unit: "{step}",
    kind: Kind::Counter,
    description: "Steps of moves that this replica has written as the leader.",
    attributes: &[Attribute {
        name: "step",
        values: Values::Words(Step::VARIANTS),
    }],
};

/// Moves.
pub static MIGRATIONS: Instrument = Instrument {
    name: "ferrypost.controlplane.migrations",
    unit: "{migration}",
    kind: Kind::Counter,
    description: "Moves that this replica has flipped or aborted as the leader, and the first reason of an abort.",
    attributes: &[
        Attribute {
            name: "outcome",
            values: Values::Words(Outcome::VARIANTS),
        },
        Attribute {
            name: "reason",
            values: Values::Words(Reason::VARIANTS),
        },
    ],
};

/// Held windows.
pub static HELD: Instrument = Instrument {
    name: "ferrypost.controlplane.migration.held",
    unit: "s",
    // The window is 20 s unless it is configured; a delta hook takes most of it.
    kind: Kind::Histogram(&[50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000, 20_000]),
    description: "How long the logins of an account were held, from the fence to the flip, in moves that this replica \
                  has driven from one to the other.",
    attributes: &[],
};

/// The store.
pub static STORE: Instrument = Instrument {
    name: "ferrypost.controlplane.store.operation.duration",
    unit: "s",
    kind: Kind::Histogram(&[1, 5, 10, 25, 50, 100, 250, 1000, 5000]),
    description: "How long the store took to answer, by what it was asked and what it answered.",
    attributes: &[
        Attribute {
            name: "operation",
            values: Values::Words(Operation::VARIANTS),
        },
        Attribute {
            name: "answer",
            values: Values::Words(StoreAnswer::VARIANTS),
        },
    ],
};

/// All of them.
pub const TABLE: &[&Instrument] = &[&STEPS, &MIGRATIONS, &HELD, &STORE];

/// Counts a step that was written.
pub fn count_step(metrics: &Metrics, step: Step) {
    metrics.counter(&STEPS, &[step.into_str()]).add(1);
}

/// Counts a move that has ended so.
pub fn count_end(metrics: &Metrics, outcome: Outcome, reason: Reason) {
    let values = [outcome.into_str(), reason.into_str()];
    metrics.counter(&MIGRATIONS, &values).add(1);
}
