//! Keeps the keys of cookies fresh, while the rules for HTTP remember sign-ins.

use std::{sync::Arc, time::Duration};

use ferrypost_http::rules::Rules;
use ferrypost_proto::RoutingConfig;
use tokio::time;

use super::lead::{DriverContext, wait_changed};
use crate::{
    domain::{cookie_keys::due, state::State},
    store::{Txn, keys, value::Stored},
};

/// How often it is looked whether a key is due; also whenever the store changes.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Makes and replaces keys for ever.
pub(super) async fn keep_cookie_keys(term: &Arc<DriverContext>) {
    let mut changed = term.mirror.changed();
    loop {
        changed.borrow_and_update();
        if let Some(txn) = next(term, &term.mirror.read()) {
            term.write(txn).await;
        }
        tokio::select! {
            () = wait_changed(&mut changed) => {}
            () = time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// What is to be written, if anything. Under `rewound` nothing is.
fn next(term: &DriverContext, state: &State) -> Option<Txn> {
    let rules = state.routing().and_then(RoutingConfig::http_rules);
    if state.rewound().is_some() || !rules.is_some_and(Rules::learn) {
        return None;
    }
    let held = state.cookie_keys();
    let fresh = || term.options.random.bytes();
    let due = due(
        held.map(|held| &*held.value),
        term.options.clock.now(),
        fresh,
    )?;
    let value = match held {
        // What a later version has added stays.
        Some(held) => {
            let mut value = held.value.clone();
            *value = due;
            value
        }
        None => Stored::new(due),
    };
    let sealing = value.sealing;
    tracing::info!(
        sealing,
        keys = value.keys.len(),
        "the keys of cookies change"
    );
    Some(
        Txn::new()
            .absent(keys::REWOUND)
            .at(keys::LEADER, term.leadership.token())
            .at(keys::COOKIE_KEYS, held.map_or(0, |held| held.revision))
            .put(keys::COOKIE_KEYS, value.bytes()),
    )
}
