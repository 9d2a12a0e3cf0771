//! What an operator types around a move: whether the servers are ready, whether all is healthy, whether each protocol
//! works, and the way out of it all.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cyrus::calls_in_request;
use crate::demo::console::{command, lines, say};
use crate::dovecot::Role;
use crate::history::Side;
use crate::recipes::{Entrances, Recipe};
use crate::shell::shell;
use crate::story::SOON;
use crate::wait::eventually;

use super::{TRAVELLER, Tour, text, word};

impl Tour {
    /// Reloads what was staged, and looks whether people are still served there.
    pub(super) async fn reload_source(&mut self) -> anyhow::Result<()> {
        self.console.step(
            "The source takes over the settings by which it believes Ferrypost, and serves on",
        );
        let dovecot = self.world.source().configuration();
        let dovecot = format!("doveadm -c {} reload", dovecot.display());
        let postfix = self.world.postfix(Role::Source);
        let postfix =
            postfix.map(|it| format!("postfix -c {} reload 2>&1", it.configuration().display()));
        for reload in [Some(dovecot), postfix].into_iter().flatten() {
            command(&reload);
            shell(&reload).await?;
        }
        self.follow_at_source().await?;
        let method = "ferrypost.v1.PlacementService/ExplainRoute";
        let request = json!({"login": TRAVELLER});
        command(self.grpcurl_command(method, &request));
        let route = self.world.grpcurl(0)?.call(method, &request).await?;
        say(text(&route["explanation"]));
        ensure!(route["destination"] == Side::Source.name(), "{route:#}");
        Ok(())
    }

    pub(super) async fn check_health(&mut self) -> anyhow::Result<()> {
        self.console
            .step("Is it healthy? Every data plane says whether it reaches both servers in every protocol");
        for n in 0..self.world.data_planes().len() {
            let url = format!("https://{}/stats", self.world.data_planes()[n].admin());
            let ask = format!("curl -sk -H \"Authorization: Bearer $TOKEN\" {url}");
            let read = format!("TOKEN=$(cat {})", self.world.admin_token_file().display());
            if n == 0 {
                command(&read);
            }
            command(&ask);
            let script = format!("{read}\n{ask}\n");
            // The first probes are under way when a data plane begins to serve.
            let health = eventually("both servers are reachable", SOON, async || {
                let said = shell(&script).await.map_err(|error| error.to_string())?;
                let stats =
                    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
                healthy(&stats)
            });
            lines(&health.await?);
            let without = format!("curl -sk -o /dev/null -w '%{{http_code}}' {url}");
            let status = shell(&without).await?;
            ensure!(status == "401", "without a token: {status}");
        }
        say("Whoever shows no token is answered 401.");
        Ok(())
    }

    /// Each protocol as it is typed, and what the data plane's log says of it.
    pub(super) async fn try_protocols(&mut self) -> anyhow::Result<()> {
        self.console
            .step("Each protocol from the command line, through the first data plane");
        let log = self.world.data_planes()[0].plane.log();
        for recipe in self.recipes() {
            let log = log.from_now();
            command(recipe.script.trim_end().replace('\n', "\n     "));
            recipe.follow().await?;
            // The line is written when the client has its answer already.
            let line = log.wait_for(&[recipe.event, "destination="], SOON).await?;
            let said = |key| word(&line, key).with_context(|| format!("no {key} in {line}"));
            let server = said("destination=")?;
            ensure!(server == Side::Source.name(), "{line}");
            // A connection is announced, and not each request on it.
            let announced = word(&line, "announcement=");
            let announced = announced.map(|by| format!(", told of the client by {by}"));
            say(format!(
                "{} works; the log says: {}, rule {}, to {server} at {}{}",
                recipe.name,
                said("name=")?,
                said(" rule=")?,
                said("address=")?,
                announced.unwrap_or_default()
            ));
        }
        Ok(())
    }

    /// The same commands after a move. (Where they land, everybody's clients have shown.)
    pub(super) async fn validate(&self, home: Side) -> anyhow::Result<()> {
        let recipes = self.recipes();
        let mut said = String::new();
        for recipe in &recipes {
            said = recipe.follow().await?;
        }
        say(format!(
            "The commands from before work on {home}: {}.",
            names(&recipes)
        ));
        self.recognize_session(&said, home)
    }

    /// What JMAP has said, which comes last, says which server that was.
    fn recognize_session(&self, said: &str, home: Side) -> anyhow::Result<()> {
        let role = match home {
            Side::Source => Role::Source,
            Side::Target => Role::Target,
        };
        if self.world.cyrus(role).is_none() {
            return Ok(());
        }
        let mark = format!("\"maxCallsInRequest\":{}", calls_in_request(role));
        ensure!(said.contains(&mark), "no {mark} in {said}");
        say(format!(
            "JMAP's session of {TRAVELLER} is the one of the Cyrus beside {home}."
        ));
        Ok(())
    }

    /// The way out: without Ferrypost everybody is served by the source as before.
    pub(super) async fn undo(&mut self) -> anyhow::Result<()> {
        self.console.step(
            "All of it undone: the name points to the source again, and Ferrypost is stopped",
        );
        self.world.stop_ferrypost().await?;
        say("SIGTERM to the data planes, then to the control plane: each ended by itself, with 0.");
        self.follow_at_source().await
    }

    async fn follow_at_source(&self) -> anyhow::Result<()> {
        let recipes = Entrances::of_source(&self.world).recipes(TRAVELLER, self.world.password());
        for recipe in &recipes {
            recipe.follow().await?;
        }
        say(format!(
            "Asked directly, the source serves {TRAVELLER}: {}.",
            names(&recipes)
        ));
        Ok(())
    }

    fn recipes(&self) -> Vec<Recipe> {
        let entrances = Entrances::of_data_plane(&self.world, 0);
        entrances.recipes(TRAVELLER, self.world.password())
    }
}

fn names(recipes: &[Recipe]) -> String {
    let names: Vec<_> = recipes.iter().map(|recipe| recipe.name).collect();
    names.join(", ")
}

/// A line about a data plane and one about each server, when it serves and reaches both in all protocols.
fn healthy(stats: &Value) -> Result<Vec<String>, String> {
    if stats["ready"] != Value::Bool(true) {
        return Err(format!("not ready: {}", stats["blocked_by"]));
    }
    let destinations: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_value(stats["destinations"].clone()).map_err(|error| error.to_string())?;
    let mut lines = vec![format!(
        "{}  ready, snapshot revision {}",
        text(&stats["instance"]),
        stats["snapshot"]["revision"]["store"],
    )];
    for (name, protocols) in &destinations {
        let mut words = Vec::new();
        for (protocol, probe) in protocols {
            if probe["reachable"] != Value::Bool(true) {
                return Err(format!("{name}: {protocol}: {probe}"));
            }
            words.push(format!(
                "{protocol} {} (TLS {})",
                text(&probe["word"]),
                text(&probe["tls"]["verdict"])
            ));
        }
        lines.push(format!("{name}     {}", words.join(", ")));
    }
    Ok(lines)
}
