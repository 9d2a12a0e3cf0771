//! A migration as operators see it.

use ferrypost_proto::{
    AccountId, MigrationId, Revision,
    store::v1::{DrainedReport, MigrationRecord},
    v1::{self, MigrationState, Phase},
};

use super::MigrationUseCases;
use crate::domain::{
    drain::Fence,
    fence,
    migration::next_calls,
    queue,
    state::{State, Versioned},
    transition::Move,
};

impl MigrationUseCases {
    /// The migration, if the mirror keeps it.
    pub(super) fn shown(&self, state: &State, id: &MigrationId) -> Option<v1::Migration> {
        let record = state.migration(id)?;
        Some(self.show(state, id, record))
    }

    /// The migration as its record and the fleet have it.
    pub(super) fn show(
        &self,
        state: &State,
        id: &MigrationId,
        record: &Versioned<MigrationRecord>,
    ) -> v1::Migration {
        of_record(state, id, record, self.core.migrations.fence_budget)
    }
}

fn of_record(
    state: &State,
    id: &MigrationId,
    record: &Versioned<MigrationRecord>,
    budget: usize,
) -> v1::Migration {
    let stored = &record.value;
    v1::Migration {
        migration_id: id.as_str().to_owned(),
        kind: stored.kind,
        accounts: stored.accounts.clone(),
        source: stored.source.clone(),
        target: stored.target.clone(),
        state: stored.state,
        phase: stored.phase,
        next_calls: next_calls(stored.state(), stored.phase(), is_latest(state, id, stored))
            .iter()
            .map(|call| (*call).to_owned())
            .collect(),
        blockers: blockers(state, stored, budget),
        abort_cause: stored.abort_cause.clone(),
        residual_risks: stored.residual_risks.clone(),
        request_id: stored.request_id.clone(),
        requested_by: stored.requested_by.clone(),
        reason: stored.reason.clone(),
        requested_at: stored.requested_at,
        ended_at: stored.ended_at,
        held: stored.held,
        data_planes: progress(state, id, record),
        traceparent: stored.traceparent.clone(),
        attempts: stored.attempts,
        evidence: stored.evidence.clone(),
        labels: stored.labels.clone(),
    }
}

/// Whether it is the last move of its accounts.
fn is_latest(state: &State, id: &MigrationId, record: &MigrationRecord) -> bool {
    record.accounts.iter().all(|account| {
        AccountId::parse(&account.account_id)
            .ok()
            .and_then(|account| state.account(&account))
            .and_then(|account| account.placement())
            .is_some_and(|placement| placement.migration_id.as_ref() == Some(id))
    })
}

/// What stands in the way, of a move that waits for its fence as of this very state.
fn blockers(state: &State, record: &MigrationRecord, budget: usize) -> Vec<v1::Blocker> {
    match record.state() {
        MigrationState::Queued if record.abort_requested_by.is_empty() => {
            queue::waits_for(state, record, budget)
        }
        MigrationState::Queued | MigrationState::Running => {
            let mut blockers = record.blockers.clone();
            add(&mut blockers, fence::everywhere(state));
            blockers
        }
        _ => Vec::new(),
    }
}

/// Adds those whose reasons are not there yet.
fn add(blockers: &mut Vec<v1::Blocker>, more: Vec<v1::Blocker>) {
    for blocker in more {
        let same = |known: &v1::Blocker| known.reason() == blocker.reason();
        if !blockers.iter().any(same) {
            blockers.push(blocker);
        }
    }
}

/// What the data planes have done, while the fence or the release of the flip is not over.
fn progress(
    state: &State,
    id: &MigrationId,
    record: &Versioned<MigrationRecord>,
) -> Vec<v1::DataPlaneProgress> {
    let phase = record.value.phase();
    let flipped = phase == Phase::Flipped;
    let fenced = matches!(
        phase,
        Phase::Fencing | Phase::Quiesced | Phase::Delta | Phase::Verified
    );
    if !flipped && !fenced {
        return Vec::new();
    }
    let flip = Revision::new(state.base(), record.revision);
    let of_move = Move::of(state, id).map_or_else(|_| Vec::new(), |of| of.fences());
    state
        .registrations()
        .iter()
        .map(|(instance, registration)| {
            let report = state
                .drained(id)
                .and_then(|reports| reports.get(instance))
                .filter(|report| report.value.boot == registration.value.boot);
            let applied = state
                .live()
                .get(instance)
                .and_then(|live| live.value.applied)
                .map(Revision::from);
            v1::DataPlaneProgress {
                instance: instance.as_str().to_owned(),
                drained: flipped
                    || report.is_some_and(|report| is_drained(&report.value, &of_move)),
                sessions_left: report.map_or(0, |report| sessions_left(&report.value)),
                applied_flip: flipped && applied.is_some_and(|applied| applied >= flip),
            }
        })
        .collect()
}

/// Whether a report says so of these very fences.
fn is_drained(report: &DrainedReport, fences: &[Fence]) -> bool {
    let is_said = |(account, epoch): &Fence| {
        let mut said = report.accounts.iter();
        said.any(|said| said.account_id == account.as_str() && said.fence_epoch == *epoch)
    };
    !fences.is_empty() && fences.iter().all(is_said)
}

fn sessions_left(report: &DrainedReport) -> u32 {
    report
        .accounts
        .iter()
        .map(|account| account.sessions_left)
        .sum()
}
