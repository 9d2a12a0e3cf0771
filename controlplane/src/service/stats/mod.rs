//! What is where and what is going on: the store's counts, and what data planes say when asked.

mod data_planes;
mod expel;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrypost_proto::{
    InstanceId, Name, TraceParent,
    routing::v1::{self as stream, command::Command, command_result::Result as Said},
    v1,
};

pub use data_planes::DataPlaneStanding;
pub use expel::ExpelOrder;

use super::{Core, migration::check_reason, routing, subject, unlisted};
use crate::{domain::state::State, fleet::Fleet, refusal::Answer};

/// How long a data plane may take to answer. One that is on this machine takes a millisecond, one across
/// an ocean a third of a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Questions to data planes for one answer: more than they have names to answer with.
const MOST_QUESTIONS: usize = 150;

/// The use cases of `StatsService`.
#[derive(Debug, Clone)]
pub struct StatsUseCases {
    core: Arc<Core>,
    fleet: Fleet,
    store_kind: &'static str,
}

/// An answer, the state that it is of, and who could not be asked.
#[derive(Debug)]
pub struct FleetAnswer<T> {
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

/// Where a session stands in the list of all: its serial and its data plane. Serials of different data planes have nothing
/// to do with each other; any order that stays will do.
pub type SessionPlace = (u64, String);

/// Some of the sessions.
#[derive(Debug, Default, PartialEq)]
pub struct SessionPage {
    /// In the order of their places.
    pub sessions: Vec<v1::Session>,
    /// The place of the last one, if there are more behind it.
    pub next: Option<SessionPlace>,
    /// Whether there are more, be it on data planes that know no serials.
    pub truncated: bool,
}

impl SessionPage {
    fn of(said: Vec<(InstanceId, Said)>, after: Option<&SessionPlace>, size: usize) -> Self {
        let (mut places, mut more, mut unpaged) = (BTreeMap::new(), false, Vec::new());
        let mut truncated = false;
        for (instance, said) in said {
            let Said::SessionList(list) = said else {
                continue;
            };
            let counts = list.sessions.iter().all(|session| session.serial > 0);
            more |= counts && list.truncated;
            truncated |= list.truncated;
            for one in list.sessions {
                let place = (one.serial, instance.as_str().to_owned());
                let session = session(&instance, one);
                if !counts {
                    unpaged.push(session);
                } else if after.is_none_or(|after| place > *after) {
                    places.insert(place, session);
                }
            }
        }
        if after.is_none() {
            // Once, and all that they have said.
            unpaged.truncate(size);
        } else {
            unpaged.clear();
        }
        let room = size - unpaged.len();
        more |= places.len() > room;
        let shown: Vec<_> = places.into_iter().take(room).collect();
        let last = shown.last().map(|(place, _)| place.clone());
        let sessions = shown.into_iter().map(|(_, session)| session);
        Self {
            sessions: unpaged.into_iter().chain(sessions).collect(),
            next: last.filter(|_| more),
            truncated: truncated || more,
        }
    }
}

/// What a data plane has answered to a question for counts.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    sessions: u64,
    held_logins: u64,
}

impl StatsUseCases {
    /// A desk over a store of some kind and its fleet.
    pub fn new(core: Arc<Core>, fleet: Fleet, store_kind: &'static str) -> Self {
        Self {
            core,
            fleet,
            store_kind,
        }
    }

    /// What every answer says about itself.
    pub fn header<T>(&self, report: &FleetAnswer<T>) -> v1::ResponseHeader {
        self.core.header(&report.state, report.unreachable.clone())
    }

    /// The trace that a call belongs to.
    pub(crate) fn trace(&self, of_caller: Option<TraceParent>) -> TraceParent {
        self.core.trace(of_caller)
    }

    /// The figures that are not in the state itself.
    ///
    /// # Errors
    /// When this replica has loaded nothing yet.
    pub async fn figures(&self) -> Answer<FleetAnswer<Figures>> {
        let state = self.core.present()?;
        let (counts, unreachable) = self.count().await;
        let connected = state
            .registrations()
            .iter()
            .filter(|(instance, registration)| {
                data_planes::live(&state, instance, registration).is_some()
            })
            .count();
        let answer = Figures {
            sessions: counts.values().map(|counted| counted.sessions).sum(),
            held_logins: counts.values().map(|counted| counted.held_logins).sum(),
            connected,
            store_kind: self.store_kind,
        };
        Ok(FleetAnswer {
            state,
            unreachable,
            answer,
        })
    }

    /// A page of the sessions of an account, or of everybody: `size` at most, and those behind a place.
    ///
    /// # Errors
    /// When the account is none.
    pub async fn sessions(
        &self,
        account: &str,
        after: Option<SessionPlace>,
        size: u32,
        trace: TraceParent,
    ) -> Answer<FleetAnswer<SessionPage>> {
        let state = self.core.present()?;
        let names = match account {
            "" => Vec::new(),
            account => {
                let (routing, _) = routing(&state)?;
                subject::session_names(&state, routing, account)?
            }
        };
        let question = Command::ListSessions(stream::ListSessions {
            names,
            // One more, which says whether there is another page.
            limit: size + 1,
            from: after.as_ref().map_or(0, |(serial, _)| *serial),
        });
        let (said, unreachable) = self.ask(&question, trace).await;
        Ok(FleetAnswer {
            state,
            unreachable,
            answer: SessionPage::of(said, after.as_ref(), size as usize),
        })
    }

    /// Where the data planes send a name.
    pub(crate) async fn routes(
        &self,
        name: &Name,
        trace: TraceParent,
    ) -> (Vec<v1::DataPlaneRoute>, Vec<String>) {
        let name = name.as_str().to_owned();
        let question = Command::ExplainName(stream::ExplainName { name });
        let (said, mut unreachable) = self.ask(&question, trace).await;
        let mut routes = Vec::new();
        for (instance, said) in said {
            let instance = String::from(instance);
            match said {
                Said::NameRoute(route) => routes.push(v1::DataPlaneRoute {
                    instance,
                    rule: route.rule,
                    destination: route.destination,
                    applied: route.applied,
                }),
                _ => unreachable.push(instance),
            }
        }
        routes.sort_by(|one, other| one.instance.cmp(&other.instance));
        (routes, unreachable)
    }

    /// Logins that moves have left behind, those behind the name `after`, `size` at most; and where to go on.
    ///
    /// # Errors
    /// When this replica has loaded nothing yet, or there is no routing configuration.
    pub async fn unlisted(
        &self,
        after: Option<String>,
        size: usize,
        trace: TraceParent,
    ) -> Answer<FleetAnswer<(Vec<v1::UnlistedLogin>, Option<String>)>> {
        let state = self.core.present()?;
        let (routing, _) = routing(&state)?;
        let (mut logins, mut unreachable) = (Vec::new(), Vec::new());
        let mut next = Some(after.unwrap_or_default());
        for _ in 0..MOST_QUESTIONS {
            let Some(after) = next.take() else { break };
            let question = stream::ListUnlisted {
                after,
                ..stream::ListUnlisted::default()
            };
            let view = (&*state, routing);
            let found = unlisted::ask(&self.fleet, view, question, ANSWER_WITHIN, trace).await;
            next = found.next;
            unreachable = found.unreachable;
            let left_behind = found.logins.into_values();
            logins.extend(left_behind.filter(|login| !login.account_id.is_empty()));
            if logins.len() > size {
                logins.truncate(size);
                next = logins.last().map(|last| last.name.clone());
                break;
            }
        }
        Ok(FleetAnswer {
            state,
            unreachable,
            answer: (logins, next),
        })
    }

    /// Closes the sessions of an account; how many were told to.
    ///
    /// # Errors
    /// When the account is empty or none.
    pub async fn kick(
        &self,
        account: &str,
        by: &str,
        reason: &str,
        trace: TraceParent,
    ) -> Answer<FleetAnswer<u64>> {
        subject::given(account)?;
        check_reason(reason)?;
        let state = self.core.caught_up().await?;
        let (routing, _) = routing(&state)?;
        let names = subject::session_names(&state, routing, account)?;
        tracing::info!(by, reason, "the sessions of an account are closed");
        let question = Command::KickSessions(stream::KickSessions { names });
        let (said, unreachable) = self.ask(&question, trace).await;
        let kicked = said.iter().map(|(_, said)| match said {
            Said::KickedSessions(kicked) => kicked.kicked,
            _ => 0,
        });
        Ok(FleetAnswer {
            state,
            unreachable,
            answer: kicked.sum(),
        })
    }

    async fn count(&self) -> (BTreeMap<InstanceId, Counted>, Vec<String>) {
        let question = Command::ListSessions(stream::ListSessions::default());
        let (said, unreachable) = self.ask(&question, self.trace(None)).await;
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
    async fn ask(
        &self,
        question: &Command,
        trace: TraceParent,
    ) -> (Vec<(InstanceId, Said)>, Vec<String>) {
        let asked = self.fleet.ask(question, ANSWER_WITHIN, trace).await;
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
        kind: session.kind,
    }
}
