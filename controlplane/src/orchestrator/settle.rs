//! Waits out the ends of data planes whose backends' close nobody saw, then says that they are settled.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::lead::{DriverContext, wait_changed};
use crate::{
    domain::state::State,
    domain::unsettled::{Unsettled, unsettled_ends},
    store::{Rev, Txn, keys},
};

/// When this leader first saw each unsettled end: only its own clock is good enough.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<(Unsettled, Rev), Instant>);

impl Seen {
    fn look(&mut self, state: &State) {
        let ends = unsettled_ends(state);
        self.0.retain(|end, _| ends.contains(end));
        let now = Instant::now();
        for end in ends {
            self.0.entry(end).or_insert(now);
        }
    }

    /// One that is settled, and when the next one is.
    fn due(&self, settle: Duration) -> (Option<(Unsettled, Rev)>, Option<Instant>) {
        let now = Instant::now();
        let over = self.0.iter().find(|(_, since)| **since + settle <= now);
        let next = self.0.values().map(|since| *since + settle).min();
        (over.map(|(end, _)| end.clone()), next)
    }

    /// When the last of them is settled at the earliest; `None`: there is none.
    pub(super) fn settled(&self, state: &State, settle: Duration) -> Option<Instant> {
        let now = Instant::now();
        let since = |end| self.0.get(&end).copied().unwrap_or(now);
        let ends = unsettled_ends(state).into_iter();
        ends.map(|end| since(end) + settle).max()
    }
}

/// Clears every unsettled end a settle time after this leader first saw it. A leader that takes over begins
/// again: only its own clock is good enough.
pub(super) async fn settle(term: &Arc<DriverContext>) {
    let mut changed = term.mirror.changed();
    loop {
        changed.borrow_and_update();
        let state = term.mirror.read();
        let (over, next) = {
            let mut seen = term.seen();
            seen.look(&state);
            // While the store is `rewound` nothing is written.
            match state.rewound() {
                Some(_) => (None, None),
                None => seen.due(term.options.settle),
            }
        };
        if let Some(end) = over {
            if let Some(txn) = clear(&state, &end, term.leadership.token()) {
                tracing::info!(data_plane = %end.0.instance(), "settled: its servers have had their time");
                term.write(txn).await;
            }
            continue;
        }
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
