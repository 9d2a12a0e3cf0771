//! What is where and what is going on: the store's counts, and what data planes say when asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrypost_proto::{
    BootId, InstanceId, MigrationId, Revision,
    routing::v1::{self as stream, command::Command, command_result::Result as Said},
    store::v1 as stored,
    v1,
};

use super::{
    Core, Step,
    migration::check_reason,
    refusal::{Answer, Reason, Refusal},
    routing, subject,
};
use crate::{
    domain::commit::change_fleet,
    fleet::{Fleet, View},
    mirror::{State, Versioned},
    store::{Txn, keys, value::Stored},
    wall_clock,
};

/// How long a data plane may take to answer. One that is on this machine takes a millisecond, one across
/// an ocean a third of a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The use cases of `StatsService`.
#[derive(Debug, Clone)]
pub struct StatsDesk {
    core: Arc<Core>,
    fleet: Fleet,
    store_kind: &'static str,
}

/// An answer, the state that it is of, and who could not be asked.
#[derive(Debug)]
pub struct Report<T> {
    /// The state.
    pub state: Arc<State>,
    /// Registered data planes that did not answer.
    pub unreachable: Vec<String>,
    /// The answer.
    pub answer: T,
}

/// The figures of the whole installation.
#[derive(Debug, Default)]
pub struct Figures {
    /// Sessions on the data planes that answered.
    pub sessions: u64,
    /// Held logins among them.
    pub held_logins: u64,
    /// Data planes that answer now.
    pub connected: usize,
    /// `embedded` or `etcd`.
    pub store_kind: &'static str,
}

/// Which data plane to expel.
#[derive(Debug, Clone)]
pub struct ExpelOrder {
    /// Its name.
    pub instance: String,
    /// The life of it that is meant.
    pub boot: String,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub requested_by: String,
}

/// What a data plane has answered to a question for counts.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    sessions: u64,
    held_logins: u64,
}

impl StatsDesk {
    /// A desk over a store of some kind and its fleet.
    pub fn new(core: Arc<Core>, fleet: Fleet, store_kind: &'static str) -> Self {
        Self {
            core,
            fleet,
            store_kind,
        }
    }

    /// What every answer says about itself.
    pub fn header<T>(&self, report: &Report<T>) -> v1::ResponseHeader {
        self.core.header(&report.state, report.unreachable.clone())
    }

    /// The figures that are not in the state itself.
    ///
    /// # Errors
    /// When this replica has loaded nothing yet.
    pub async fn figures(&self) -> Answer<Report<Figures>> {
        let state = self.core.present()?;
        let (counts, unreachable) = self.count().await;
        let connected = state
            .registrations()
            .iter()
            .filter(|(instance, registration)| live(&state, instance, registration).is_some())
            .count();
        let answer = Figures {
            sessions: counts.values().map(|counted| counted.sessions).sum(),
            held_logins: counts.values().map(|counted| counted.held_logins).sum(),
            connected,
            store_kind: self.store_kind,
        };
        Ok(Report {
            state,
            unreachable,
            answer,
        })
    }

    /// Every registered data plane.
    ///
    /// # Errors
    /// When this replica has loaded nothing yet.
    pub async fn data_planes(&self) -> Answer<Report<Vec<v1::DataPlane>>> {
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
        Ok(Report {
            state,
            unreachable,
            answer,
        })
    }

    /// Every destination with each connected data plane's verdict.
    ///
    /// # Errors
    /// When there is no routing configuration.
    pub fn destinations(&self) -> Answer<Report<Vec<v1::DestinationStatus>>> {
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
        Ok(Report {
            state,
            unreachable,
            answer,
        })
    }

    /// Sessions of an account, or of everybody, `size` a data plane at most. The flag says that one had
    /// more.
    ///
    /// # Errors
    /// When the account is none.
    pub async fn sessions(
        &self,
        account: &str,
        size: u32,
    ) -> Answer<Report<(Vec<v1::Session>, bool)>> {
        let state = self.core.present()?;
        let names = match account {
            "" => Vec::new(),
            account => {
                let (routing, _) = routing(&state)?;
                subject::session_names(&state, routing, account)?
            }
        };
        let question = Command::ListSessions(stream::ListSessions { names, limit: size });
        let (said, unreachable) = self.ask(&question).await;
        let mut sessions = Vec::new();
        let mut truncated = false;
        for (instance, said) in said {
            if let Said::SessionList(list) = said {
                truncated |= list.truncated;
                sessions.extend(list.sessions.into_iter().map(|s| session(&instance, s)));
            }
        }
        Ok(Report {
            state,
            unreachable,
            answer: (sessions, truncated),
        })
    }

    /// Closes the sessions of an account; how many were told to.
    ///
    /// # Errors
    /// When the account is empty or none.
    pub async fn kick(&self, account: &str, by: &str, reason: &str) -> Answer<Report<u64>> {
        subject::given(account)?;
        check_reason(reason)?;
        let state = self.core.caught_up().await?;
        let (routing, _) = routing(&state)?;
        let names = subject::session_names(&state, routing, account)?;
        tracing::info!(by, reason, "the sessions of an account are closed");
        let question = Command::KickSessions(stream::KickSessions { names });
        let (said, unreachable) = self.ask(&question).await;
        let kicked = said.iter().map(|(_, said)| match said {
            Said::KickedSessions(kicked) => kicked.kicked,
            _ => 0,
        });
        Ok(Report {
            state,
            unreachable,
            answer: kicked.sum(),
        })
    }

    /// Ends the registration of a data plane on an operator's word.
    ///
    /// # Errors
    /// [`Reason::DataPlaneNotFound`]; [`Reason::BootMismatch`] when a successor would be hit.
    pub async fn expel(&self, order: &ExpelOrder) -> Answer<Report<v1::ExpelledDataPlane>> {
        if order.reason.is_empty() {
            return Err(Refusal::required("reason"));
        }
        check_reason(&order.reason)?;
        let instance = identifier("instance", &order.instance, InstanceId::parse)?;
        let boot = identifier("boot", &order.boot, BootId::parse)?;
        let (state, expelled) = self
            .core
            .transact(|state| expulsion(state, &instance, &boot, order))
            .await?;
        tracing::warn!(%instance, %boot, by = order.requested_by, reason = order.reason,
            "a data plane was expelled");
        Ok(Report {
            state,
            unreachable: Vec::new(),
            answer: expelled,
        })
    }

    /// Boots that were expelled.
    pub fn expelled(&self, state: &State) -> Vec<v1::ExpelledDataPlane> {
        state
            .expelled()
            .iter()
            .map(|((instance, boot), expelled)| shown_expelled(instance, boot, &expelled.value))
            .collect()
    }

    async fn count(&self) -> (BTreeMap<InstanceId, Counted>, Vec<String>) {
        let question = Command::ListSessions(stream::ListSessions::default());
        let (said, unreachable) = self.ask(&question).await;
        let counts = said.into_iter().filter_map(|(instance, said)| match said {
            Said::SessionList(list) => Some((
                instance,
                Counted {
                    sessions: list.total,
                    held_logins: list.held,
                },
            )),
            _ => None,
        });
        (counts.collect(), unreachable)
    }

    /// Asks every registered data plane. One that could not run the command counts as not reached.
    async fn ask(&self, question: &Command) -> (Vec<(InstanceId, Said)>, Vec<String>) {
        let asked = self.fleet.ask(question, ANSWER_WITHIN).await;
        let mut said = Vec::new();
        let mut unreachable: Vec<String> =
            asked.unreachable.into_iter().map(String::from).collect();
        for (instance, result) in asked.answers {
            match result.result {
                Some(Said::Failed(why)) => {
                    tracing::warn!(%instance, why, "a command failed on a data plane");
                    unreachable.push(instance.into());
                }
                Some(result) => said.push((instance, result)),
                None => unreachable.push(instance.into()),
            }
        }
        unreachable.sort();
        (said, unreachable)
    }
}

fn identifier<T>(
    field: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, ferrypost_proto::types::IdError>,
) -> Answer<T> {
    if text.is_empty() {
        return Err(Refusal::required(field));
    }
    parse(text).map_err(|error| Refusal::invalid(field, error))
}

/// What a data plane has said, if this life of it answers.
fn live<'a>(
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
    let applied = view
        .and_then(|view| view.applied)
        .or_else(|| live.and_then(|live| live.applied).map(Revision::from));
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
        blocks: blocks(state, instance, &registered.boot),
        ready: live.is_some_and(|live| view.map_or(live.ready, |view| view.ready)),
        ..v1::DataPlane::default()
    }
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
    if !live.rejected.is_empty() {
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
    };
    match view {
        Some(view) if view.boot == live.boot => view
            .endpoints
            .iter()
            .map(|e| {
                (
                    e.destination.clone(),
                    verdict(e.protocol, e.reachable, &e.problem),
                )
            })
            .collect(),
        _ => live
            .endpoints
            .iter()
            .map(|e| {
                (
                    e.destination.clone(),
                    verdict(e.protocol, e.reachable, &e.problem),
                )
            })
            .collect(),
    }
}

fn session(instance: &InstanceId, session: stream::SessionInfo) -> v1::Session {
    v1::Session {
        instance: instance.as_str().to_owned(),
        reference: session.reference,
        protocol: session.protocol,
        name: session.name,
        destination: session.destination,
        client: session.client,
        age: session.age,
        stage: session.stage,
    }
}

/// The operator's word goes into the store together with the end of the registration.
fn expulsion(
    state: &State,
    instance: &InstanceId,
    boot: &BootId,
    order: &ExpelOrder,
) -> Answer<Step<v1::ExpelledDataPlane>> {
    let said_before = state.expelled().get(&(instance.clone(), boot.clone()));
    if let Some(expelled) = said_before {
        return Ok(Step::Done(shown_expelled(instance, boot, &expelled.value)));
    }
    let Some(registration) = state.registrations().get(instance) else {
        return Err(Refusal::new(
            Reason::DataPlaneNotFound,
            format!("no data plane is registered as {instance}"),
        )
        .with("instance", instance));
    };
    if registration.value.boot != boot.as_str() {
        return Err(Refusal::new(
            Reason::BootMismatch,
            format!(
                "{instance} is registered with boot {}, not {boot}",
                registration.value.boot
            ),
        )
        .with("instance", instance)
        .with("registered", &registration.value.boot));
    }
    let expelled = stored::Expelled {
        expelled_by: order.requested_by.clone(),
        expelled_at: Some(wall_clock::now()),
        reason: order.reason.clone(),
        ..stored::Expelled::default()
    };
    let shown = shown_expelled(instance, boot, &expelled);
    let key = keys::registration(instance);
    let txn = Txn::new()
        .at(key.clone(), registration.revision)
        .delete(key)
        .put(
            keys::expelled(instance, boot),
            Stored::new(expelled).bytes(),
        );
    Ok(Step::Write(change_fleet(txn, state.fleet()), shown))
}

fn shown_expelled(
    instance: &InstanceId,
    boot: &BootId,
    expelled: &stored::Expelled,
) -> v1::ExpelledDataPlane {
    v1::ExpelledDataPlane {
        instance: instance.as_str().to_owned(),
        boot: boot.as_str().to_owned(),
        expelled_by: expelled.expelled_by.clone(),
        expelled_at: expelled.expelled_at,
        reason: expelled.reason.clone(),
    }
}
