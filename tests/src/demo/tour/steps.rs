//! The steps of the tour up to its judgement.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use ferrypost_proto::v1::MigrationState;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::demo::console::{command, say, time};
use crate::dovecot::{ID_FIELD, Service};
use crate::history::{Moment, Move, Outcome, Side};
use crate::wait::eventually;
use crate::workload::Habit;

use super::{TRAVELLER, Tour};

/// Busy clients of the traveller on each data plane.
const COMPANIONS: usize = 8;

/// Accounts of other people, with two busy clients each.
const OTHERS: usize = 12;

/// How long clients may take to come back. Far above what they need.
const RETURN_LIMIT: Duration = Duration::from_secs(15);

impl Tour {
    pub(super) fn show_what_runs(&self) {
        let (source, target) = (self.world.source(), self.world.target());
        say(format!(
            "source   Dovecot at {}, which believes the client address in IMAP ID",
            source.addr(Service::Imaps)
        ));
        say(format!(
            "target   Dovecot at {}, which demands a PROXY header",
            target.addr(Service::Imap)
        ));
        for data_plane in self.world.data_planes() {
            say(format!(
                "{}  where mail clients connect: IMAPS at {}",
                data_plane.plane.name(),
                data_plane.imaps()
            ));
        }
        for control_plane in self.world.control_planes() {
            say(format!(
                "{}  knows where accounts live: gRPC at {}",
                control_plane.plane.name(),
                control_plane.operators()
            ));
        }
    }

    pub(super) async fn check_health(&mut self) -> anyhow::Result<()> {
        self.console
            .step("Is it healthy? Every data plane says whether it reaches both servers");
        command(format!(
            "curl --cacert {} -H \"Authorization: Bearer $(cat {})\" https://{}/stats",
            self.world.authority().display(),
            self.world.admin_token_file().display(),
            self.world.data_planes()[0].admin()
        ));
        for n in 0..self.world.data_planes().len() {
            let admin = self.world.admin(n);
            // The first probes are under way when a data plane begins to serve.
            let line = eventually("both servers are reachable", RETURN_LIMIT, async || {
                healthy(&admin.stats().await.map_err(|error| error.to_string())?)
            })
            .await?;
            say(line);
        }
        Ok(())
    }

    pub(super) async fn log_in_once(&mut self) -> anyhow::Result<()> {
        self.console.step("A login, through the first data plane");
        let mut client = self.world.imaps(0).open().await?;
        let reply = client.login(TRAVELLER, self.world.password()).await?;
        reply.accepted()?;
        let server = client.id_field(ID_FIELD).await?.unwrap_or_default();
        client.logout().await?;
        ensure!(server == "source", "the login landed on {server:?}");
        say(format!(
            "{TRAVELLER} landed on {server}: nobody has a record yet, so the default decides"
        ));
        Ok(())
    }

    pub(super) async fn start_clients(&mut self, warm_up: Duration) -> anyhow::Result<()> {
        self.console.step("People read and write mail");
        let busy = Habit::Busy {
            pause: 60..260,
            slow_percent: 0,
            login_percent: 5,
        };
        for data_plane in 0..self.world.data_planes().len() {
            let connect = self.world.imaps(data_plane);
            self.workload
                .add(TRAVELLER, data_plane, connect.clone(), Habit::Idle);
            for _ in 0..COMPANIONS {
                self.workload
                    .add(TRAVELLER, data_plane, connect.clone(), busy.clone());
            }
            let starttls = self.world.imap_starttls(data_plane);
            for account in &self.world.accounts()[1..=OTHERS] {
                self.workload
                    .add(account, data_plane, starttls.clone(), busy.clone());
            }
        }
        sleep(warm_up).await;
        let accepted = self.recorder.accepted();
        say(format!(
            "{} clients on both data planes append, flag, wait in IDLE and log in anew;",
            self.workload.clients()
        ));
        say(format!(
            "{} of them are {TRAVELLER}'s. {accepted} operations acknowledged so far",
            2 * (COMPANIONS + 1)
        ));
        ensure!(
            accepted > 100,
            "too little happens: only {accepted} operations"
        );
        Ok(())
    }

    pub(super) async fn copy_mailbox(&mut self) -> anyhow::Result<()> {
        self.console
            .step("The mailbox is copied to the target while it is used");
        let (source, target) = (self.world.source(), self.world.target());
        command(format!(
            "doveadm -c {} sync -1 -f -u {TRAVELLER} doveadm -c {} dsync-server",
            source.configuration().display(),
            target.configuration().display()
        ));
        say("An account has to exist on the target before it can be filled. That is not");
        say("placement: nobody is sent there before the move. What is written from now on");
        say("is carried over by the delta hook, while the account is held.");
        self.world.copy(TRAVELLER).await?;
        Ok(())
    }

    pub(super) async fn migrate(&mut self) -> anyhow::Result<Move> {
        self.console
            .step("Migrate: the account is fenced, drained, brought up to date and flipped");
        let request = json!({
            "account": TRAVELLER,
            "destination": "target",
            "reason": "the tour"
        });
        self.move_account("Migrate", &request, Side::Source).await
    }

    pub(super) async fn roll_back(&mut self) -> anyhow::Result<Move> {
        self.console
            .step("Rollback: the same machine backwards, with all mail of the meantime");
        let request = json!({"account": TRAVELLER, "reason": "the tour is over"});
        self.move_account("Rollback", &request, Side::Target).await
    }

    /// Calls the method through the real grpcurl and records the move.
    async fn move_account(
        &self,
        method: &str,
        request: &Value,
        from: Side,
    ) -> anyhow::Result<Move> {
        let method = format!("ferrypost.v1.MigrationService/{method}");
        command(self.grpcurl_command(&method, request));
        let asked = Moment::now();
        let answer = self.world.grpcurl(0)?.call(&method, request).await?;
        let answered = Moment::now();
        let migration = &answer["migration"];
        let state = migration["state"].as_str().unwrap_or_default();
        ensure!(
            state == MigrationState::Succeeded.as_str_name(),
            "the call answered {answer:#}"
        );
        let held = migration["held"].as_str().and_then(seconds);
        let movement = Move {
            account: TRAVELLER.into(),
            migration: text(&migration["migrationId"]),
            from,
            asked,
            answered,
            outcome: Outcome::Flipped,
            held,
            one_fence: migration["attempts"] == 1,
        };
        say(format!(
            "{} after {}; the account was held for {}",
            state.trim_start_matches("MIGRATION_STATE_"),
            time(answered.since(asked)),
            held.map_or("an unknown time".to_owned(), time)
        ));
        self.recorder.movement(movement.clone());
        Ok(movement)
    }

    fn grpcurl_command(&self, method: &str, request: &Value) -> String {
        format!(
            "grpcurl -plaintext -H \"authorization: Bearer $(cat {})\" -d '{request}' {} {method}",
            shown(&self.world.operator_token_file()),
            self.world.control_planes()[0].operators()
        )
    }

    /// Waits until every client of the traveller has worked on the new home, then goes on a little.
    pub(super) async fn watch_arrival(
        &mut self,
        movement: &Move,
        then: Duration,
    ) -> anyhow::Result<()> {
        let home = movement.from.other();
        let clients = 2 * (COMPANIONS + 1);
        eventually("every client is on the new home", RETURN_LIMIT, || {
            let there = self.clients_on(home, movement.answered);
            let verdict = if there == clients {
                Ok(())
            } else {
                Err(format!("{there} of {clients} are on {home}"))
            };
            std::future::ready(verdict)
        })
        .await?;
        sleep(then).await;
        let elsewhere = self.clients_on(movement.from, movement.answered);
        ensure!(
            elsewhere == 0,
            "{elsewhere} clients reached {} after the call returned",
            movement.from
        );
        say(format!(
            "All {clients} clients of {TRAVELLER} are on {home}; none reached {} since the call returned.",
            movement.from
        ));
        Ok(())
    }

    /// How many clients of the traveller have begun something on a side after a moment.
    fn clients_on(&self, side: Side, after: Moment) -> usize {
        let history = self.recorder.history();
        let clients: std::collections::BTreeSet<usize> = history
            .operations
            .iter()
            .filter(|op| &*op.account == TRAVELLER && op.begun > after && op.server == Some(side))
            .map(|op| op.client)
            .collect();
        clients.len()
    }

    pub(super) async fn show_stats(&mut self) -> anyhow::Result<()> {
        self.console
            .step("GetStats: what is where, and what is going on");
        let method = "ferrypost.v1.StatsService/GetStats";
        command(self.grpcurl_command(method, &json!({})));
        let stats = self.world.grpcurl(0)?.call(method, &json!({})).await?;
        let counts = |list: &str, of: &str, count: &str| -> String {
            let entries = stats[list].as_array().into_iter().flatten();
            let words: Vec<_> = entries
                .map(|entry| format!("{} {}", text(&entry[of]), text(&entry[count])))
                .collect();
            words.join(", ")
        };
        say(format!(
            "{} sessions on {} data planes, {} logins held; records: {}; migrations: {}",
            text(&stats["sessions"]),
            text(&stats["dataPlanesConnected"]),
            text(&stats["heldLogins"]),
            counts("placements", "destination", "accounts"),
            counts("migrations", "state", "migrations").to_lowercase()
        ));
        if text(&stats["dataPlanesConnected"]) != self.world.data_planes().len().to_string() {
            bail!("a data plane is not connected: {stats:#}");
        }
        Ok(())
    }
}

/// One line about a data plane, when it serves and reaches both servers.
fn healthy(stats: &Value) -> Result<String, String> {
    if stats["ready"] != Value::Bool(true) {
        return Err(format!("not ready: {}", stats["blocked_by"]));
    }
    let destinations: BTreeMap<String, Value> =
        serde_json::from_value(stats["destinations"].clone()).map_err(|error| error.to_string())?;
    let mut words = Vec::new();
    for (name, protocols) in &destinations {
        let imap = &protocols["imap"];
        if imap["reachable"] != Value::Bool(true) {
            return Err(format!("{name}: {imap}"));
        }
        words.push(format!(
            "{name} {} (TLS {})",
            text(&imap["word"]),
            text(&imap["tls"]["verdict"])
        ));
    }
    Ok(format!(
        "{}  ready, snapshot revision {}: {}",
        text(&stats["instance"]),
        stats["snapshot"]["revision"]["store"],
        words.join(", ")
    ))
}

/// A JSON value as people read it: protobuf's 64-bit numbers are strings in JSON, and what is zero
/// or empty is left out.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    }
}

/// `0.123s`, protobuf's duration in JSON.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
