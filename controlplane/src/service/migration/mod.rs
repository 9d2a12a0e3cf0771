//! Moving accounts, and back: what operators ask for, and how they wait for it.
//!
//! ```text
//!   Migrate, Rollback ─▶ start ─▶ COPYING in the store ─▶ (the leader drives it from there)
//!                          └─ plan: who is disconnected, what blocks, what stays behind
//!   wait, watch ◀── mirror: waiting is not part of the move, whoever waits may leave and ask again
//! ```

mod abort;
mod lookup;
mod plan;
mod request;
mod start;
mod view;
mod waiting;
mod watching;

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{MigrationId, TraceParent, v1};

pub use lookup::{MigrationFilter, MigrationPage};
pub(in crate::service) use request::check_reason;
pub use request::{MoveKind, MoveOrder};
pub(in crate::service) use start::with_known_destinations;

use super::Core;
use crate::{domain::state::State, fleet::Fleet, refusal::Answer};

/// The use cases of `MigrationService`.
#[derive(Debug, Clone)]
pub struct MigrationUseCases {
    core: Arc<Core>,
    fleet: Fleet,
}

/// What a move's caller gets.
#[derive(Debug)]
pub struct Moved {
    /// A state in which the answer is true.
    pub state: Arc<State>,
    /// The move; `None` when only the plan was asked for.
    pub migration: Option<v1::Migration>,
    /// What it does, as seen before it began.
    pub plan: v1::MigrationPlan,
    /// Data planes that could not say how many sessions they have.
    pub unreachable: Vec<String>,
}

/// How long a caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until the outcome is known.
    Unlimited,
    /// At most this long; zero asks for an answer at once.
    Limited(Duration),
}

impl MigrationUseCases {
    /// A desk over a store and its fleet.
    pub fn new(core: Arc<Core>, fleet: Fleet) -> Self {
        Self { core, fleet }
    }

    /// What every answer says about itself.
    pub fn header(&self, state: &State, unreachable: Vec<String>) -> v1::ResponseHeader {
        self.core.header(state, unreachable)
    }

    /// The trace that a call belongs to.
    pub(crate) fn trace(&self, of_caller: Option<TraceParent>) -> TraceParent {
        self.core.trace(of_caller)
    }

    /// What a move would do, without doing it.
    ///
    /// # Errors
    /// Whatever the move itself would be refused for.
    pub async fn plan_move(&self, order: &MoveOrder) -> Answer<Moved> {
        let state = self.core.caught_up().await?;
        let draft = self.draft(&state, order)?;
        let (plan, unreachable) = self.plan(&state, &draft, plan::PATIENCE).await;
        Ok(Moved {
            state,
            migration: None,
            plan,
            unreachable,
        })
    }

    /// Starts a move, or joins the one that was started for the same purpose, and waits.
    ///
    /// # Errors
    /// Refusals of the start; [`Reason::MigrationAborted`](crate::refusal::Reason::MigrationAborted)
    /// when the account stayed where it was.
    pub async fn make_move(&self, order: &MoveOrder, patience: Patience) -> Answer<Moved> {
        let started = self.start(order, patience).await?;
        let (state, migration) = self.outcome(&started.migration, patience).await?;
        Ok(Moved {
            state,
            migration: Some(migration),
            plan: started.plan,
            unreachable: started.unreachable,
        })
    }

    /// Waits for a migration's outcome.
    ///
    /// # Errors
    /// As [`Self::make_move`].
    pub async fn wait(
        &self,
        id: &MigrationId,
        patience: Patience,
    ) -> Answer<(Arc<State>, v1::Migration)> {
        self.migration(id).await?;
        self.outcome(id, patience).await
    }
}
