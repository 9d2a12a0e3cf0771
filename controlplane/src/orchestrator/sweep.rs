//! Removes drained reports that no fence waits for: reports are level-triggered, so one may be written
//! once more after its fence has ended.

use std::{sync::Arc, time::Duration};

use tokio::time;

use super::lead::{DriverContext, wait_changed};
use crate::{
    domain::state::{State, has_ended},
    store::{Txn, keys},
};

/// Reports that are removed at once.
const AT_ONCE: usize = 64;

/// Least time between two sweeps: nobody waits for it.
const EVERY: Duration = Duration::from_secs(1);

/// Sweeps for ever.
pub(super) async fn sweep(term: &Arc<DriverContext>) {
    let mut changed = term.mirror.changed();
    loop {
        changed.borrow_and_update();
        let useless = useless_reports(&term.mirror.read());
        if useless.is_empty() {
            wait_changed(&mut changed).await;
        } else {
            let txn = Txn::new()
                .absent(keys::REWOUND)
                .at(keys::LEADER, term.leadership.token());
            let txn = useless.into_iter().fold(txn, Txn::delete);
            term.write(txn).await;
        }
        time::sleep(EVERY).await;
    }
}

fn useless_reports(state: &State) -> Vec<Vec<u8>> {
    state
        .drained_migrations()
        .filter(|id| {
            // A migration that is not kept any more has ended long ago.
            state
                .migration(id)
                .is_none_or(|migration| has_ended(&migration.value))
        })
        .flat_map(|id| {
            let reports = state.drained(id).into_iter().flatten();
            reports.map(|(instance, _)| keys::drained(id, instance))
        })
        .take(AT_ONCE)
        .collect()
}
