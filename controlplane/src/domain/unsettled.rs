//! Ends of data planes whose backends' close nobody saw: fences wait until a leader has waited their settle time.

use ferrypost_proto::{
    BootId, InstanceId,
    v1::{Blocker, BlockerReason},
};

use super::{migration::blocker, state::State};
use crate::kv::Rev;

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
