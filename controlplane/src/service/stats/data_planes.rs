//! The data planes and what they say about the destinations.

use std::collections::BTreeMap;

use ferrypost_proto::{InstanceId, MigrationId, Revision, Versions, store::v1 as stored, v1};
use strum::{IntoStaticStr, VariantNames};

use super::{FleetAnswer, StatsUseCases};
use crate::{
    domain::state::{State, Versioned},
    fleet::View,
    refusal::Answer,
    service::routing,
};

/// How a registered data plane stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum DataPlaneStanding {
    /// It has what it should have.
    Synced,
    /// It is behind.
    Stale,
    /// It has no table yet.
    NotSent,
    /// It has rejected something.
    Error,
    /// It is not connected.
    Silent,
}

impl StatsUseCases {
    /// How each registered data plane stands, as this replica knows it without asking.
    pub fn standings(&self, state: &State) -> Vec<DataPlaneStanding> {
        let views = self.fleet.views();
        let registrations = state.registrations().iter();
        registrations
            .map(|(instance, registration)| {
                let view = views.get(instance);
                let view = view.filter(|view| view.boot == registration.value.boot);
                standing(state, live(state, instance, registration), view)
            })
            .collect()
    }

    /// Every registered data plane.
    ///
    /// # Errors
    /// When this replica has loaded nothing yet.
    pub async fn data_planes(&self) -> Answer<FleetAnswer<Vec<v1::DataPlane>>> {
        self.core.present()?;
        let (counts, unreachable) = self.count().await;
        // Read after the answers are in, so that what they followed from shows too.
        let state = self.core.present()?;
        let views = self.fleet.views();
        let settle = self.core.migrations.settle;
        let answer = state
            .registrations()
            .iter()
            .map(|(instance, registration)| {
                let view = views
                    .get(instance)
                    .filter(|view| view.boot == registration.value.boot);
                let mut shown = data_plane(&state, instance, registration, view);
                let counted = counts.get(instance).copied().unwrap_or_default();
                shown.sessions = counted.sessions;
                shown.held_logins = counted.held_logins;
                let unsettled = !registration.value.unsettled_predecessor.is_empty();
                shown.settling = unsettled
                    .then(|| prost_types::Duration::try_from(settle).ok())
                    .flatten();
                shown
            })
            .collect();
        Ok(FleetAnswer {
            state,
            unreachable,
            answer,
        })
    }

    /// Every destination with each connected data plane's verdict.
    ///
    /// # Errors
    /// When there is no routing configuration.
    pub fn destinations(&self) -> Answer<FleetAnswer<Vec<v1::DestinationStatus>>> {
        let state = self.core.present()?;
        let (routing, _) = routing(&state)?;
        let views = self.fleet.views();
        let mut unreachable = Vec::new();
        let mut verdicts: BTreeMap<String, Vec<v1::EndpointVerdict>> = BTreeMap::new();
        for (instance, registration) in state.registrations() {
            let Some(live) = live(&state, instance, registration) else {
                unreachable.push(instance.as_str().to_owned());
                continue;
            };
            for (destination, verdict) in verdicts_of(instance, live, views.get(instance)) {
                verdicts.entry(destination).or_default().push(verdict);
            }
        }
        let answer = routing
            .destinations()
            .keys()
            .map(|id| v1::DestinationStatus {
                destination: id.as_str().to_owned(),
                accounts: state.counts().homes.get(id).copied().unwrap_or_default(),
                verdicts: verdicts.remove(id.as_str()).unwrap_or_default(),
            })
            .collect();
        Ok(FleetAnswer {
            state,
            unreachable,
            answer,
        })
    }
}

/// What a data plane has said, if this life of it answers.
pub(super) fn live<'a>(
    state: &'a State,
    instance: &InstanceId,
    registration: &Versioned<stored::Registration>,
) -> Option<&'a stored::Live> {
    let live = &state.live().get(instance)?.value;
    (live.boot == registration.value.boot).then_some(&**live)
}

fn data_plane(
    state: &State,
    instance: &InstanceId,
    registration: &Versioned<stored::Registration>,
    view: Option<&View>,
) -> v1::DataPlane {
    let live = live(state, instance, registration);
    let applied = applied(live, view);
    let registered = &registration.value;
    v1::DataPlane {
        instance: instance.as_str().to_owned(),
        boot: registered.boot.clone(),
        group: registered.group.clone(),
        version: registered.version.clone(),
        connected: live.is_some(),
        sync: sync(state, live, view, applied).into(),
        applied: applied.map(Into::into),
        registered: Some(Revision::new(state.base(), registration.revision).into()),
        registered_at: registered.registered_at,
        rejected: live.map_or_else(Vec::new, |live| {
            let rejected = live.rejected.iter().map(|entry| v1::RejectedEntry {
                account_id: entry.account_id.clone(),
                reason: entry.reason.clone(),
            });
            rejected.collect()
        }),
        rejected_endpoints: live.map_or_else(Vec::new, rejected_endpoints),
        refused: state.claims().get(instance).map(|claim| v1::RefusedClaim {
            boot: claim.value.boot.clone(),
            why: claim.value.why.clone(),
            at: claim.value.at,
        }),
        contracts: Some(stated(registered.contracts)),
        schemas: Some(stated(registered.schemas)),
        limits: registered.limits,
        certificates: live.map_or_else(Vec::new, |live| live.certificates.clone()),
        blocks: blocks(state, instance, &registered.boot),
        ready: live.is_some_and(|live| view.map_or(live.ready, |view| view.ready)),
        ..v1::DataPlane::default()
    }
}

fn standing(state: &State, live: Option<&stored::Live>, view: Option<&View>) -> DataPlaneStanding {
    if live.is_none() {
        return DataPlaneStanding::Silent;
    }
    match sync(state, live, view, applied(live, view)) {
        v1::SyncState::Synced => DataPlaneStanding::Synced,
        v1::SyncState::NotSent => DataPlaneStanding::NotSent,
        v1::SyncState::Error => DataPlaneStanding::Error,
        v1::SyncState::Stale | v1::SyncState::Unspecified => DataPlaneStanding::Stale,
    }
}

/// The table that it was last known to have applied.
fn applied(live: Option<&stored::Live>, view: Option<&View>) -> Option<Revision> {
    view.and_then(|view| view.applied)
        .or_else(|| live.and_then(|live| live.applied).map(Revision::from))
}

fn rejected_endpoints(live: &stored::Live) -> Vec<v1::RejectedEndpoint> {
    let rejected = live.rejected_endpoints.iter();
    rejected
        .map(|endpoint| v1::RejectedEndpoint {
            destination: endpoint.destination.clone(),
            protocol: endpoint.protocol,
            field: endpoint.field.clone(),
        })
        .collect()
}

/// A data plane that a replica of contract 1 has registered has stated nothing.
fn stated(range: Option<v1::VersionRange>) -> v1::VersionRange {
    range.unwrap_or_else(|| Versions::FIRST.into())
}

/// The replica that serves the stream knows what was sent. The others know what the data plane has to
/// have applied for moves to go on.
fn sync(
    state: &State,
    live: Option<&stored::Live>,
    view: Option<&View>,
    applied: Option<Revision>,
) -> v1::SyncState {
    let Some(live) = live else {
        return v1::SyncState::Stale;
    };
    if !live.rejected.is_empty() || !live.rejected_endpoints.is_empty() {
        return v1::SyncState::Error;
    }
    let wanted = match view {
        Some(view) => view.sent,
        None => applied.map(|_| flipped(state)),
    };
    match (wanted, applied) {
        (None, _) => v1::SyncState::NotSent,
        (Some(wanted), Some(applied)) if applied >= wanted => v1::SyncState::Synced,
        (Some(_), _) => v1::SyncState::Stale,
    }
}

/// The latest flip that is not known everywhere.
fn flipped(state: &State) -> Revision {
    let flips = state
        .migrations()
        .filter(|(_, migration)| migration.value.phase() == v1::Phase::Flipped)
        .map(|(_, migration)| migration.revision);
    Revision::new(state.base(), flips.max().unwrap_or_default())
}

/// Fences that the data plane has not reported drained.
fn blocks(state: &State, instance: &InstanceId, boot: &str) -> Vec<v1::BlockedFence> {
    let fenced = state
        .migrations()
        .filter(|(_, migration)| migration.value.phase() == v1::Phase::Fencing);
    fenced
        .flat_map(|(id, migration)| {
            let report = report_of(state, id, instance, boot);
            migration.value.accounts.iter().filter_map(move |account| {
                let said = report.and_then(|report| {
                    let mut accounts = report.accounts.iter();
                    accounts.find(|said| said.account_id == account.account_id)
                });
                let drained = said.is_some_and(|said| said.fence_epoch != 0);
                (!drained).then(|| v1::BlockedFence {
                    migration_id: id.as_str().to_owned(),
                    account_id: account.account_id.clone(),
                    sessions_left: said.map_or(0, |said| said.sessions_left),
                })
            })
        })
        .collect()
}

fn report_of<'a>(
    state: &'a State,
    id: &MigrationId,
    instance: &InstanceId,
    boot: &str,
) -> Option<&'a stored::DrainedReport> {
    let report = &state.drained(id)?.get(instance)?.value;
    (report.boot == boot).then_some(&**report)
}

/// The replica that serves the stream has all verdicts; the store holds what could block a move.
fn verdicts_of(
    instance: &InstanceId,
    live: &stored::Live,
    view: Option<&View>,
) -> Vec<(String, v1::EndpointVerdict)> {
    let verdict = |protocol: i32, reachable: bool, problem: &str| v1::EndpointVerdict {
        instance: instance.as_str().to_owned(),
        protocol,
        reachable,
        problem: problem.to_owned(),
        facts: None,
    };
    match view {
        Some(view) if view.boot == live.boot => {
            let seen = view.endpoints.iter().map(|e| {
                let verdict = v1::EndpointVerdict {
                    facts: e.facts.clone(),
                    ..verdict(e.protocol, e.reachable, &e.problem)
                };
                (e.destination.clone(), verdict)
            });
            seen.collect()
        }
        _ => {
            let stored = live.endpoints.iter().map(|e| {
                let verdict = verdict(e.protocol, e.reachable, &e.problem);
                (e.destination.clone(), verdict)
            });
            stored.collect()
        }
    }
}
