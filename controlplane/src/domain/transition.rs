//! What each step of a move writes, and under which guards.
//!
//! The record of every account of the set, the migration and the head change in one transaction. Every
//! transaction is guarded by the records' epochs, by the leader's fencing token and by the store not being
//! `rewound`; so of two leaders, and of flip and abort, exactly one comes through (G9).

use std::time::Duration;

use ferrypost_proto::{
    AccountId, DestinationId, MigrationId, Phase,
    store::v1::MigrationRecord,
    v1::{self, Blocker, FenceEnd},
};
use ferrypost_runtime::Random;

use super::{
    commit::RoutingChange,
    drain::{self, Fence},
    evidence::{Notes, Writing},
    fence,
    migration::{Observed, is_transition, state_in},
    placement::Placement,
    unsettled::unsettled,
};
use crate::{
    domain::state::{State, Versioned, has_ended},
    kv::{Rev, Txn, keys, value::Stored},
};

/// Most drained reports that are removed with a transition; the leader's sweep takes the rest.
const REMOVED_REPORTS: usize = 64;

/// A move that is under way, as the state has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// Its id.
    pub id: MigrationId,
    /// Request, outcome and times.
    pub migration: Versioned<MigrationRecord>,
    /// The records of its accounts. Empty when they belong to another move by now.
    pub placements: Vec<Placement>,
}

/// Why there is nothing to drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDriven {
    /// It has ended, or there is no such migration.
    #[error("the migration is over")]
    Over,
    /// A record of another version: it must not be touched.
    #[error("a record of the migration cannot be read")]
    Unreadable,
}

impl Move {
    /// A move with the records that are its own.
    pub fn of(state: &State, id: &MigrationId) -> Result<Self, NotDriven> {
        let migration = state
            .migration(id)
            .filter(|migration| !has_ended(&migration.value))
            .ok_or(NotDriven::Over)?;
        let mut placements = Vec::new();
        for account in &migration.value.accounts {
            let account =
                AccountId::parse(&account.account_id).map_err(|_| NotDriven::Unreadable)?;
            let Some(account) = state.account(&account) else {
                continue;
            };
            let placement = account.placement().ok_or(NotDriven::Unreadable)?;
            if placement.migration_id.as_ref() == Some(id) {
                placements.push(placement.clone());
            }
        }
        // A set moves as one, so a part of it is no move.
        if placements.len() != migration.value.accounts.len() {
            placements.clear();
        }
        Ok(Self {
            id: id.clone(),
            migration: (**migration).clone(),
            placements,
        })
    }

    /// Where it stands: the records' phase, which is one.
    pub fn phase(&self) -> Phase {
        self.placements
            .first()
            .map_or(Phase::Settled, |placement| placement.phase)
    }

    /// The highest epoch of its records.
    pub fn epoch(&self) -> Rev {
        let epochs = self.placements.iter().map(|placement| placement.epoch);
        epochs.max().unwrap_or_default()
    }

    /// Its accounts.
    pub fn accounts(&self) -> Vec<AccountId> {
        let accounts = self.placements.iter();
        accounts
            .map(|placement| placement.account.clone())
            .collect()
    }

    /// Its fences, in the held window.
    pub fn fences(&self) -> Vec<Fence> {
        self.placements
            .iter()
            .filter_map(|placement| Some((placement.account.clone(), placement.fence()?)))
            .collect()
    }

    /// How long its held window may last.
    pub fn window(&self) -> Duration {
        let windows = self.placements.iter().map(|placement| placement.window);
        windows.min().unwrap_or_default()
    }

    /// The deadline under which a hook was last started, as long as it may run.
    pub fn hook_deadline(&self) -> Option<Duration> {
        let deadline = self.migration.value.hook_deadline?;
        Duration::try_from(deadline).ok()
    }

    /// How often it was fenced.
    pub fn attempts(&self) -> u32 {
        self.migration.value.attempts
    }
}

/// What all transitions of one leader are written with.
#[derive(Debug, Clone, Copy)]
pub struct TransitionWriter<'a> {
    /// For nonces.
    pub random: &'a Random,
    /// The leader's fencing token.
    pub token: Rev,
    /// For people.
    pub now: prost_types::Timestamp,
    /// What the leader has seen of the move and not written yet.
    pub notes: &'a Notes,
}

impl TransitionWriter<'_> {
    /// COPYING → FENCING. No data plane may have come or gone since the state was looked at, and no hook of an
    /// earlier fence may run any more.
    pub fn fence(self, state: &State, of: &Move) -> Txn {
        let trace = of.migration.value.traceparent.parse().ok().map(Box::new);
        let next = Self::advance(of, Phase::Fencing, |placement| {
            placement.fence_epoch = None;
            placement.trace.clone_from(&trace);
        });
        let change = self.write(of, &next, |migration| {
            migration.blockers.clear();
            migration.attempts += 1;
            migration.hook_deadline = None;
            self.evidence(migration).waits();
        });
        change.fleet(state.fleet()).txn()
    }

    /// FENCING → QUIESCED, on the reports that were looked at.
    pub fn quiesce(self, state: &State, of: &Move) -> Txn {
        let next = Self::advance(of, Phase::Quiesced, keep_fence);
        guard_drained(self.write(of, &next, |_| {}), state, of).txn()
    }

    /// → DELTA, with the deadline under which the hook is going to be started.
    pub fn run_hook(self, of: &Move, deadline: Duration) -> Txn {
        let next = Self::advance(of, Phase::Delta, keep_fence);
        self.write(of, &next, |migration| {
            migration.hook_deadline = prost_types::Duration::try_from(deadline).ok();
            migration.hook_runs += 1;
        })
        .txn()
    }

    /// → FLIPPED: the one write that changes where the accounts' names go.
    pub fn flip(self, state: &State, of: &Move) -> Txn {
        let next = Self::advance(of, Phase::Flipped, |placement| {
            if let Some(target) = placement.target.take() {
                placement.previous_home = Some(std::mem::replace(&mut placement.home, target));
            }
            end_fence(placement);
        });
        let change = self.write(of, &next, |migration| {
            let held = self.notes.after;
            migration.held = held.and_then(|held| prost_types::Duration::try_from(held).ok());
            migration.hook_deadline = None;
            self.evidence(migration).end(state, of, FenceEnd::Flipped);
        });
        guard_drained(change, state, of).txn()
    }

    /// → COPYING: the fence of a leader that is gone is over, and the accounts are served where they live. Its
    /// hook may still run, so its deadline stays.
    pub fn withdraw(self, state: &State, of: &Move) -> Txn {
        let next = Self::advance(of, Phase::Copying, end_fence);
        let change = self.write(of, &next, |migration| {
            self.evidence(migration).end(state, of, FenceEnd::Withdrawn);
        });
        remove_reports(change, state, of).txn()
    }

    /// FLIPPED → RELEASED.
    pub fn release(self, of: &Move) -> Txn {
        let next = Self::advance(of, Phase::Released, |_| {});
        self.write(of, &next, |_| {}).txn()
    }

    /// RELEASED → SETTLED, at the new home.
    pub fn settle(self, state: &State, of: &Move) -> Txn {
        let next = Self::advance(of, Phase::Settled, |_| {});
        let change = self.write(of, &next, |migration| migration.ended_at = Some(self.now));
        remove_reports(change, state, of).txn()
    }

    /// → SETTLED, at the old home.
    pub fn abort(self, state: &State, of: &Move, why: Vec<Blocker>) -> Txn {
        let next = Self::advance(of, Phase::Settled, |placement| {
            placement.target = None;
            end_fence(placement);
        });
        let change = self.write(of, &next, |migration| {
            migration.state = v1::MigrationState::Aborted.into();
            migration.abort_cause = Some(v1::AbortCause {
                phase: v1::Phase::from(of.phase()).into(),
                blockers: why,
            });
            migration.ended_at = Some(self.now);
            migration.hook_deadline = None;
            migration.blockers.clear();
            let mut evidence = self.evidence(migration);
            evidence.waits();
            if of.phase().is_fenced() {
                evidence.end(state, of, FenceEnd::Aborted);
            }
        });
        remove_reports(change, state, of).txn()
    }

    /// Shows what a waiting move waits for. No routing changes.
    pub fn show(self, of: &Move, blockers: Vec<Blocker>) -> Txn {
        let mut migration = of.migration.value.clone();
        migration.blockers = blockers;
        self.evidence(&mut migration).waits();
        self.write_migration(of, &migration)
    }

    /// Ends a migration whose records have gone on without it: the next move began before the last
    /// bookkeeping of this one was done.
    pub fn finish(self, of: &Move) -> Txn {
        let mut migration = of.migration.value.clone();
        let flipped = migration.state() == v1::MigrationState::Succeeded;
        if !flipped {
            migration.state = v1::MigrationState::Aborted.into();
            migration.abort_cause = Some(v1::AbortCause {
                phase: migration.phase,
                blockers: Vec::new(),
            });
        }
        migration.phase = v1::Phase::Settled.into();
        migration.ended_at = Some(self.now);
        self.write_migration(of, &migration)
    }

    fn evidence<'m>(self, migration: &'m mut MigrationRecord) -> Writing<'m>
    where
        Self: 'm,
    {
        let first = migration.evidence.is_none();
        let mut writing = Writing {
            evidence: migration.evidence.get_or_insert_default(),
            notes: self.notes,
            now: self.now,
        };
        if first {
            writing.queued(migration.requested_at);
        }
        writing
    }

    fn write_migration(self, of: &Move, migration: &Stored<MigrationRecord>) -> Txn {
        let key = keys::migration(&of.id);
        Txn::new()
            .absent(keys::REWOUND)
            .at(keys::LEADER, self.token)
            .at(key.clone(), of.migration.revision)
            .put(key, migration.bytes())
    }

    fn advance(of: &Move, to: Phase, change: impl Fn(&mut Placement)) -> Vec<Placement> {
        let mut next = of.placements.clone();
        for placement in &mut next {
            assert!(
                is_transition(placement.phase, to),
                "a move keeps to its matrix"
            );
            change(placement);
            placement.phase = to;
        }
        next
    }

    fn write(
        self,
        of: &Move,
        next: &[Placement],
        change: impl FnOnce(&mut MigrationRecord),
    ) -> RoutingChange {
        let mut migration = of.migration.value.clone();
        if let Some(placement) = next.first() {
            migration.phase = v1::Phase::from(placement.phase).into();
            migration.state = state_in(placement.phase).into();
            self.evidence(&mut migration).phase(placement.phase);
        }
        change(&mut migration);
        let start = RoutingChange::new(self.random).led(self.token);
        next.iter().fold(start, RoutingChange::record).migration(
            &of.id,
            &migration,
            of.migration.revision,
        )
    }
}

/// After the FENCING write the fence keeps that write's epoch, whatever the record's own becomes.
fn keep_fence(placement: &mut Placement) {
    placement.fence_epoch = placement.fence();
}

fn end_fence(placement: &mut Placement) {
    placement.fence_epoch = None;
    placement.trace = None;
}

fn guard_drained(change: RoutingChange, state: &State, of: &Move) -> RoutingChange {
    let change = change.fleet(state.fleet());
    drain::drained_keys(state, &of.id)
        .into_iter()
        .fold(change, |change, (key, revision)| change.at(key, revision))
}

fn remove_reports(change: RoutingChange, state: &State, of: &Move) -> RoutingChange {
    let reports = state.drained(&of.id).into_iter().flatten();
    reports
        .take(REMOVED_REPORTS)
        .fold(change, |change, (instance, _)| {
            change.with(|txn| txn.delete(keys::drained(&of.id, instance)))
        })
}

/// The facts about a move that the state holds; the rest is the leader's own to say.
pub fn observe(state: &State, of: &Move, budget: usize) -> Observed {
    let migration = &of.migration.value;
    let side = |id: Option<&DestinationId>, or: &str| {
        id.map_or_else(|| or.to_owned(), |id| id.as_str().to_owned())
    };
    let first = of.placements.first();
    let prospect = fence::Prospect {
        accounts: &of.accounts(),
        source: &side(first.map(|p| &p.home), &migration.source),
        target: &side(first.and_then(|p| p.target.as_ref()), &migration.target),
        written: of.epoch(),
        budget,
        window: of.window(),
    };
    let copying = of.phase() == Phase::Copying;
    Observed {
        rewound: state.rewound().is_some(),
        superseded: of.placements.is_empty(),
        abort_requested: (!migration.abort_requested_by.is_empty()).then(|| operator(migration)),
        inherited: false,
        hook_may_run: None,
        attempts_used_up: None,
        before_fence: if copying {
            fence::before_fence(state, &prospect)
        } else {
            Vec::new()
        },
        drain: drain::drain(state, &of.id, &of.fences()),
        unsettled: unsettled(state),
        settles_late: false,
        window_over: false,
        hook: super::migration::Hook::None,
        unapplied: drain::unapplied(state, of.epoch()).next().is_some(),
    }
}

fn operator(migration: &MigrationRecord) -> Blocker {
    let message = match migration.abort_reason.as_str() {
        "" => "an operator ended the move".to_owned(),
        reason => format!("an operator ended the move: {reason}"),
    };
    super::migration::blocker(
        v1::BlockerReason::Operator,
        &migration.abort_requested_by,
        message,
    )
}
