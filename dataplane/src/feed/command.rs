//! Commands of operators that come down the stream.

use std::sync::Arc;

use ferrypost_proto::{
    DestinationId, Name, NamePolicy, TraceParent,
    routing::v1::{
        Command, CommandResult, KickedSessions, ListSessions, ListUnlisted, NameRoute, Probe,
        Probed, SessionInfo, SessionList, UnlistedName, UnlistedNames, command::Command as Kind,
        command_result::Result as Outcome,
    },
    v1::RouteRule,
};
use ferrypost_routing::{Resolution, Rule};
use tokio::task::JoinSet;

use super::Prober;
use crate::{
    registry::{Registry, SessionSnapshot, UnlistedLogin},
    tables::Tables,
};

/// Most sessions in one answer: some 200 bytes each, so that the answer stays below the 4 MiB that a
/// message may have.
const MOST_LISTED: usize = 10_000;

/// Most names in one answer: some 600 bytes each at the longest. One that comes by way of another replica lies
/// in the store for a moment.
const MOST_UNLISTED: usize = 1000;

/// Probes that may run at once. They are asked for by people.
const MOST_PROBES: usize = 4;

const NO_TABLE: &str = "there is no table yet";

const NO_NAME: &str = "not a name under the policy in force";

/// Runs commands.
pub(super) struct Commands {
    registry: Arc<Registry>,
    tables: Tables,
    prober: Arc<dyn Prober>,
    /// Aborted with the connection that asked.
    probes: JoinSet<CommandResult>,
}

impl Commands {
    pub(super) fn new(registry: Arc<Registry>, tables: Tables, prober: Arc<dyn Prober>) -> Self {
        Self {
            registry,
            tables,
            prober,
            probes: JoinSet::new(),
        }
    }

    /// Runs a command. `None`: the result comes from [`finished`](Self::finished).
    pub(super) fn run(&mut self, command: Command) -> Option<CommandResult> {
        if let Ok(trace) = command.traceparent.parse::<TraceParent>() {
            let trace = trace.trace_id();
            tracing::debug!(command = %command.command_id.escape_debug(), %trace, "a command");
        }
        let outcome = match command.command {
            Some(Kind::ListSessions(list)) => self.list(&list),
            Some(Kind::KickSessions(kick)) => self.kick(&kick.names),
            Some(Kind::Probe(probe)) => match self.probe(&command.command_id, &probe) {
                Ok(()) => return None,
                Err(failed) => Err(failed),
            },
            Some(Kind::ListUnlisted(list)) => Ok(self.list_unlisted(&list)),
            Some(Kind::ExplainName(explain)) => self.explain(&explain.name),
            // The feed answers these itself.
            Some(Kind::ListDoubts(_) | Kind::HoldDoubts(_)) | None => {
                Err("this version does not know the command")
            }
        };
        Some(CommandResult {
            command_id: command.command_id,
            result: Some(outcome.unwrap_or_else(|failed| Outcome::Failed(failed.to_owned()))),
        })
    }

    /// Waits for a probe that was asked for. Pending while there is none. Cancel-safe.
    pub(super) async fn finished(&mut self) -> CommandResult {
        loop {
            match self.probes.join_next().await {
                Some(Ok(result)) => return result,
                // It panicked, and its caller runs into its own deadline.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn list(&self, list: &ListSessions) -> Result<Outcome, &'static str> {
        let names = self.names(&list.names)?;
        let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
        let listing = self
            .registry
            .sessions_from(&names, list.from, limit.min(MOST_LISTED));
        let unsettled = self.registry.unsettled_names();
        let unsettled = unsettled.iter().filter(|name| names.contains(name));
        Ok(Outcome::SessionList(SessionList {
            truncated: listing.more,
            total: listing.total as u64,
            held: listing.held as u64,
            unsettled: unsettled.count() as u64,
            sessions: listing.sessions.into_iter().map(session_info).collect(),
        }))
    }

    fn list_unlisted(&self, list: &ListUnlisted) -> Outcome {
        let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
        let is_wanted = |name: &Name| {
            let local = name.local_part();
            list.local_parts.is_empty() || list.local_parts.iter().any(|wanted| wanted == local)
        };
        let limit = limit.min(MOST_UNLISTED);
        let (names, truncated) = self.registry.unlisted(is_wanted, &list.after, limit);
        Outcome::Unlisted(UnlistedNames {
            names: names.into_iter().map(unlisted_name).collect(),
            truncated,
        })
    }

    fn explain(&self, name: &str) -> Result<Outcome, &'static str> {
        let table = self.tables.current().ok_or(NO_TABLE)?;
        let name = table
            .config()
            .names()
            .canonicalise(name)
            .map_err(|_| NO_NAME)?;
        let (rule, destination) = match table.resolve(&name) {
            Resolution::Route(route) => (rule_on_the_wire(route.rule), route.destination.into()),
            Resolution::Fenced(_) => (RouteRule::Held, String::new()),
            Resolution::Refused(_) => (RouteRule::Refused, String::new()),
        };
        Ok(Outcome::NameRoute(NameRoute {
            rule: rule.into(),
            destination,
            applied: Some(table.position().revision.into()),
        }))
    }

    fn kick(&self, names: &[String]) -> Result<Outcome, &'static str> {
        let names = self.names(names)?;
        if names.is_empty() {
            return Err("at least one name is needed");
        }
        Ok(Outcome::KickedSessions(KickedSessions {
            kicked: self.registry.kick(&names) as u64,
        }))
    }

    fn probe(&mut self, id: &str, probe: &Probe) -> Result<(), &'static str> {
        let destination = match probe.destination.as_str() {
            "" => None,
            id => Some(DestinationId::parse(id).map_err(|_| "there is no such destination")?),
        };
        if self.probes.len() >= MOST_PROBES {
            return Err("too many probes are running");
        }
        let (id, probe) = (id.to_owned(), self.prober.probe(destination));
        self.probes.spawn(async move {
            CommandResult {
                command_id: id,
                result: Some(Outcome::Probed(Probed {
                    endpoints: probe.await,
                })),
            }
        });
        Ok(())
    }

    fn names(&self, texts: &[String]) -> Result<Vec<Name>, &'static str> {
        let table = self.tables.current().ok_or(NO_TABLE)?;
        let policy: &NamePolicy = table.config().names();
        texts
            .iter()
            .map(|text| policy.canonicalise(text))
            .collect::<Result<_, _>>()
            .map_err(|_| NO_NAME)
    }
}

fn rule_on_the_wire(rule: Rule) -> RouteRule {
    match rule {
        Rule::Placement => RouteRule::Placement,
        Rule::DomainDefault => RouteRule::DomainDefault,
        Rule::Default => RouteRule::Default,
        // No name is routed by it.
        Rule::Named => RouteRule::Unspecified,
    }
}

fn unlisted_name(login: UnlistedLogin) -> UnlistedName {
    UnlistedName {
        name: login.name.as_str().to_owned(),
        destination: login.destination.into(),
        age: prost_types::Duration::try_from(login.age).ok(),
    }
}

fn session_info(session: SessionSnapshot) -> SessionInfo {
    SessionInfo {
        serial: session.serial,
        reference: session.reference,
        protocol: session.protocol.into(),
        name: session
            .subject
            .name()
            .map(ToString::to_string)
            .unwrap_or_default(),
        destination: session.destination.map(String::from).unwrap_or_default(),
        client: session
            .client
            .map(|client| client.to_string())
            .unwrap_or_default(),
        age: prost_types::Duration::try_from(session.age).ok(),
        stage: session.stage.into_str().to_owned(),
        kind: session.kind.into_str().to_owned(),
    }
}
