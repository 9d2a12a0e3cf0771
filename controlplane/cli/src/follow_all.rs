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

/// Moves in a page of those that have ended.
const PAGE: i32 = 500;

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
    /// Whether those that had ended before have been asked for.
    has_looked_back: bool,
}

impl Tally {
    fn note(&mut self, migration: v1::Migration) {
        self.fresh.insert(migration.migration_id.clone());
        self.shown.insert(migration.migration_id.clone(), migration);
    }

    /// Of the moves of each account the last one: whoever was given up may have been moved since.
    fn last_of_each(&self) -> Vec<&v1::Migration> {
        let at = |it: &v1::Migration| it.requested_at.map(|at| (at.seconds, at.nanos));
        let mut last: BTreeMap<&str, &v1::Migration> = BTreeMap::new();
        for migration in self.shown.values() {
            for account in &migration.accounts {
                let present = last.entry(&account.account_id).or_insert(migration);
                if at(migration) > at(present) {
                    *present = migration;
                }
            }
        }
        let by_id: BTreeMap<_, _> = last
            .into_values()
            .map(|it| (&it.migration_id, it))
            .collect();
        by_id.into_values().collect()
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
        let last = self.last_of_each();
        let aborted = last
            .iter()
            .filter(|it| it.state() == v1::MigrationState::Aborted);
        match aborted.count() {
            0 => Ok(()),
            number => Err(Failure::new(
                Exit::Aborted,
                format!(
                    "{number} of {} moves were given up: those accounts stay where they were",
                    last.len()
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
                if self.until_done && !tally.has_looked_back {
                    let before: BTreeSet<_> = tally.shown.keys().cloned().collect();
                    self.look_back(client, tally).await?;
                    let given_up = tally.last_of_each().into_iter().filter(|it| {
                        it.state() == v1::MigrationState::Aborted
                            && !before.contains(&it.migration_id)
                    });
                    given_up.for_each(&mut *seen);
                }
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

    /// Asks for those that had ended before anybody watched, where it is said which belong together: the first of a wave are
    /// given up before the last are ordered.
    async fn look_back(&self, client: &Client, tally: &mut Tally) -> Result<(), Status> {
        let filter = &self.filter;
        let is_a_set = !filter.account.is_empty() || !filter.labels.is_empty();
        if !is_a_set || filter.state() != v1::MigrationState::Unspecified {
            return Ok(());
        }
        let mut page_token = String::new();
        loop {
            let request = v1::ListMigrationsRequest {
                page_size: PAGE,
                page_token,
                account: filter.account.clone(),
                labels: filter.labels.clone(),
                ..v1::ListMigrationsRequest::default()
            };
            let page = client
                .migrations()
                .list_migrations(request)
                .await?
                .into_inner();
            for migration in page.migrations {
                // What the watch has said is as new as this.
                tally
                    .shown
                    .entry(migration.migration_id.clone())
                    .or_insert(migration);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                tally.has_looked_back = true;
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
    use prost_types::Timestamp;

    use super::*;

    fn migration(id: &str, state: v1::MigrationState) -> v1::Migration {
        v1::Migration {
            migration_id: id.into(),
            state: state.into(),
            // "a2" is the second move of "a".
            accounts: vec![v1::MigratingAccount {
                account_id: id[..1].to_owned(),
                names: Vec::new(),
            }],
            requested_at: id[1..]
                .parse()
                .ok()
                .map(|seconds| Timestamp { seconds, nanos: 0 }),
            ..v1::Migration::default()
        }
    }

    #[test]
    fn of_the_moves_of_an_account_the_last_one_counts() {
        use v1::MigrationState::{Aborted, Running, Succeeded};
        let mut tally = Tally::default();
        for (id, state) in [
            ("a2", Running),
            ("a1", Aborted),
            ("b2", Aborted),
            ("b1", Succeeded),
        ] {
            tally.note(migration(id, state));
        }
        tally.is_whole = true;
        tally.note(migration("a2", Succeeded));
        let failure = tally.outcome().unwrap_err();
        assert!(failure.to_string().contains("1 of 2 moves"), "{failure}");
        tally.note(migration("b3", Running));
        assert!(!tally.is_done());
        tally.note(migration("b3", Succeeded));
        assert_eq!(tally.outcome(), Ok(()));
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
