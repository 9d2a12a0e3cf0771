//! Moves one account back and forth, as an operator's script would: every call may be lost, and is
//! then repeated with its request id until the outcome is known.

use std::sync::Arc;
use std::time::Duration;

use ferrypost_proto::v1::{
    AbortMigrationRequest, GetMigrationRequest, MigrateRequest, Migration, MigrationState, Phase,
    RollbackRequest,
};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::history::{Moment, Move, Outcome, Recorder, Side};
use crate::world::{Operator, reason};

/// How long one call waits for the outcome before it is repeated.
const WAIT: Duration = Duration::from_secs(2);

/// A call that a replica does not answer by then is lost.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// Between a lost call and its repetition.
const AGAIN: Duration = Duration::from_millis(100);

/// In how many of a hundred moves an operator has second thoughts.
const SECOND_THOUGHTS: u32 = 10;

/// One account's mover.
pub(super) struct Mover {
    pub(super) account: Arc<str>,
    pub(super) operators: Vec<Operator>,
    pub(super) recorder: Recorder,
    pub(super) random: StdRng,
    pub(super) stop: CancellationToken,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Call {
    Migrate,
    Rollback,
}

impl Mover {
    /// Moves until told to stop, and sees the last move through. Gives back what was strange.
    pub(super) async fn run(mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut home = Side::Source;
        let mut count = 0;
        while !self.stop.is_cancelled() {
            count += 1;
            match self.move_once(home, count).await {
                Ok(Outcome::Flipped) => home = home.other(),
                Ok(Outcome::Stayed) => {}
                Err(status) => {
                    let account = &self.account;
                    complaints.push(format!("a move of {account} was refused: {status}"));
                    return complaints;
                }
            }
            let pause = Duration::from_millis(self.random.random_range(50..600));
            let stop = self.stop.clone();
            _ = stop.run_until_cancelled(sleep(pause)).await;
        }
        complaints
    }

    async fn move_once(&mut self, from: Side, count: u32) -> Result<Outcome, Status> {
        let call = match from {
            Side::Target if self.random.random_range(0..100) < 70 => Call::Rollback,
            _ => Call::Migrate,
        };
        let doubts = self.random.random_range(0..100) < SECOND_THOUGHTS;
        // Whoever means to take it back does not wait for the outcome.
        let mut wait = if doubts { Duration::ZERO } else { WAIT };
        let request_id = format!("{}-{count}", self.account);
        let mut replica = self.random.random_range(0..self.operators.len());
        let asked = self.recorder.asks(&self.account);
        loop {
            let operator = self.operators[replica].clone();
            let answer = self.ask(&operator, call, from, &request_id, wait).await;
            wait = WAIT;
            let end = match answer {
                Ok(migration) => match migration.state() {
                    MigrationState::Succeeded => Some((Outcome::Flipped, migration)),
                    MigrationState::Aborted => Some((Outcome::Stayed, migration)),
                    _ => {
                        if doubts {
                            abort(&operator, &migration.migration_id).await;
                        }
                        None
                    }
                },
                Err(status) => read_refusal(status)?.map(|id| {
                    let migration = Migration {
                        migration_id: id,
                        ..Migration::default()
                    };
                    (Outcome::Stayed, migration)
                }),
            };
            let Some((outcome, migration)) = end else {
                replica = (replica + 1) % self.operators.len();
                sleep(AGAIN).await;
                continue;
            };
            let one_fence = self.has_one_fence(&operator, &migration).await;
            self.recorder.movement(Move {
                account: Arc::clone(&self.account),
                migration: migration.migration_id,
                from,
                asked,
                answered: Moment::now(),
                outcome,
                held: migration.held.and_then(|held| held.try_into().ok()),
                one_fence,
            });
            return Ok(outcome);
        }
    }

    /// A refusal does not say how the move came to it.
    async fn has_one_fence(&self, operator: &Operator, ended: &Migration) -> bool {
        let request = GetMigrationRequest {
            migration_id: ended.migration_id.clone(),
        };
        let mut migrations = operator.migrations();
        let Ok(Ok(answer)) = timeout(CALL_LIMIT, migrations.get_migration(request)).await else {
            return false;
        };
        let migration = answer.into_inner().migration.unwrap_or_default();
        let withdrawn = migration.abort_cause.is_some_and(|cause| {
            let phase = cause.phase();
            matches!(phase, Phase::Unspecified | Phase::Copying)
        });
        migration.attempts == 1 && !withdrawn
    }

    async fn ask(
        &self,
        operator: &Operator,
        call: Call,
        from: Side,
        request_id: &str,
        wait: Duration,
    ) -> Result<Migration, Status> {
        let answer = async {
            match call {
                Call::Migrate => self.migrate(operator, from.other(), request_id, wait).await,
                Call::Rollback => self.roll_back(operator, request_id, wait).await,
            }
        };
        timeout(CALL_LIMIT, answer)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer"))??
            .ok_or_else(|| Status::data_loss("an answer without its migration"))
    }

    async fn migrate(
        &self,
        operator: &Operator,
        to: Side,
        request_id: &str,
        wait: Duration,
    ) -> Result<Option<Migration>, Status> {
        let request = MigrateRequest {
            account: self.account.to_string(),
            destination: to.name().to_owned(),
            request_id: request_id.to_owned(),
            wait: prost_types::Duration::try_from(wait).ok(),
            ..MigrateRequest::default()
        };
        let answer = operator.migrations().migrate(request).await?;
        Ok(answer.into_inner().migration)
    }

    async fn roll_back(
        &self,
        operator: &Operator,
        request_id: &str,
        wait: Duration,
    ) -> Result<Option<Migration>, Status> {
        let request = RollbackRequest {
            account: self.account.to_string(),
            request_id: request_id.to_owned(),
            wait: prost_types::Duration::try_from(wait).ok(),
            ..RollbackRequest::default()
        };
        let answer = operator.migrations().rollback(request).await?;
        Ok(answer.into_inner().migration)
    }
}

/// The migration that was given up, nothing when the call is to be repeated, or the refusal that
/// nothing here explains.
fn read_refusal(status: Status) -> Result<Option<String>, Status> {
    match status.code() {
        Code::Aborted if reason(&status).as_deref() == Some("MIGRATION_ABORTED") => {
            let info = status.get_details_error_info();
            let migration = info.and_then(|info| info.metadata.get("migration").cloned());
            Ok(Some(migration.unwrap_or_default()))
        }
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => Ok(None),
        // No replica's answer: the connection ended under the call, as it does when a replica stops.
        _ if std::error::Error::source(&status).is_some() => Ok(None),
        _ => Err(status),
    }
}

/// It may be too late, or get lost; the outcome is asked for anyway.
async fn abort(operator: &Operator, migration: &str) {
    let request = AbortMigrationRequest {
        migration_id: migration.to_owned(),
        reason: "second thoughts".to_owned(),
    };
    _ = timeout(CALL_LIMIT, operator.migrations().abort_migration(request)).await;
}
