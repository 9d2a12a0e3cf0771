//! Waiting for a migration, and watching it.

use std::sync::Arc;

use ferrypost_proto::{MigrationId, v1};
use futures_util::{Stream, stream};
use tokio::time;

use super::{MigrationUseCases, Patience};
use crate::{
    domain::state::State,
    refusal::{Answer, Reason, Refusal},
    service::ending,
};

impl MigrationUseCases {
    /// Waits until the migration has succeeded or was aborted, or patience ends.
    pub(super) async fn outcome(
        &self,
        id: &MigrationId,
        patience: Patience,
    ) -> Answer<(Arc<State>, v1::Migration)> {
        self.decided(id, patience).await?;
        let (state, migration) = self.migration(id).await?;
        if migration.state() == v1::MigrationState::Aborted {
            return Err(stayed(&migration));
        }
        Ok((state, migration))
    }

    /// Waits until the migration has succeeded or was aborted, or patience ends. Thousands may wait, so each
    /// looks only when its own migration was written.
    pub(super) async fn decided(&self, id: &MigrationId, patience: Patience) -> Answer<()> {
        let mut changes = self.core.mirror.changes_of(id);
        let decided = async {
            while !is_decided(&self.core.mirror.read(), id) {
                changes.next().await;
            }
        };
        tokio::select! {
            biased;
            () = decided => Ok(()),
            () = self.core.ending.cancelled() => Err(ending()),
            () = expired(patience) => Ok(()),
        }
    }

    /// The migration now, and after every change, until it has ended.
    ///
    /// # Errors
    /// When there is no such migration.
    pub async fn watch(
        &self,
        id: &MigrationId,
    ) -> Answer<impl Stream<Item = Answer<(Arc<State>, v1::Migration)>> + Send + use<>> {
        let first = self.migration(id).await?;
        let watching = Watching {
            desk: self.clone(),
            id: id.clone(),
            shown: None,
            first: Some(first),
        };
        Ok(stream::try_unfold(watching, Watching::next))
    }
}

/// A watch of one migration.
struct Watching {
    desk: MigrationUseCases,
    id: MigrationId,
    /// What was sent last.
    shown: Option<v1::Migration>,
    /// What is sent first, whether or not it has ended already.
    first: Option<(Arc<State>, v1::Migration)>,
}

impl Watching {
    async fn next(mut self) -> Answer<Option<((Arc<State>, v1::Migration), Self)>> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None if self.shown.as_ref().is_some_and(has_ended) => None,
            None => self.changed().await?,
        };
        Ok(next.map(|(state, migration)| {
            self.shown = Some(migration.clone());
            ((state, migration), self)
        }))
    }

    /// The migration once it looks different, for whatever reason; `None` if it is gone.
    async fn changed(&self) -> Answer<Option<(Arc<State>, v1::Migration)>> {
        let core = &self.desk.core;
        let mut changed = core.mirror.changed();
        let different = async {
            loop {
                changed.borrow_and_update();
                let state = core.mirror.read();
                match self.desk.shown(&state, &self.id) {
                    Some(now) if Some(&now) == self.shown.as_ref() => {}
                    now => return Ok(now.map(|now| (state, now))),
                }
                if changed.changed().await.is_err() {
                    return Err(ending());
                }
            }
        };
        tokio::select! {
            biased;
            different = different => different,
            () = core.ending.cancelled() => Err(ending()),
        }
    }
}

/// True once a migration has flipped or was aborted. One that the mirror does not know has been decided
/// long ago: it forgets only what has ended, and every caller has found the migration before.
fn is_decided(state: &State, id: &MigrationId) -> bool {
    state.migration(id).is_none_or(|migration| {
        matches!(
            migration.value.state(),
            v1::MigrationState::Succeeded | v1::MigrationState::Aborted
        )
    })
}

/// True once nothing will change any more.
pub(super) fn has_ended(migration: &v1::Migration) -> bool {
    match migration.state() {
        v1::MigrationState::Aborted => true,
        v1::MigrationState::Succeeded => migration.phase() == v1::Phase::Settled,
        _ => false,
    }
}

async fn expired(patience: Patience) {
    match patience {
        Patience::Unlimited => std::future::pending().await,
        Patience::Limited(limit) => time::sleep(limit).await,
    }
}

/// The answer to a caller who waited for a move that was given up.
fn stayed(migration: &v1::Migration) -> Refusal {
    let cause = migration.abort_cause.clone().unwrap_or_default();
    let first = cause.blockers.first();
    let why = first.map_or_else(
        || "no cause was recorded".to_owned(),
        |blocker| blocker.message.clone(),
    );
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_owned();
    let phase = word(cause.phase().as_str_name(), "PHASE_");
    let reason = first.map_or(v1::BlockerReason::Unspecified, v1::Blocker::reason);
    let mut refusal = Refusal::new(
        Reason::MigrationAborted,
        format!("the account stays at {}: {why}", migration.source),
    )
    .with("migration", &migration.migration_id)
    .with("phase", phase)
    .with("cause", word(reason.as_str_name(), "BLOCKER_REASON_"))
    .with("who", first.map_or("", |blocker| &blocker.who))
    .with("source", &migration.source)
    .with("target", &migration.target);
    for blocker in &cause.blockers {
        let subject = if blocker.who.is_empty() {
            word(blocker.reason().as_str_name(), "BLOCKER_REASON_")
        } else {
            blocker.who.clone()
        };
        refusal = refusal.violated(subject, &blocker.message);
    }
    refusal
}
