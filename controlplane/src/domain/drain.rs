//! Whether a fence is complete, and whether everybody knows that it is over.

use ferrypost_proto::{
    AccountId, InstanceId, MigrationId, store::v1::DrainedReport, v1::BlockerReason,
};

use super::{
    fence::{has_applied, live},
    migration::{Drain, blocker},
};
use crate::{
    domain::state::{State, Versioned},
    kv::{Rev, keys},
};

/// Most drained reports that a transaction can guard on beside everything else. In a larger fleet the
/// rest rests on the revision of the fleet: a report of a boot for a fence never becomes undone, and a new
/// boot is a change of the fleet.
const GUARDED_REPORTS: usize = 96;

/// An account and the epoch of its fence.
pub type Fence = (AccountId, Rev);

/// Whether every registered data plane has reported the fences drained, under the boot that is registered
/// now.
///
/// What was reported under an earlier leader may come out of a backup, and then be about sessions of another
/// history. So it counts only beside a sign of life: those end with the store's process or their lease, and
/// are not written again before the data plane's table has been compared with the store (rule 11).
pub fn drain(state: &State, migration: &MigrationId, fences: &[Fence]) -> Drain {
    let (mut waiting, mut unconfirmed) = (Vec::new(), Vec::new());
    for (instance, registration) in state.registrations() {
        let who = instance.as_str();
        let report = report(state, migration, instance)
            .filter(|report| report.value.boot == registration.value.boot);
        if report.is_some_and(|report| is_inherited(state, report))
            && live(state, instance, registration).is_none()
        {
            waiting.push(blocker(
                BlockerReason::DataPlaneSilent,
                who,
                format!("{who} has not answered since the present leader began"),
            ));
            continue;
        }
        let is_heard = live(state, instance, registration).is_some();
        for fence in fences {
            match of_account(report, fence) {
                Said::Drained => {}
                Said::Unconfirmed(sessions) => unconfirmed.push(blocker(
                    BlockerReason::CloseUnconfirmed,
                    who,
                    format!("{who} closed {sessions} sessions whose server it did not see close"),
                )),
                Said::Nothing => waiting.push(blocker(
                    BlockerReason::NotDrained,
                    who,
                    format!("{who} has not reported the account drained"),
                )),
                Said::Left(sessions) => waiting.push(blocker(
                    BlockerReason::NotDrained,
                    who,
                    if is_heard {
                        format!("{who} still has {sessions} sessions of the account")
                    } else {
                        format!(
                            "{who} had {sessions} sessions of the account when it was heard last, and does not answer"
                        )
                    },
                )),
            }
        }
    }
    if !unconfirmed.is_empty() {
        Drain::Unconfirmed(unconfirmed)
    } else if !waiting.is_empty() {
        Drain::Waiting(waiting)
    } else {
        Drain::Complete
    }
}

/// Whether a report was written before the present leader began.
fn is_inherited(state: &State, report: &Versioned<DrainedReport>) -> bool {
    state
        .leader()
        .is_none_or(|(_, token)| report.revision < token)
}

/// What a data plane has said about one fence.
enum Said {
    Nothing,
    Left(u32),
    Unconfirmed(u32),
    Drained,
}

fn of_account(report: Option<&Versioned<DrainedReport>>, (account, fence): &Fence) -> Said {
    let said = report.and_then(|report| {
        report
            .value
            .accounts
            .iter()
            .find(|said| said.account_id == account.as_str())
    });
    match said {
        Some(said) if said.fence_epoch == *fence && said.unconfirmed > 0 => {
            Said::Unconfirmed(said.unconfirmed)
        }
        Some(said) if said.fence_epoch == *fence => Said::Drained,
        Some(said) if said.fence_epoch == 0 && said.sessions_left > 0 => {
            Said::Left(said.sessions_left)
        }
        _ => Said::Nothing,
    }
}

fn report<'a>(
    state: &'a State,
    migration: &MigrationId,
    instance: &InstanceId,
) -> Option<&'a Versioned<DrainedReport>> {
    state
        .drained(migration)?
        .get(instance)
        .map(|report| &**report)
}

/// The keys of the reports that [`drain`] has looked at, with their revisions: what a flip guards on.
pub fn drained_keys(state: &State, migration: &MigrationId) -> Vec<(Vec<u8>, Rev)> {
    state
        .registrations()
        .keys()
        .filter_map(|instance| {
            let report = report(state, migration, instance)?;
            Some((keys::drained(migration, instance), report.revision))
        })
        .take(GUARDED_REPORTS)
        .collect()
}

/// The registered data planes that have not applied the table of `revision`, as far as anybody knows.
pub fn unapplied(state: &State, revision: Rev) -> impl Iterator<Item = &InstanceId> {
    state
        .registrations()
        .iter()
        .filter(move |(instance, registration)| {
            !live(state, instance, registration)
                .is_some_and(|live| has_applied(state, live, revision))
        })
        .map(|(instance, _)| instance)
}
