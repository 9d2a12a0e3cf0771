//! Following all moves that fit, whatever becomes of the connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrypost_proto::v1;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;

use crate::{
    client::Client,
    exit::Exit,
    failure::{Failure, Intent},
    follow::{LOST, PAUSE, is_final},
    progress::{has_ended, is_decided},
};

/// Which moves to follow, and how far.
pub(crate) struct FollowAll {
    pub(crate) filter: v1::WatchMigrationsRequest,
    /// End when none that was shown is under way.
    pub(crate) until_done: bool,
    pub(crate) wait: Duration,
}

/// What has become of those that were shown.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    shown: BTreeMap<String, v1::Migration>,
    /// Those that this connection has spoken of.
    fresh: BTreeSet<String>,
    /// Whether all that there was at first has been said.
    is_whole: bool,
}

impl Tally {
    fn note(&mut self, migration: v1::Migration) {
        self.fresh.insert(migration.migration_id.clone());
        self.shown.insert(migration.migration_id.clone(), migration);
    }

    fn begins_anew(&mut self) {
        self.fresh.clear();
        self.is_whole = false;
    }

    /// Those that were under way when last heard of, and of which this connection said nothing: they may have ended
    /// while there was none.
    fn unheard(&self) -> Vec<String> {
        let shown = self.shown.iter();
        let unheard = shown.filter(|(id, it)| !has_ended(it) && !self.fresh.contains(*id));
        unheard.map(|(id, _)| id.clone()).collect()
    }

    fn is_done(&self) -> bool {
        self.is_whole && self.shown.values().all(is_decided)
    }

    /// What it comes to for whoever waits for all.
    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        let aborted = self
            .shown
            .values()
            .filter(|it| it.state() == v1::MigrationState::Aborted);
        match aborted.count() {
            0 => Ok(()),
            number => Err(Failure::new(
                Exit::Aborted,
                format!(
                    "{number} of {} moves were given up: those accounts stay where they were",
                    self.shown.len()
                ),
            )),
        }
    }
}

impl FollowAll {
    /// Follows. `seen` gets every change.
    ///
    /// # Errors
    /// When the time is over, the control plane is lost, or the filter has no meaning.
    pub(crate) async fn run(
        &self,
        client: &mut Client,
        seen: &mut impl FnMut(&v1::Migration),
    ) -> Result<Tally, Failure> {
        let deadline = Instant::now() + self.wait;
        let mut tally = Tally::default();
        let mut heard = Instant::now();
        loop {
            tally.begins_anew();
            let watched =
                timeout_at(deadline, self.watch(client, &mut tally, seen, &mut heard)).await;
            match watched {
                Err(_) => return Err(self.late()),
                Ok(Ok(())) => return Ok(tally),
                Ok(Err(status)) if is_final(&status) => {
                    return Err(Failure::of(&status, Intent::Look));
                }
                Ok(Err(status)) if heard.elapsed() > LOST => return Err(lost(&status)),
                Ok(Err(_)) => {
                    sleep(PAUSE).await;
                    _ = client.reconnect().await;
                }
            }
        }
    }

    async fn watch(
        &self,
        client: &Client,
        tally: &mut Tally,
        seen: &mut impl FnMut(&v1::Migration),
        heard: &mut Instant,
    ) -> Result<(), Status> {
        let mut migrations = client.migrations();
        let watch = migrations.watch_migrations(self.filter.clone()).await?;
        let mut changes = watch.into_inner();
        loop {
            let Some(change) = changes.message().await? else {
                return Err(Status::unavailable("the watch has ended"));
            };
            *heard = Instant::now();
            if let Some(migration) = change.migration {
                seen(&migration);
                tally.note(migration);
            } else {
                tally.is_whole = true;
                for id in tally.unheard() {
                    let request = v1::GetMigrationRequest { migration_id: id };
                    let found = client.migrations().get_migration(request).await?;
                    if let Some(migration) = found.into_inner().migration {
                        seen(&migration);
                        tally.note(migration);
                    }
                }
            }
            if self.until_done && tally.is_done() {
                return Ok(());
            }
        }
    }

    fn late(&self) -> Failure {
        Failure::new(
            Exit::Deadline,
            format!("watched for {:?}; moves go on", self.wait),
        )
    }
}

fn lost(status: &Status) -> Failure {
    let message = format!(
        "the control plane is lost ({}), and moves go on without us",
        status.message()
    );
    Failure::new(Exit::Unknown, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(id: &str, state: v1::MigrationState) -> v1::Migration {
        v1::Migration {
            migration_id: id.into(),
            state: state.into(),
            ..v1::Migration::default()
        }
    }

    #[test]
    fn it_is_done_when_all_that_were_shown_are_decided() {
        let mut tally = Tally::default();
        assert!(!tally.is_done(), "nobody has said that this is all");
        tally.note(migration("a", v1::MigrationState::Running));
        tally.is_whole = true;
        assert!(!tally.is_done());
        tally.note(migration("a", v1::MigrationState::Succeeded));
        assert!(tally.is_done());
        assert_eq!(tally.outcome(), Ok(()));
        tally.note(migration("b", v1::MigrationState::Aborted));
        let failure = tally.outcome().unwrap_err();
        assert_eq!(failure.exit, Exit::Aborted);
        assert!(failure.to_string().contains("1 of 2 moves"), "{failure}");
    }

    #[test]
    fn what_may_have_ended_while_there_was_no_connection_is_asked_for() {
        let mut tally = Tally::default();
        tally.note(migration("a", v1::MigrationState::Running));
        tally.note(migration("b", v1::MigrationState::Aborted));
        tally.note(migration("c", v1::MigrationState::Running));
        assert_eq!(tally.unheard(), [""; 0]);
        tally.begins_anew();
        tally.note(migration("c", v1::MigrationState::Running));
        assert_eq!(tally.unheard(), ["a"]);
    }
}
