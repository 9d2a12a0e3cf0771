//! Logins under names that no record lists, and the accounts that they may belong to.
//!
//! A move carries the names of its account's record. A name that is the account's too and is not listed (bare, or in
//! another domain) goes by default, to the server that the account has left. No rule can know that two names are one
//! person's; equal local parts are what an operator looks at.

use std::{collections::BTreeMap, time::Duration};

use ferrypost_proto::{
    RoutingConfig, TraceParent,
    routing::v1::{ListUnlisted, UnlistedName, command::Command, command_result::Result as Said},
    v1,
};

use crate::{
    domain::{
        resolution::{self, Route},
        state::State,
    },
    fleet::Fleet,
};

/// Names that a data plane is asked for at once.
const AT_ONCE: u32 = 1000;

/// Names that are found, by themselves: what data planes say of each.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) logins: BTreeMap<String, v1::UnlistedLogin>,
    /// The last name that every data plane has been asked up to; `None`: there are no more.
    pub(super) next: Option<String>,
    /// Data planes that did not answer.
    pub(super) unreachable: Vec<String>,
}

/// Asks every data plane for names behind `after`, and finds the accounts that they may belong to.
pub(super) async fn ask(
    fleet: &Fleet,
    view: (&State, &RoutingConfig),
    question: ListUnlisted,
    within: Duration,
    trace: TraceParent,
) -> Found {
    let question = ListUnlisted {
        limit: AT_ONCE,
        ..question
    };
    let asked = fleet
        .ask(&Command::ListUnlisted(question), within, trace)
        .await;
    let mut found = Found {
        unreachable: asked.unreachable.into_iter().map(String::from).collect(),
        ..Found::default()
    };
    let mut said = Vec::new();
    for (instance, result) in asked.answers {
        match result.result {
            Some(Said::Unlisted(answer)) => {
                let end = answer.names.last().filter(|_| answer.truncated);
                let end = end.map(|name| name.name.clone());
                found.next = [found.next.take(), end].into_iter().flatten().min();
                said.push((instance, answer.names));
            }
            // A version that does not know the question.
            _ => found.unreachable.push(instance.into()),
        }
    }
    found.unreachable.sort();
    let next = found.next.clone();
    let is_whole = |name: &str| next.as_ref().is_none_or(|next| name <= next.as_str());
    for (instance, names) in said {
        for name in names.into_iter().filter(|name| is_whole(&name.name)) {
            add(&mut found.logins, view, instance.as_str(), name);
        }
    }
    found
}

fn add(
    logins: &mut BTreeMap<String, v1::UnlistedLogin>,
    (state, routing): (&State, &RoutingConfig),
    instance: &str,
    said: UnlistedName,
) {
    if let Some(known) = logins.get_mut(&said.name) {
        known.instances.push(instance.to_owned());
        if age(said.age.as_ref()) < age(known.age.as_ref()) {
            known.age = said.age;
        }
        return;
    }
    let Ok(name) = routing.names().canonicalise(&said.name) else {
        return;
    };
    // It may have a record since, or go nowhere.
    let (Route::Default(destination) | Route::DomainDefault(destination), None) =
        resolution::resolve(state, routing, &name)
    else {
        return;
    };
    let namesake = resolution::namesake(state, routing, &name, &destination);
    let (account_id, home) = namesake
        .map(|(account, home)| (account.id().as_str(), home.as_str()))
        .unwrap_or_default();
    logins.insert(
        said.name.clone(),
        v1::UnlistedLogin {
            name: said.name,
            destination: destination.into(),
            account_id: account_id.to_owned(),
            home: home.to_owned(),
            age: said.age,
            instances: vec![instance.to_owned()],
        },
    );
}

fn age(age: Option<&prost_types::Duration>) -> (i64, i32) {
    age.map_or((i64::MAX, 0), |age| (age.seconds, age.nanos))
}
