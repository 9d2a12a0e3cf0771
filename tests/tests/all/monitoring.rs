//! What ships for monitoring: dashboards whose every panel has something to show, alerts that fire and are quiet.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ferrypost_proto::v1::{AbortMigrationRequest, MigrateRequest, Migration, MigrationState};
use ferrypost_tests::monitoring::{DASHBOARDS, Panel, Prometheus, lines, picture, shipped};
use ferrypost_tests::story::{
    SOON, migrate, migration_until, move_to, roll_back, session, short_limits,
};
use ferrypost_tests::tools::{repository, tool};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::web::{Backend, Question, Version, WebClient};
use ferrypost_tests::world::{Sites, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::lmtp::Sender;

/// Longer than any test watches.
const WINDOW: &str = "10m";

fn alerts() -> String {
    fs::read_to_string(shipped("alerts.yaml")).unwrap()
}

/// What stands behind `key` in lines of YAML, wherever it is.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim_start().strip_prefix(key))
        .map(str::trim)
}

fn promtool(args: &[&str]) {
    let output = Command::new(tool("promtool").unwrap())
        .current_dir(shipped(""))
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn every_alert_fires_in_a_test_and_is_quiet_in_one() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts-test.yaml"]);
    let tests = fs::read_to_string(shipped("alerts-test.yaml")).unwrap();
    let cases: Vec<_> = tests.split("- alertname: ").skip(1).collect();
    let alerts = alerts();
    let names: Vec<_> = values(&alerts, "- alert: ").collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let of_it = cases
            .iter()
            .filter(|case| case.lines().next() == Some(name));
        let (quiet, firing): (Vec<&&str>, Vec<&&str>) =
            of_it.partition(|case| case.contains("exp_alerts: []"));
        assert!(!quiet.is_empty(), "{name} is quiet in no test");
        assert!(!firing.is_empty(), "{name} fires in no test");
    }
}

#[test]
fn every_alert_says_how_urgent_it_is_and_leads_to_its_page_of_the_runbook() {
    let alerts = alerts();
    let runbook = fs::read_to_string(repository().join("docs/runbook.md")).unwrap();
    let names: BTreeSet<_> = values(&alerts, "- alert: ").collect();
    let urgencies: Vec<_> = values(&alerts, "severity: ").collect();
    assert_eq!(urgencies.len(), names.len());
    assert!(urgencies.iter().all(|it| ["page", "ticket"].contains(it)));
    let links: BTreeSet<_> = values(&alerts, "runbook_url: docs/runbook.md#").collect();
    let expected: BTreeSet<_> = names.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(links, expected.iter().map(String::as_str).collect());
    let pages: BTreeSet<_> = values(&runbook, "## ").collect();
    assert_eq!(
        pages, names,
        "the runbook has a page for each, and no other"
    );
}

#[test]
fn dashboards_and_alerts_ask_for_nothing_that_nobody_measures() {
    let tables = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let measured: BTreeSet<_> = values(&tables, "- Prometheus: ")
        .map(|name| name.trim_matches('`'))
        .collect();
    let panels = DASHBOARDS.iter().flat_map(|it| it.panels());
    let mut asked: Vec<_> = panels
        .flat_map(|panel| panel.queries)
        .map(|it| it.expr)
        .collect();
    let alerts = alerts();
    asked.push(&alerts);
    let mut names = BTreeSet::new();
    for expr in asked {
        let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.extend(words.filter(|word| word.starts_with("ferrypost_")));
    }
    // Part of a pattern for the names of two.
    names.remove("ferrypost_");
    for name in names {
        let parts = ["_bucket", "_count", "_sum"];
        let whole = parts.iter().find_map(|part| name.strip_suffix(part));
        let known = measured.contains(name) || whole.is_some_and(|it| measured.contains(it));
        assert!(known, "nobody measures {name}");
    }
}

#[test]
fn the_dashboards_that_ship_are_those_of_the_tables() {
    for dashboard in DASHBOARDS {
        let file = shipped("dashboards").join(dashboard.file);
        if std::env::var_os("UPDATE_GEN").is_some() {
            fs::write(&file, dashboard.text()).unwrap();
        }
        let ships = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            ships == dashboard.text(),
            "{} is not current: UPDATE_GEN=1 writes it anew",
            file.display()
        );
    }
}

/// Every server that there can be behind a data plane, in hand.
struct Watched {
    world: World,
    prometheus: Prometheus,
    _servers: [Backend; 2],
}

impl Watched {
    async fn start(folder: &Path) -> Self {
        let servers = Backend::pair(&[Version::Http1], [false, false]).await;
        let servers = servers.unwrap();
        let sites = Sites {
            servers: [servers[0].addr(), servers[1].addr()],
            announcements: ["x_forwarded", "x_forwarded"],
            versions: "[\"http/1.1\"]",
            rules: "",
        };
        let builder = World::builder().limits(short_limits()).data_planes(2);
        let world = builder.sites(sites).deliveries().start().await.unwrap();
        let prometheus = Prometheus::watch(&world, folder).await.unwrap();
        let watched = Self {
            world,
            prometheus,
            _servers: servers,
        };
        watched.sees("sum(up) == 3").await;
        watched
    }

    /// Waits until an expression has a value.
    async fn sees(&self, expr: &str) {
        eventually(expr, SOON, || async {
            match self.prometheus.query(expr).await {
                Ok(samples) if samples.is_empty() => Err("nothing".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
        .unwrap();
    }

    /// What people do all day, for every account once.
    async fn a_day(&self) {
        self.a_look_up().await;
        for (number, account) in self.world.accounts().iter().enumerate() {
            let data_plane = number % 2;
            let password = self.world.password();
            let imap = self.world.imaps(data_plane);
            let client = session(&imap, account, password).await.unwrap();
            client.logout().await.unwrap();
            assert!(session(&imap, account, "wrong").await.is_err());
            let web = self.world.web(data_plane);
            let mut client = WebClient::open(&web, Version::Http1).await.unwrap();
            let question = Question::get("/whoami").of(account, password);
            assert_eq!(client.ask(question).await.unwrap().status, 200);
            let address = self.world.data_planes()[data_plane].deliveries().unwrap();
            let mut sender = Sender::connect(address, "LHLO").await;
            let said = sender.send("hello", &[account], 1).await;
            assert!(said[0].starts_with("250"), "{said:?}");
        }
    }
}

impl Watched {
    /// A move that an operator gives up while a data plane says nothing.
    async fn an_abort(&mut self, account: &str) {
        let operator = self.world.operator(0);
        self.world.data_plane(1).freeze().unwrap();
        let request = MigrateRequest {
            wait: Some(prost_types::Duration::default()),
            ..move_to(account, "target")
        };
        let begun = migrate(&operator, request).await.unwrap();
        let abort = AbortMigrationRequest {
            migration_id: begun.migration_id.clone(),
            reason: "enough for today".to_owned(),
        };
        operator.migrations().abort_migration(abort).await.unwrap();
        self.world.data_plane(1).resume().unwrap();
        let over = |migration: &Migration| migration.state() == MigrationState::Aborted;
        let id = begun.migration_id;
        migration_until(&operator, &id, "given up", over)
            .await
            .unwrap();
    }

    /// What Postfix's socketmap client asks.
    async fn a_look_up(&self) {
        let mut stream = UnixStream::connect(self.world.lookups()).await.unwrap();
        let question = format!("transport {}", self.world.accounts()[0]);
        let question = format!("{}:{question},", question.len());
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await.unwrap();
    }
}

/// Empty: no line at all, or nothing on it that is a number.
async fn has_something_to_show(panel: &Panel, prometheus: &Prometheus) {
    eventually(panel.title, SOON, || async {
        for query in panel.queries {
            let samples = prometheus.query(&query.over_all(WINDOW)).await;
            let samples = samples.map_err(|error| format!("{error:#}"))?;
            if !samples.iter().any(|sample| sample.value.is_finite()) {
                return Err(format!("{} shows {samples:?}", query.expr));
            }
        }
        let drawn = lines(panel, prometheus, 120).await;
        let drawn = drawn.map_err(|error| format!("{error:#}"))?;
        if drawn.is_empty() {
            Err(format!("{:?} draws nothing", panel.queries))
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn no_panel_is_empty_and_no_alert_fires_for_a_prometheus_that_watched_a_move() {
    let folder = tempfile::tempdir().unwrap();
    let mut watched = Watched::start(folder.path()).await;
    let operator = watched.world.operator(0);
    let account = watched.world.accounts()[0].clone();
    watched.a_day().await;
    let held = session(&watched.world.imaps(0), &account, watched.world.password())
        .await
        .unwrap();
    let moved = migrate(&operator, move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    drop(held);
    watched.a_day().await;
    let back = roll_back(&operator, &account).await;
    assert_eq!(back.unwrap().state(), MigrationState::Succeeded);
    watched.an_abort(&account).await;
    let imap = watched.world.imaps(1);
    let _open = session(&imap, &account, watched.world.password())
        .await
        .unwrap();
    watched
        .sees("sum(ferrypost_controlplane_migrations_total{outcome=\"succeeded\"}) == 2")
        .await;

    for panel in DASHBOARDS.iter().flat_map(|it| it.panels()) {
        has_something_to_show(panel, &watched.prometheus).await;
    }
    for (name, rule) in watched.prometheus.rules().await.unwrap() {
        assert_eq!(rule["health"], "ok", "{name}: {rule}");
        assert_ne!(rule["state"], "firing", "{name}: {rule}");
    }
    for dashboard in DASHBOARDS {
        let drawn = picture(dashboard, &watched.prometheus, 120).await.unwrap();
        for panel in dashboard.panels() {
            assert!(drawn.contains(panel.title), "{}", panel.title);
        }
        if std::env::var_os("UPDATE_PICTURES").is_some() {
            let file = dashboard.file.replace(".json", ".svg");
            fs::write(repository().join("docs/pictures").join(file), drawn).unwrap();
        }
    }
    watched.world.stop().await.unwrap();
}
