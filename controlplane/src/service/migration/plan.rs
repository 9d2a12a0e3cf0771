//! What a move would do: who is disconnected, what stands in the way, what stays behind.

use std::{collections::BTreeMap, time::Duration};

use ferrypost_proto::{
    AccountId,
    routing::v1::{
        ListSessions, ListUnlisted, SessionList, command::Command, command_result::Result as Said,
    },
    v1,
};

use super::{
    super::{routing, unlisted},
    MigrationUseCases, Patience,
    start::Draft,
};
use crate::{
    domain::fence::{self, Prospect},
    domain::state::State,
};

/// How long data planes have to say how many sessions they would close, when that is all that was asked.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The same when the move itself was asked for: it does not wait for a figure.
const HURRY: Duration = Duration::from_millis(500);

/// Sessions of one account on one data plane that are told apart by protocol.
const LISTED: u32 = 1000;

/// Logins under other names that a plan shows.
const UNLISTED: usize = 20;

/// How long a caller's patience lets data planes take.
pub(super) fn patience(caller: Patience) -> Duration {
    match caller {
        Patience::Unlimited => HURRY,
        Patience::Limited(limit) => limit.min(HURRY),
    }
}

impl MigrationUseCases {
    /// The plan of a move, and who could not be asked.
    pub(super) async fn plan(
        &self,
        state: &State,
        draft: &Draft,
        within: Duration,
    ) -> (v1::MigrationPlan, Vec<String>) {
        let ((disconnects, doubts, unreachable), unlisted_logins) = tokio::join!(
            self.disconnects(draft, within),
            self.unlisted(state, draft, within)
        );
        let accounts: Vec<_> = draft
            .accounts
            .iter()
            .filter_map(|account| AccountId::parse(&account.account_id).ok())
            .collect();
        let prospect = Prospect {
            accounts: &accounts,
            source: &draft.source,
            target: &draft.target,
            written: 0,
            budget: self.core.migrations.fence_budget,
            window: self.core.migrations.window,
        };
        let mut blockers = fence::before_fence(state, &prospect);
        blockers.extend(doubts);
        let plan = v1::MigrationPlan {
            accounts: draft.accounts.clone(),
            source: draft.source.clone(),
            target: draft.target.clone(),
            disconnects,
            blockers,
            residual_risks: draft.risks.clone(),
            unlisted_logins,
        };
        (plan, unreachable)
    }

    /// Logins under names of no record that may be the accounts', and would not move with them. Whoever does not
    /// answer this answers the other question neither, or is of a version that does not know it.
    async fn unlisted(
        &self,
        state: &State,
        draft: &Draft,
        within: Duration,
    ) -> Vec<v1::UnlistedLogin> {
        let Ok((routing, _)) = routing(state) else {
            return Vec::new();
        };
        let names = || draft.accounts.iter().flat_map(|account| &account.names);
        let local = |name: &String| {
            let name = routing.names().canonicalise(name).ok()?;
            Some(name.local_part().to_owned())
        };
        let question = ListUnlisted {
            local_parts: names().filter_map(local).collect(),
            ..ListUnlisted::default()
        };
        let view = (state, routing);
        let found = unlisted::ask(&self.fleet, view, question, within, draft.trace).await;
        let is_left = |login: &v1::UnlistedLogin| {
            login.destination != draft.target && !names().any(|name| *name == login.name)
        };
        found
            .logins
            .into_values()
            .filter(is_left)
            .take(UNLISTED)
            .collect()
    }

    async fn disconnects(
        &self,
        draft: &Draft,
        within: Duration,
    ) -> (Vec<v1::PlannedDisconnect>, Vec<v1::Blocker>, Vec<String>) {
        let names: Vec<_> = draft
            .accounts
            .iter()
            .flat_map(|account| account.names.clone())
            .collect();
        let question = Command::ListSessions(ListSessions {
            names,
            limit: LISTED,
            from: 0,
        });
        let asked = self.fleet.ask(&question, within, draft.trace).await;
        let (mut disconnects, mut doubts) = (Vec::new(), Vec::new());
        for (instance, result) in &asked.answers {
            if let Some(Said::SessionList(list)) = &result.result {
                disconnects.extend(by_protocol(instance.as_str(), list));
                doubts.extend(lost_sight_of(instance.as_str(), list));
            }
        }
        let unreachable = asked.unreachable.into_iter().map(String::from).collect();
        (disconnects, doubts, unreachable)
    }
}

/// What the move would wait for: only the data plane knows it of an account that has no record yet.
fn lost_sight_of(instance: &str, list: &SessionList) -> Option<v1::Blocker> {
    let doubts = list.unsettled;
    (doubts > 0).then(|| v1::Blocker {
        reason: v1::BlockerReason::CloseUnconfirmed.into(),
        who: instance.to_owned(),
        message: format!(
            "{instance} has lately closed {doubts} sessions of the account whose server it did not see close: \
             the move waits until that server must be done"
        ),
    })
}

/// Sessions by protocol; those beyond the list are of no known one. A held login is not disconnected.
fn by_protocol(instance: &str, list: &SessionList) -> Vec<v1::PlannedDisconnect> {
    let mut counts: BTreeMap<i32, u32> = BTreeMap::new();
    for session in list
        .sessions
        .iter()
        .filter(|session| session.stage != "held")
    {
        *counts.entry(session.protocol).or_default() += 1;
    }
    let beyond = list.total.saturating_sub(list.sessions.len() as u64);
    if beyond > 0 {
        let beyond = u32::try_from(beyond).unwrap_or(u32::MAX);
        counts.insert(v1::Protocol::Unspecified.into(), beyond);
    }
    counts
        .into_iter()
        .map(|(protocol, sessions)| v1::PlannedDisconnect {
            instance: instance.to_owned(),
            protocol,
            sessions,
        })
        .collect()
}
