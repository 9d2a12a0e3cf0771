//! Ending a move before it has flipped.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{MigrationId, v1};

use super::{MigrationUseCases, Patience, request::check_reason};
use crate::{
    domain::state::State,
    refusal::{Answer, Reason, Refusal},
    service::{Step, not_rewound},
    store::{Txn, keys},
};

/// The leader acts on an abort at its next step, which no hook may hold up for longer.
const UNTIL_DECIDED: Duration = Duration::from_secs(5);

impl MigrationUseCases {
    /// Asks the leader to abort, and waits a moment for it.
    ///
    /// # Errors
    /// [`Reason::AlreadyDecided`] when the move has flipped, also when that happened meanwhile.
    pub async fn abort(
        &self,
        id: &MigrationId,
        by: &str,
        reason: &str,
    ) -> Answer<(Arc<State>, v1::Migration)> {
        check_reason(reason)?;
        self.migration(id).await?;
        self.core
            .transact(|state| self.ask_to_abort(state, id, by, reason))
            .await?;
        self.decided(id, Patience::Limited(UNTIL_DECIDED)).await?;
        let (state, migration) = self.migration(id).await?;
        if migration.state() == v1::MigrationState::Succeeded {
            return Err(already_decided(&migration));
        }
        Ok((state, migration))
    }

    fn ask_to_abort(
        &self,
        state: &State,
        id: &MigrationId,
        by: &str,
        reason: &str,
    ) -> Answer<Step<()>> {
        // The mirror forgets only what has ended.
        let Some(record) = state.migration(id) else {
            return Ok(Step::Done(()));
        };
        match record.value.state() {
            v1::MigrationState::Aborted => return Ok(Step::Done(())),
            v1::MigrationState::Succeeded => {
                let shown = self.show(state, id, record);
                return Err(already_decided(&shown));
            }
            _ => not_rewound(state)?,
        }
        if !record.value.abort_requested_by.is_empty() {
            return Ok(Step::Done(()));
        }
        let mut asked = record.value.clone();
        by.clone_into(&mut asked.abort_requested_by);
        reason.clone_into(&mut asked.abort_reason);
        let key = keys::migration(id);
        let txn = Txn::new()
            .at(key.clone(), record.revision)
            .put(key, asked.bytes());
        Ok(Step::Write(txn, ()))
    }
}

fn already_decided(migration: &v1::Migration) -> Refusal {
    Refusal::new(
        Reason::AlreadyDecided,
        format!(
            "{} has flipped: the account lives at {}; Rollback takes it back",
            migration.migration_id, migration.target
        ),
    )
    .with("migration", &migration.migration_id)
    .with(
        "phase",
        migration.phase().as_str_name().trim_start_matches("PHASE_"),
    )
}
