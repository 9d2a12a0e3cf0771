//! The steps of the tour in which people work and their account moves.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use ferrypost_proto::v1::MigrationState;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cyrus;
use crate::demo::console::{command, say, time};
use crate::dovecot::{Role, Service, sync_command};
use crate::history::{Moment, Move, Outcome, Protocol, Side};
use crate::shell::shell;
use crate::story::SOON;
use crate::wait::{eventually, until};
use crate::workload::{Habit, Job, Place, Tls};

use super::{TRAVELLER, Tour, text};

/// Busy clients of the traveller on each data plane.
const COMPANIONS: usize = 8;

/// Accounts of other people, with a client by IMAP and one in another protocol on each data plane.
const OTHERS: usize = 12;

/// What is spoken beside IMAP.
const OTHER_PROTOCOLS: [Protocol; 3] =
    [Protocol::Pop3, Protocol::ManageSieve, Protocol::Submission];

/// What people do by IMAP.
const WRITER: Habit = Habit {
    pause: 60..260,
    slow_percent: 0,
    login_percent: 5,
};

/// What they do by everything else.
const OTHERWISE: Habit = Habit {
    pause: 100..600,
    slow_percent: 10,
    login_percent: 10,
};

impl Tour {
    pub(super) fn show_what_runs(&self) {
        let (source, target) = (self.world.source(), self.world.target());
        say(format!(
            "source   Dovecot at {}, which believes the client's address in IMAP ID and XCLIENT",
            source.addr(Service::Imaps)
        ));
        say(format!(
            "target   Dovecot at {}, which demands a PROXY header",
            target.addr(Service::Imap)
        ));
        for (side, role) in [("source", Role::Source), ("target", Role::Target)] {
            if let Some(postfix) = self.world.postfix(role) {
                say(format!(
                    "{side}   a Postfix beside it for submission at {}",
                    postfix.addr()
                ));
            }
            if let Some(cyrus) = self.world.cyrus(role) {
                say(format!(
                    "{side}   a Cyrus beside it for JMAP, CalDAV and CardDAV at {}",
                    cyrus.addr(cyrus::Service::Https)
                ));
            }
        }
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

    pub(super) async fn start_clients(&mut self, warm_up: Duration) -> anyhow::Result<()> {
        self.console
            .step("People read, write and send mail, and edit their filters");
        let people = &self.world.accounts()[..=OTHERS];
        self.workload.sow(&self.world, people).await?;
        for data_plane in 0..self.world.data_planes().len() {
            self.start_travellers(data_plane);
        }
        self.travellers = self.workload.clients();
        for data_plane in 0..self.world.data_planes().len() {
            self.start_others(data_plane);
        }
        sleep(warm_up).await;
        until("people are at work", SOON, || {
            self.recorder.accepted() > 100
        })
        .await?;
        let accepted = self.recorder.accepted();
        say(format!(
            "{} clients on both data planes append, flag, wait in IDLE, fetch and delete by POP3,",
            self.workload.clients()
        ));
        say(format!(
            "{}store scripts and log in anew; {} of them are {TRAVELLER}'s.",
            match self.world.postfix(Role::Source) {
                Some(_) => "submit, ",
                None => "(nobody submits: only root can start a Postfix) ",
            },
            self.travellers
        ));
        say(format!("{accepted} operations acknowledged so far"));
        Ok(())
    }

    fn start_travellers(&mut self, data_plane: usize) {
        let place = Place {
            account: TRAVELLER,
            data_plane,
            tls: Tls::Implicit,
        };
        self.workload.add(place, Job::Idle);
        for _ in 0..COMPANIONS {
            self.workload.add(place, Job::Busy(Protocol::Imap, WRITER));
        }
        for protocol in OTHER_PROTOCOLS {
            self.workload.add(place, Job::Busy(protocol, OTHERWISE));
        }
    }

    fn start_others(&mut self, data_plane: usize) {
        for (n, account) in self.world.accounts()[1..=OTHERS].iter().enumerate() {
            let place = Place {
                account,
                data_plane,
                tls: Tls::Starttls,
            };
            self.workload.add(place, Job::Busy(Protocol::Imap, WRITER));
            let other = OTHER_PROTOCOLS[n % OTHER_PROTOCOLS.len()];
            self.workload.add(place, Job::Busy(other, OTHERWISE));
        }
    }

    pub(super) async fn copy_mailbox(&mut self) -> anyhow::Result<()> {
        self.console
            .step("The mailbox is copied to the target while it is used");
        let (source, target) = (self.world.source(), self.world.target());
        let (from, to) = (source.configuration(), target.configuration());
        command(sync_command(&from, &to, TRAVELLER)?.join(" "));
        let dav = self.world.dav_copy(TRAVELLER);
        if let Some(dav) = &dav {
            command(dav.trim_end().replace('\n', "\n     "));
        }
        say("An account has to exist on the target before it can be filled. That is not");
        say("placement: nobody is sent there before the move. What is written from now on");
        say("is carried over by the delta hook, while the account is held.");
        self.world.copy(TRAVELLER).await?;
        if let Some(dav) = &dav {
            shell(dav).await?;
        }
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
        self.move_account("Migrate", &request, Side::Source, "during")
            .await
    }

    pub(super) async fn roll_back(&mut self) -> anyhow::Result<Move> {
        self.console
            .step("Rollback: the same machine backwards, with all mail of the meantime");
        let request = json!({"account": TRAVELLER, "reason": "the tour is over"});
        self.move_account("Rollback", &request, Side::Target, "returning")
            .await
    }

    /// Calls the method through the real grpcurl and records the move, in which a message comes.
    async fn move_account(
        &mut self,
        method: &str,
        request: &Value,
        from: Side,
        subject: &str,
    ) -> anyhow::Result<Move> {
        let method = format!("ferrypost.v1.MigrationService/{method}");
        command(self.grpcurl_command(&method, request));
        let asked = Moment::now();
        let grpcurl = self.world.grpcurl(0)?;
        let moving = grpcurl.call(&method, request);
        let (answer, answered) = self.receive_while(subject, moving).await?;
        let answer = answer?;
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

    pub(super) fn grpcurl_command(&self, method: &str, request: &Value) -> String {
        format!(
            "TOKEN=$(cat {}) grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${{TOKEN}}' \
             -d '{request}' {} {method}",
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
        let clients = self.travellers;
        eventually("every client is on the new home", SOON, || {
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
        let clients: BTreeSet<usize> = history
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

/// `0.123s`, protobuf's duration in JSON.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
