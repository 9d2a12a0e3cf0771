//! Whether a fence may begin: what the installation's state says is in its way (G15).

use std::{collections::HashSet, time::Duration};

use ferrypost_proto::{
    AccountId, InstanceId, Revision,
    store::v1::{Live, LiveEndpoint, LiveRejectedEndpoint, Registration},
    v1::{Blocker, BlockerReason},
};

use super::{limits::DataPlaneLimits, migration::blocker, unsettled::unsettled};
use crate::{
    domain::state::{State, Versioned},
    kv::Rev,
};

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
    /// How long its held window may last.
    pub window: Duration,
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
    /// How long it holds and closes; `None`: it does not say.
    limits: Option<DataPlaneLimits>,
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
                    limits: DataPlaneLimits::of(&registration.value),
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

    /// True if a fence of this window ends within it, whatever sessions there are.
    pub fn fits(&self, window: Duration) -> bool {
        let too_tight =
            |plane: &Plane<'_>| DataPlaneLimits::against(plane.limits, plane.instance, window);
        self.planes.iter().all(|plane| too_tight(plane).is_none())
    }

    /// The accounts that a data plane stands in the way of: it rejects their entries, or has lost sight of their
    /// sessions lately.
    pub fn held_back(&self) -> HeldBack<'a> {
        let lives = || self.planes.iter().filter_map(|plane| plane.live);
        let rejected = lives().flat_map(|live| &live.rejected);
        let unsettled = lives().flat_map(|live| &live.unsettled);
        HeldBack {
            all: lives().any(|live| live.unsettled_more),
            accounts: rejected
                .map(|rejected| rejected.account_id.as_str())
                .chain(unsettled.map(String::as_str))
                .collect(),
        }
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

/// Accounts that are not to be fenced now.
#[derive(Debug)]
pub struct HeldBack<'a> {
    /// Every one.
    all: bool,
    accounts: HashSet<&'a str>,
}

impl HeldBack<'_> {
    /// Whether it is one of them.
    pub fn contains(&self, account: &AccountId) -> bool {
        self.all || self.accounts.contains(account.as_str())
    }
}

impl Plane<'_> {
    fn of_move(&self, state: &State, prospect: &Prospect<'_>) -> Vec<Blocker> {
        let who = self.instance.as_str();
        let Some(live) = self.live else {
            let refused = state.claims().get(self.instance);
            let why = refused.map_or_else(String::new, |claim| {
                format!(
                    "; a process that asks for its place is refused: {}",
                    claim.value.why
                )
            });
            return vec![blocker(
                BlockerReason::DataPlaneSilent,
                who,
                format!("{who} is registered and does not answer{why}"),
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
        blockers.extend(lost_sight_of(self.instance, live, prospect.accounts));
        blockers.extend(DataPlaneLimits::against(
            self.limits,
            self.instance,
            prospect.window,
        ));
        blockers
    }
}

/// Sessions that ended a moment ago, of servers that may still be at work: a fence that counts them comes to
/// nothing.
fn lost_sight_of(instance: &InstanceId, live: &Live, accounts: &[AccountId]) -> Option<Blocker> {
    let is_named = |id: &AccountId| live.unsettled.iter().any(|named| named == id.as_str());
    let message = if accounts.iter().any(is_named) {
        format!(
            "{instance} has lately closed sessions of the account whose server it did not see close: that \
             server may still be at work"
        )
    } else if live.unsettled_more {
        format!(
            "{instance} has lately closed sessions of more accounts than it can name, whose servers it did \
             not see close"
        )
    } else {
        return None;
    };
    Some(blocker(
        BlockerReason::CloseUnconfirmed,
        instance.as_str(),
        message,
    ))
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
pub(super) fn live<'a>(
    state: &'a State,
    instance: &InstanceId,
    registration: &Versioned<Registration>,
) -> Option<&'a Live> {
    let live = state.live().get(instance)?;
    (live.value.boot == registration.value.boot).then_some(&*live.value)
}

pub(super) fn has_applied(state: &State, live: &Live, revision: Rev) -> bool {
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
