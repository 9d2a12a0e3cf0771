//! Runs a command: asks, shows, and says how it ended.

use std::time::{Duration, SystemTime};

use clap::CommandFactory as _;
use ferrypost_proto::v1;
use ferrypost_runtime::Random;
use tokio::time::{Instant, sleep};
use tonic::{Response, Status};

use crate::{
    args::{self, Arguments, Command, MoveFlags, Output},
    certificates,
    check::{Facts, Report},
    client::Client,
    connection::{Connection, Environment},
    console::Console,
    exit::Exit,
    failure::{Failure, Intent},
    follow::Follow,
    follow_all::FollowAll,
    progress::{has_ended, is_decided, line},
    request,
    show::{self, View},
};

/// Runs what was asked for.
pub async fn run(
    arguments: &Arguments,
    environment: Environment<'_>,
    console: &mut Console,
) -> Exit {
    let exit = match act(arguments, environment, console).await {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            console.note(&failure.to_string());
            failure.exit
        }
    };
    let Some(error) = console.unwritten() else {
        return exit;
    };
    console.note(&format!("the result could not be written: {error}"));
    if exit == Exit::Ok {
        Exit::Unwritten
    } else {
        exit
    }
}

async fn act(
    arguments: &Arguments,
    environment: Environment<'_>,
    console: &mut Console,
) -> Result<(), Failure> {
    if let Command::Completion(asked) = &arguments.command {
        console.result(&completion(asked.shell));
        return Ok(());
    }
    let connection = Connection::new(&arguments.connection, environment)?;
    if let Command::Check(asked) = &arguments.command {
        return check(asked, &connection, arguments.output, console).await;
    }
    let client = Client::connect(&connection).await?;
    let mut session = Session {
        client,
        console,
        output: arguments.output,
    };
    session.command(&arguments.command).await
}

fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "ferrypost", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Between two looks at an installation that is not yet as it should be.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks, again and again if that was asked for: whoever waits for an installation waits for its control plane as well.
async fn check(
    asked: &args::Check,
    connection: &Connection,
    output: Output,
    console: &mut Console,
) -> Result<(), Failure> {
    let deadline = Instant::now() + asked.wait.unwrap_or_default();
    loop {
        let looked = look(connection).await;
        let is_over = Instant::now() + PAUSE > deadline;
        let found = match looked {
            Ok(report) if report.findings() == 0 || is_over => {
                console.result(&report.render(output));
                report.findings()
            }
            Err(failure) if is_over || failure.exit == Exit::Usage => return Err(failure),
            Ok(_) | Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        return match (found, asked.wait) {
            (0, _) => Ok(()),
            (_, None) => Err(Failure::new(Exit::Findings, "not all is as it should be")),
            (_, Some(wait)) => Err(Failure::new(
                Exit::Deadline,
                format!("not all is as it should be after {wait:?}"),
            )),
        };
    }
}

async fn look(connection: &Connection) -> Result<Report, Failure> {
    let client = Client::connect(connection).await?;
    let mut stats = client.stats();
    let destinations = looked(
        stats
            .list_destinations(v1::ListDestinationsRequest {})
            .await,
    );
    let (destinations, unlisted) = match destinations {
        // There is no routing configuration, and so no name that it could not list.
        Err(failure) if failure.exit == Exit::Refused => {
            (None, v1::ListUnlistedLoginsResponse::default())
        }
        Err(failure) => return Err(failure),
        Ok(destinations) => {
            let asked = v1::ListUnlistedLoginsRequest::default();
            (
                Some(destinations),
                looked(stats.list_unlisted_logins(asked).await)?,
            )
        }
    };
    let asked = v1::GetRoutingConfigRequest {};
    let facts = Facts {
        stats: looked(stats.get_stats(v1::GetStatsRequest {}).await)?,
        data_planes: looked(stats.list_data_planes(v1::ListDataPlanesRequest {}).await)?,
        destinations,
        routing: looked(client.routing_config().get_routing_config(asked).await)?,
        unlisted,
        shown: certificates::shown(connection).await?,
        now: now(),
    };
    Ok(Report::of(&facts))
}

/// Certificates end by the time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "it decides about nothing but what a person is told"
)]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX))
}

/// One command's way to the control plane and to whoever typed it.
struct Session<'a> {
    client: Client,
    console: &'a mut Console,
    output: Output,
}

impl Session<'_> {
    async fn command(&mut self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Migrate(order) => self.migrate(order).await,
            Command::Rollback(order) => self.rollback(order).await,
            Command::Abort(order) => self.abort(order).await,
            Command::Migrations(asked) => self.migrations(asked).await,
            Command::Watch(asked) => self.watch(asked).await,
            Command::Explain(asked) => self.explain(asked).await,
            Command::Placements(asked) => self.placements(asked).await,
            Command::Sessions(asked) => self.sessions(asked).await,
            Command::Kick(order) => self.kick(order).await,
            Command::Stats => self.stats().await,
            Command::Dataplanes => self.data_planes().await,
            Command::Destinations => self.destinations().await,
            Command::Unlisted => self.unlisted().await,
            Command::Expel(order) => self.expel(order).await,
            Command::Rewound(asked) => self.rewound(asked).await,
            Command::Check(_) | Command::Completion(_) => Ok(()),
        }
    }

    fn show(&mut self, view: &View) {
        self.console.result(&view.render(self.output));
    }

    /// Shows an answer, and beside it what is missing from it.
    fn answer(&mut self, view: &View, header: Option<&v1::ResponseHeader>) {
        self.show(view);
        if let Some(note) = show::missing(header) {
            self.console.note(&note);
        }
    }

    async fn migrate(&mut self, order: &args::Migrate) -> Result<(), Failure> {
        let repeatable = Repeatable::of(order.flags.request_id.as_deref());
        let request = request::migrate(order, &repeatable.id);
        let asked = v1::MigrateRequest {
            validate_only: true,
            ..request.clone()
        };
        let planned = looked(self.client.migrations().migrate(asked).await);
        if order.flags.dry_run {
            let planned = planned?;
            self.answer(
                &show::moves::migrate_plan(&planned),
                planned.header.as_ref(),
            );
            return Ok(());
        }
        self.say_plan(planned.map(|it| it.plan), &repeatable)?;
        repeatable.begins(self.console);
        let started = self.client.migrations().migrate(request).await;
        let started = repeatable.changed(started)?;
        self.conclude(started.migration, &order.flags).await
    }

    async fn rollback(&mut self, order: &args::Rollback) -> Result<(), Failure> {
        let repeatable = Repeatable::of(order.flags.request_id.as_deref());
        let request = request::rollback(order, &repeatable.id);
        let asked = v1::RollbackRequest {
            validate_only: true,
            ..request.clone()
        };
        let planned = looked(self.client.migrations().rollback(asked).await);
        if order.flags.dry_run {
            let planned = planned?;
            self.answer(
                &show::moves::rollback_plan(&planned),
                planned.header.as_ref(),
            );
            return Ok(());
        }
        self.say_plan(planned.map(|it| it.plan), &repeatable)?;
        repeatable.begins(self.console);
        let started = self.client.migrations().rollback(request).await;
        let started = repeatable.changed(started)?;
        self.conclude(started.migration, &order.flags).await
    }

    /// Says what is going to happen, before it does. A repeat of what was done already is planned in vain: its
    /// answer is that of the first call.
    fn say_plan(
        &mut self,
        planned: Result<Option<v1::MigrationPlan>, Failure>,
        repeatable: &Repeatable,
    ) -> Result<(), Failure> {
        match planned {
            Ok(plan) => {
                let text = show::moves::plan_text(&plan.unwrap_or_default());
                self.console.note(&text);
                Ok(())
            }
            Err(failure) if failure.exit == Exit::Refused && repeatable.is_given => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Waits for the outcome, shows it, and says whether it is the one that was asked for.
    async fn conclude(
        &mut self,
        started: Option<v1::Migration>,
        flags: &MoveFlags,
    ) -> Result<(), Failure> {
        let started = started.unwrap_or_default();
        if is_decided(&started) {
            // It was when this request id was used before.
            self.show(&show::moves::migration(&started));
            outcome(&started)?;
            return self.stands(&started).await;
        }
        if flags.wait.is_zero() {
            self.show(&show::moves::migration(&started));
            return Ok(());
        }
        let follow = Follow {
            migration_id: started.migration_id.clone(),
            until: is_decided,
            wait: flags.wait,
        };
        let followed = follow.run(&mut self.client, self.console, |_, _| ()).await;
        let last = followed.last.unwrap_or(started);
        self.show(&show::moves::migration(&last));
        followed.failure.map_or_else(|| outcome(&last), Err)
    }

    /// Whether what a move did that was over when it was asked for again is still so.
    async fn stands(&self, migration: &v1::Migration) -> Result<(), Failure> {
        for account in &migration.accounts {
            let request = v1::GetPlacementRequest {
                account: account.account_id.clone(),
            };
            let answer = looked(self.client.placements().get_placement(request).await)?;
            let placement = answer.placement.unwrap_or_default();
            if placement.destination != migration.target {
                let message = format!(
                    "the move with this request id was done, and the account has moved since: it lives at {}",
                    placement.destination
                );
                return Err(
                    Failure::new(Exit::Refused, message).hint("move it with another --request-id")
                );
            }
        }
        Ok(())
    }

    async fn watch(&mut self, asked: &args::Watch) -> Result<(), Failure> {
        match &asked.migration {
            Some(migration) => self.watch_one(migration, asked.wait).await,
            None => self.watch_all(asked).await,
        }
    }

    async fn watch_all(&mut self, asked: &args::Watch) -> Result<(), Failure> {
        let follow = FollowAll {
            filter: request::watch(asked),
            until_done: asked.until_done,
            wait: asked.wait,
        };
        let (output, console) = (self.output, &mut *self.console);
        let mut seen = |migration: &v1::Migration| {
            let text = match output {
                Output::Table => line(migration),
                other => show::moves::migration(migration).render_one_of_many(other),
            };
            console.result(&text);
        };
        let tally = follow.run(&mut self.client, &mut seen).await?;
        tally.outcome()
    }

    async fn watch_one(&mut self, migration: &str, wait: Duration) -> Result<(), Failure> {
        let follow = Follow {
            migration_id: migration.to_owned(),
            until: has_ended,
            wait,
        };
        let output = self.output;
        let each = |console: &mut Console, migration: &v1::Migration| {
            if output != Output::Table {
                let view = show::moves::migration(migration);
                console.result(&view.render_one_of_many(output));
            }
        };
        let followed = follow.run(&mut self.client, self.console, each).await;
        if let (Some(last), Output::Table) = (&followed.last, output) {
            self.show(&show::moves::migration(last));
        }
        match (followed.failure, followed.last) {
            (Some(failure), _) => Err(failure),
            (None, Some(last)) => outcome(&last),
            (None, None) => Ok(()),
        }
    }

    async fn abort(&mut self, order: &args::Abort) -> Result<(), Failure> {
        let request = v1::AbortMigrationRequest {
            migration_id: order.migration.clone(),
            reason: order.reason.clone(),
        };
        let answer = changed(self.client.migrations().abort_migration(request).await)?;
        let migration = answer.migration.unwrap_or_default();
        self.answer(&show::moves::migration(&migration), answer.header.as_ref());
        Ok(())
    }

    async fn migrations(&mut self, asked: &args::Migrations) -> Result<(), Failure> {
        let limit = asked.limit as usize;
        let mut all = v1::ListMigrationsResponse::default();
        loop {
            let request = request::migrations(asked, all.next_page_token.clone());
            let page = looked(self.client.migrations().list_migrations(request).await)?;
            all.migrations.extend(page.migrations);
            all.header = both(all.header, page.header);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || all.migrations.len() >= limit {
                break;
            }
        }
        let there_are_more = !all.next_page_token.is_empty() || all.migrations.len() > limit;
        all.migrations.truncate(limit);
        self.answer(&show::moves::list(&all), all.header.as_ref());
        if there_are_more {
            self.console.note("note: there are more; raise --limit");
        }
        Ok(())
    }

    async fn explain(&mut self, asked: &args::Explain) -> Result<(), Failure> {
        let request = v1::ExplainRouteRequest {
            login: asked.login.clone(),
            ask_data_planes: asked.data_planes,
        };
        let answer = looked(self.client.placements().explain_route(request).await)?;
        self.answer(&show::places::route(&answer), answer.header.as_ref());
        Ok(())
    }

    async fn placements(&mut self, asked: &args::Placements) -> Result<(), Failure> {
        if let Some(account) = &asked.account {
            let request = v1::GetPlacementRequest {
                account: account.clone(),
            };
            let answer = looked(self.client.placements().get_placement(request).await)?;
            self.answer(&show::places::one(&answer), answer.header.as_ref());
            return Ok(());
        }
        let mut all = v1::ListPlacementsResponse::default();
        loop {
            let request = request::placements(asked, all.next_page_token.clone());
            let page = looked(self.client.placements().list_placements(request).await)?;
            all.placements.extend(page.placements);
            all.header = both(all.header, page.header);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                break;
            }
        }
        self.answer(&show::places::list(&all), all.header.as_ref());
        Ok(())
    }

    async fn sessions(&mut self, asked: &args::Sessions) -> Result<(), Failure> {
        let limit = asked.limit as usize;
        let mut all = v1::ListSessionsResponse::default();
        loop {
            let request = request::sessions(asked, all.next_page_token.clone());
            let page = looked(self.client.stats().list_sessions(request).await)?;
            all.sessions.extend(page.sessions);
            all.truncated = page.truncated;
            all.header = both(all.header, page.header);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || all.sessions.len() >= limit {
                break;
            }
        }
        let there_are_more = all.truncated || all.sessions.len() > limit;
        all.sessions.truncate(limit);
        self.answer(&show::fleet::sessions(&all), all.header.as_ref());
        if there_are_more {
            self.console
                .note("note: there are more; raise --limit, or name an account");
        }
        Ok(())
    }

    async fn kick(&mut self, order: &args::Kick) -> Result<(), Failure> {
        let request = v1::KickSessionsRequest {
            account: order.account.clone(),
            reason: order.reason.clone(),
        };
        let answer = changed(self.client.stats().kick_sessions(request).await)?;
        self.answer(&show::fleet::kicked(&answer), answer.header.as_ref());
        Ok(())
    }

    async fn stats(&mut self) -> Result<(), Failure> {
        let answer = looked(self.client.stats().get_stats(v1::GetStatsRequest {}).await)?;
        self.answer(&show::fleet::stats(&answer), answer.header.as_ref());
        Ok(())
    }

    async fn data_planes(&mut self) -> Result<(), Failure> {
        let request = v1::ListDataPlanesRequest {};
        let answer = looked(self.client.stats().list_data_planes(request).await)?;
        self.answer(&show::fleet::data_planes(&answer), answer.header.as_ref());
        Ok(())
    }

    async fn destinations(&mut self) -> Result<(), Failure> {
        let request = v1::ListDestinationsRequest {};
        let answer = looked(self.client.stats().list_destinations(request).await)?;
        self.answer(&show::fleet::destinations(&answer), answer.header.as_ref());
        Ok(())
    }

    async fn unlisted(&mut self) -> Result<(), Failure> {
        let mut all = v1::ListUnlistedLoginsResponse::default();
        loop {
            let request = v1::ListUnlistedLoginsRequest {
                page_size: request::PAGE,
                page_token: all.next_page_token.clone(),
            };
            let page = looked(self.client.stats().list_unlisted_logins(request).await)?;
            all.logins.extend(page.logins);
            all.header = both(all.header, page.header);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                break;
            }
        }
        self.answer(&show::fleet::unlisted(&all), all.header.as_ref());
        Ok(())
    }

    async fn expel(&mut self, order: &args::Expel) -> Result<(), Failure> {
        let request = v1::ExpelDataPlaneRequest {
            instance: order.instance.clone(),
            boot: order.boot.clone(),
            reason: order.reason.clone(),
        };
        let answer = changed(self.client.stats().expel_data_plane(request).await)?;
        self.answer(&show::fleet::expelled(&answer), answer.header.as_ref());
        Ok(())
    }

    async fn rewound(&mut self, asked: &args::Rewound) -> Result<(), Failure> {
        if let Some(keep) = asked.keep {
            return self.resolve(keep, asked).await;
        }
        let mut all = v1::GetRewoundResponse::default();
        loop {
            let request = v1::GetRewoundRequest {
                page_size: request::PAGE,
                page_token: std::mem::take(&mut all.next_page_token),
            };
            let page = looked(self.client.stats().get_rewound(request).await)?;
            let mut accounts = std::mem::take(&mut all.accounts);
            accounts.extend(page.accounts);
            all = v1::GetRewoundResponse { accounts, ..page };
            if all.next_page_token.is_empty() {
                break;
            }
        }
        self.answer(&show::rewound::list(&all), all.header.as_ref());
        Ok(())
    }

    async fn resolve(&mut self, keep: args::Keep, asked: &args::Rewound) -> Result<(), Failure> {
        let repeatable = Repeatable::of(asked.request_id.as_deref());
        repeatable.begins(self.console);
        let request = request::resolve(keep, asked, &repeatable.id);
        let answer = repeatable.changed(self.client.stats().resolve_rewound(request).await)?;
        self.answer(&show::rewound::resolved(&answer), answer.header.as_ref());
        Ok(())
    }
}

/// An intention with a name, so that asking for it again is safe.
struct Repeatable {
    id: String,
    /// Whether whoever typed the command has named it.
    is_given: bool,
}

impl Repeatable {
    fn of(given: Option<&str>) -> Self {
        Self {
            id: given.map_or_else(fresh_id, str::to_owned),
            is_given: given.is_some(),
        }
    }

    /// Said before the call: whoever is cut off in the middle of it knows how to go on.
    fn begins(&self, console: &mut Console) {
        if !self.is_given {
            console.note(&format!("request id: {}", self.id));
        }
    }

    fn changed<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Failure> {
        changed(answer).map_err(|failure| {
            if failure.exit == Exit::Unknown {
                failure.hint(format!(
                    "repeat the same command with --request-id {}: it joins what was begun, if anything was",
                    self.id
                ))
            } else {
                failure
            }
        })
    }
}

fn fresh_id() -> String {
    let bytes: [u8; 16] = Random::from_os().bytes();
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// The header of all pages: the last one's, with everybody who is missing from any of them.
fn both(
    before: Option<v1::ResponseHeader>,
    page: Option<v1::ResponseHeader>,
) -> Option<v1::ResponseHeader> {
    let missing = before.map(|it| it.unreachable).unwrap_or_default();
    let mut header = page?;
    header.unreachable.extend(missing);
    header.unreachable.sort();
    header.unreachable.dedup();
    Some(header)
}

fn looked<T>(answer: Result<Response<T>, Status>) -> Result<T, Failure> {
    let answer = answer.map(Response::into_inner);
    answer.map_err(|status| Failure::of(&status, Intent::Look))
}

fn changed<T>(answer: Result<Response<T>, Status>) -> Result<T, Failure> {
    let answer = answer.map(Response::into_inner);
    answer.map_err(|status| Failure::of(&status, Intent::Change))
}

/// What a move's last state means for whoever asked for it.
fn outcome(migration: &v1::Migration) -> Result<(), Failure> {
    if migration.state() != v1::MigrationState::Aborted {
        return Ok(());
    }
    let message = format!(
        "the account stays at {}: {}",
        migration.source,
        show::moves::why(migration)
    );
    Err(Failure::new(Exit::Aborted, message).hint("remove the cause, then move again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_missing_from_one_page_is_missing_from_the_answer() {
        let page = |missing: &[&str]| {
            Some(v1::ResponseHeader {
                unreachable: missing.iter().map(|it| (*it).to_owned()).collect(),
                ..v1::ResponseHeader::default()
            })
        };
        let all = both(both(None, page(&["b"])), page(&["a", "b"]));
        assert_eq!(both(all, page(&[])), page(&["a", "b"]));
    }
}
