//! What the installation's state says about a fence: whether it may begin, whether it is complete, and
//! whether everybody knows that it is over.

use std::collections::HashSet;

use ferrypost_proto::{
    AccountId, BootId, InstanceId, MigrationId, Revision,
    store::v1::{DrainedReport, Live, LiveEndpoint, LiveRejectedEndpoint, Registration},
    v1::{Blocker, BlockerReason},
};

use super::migration::{Drain, blocker};
use crate::{
    domain::state::{State, Versioned},
    kv::{Rev, keys},
};

/// Most drained reports that a transaction can guard on beside everything else. In a larger fleet the
/// rest rests on the revision of the fleet: a report of a boot for a fence never becomes undone, and a new
/// boot is a change of the fleet.
const GUARDED_REPORTS: usize = 96;

/// A move before its fence.
#[derive(Debug, Clone, Copy)]
pub struct Prospect<'a> {
    /// The accounts.
    pub accounts: &'a [AccountId],
    /// The destination that they leave.
    pub source: &'a str,
    /// The destination that they go to.
    pub target: &'a str,
    /// The revision at which the move was written; 0 for one that is only planned.
    pub written: Rev,
    /// Accounts that may be between FENCING and FLIPPED at once.
    pub budget: usize,
}

/// What stands in the way of a fence (G15); empty when it can be begun and finished.
pub fn before_fence(state: &State, prospect: &Prospect<'_>) -> Vec<Blocker> {
    Outlook::of(state, prospect.source, prospect.target).of_move(prospect)
}

/// What stands in the way of every fence, whatever it is for.
pub fn everywhere(state: &State) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    if state.rewound().is_some() {
        blockers.push(blocker(
            BlockerReason::Rewound,
            "",
            "the store was found restored to an older state",
        ));
    }
    if state.leader().is_none() {
        blockers.push(blocker(
            BlockerReason::NoLeader,
            "",
            "no replica of the control plane drives migrations now",
        ));
    }
    blockers
}

/// What a state says about all fences between two destinations: looked at once for all moves that wait for
/// them, however many those are.
#[derive(Debug)]
pub struct Outlook<'a> {
    state: &'a State,
    everywhere: Vec<Blocker>,
    planes: Vec<Plane<'a>>,
    unsettled: Vec<Blocker>,
}

/// What one registered data plane has said that bears on them.
#[derive(Debug)]
struct Plane<'a> {
    instance: &'a InstanceId,
    /// `None`: it does not answer.
    live: Option<&'a Live>,
    /// What it has against an endpoint of either destination.
    endpoints: Vec<Blocker>,
}

impl<'a> Outlook<'a> {
    /// Of the fences of moves from `source` to `target`.
    pub fn of(state: &'a State, source: &str, target: &str) -> Self {
        let planes = state
            .registrations()
            .iter()
            .map(|(instance, registration)| {
                let live = live(state, instance, registration);
                Plane {
                    instance,
                    live,
                    endpoints: live.map_or_else(Vec::new, |live| {
                        at_endpoints(instance, live, source, target)
                    }),
                }
            });
        Self {
            state,
            everywhere: everywhere(state),
            planes: planes.collect(),
            unsettled: unsettled(state),
        }
    }

    /// True if nothing stands in the way of all of them.
    pub fn is_clear(&self) -> bool {
        let may_fence = |plane: &Plane<'_>| plane.live.is_some() && plane.endpoints.is_empty();
        self.everywhere.is_empty()
            && self.unsettled.is_empty()
            && !self.planes.is_empty()
            && self.planes.iter().all(may_fence)
    }

    /// True if every data plane has applied what was written at `revision`.
    pub fn is_applied(&self, revision: Rev) -> bool {
        let applied = |live: &Live| has_applied(self.state, live, revision);
        self.planes
            .iter()
            .all(|plane| plane.live.is_some_and(applied))
    }

    /// The accounts whose entries a data plane rejects.
    pub fn rejected(&self) -> HashSet<&'a str> {
        let lives = self.planes.iter().filter_map(|plane| plane.live);
        lives
            .flat_map(|live| &live.rejected)
            .map(|rejected| rejected.account_id.as_str())
            .collect()
    }

    /// What stands in the way of one of them.
    fn of_move(&self, prospect: &Prospect<'_>) -> Vec<Blocker> {
        let mut blockers = self.everywhere.clone();
        if self.planes.is_empty() {
            blockers.push(blocker(
                BlockerReason::NoDataPlane,
                "",
                "no data plane is registered",
            ));
        }
        for plane in &self.planes {
            blockers.extend(plane.of_move(self.state, prospect));
        }
        blockers.extend(self.unsettled.iter().cloned());
        blockers.extend(over_budget(self.state, prospect));
        blockers
    }
}

impl Plane<'_> {
    fn of_move(&self, state: &State, prospect: &Prospect<'_>) -> Vec<Blocker> {
        let who = self.instance.as_str();
        let Some(live) = self.live else {
            return vec![blocker(
                BlockerReason::DataPlaneSilent,
                who,
                format!("{who} is registered and does not answer"),
            )];
        };
        let mut blockers = Vec::new();
        if !has_applied(state, live, prospect.written) {
            blockers.push(blocker(
                BlockerReason::NotApplied,
                who,
                format!("{who} has not applied the table that holds the move"),
            ));
        }
        for rejected in &live.rejected {
            let is_it = |id: &AccountId| id.as_str() == rejected.account_id;
            if prospect.accounts.iter().any(is_it) {
                blockers.push(blocker(
                    BlockerReason::EntryRejected,
                    who,
                    format!("{who} rejects the account's entry: {}", rejected.reason),
                ));
            }
        }
        blockers.extend(self.endpoints.iter().cloned());
        blockers
    }
}

/// The endpoints of both sides of a move that a data plane does not know, and those that it cannot reach.
fn at_endpoints(instance: &InstanceId, live: &Live, source: &str, target: &str) -> Vec<Blocker> {
    let is_side = |destination: &str| destination == source || destination == target;
    let unknown = live.rejected_endpoints.iter();
    let unknown = unknown.filter(|endpoint| is_side(&endpoint.destination));
    let unreachable = live
        .endpoints
        .iter()
        .filter(|endpoint| !endpoint.reachable && is_side(endpoint.destination.as_str()));
    unknown
        .map(|endpoint| does_not_know(instance, endpoint))
        .chain(unreachable.map(|endpoint| cannot_reach(instance, endpoint)))
        .collect()
}

fn does_not_know(instance: &InstanceId, endpoint: &LiveRejectedEndpoint) -> Blocker {
    blocker(
        BlockerReason::EntryRejected,
        instance.as_str(),
        format!(
            "{instance} is of a version that does not know {} of an endpoint of {}: upgrade it",
            endpoint.field, endpoint.destination
        ),
    )
}

fn cannot_reach(instance: &InstanceId, endpoint: &LiveEndpoint) -> Blocker {
    let destination = endpoint.destination.as_str();
    blocker(
        BlockerReason::DestinationUnreachable,
        destination,
        format!(
            "{instance} cannot reach {destination} by {}: {}",
            endpoint.protocol().word(),
            endpoint.problem
        ),
    )
}

/// What a data plane has said, if it is the boot that is registered.
fn live<'a>(
    state: &'a State,
    instance: &InstanceId,
    registration: &Versioned<Registration>,
) -> Option<&'a Live> {
    let live = state.live().get(instance)?;
    (live.value.boot == registration.value.boot).then_some(&*live.value)
}

fn has_applied(state: &State, live: &Live, revision: Rev) -> bool {
    let applied = live.applied.map(Revision::from).unwrap_or_default();
    applied >= Revision::new(state.base(), revision) || revision == 0
}

fn over_budget(state: &State, prospect: &Prospect<'_>) -> Option<Blocker> {
    let fenced = state.counts().fenced();
    let wanted = fenced + prospect.accounts.len() as u64;
    // A set that is larger than the budget may move when it is alone. The text does not change with
    // the count, or every waiting move would be written again at each fence.
    (fenced > 0 && wanted > prospect.budget as u64).then(|| {
        blocker(
            BlockerReason::FenceBudget,
            "",
            format!(
                "no more than {} accounts may be fenced at once",
                prospect.budget
            ),
        )
    })
}

/// A data plane that ended, or was taken over, without anybody having seen its backends' close.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unsettled {
    /// A registration that succeeded another boot.
    Succession(InstanceId),
    /// A goodbye with unconfirmed closes.
    Departure(InstanceId, BootId),
    /// An operator's word.
    Expulsion(InstanceId, BootId),
}

impl Unsettled {
    /// The data plane.
    pub fn instance(&self) -> &InstanceId {
        let (Self::Succession(instance)
        | Self::Departure(instance, _)
        | Self::Expulsion(instance, _)) = self;
        instance
    }
}

/// All of them, with the revision of the key that says so.
pub fn unsettled_ends(state: &State) -> Vec<(Unsettled, Rev)> {
    let successions = state
        .registrations()
        .iter()
        .filter(|(_, registration)| !registration.value.unsettled_predecessor.is_empty())
        .map(|(instance, registration)| {
            (
                Unsettled::Succession(instance.clone()),
                registration.revision,
            )
        });
    let departures = state.departed().iter().map(|((instance, boot), departed)| {
        (
            Unsettled::Departure(instance.clone(), boot.clone()),
            departed.revision,
        )
    });
    let expulsions = state
        .expelled()
        .iter()
        .filter(|(_, expelled)| !expelled.value.settled)
        .map(|((instance, boot), expelled)| {
            (
                Unsettled::Expulsion(instance.clone(), boot.clone()),
                expelled.revision,
            )
        });
    successions.chain(departures).chain(expulsions).collect()
}

/// The same, as blockers.
pub fn unsettled(state: &State) -> Vec<Blocker> {
    unsettled_ends(state)
        .into_iter()
        .map(|(end, _)| {
            let who = end.instance().as_str();
            let how = match end {
                Unsettled::Succession(_) => "was restarted after an end that nobody saw",
                Unsettled::Departure(..) => "left without seeing all its servers' closes",
                Unsettled::Expulsion(..) => "was expelled",
            };
            blocker(
                BlockerReason::Settling,
                who,
                format!("{who} {how}; its servers may still be finishing"),
            )
        })
        .collect()
}

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
                    format!("{who} still has {sessions} sessions of the account"),
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
