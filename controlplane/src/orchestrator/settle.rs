//! Waits out the ends of data planes whose backends' close nobody saw, then says that they are settled.

use std::{collections::HashMap, sync::Arc};

use tokio::time::{self, Instant};

use super::lead::{DriverContext, wait_changed};
use crate::{
    domain::fence::{Unsettled, unsettled_ends},
    domain::state::State,
    store::{Rev, Txn, keys},
};

/// Clears every unsettled end a settle time after this leader first saw it. A leader that takes over begins
/// again: only its own clock is good enough.
pub(super) async fn settle(term: &Arc<DriverContext>) {
    let mut changed = term.mirror.changed();
    let mut seen: HashMap<(Unsettled, Rev), Instant> = HashMap::new();
    loop {
        changed.borrow_and_update();
        let state = term.mirror.read();
        let ends = unsettled_ends(&state);
        seen.retain(|end, _| ends.contains(end));
        let now = Instant::now();
        for end in ends {
            seen.entry(end).or_insert(now);
        }
        let due = |since: Instant| since + term.options.settle;
        if let Some((end, _)) = seen.iter().find(|(_, since)| due(**since) <= now) {
            if let Some(txn) = clear(&state, end, term.leadership.token()) {
                tracing::info!(data_plane = %end.0.instance(), "settled: its servers have had their time");
                term.write(txn).await;
            }
            continue;
        }
        let next = seen.values().copied().map(due).min();
        let tick = async {
            match next {
                Some(at) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait_changed(&mut changed) => {}
            () = tick => {}
        }
    }
}

/// What says that an end is settled, over the revision that was seen.
fn clear(state: &State, (end, revision): &(Unsettled, Rev), token: Rev) -> Option<Txn> {
    let txn = Txn::new().absent(keys::REWOUND).at(keys::LEADER, token);
    Some(match end {
        Unsettled::Succession(instance) => {
            let mut registration = state.registrations().get(instance)?.value.clone();
            registration.unsettled_predecessor.clear();
            let key = keys::registration(instance);
            txn.at(key.clone(), *revision)
                .put(key, registration.bytes())
        }
        Unsettled::Departure(instance, boot) => {
            let key = keys::departed(instance, boot);
            txn.at(key.clone(), *revision).delete(key)
        }
        Unsettled::Expulsion(instance, boot) => {
            let of = (instance.clone(), boot.clone());
            let mut expelled = state.expelled().get(&of)?.value.clone();
            expelled.settled = true;
            let key = keys::expelled(instance, boot);
            txn.at(key.clone(), *revision).put(key, expelled.bytes())
        }
    })
}
