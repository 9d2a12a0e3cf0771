//! Whether the installation is fit for moves: what is known of it, against what it should be.

mod fleet;
mod own;
mod servers;

use std::fmt::Write as _;

use ferrypost_proto::v1;
use serde_json::{Value, json};

use crate::{args::Output, certificates::Shown, table::printable};

/// What the control plane says of itself and of what it knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) stats: v1::GetStatsResponse,
    pub(crate) data_planes: v1::ListDataPlanesResponse,
    /// Unset: there is no routing configuration in force.
    pub(crate) destinations: Option<v1::ListDestinationsResponse>,
    pub(crate) routing: v1::GetRoutingConfigResponse,
    pub(crate) unlisted: v1::ListUnlistedLoginsResponse,
    /// What was seen between this program and the control plane.
    pub(crate) shown: Vec<Shown>,
    /// The time of day, in seconds since 1970.
    pub(crate) now: i64,
}

/// Something that should be otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A data plane, a server, an account; empty: the whole.
    pub(crate) subject: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do, or where that stands.
    pub(crate) hint: &'static str,
    /// There is time yet: it is said, and does not make the whole unfit.
    pub(crate) can_wait: bool,
}

impl Finding {
    fn new(subject: impl Into<String>, what: impl Into<String>, hint: &'static str) -> Self {
        Self {
            subject: subject.into(),
            what: what.into(),
            hint,
            can_wait: false,
        }
    }

    fn that_can_wait(self) -> Self {
        Self {
            can_wait: true,
            ..self
        }
    }
}

/// One thing that was looked at.
type Check = (&'static str, fn(&Facts) -> Vec<Finding>);

const CHECKS: &[Check] = &[
    ("somebody leads", leader),
    ("the store was not restored", store),
    ("a routing configuration is in force", routing),
    ("every data plane serves", fleet::serving),
    ("every data plane has what it was sent", fleet::current),
    ("all speak the same versions", fleet::versions),
    ("limits fit, and are the same everywhere", fleet::limits),
    ("every data plane reaches every server", servers::reachable),
    ("servers learn who the client is", servers::announcement),
    ("servers take the same logins", servers::mechanisms),
    ("certificates are good for weeks", servers::certificates),
    (
        "those that data planes show at their listeners, too",
        fleet::certificates,
    ),
    (
        "those between here and the control plane, too",
        own::certificates,
    ),
    ("no login was left behind", unlisted),
];

const DAY: i64 = 86_400;

/// When a certificate ends of which so many seconds are left.
fn end_in_words(left: i64) -> String {
    match left.div_euclid(DAY) {
        days if days < 0 => "has ended".to_owned(),
        days => format!("ends in {days} days"),
    }
}

/// What each check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report(Vec<(&'static str, Vec<Finding>)>);

impl Report {
    pub(crate) fn of(facts: &Facts) -> Self {
        let checked = CHECKS.iter().map(|(name, check)| (*name, check(facts)));
        Self(checked.collect())
    }

    /// How many there are that cannot wait.
    pub(crate) fn findings(&self) -> usize {
        self.all().filter(|finding| !finding.can_wait).count()
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().flat_map(|(_, findings)| findings)
    }

    pub(crate) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.text(),
            Output::Json => format!("{:#}", self.json()),
            Output::Short => self.short(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, findings) in &self.0 {
            let mark = match findings.as_slice() {
                [] => "ok",
                found if found.iter().all(|it| it.can_wait) => "! ",
                _ => "!!",
            };
            _ = writeln!(text, "{mark}  {name}");
            for finding in findings {
                for line in finding.sentence().lines() {
                    _ = writeln!(text, "      {}", printable(line));
                }
                _ = writeln!(text, "      hint: {}", finding.hint);
            }
        }
        _ = match self.findings() {
            0 if self.all().next().is_some() => writeln!(text, "\nNothing that cannot wait."),
            0 => writeln!(text, "\nNothing found."),
            1 => writeln!(text, "\n1 finding."),
            number => writeln!(text, "\n{number} findings."),
        };
        text
    }

    fn json(&self) -> Value {
        let checks = self.0.iter().map(|(name, findings)| {
            let findings = findings.iter().map(|finding| {
                json!({
                    "subject": finding.subject, "what": finding.what, "hint": finding.hint, "can_wait": finding.can_wait,
                })
            });
            json!({ "check": name, "findings": findings.collect::<Vec<_>>() })
        });
        json!({ "ok": self.findings() == 0, "checks": checks.collect::<Vec<_>>() })
    }

    fn short(&self) -> String {
        let in_one_line = |it: &Finding| printable(&it.sentence().replace('\n', "; "));
        let lines: Vec<_> = self.all().map(in_one_line).collect();
        lines.join("\n")
    }
}

impl Finding {
    fn sentence(&self) -> String {
        match self.subject.as_str() {
            "" => self.what.clone(),
            subject => format!("{subject}: {}", self.what),
        }
    }
}

fn leader(facts: &Facts) -> Vec<Finding> {
    let leads = facts
        .stats
        .header
        .as_ref()
        .is_some_and(|it| !it.leader.is_empty());
    let finding = Finding::new(
        "",
        "no replica leads, so nothing moves",
        "a leader's successor takes some seconds; then look into the control plane's log for its store",
    );
    if leads { Vec::new() } else { vec![finding] }
}

fn store(facts: &Facts) -> Vec<Finding> {
    let found = facts.stats.rewound.as_ref().map(|_| {
        let what = "the store was found restored to an older state, so nothing moves";
        Finding::new(
            "",
            what,
            "ferrypost rewound shows what is in doubt, and decides",
        )
    });
    found.into_iter().collect()
}

fn routing(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.destinations.is_none() {
        findings.push(Finding::new(
            "",
            "no routing configuration is in force that this version understands",
            "GetRoutingConfig says what is wrong with the control plane's file",
        ));
    }
    if !facts.routing.file_difference.is_empty() {
        findings.push(Finding::new(
            "the control plane's file",
            &*facts.routing.file_difference,
            "correct the file, or apply what is in force with source = \"api\"",
        ));
    }
    findings
}

fn unlisted(facts: &Facts) -> Vec<Finding> {
    let logins = facts.unlisted.logins.iter();
    logins
        .map(|login| {
            let what = format!(
                "logs in and goes to {}, though an account with the same local part lives at {}",
                login.destination, login.home
            );
            Finding::new(
                &*login.name,
                what,
                "if it is that account's, migrate it, too: ferrypost migrate NAME --to HOME",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const NOW: i64 = 1_800_000_000;

    /// An installation in which nothing is to be found.
    pub(super) fn sound() -> Facts {
        let versions = v1::VersionRange {
            oldest: 1,
            newest: 3,
        };
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let plane = |instance: &str| v1::DataPlane {
            instance: instance.into(),
            version: "0.1.0".into(),
            connected: true,
            ready: true,
            sync: v1::SyncState::Synced.into(),
            contracts: Some(versions),
            schemas: Some(versions),
            limits: Some(v1::DataPlaneLimits {
                hold: seconds(25),
                drain: seconds(5),
                close: seconds(5),
            }),
            ..v1::DataPlane::default()
        };
        let verdict = |instance: &str| v1::EndpointVerdict {
            instance: instance.into(),
            protocol: v1::Protocol::Imap.into(),
            reachable: true,
            facts: Some(v1::ServerFacts {
                tls: "verified".into(),
                certificate_not_after: Some(prost_types::Timestamp {
                    seconds: NOW + 90 * 86_400,
                    nanos: 0,
                }),
                capabilities: vec!["IMAP4rev1".into(), "AUTH=PLAIN".into()],
                ..v1::ServerFacts::default()
            }),
            ..v1::EndpointVerdict::default()
        };
        let destination = |id: &str| v1::DestinationStatus {
            destination: id.into(),
            verdicts: vec![verdict("gateway-1"), verdict("gateway-2")],
            ..v1::DestinationStatus::default()
        };
        let server = |id: &str| v1::Destination {
            id: id.into(),
            endpoints: vec![v1::Endpoint {
                protocol: v1::Protocol::Imap.into(),
                announcement: v1::Announcement::ProxyV2.into(),
                ..v1::Endpoint::default()
            }],
            ..v1::Destination::default()
        };
        Facts {
            stats: v1::GetStatsResponse {
                header: Some(v1::ResponseHeader {
                    leader: "cp-1".into(),
                    ..v1::ResponseHeader::default()
                }),
                version: "0.1.0".into(),
                contracts: Some(versions),
                schemas: Some(versions),
                ..v1::GetStatsResponse::default()
            },
            data_planes: v1::ListDataPlanesResponse {
                data_planes: vec![plane("gateway-1"), plane("gateway-2")],
                ..v1::ListDataPlanesResponse::default()
            },
            destinations: Some(v1::ListDestinationsResponse {
                destinations: vec![destination("source"), destination("target")],
                ..v1::ListDestinationsResponse::default()
            }),
            routing: v1::GetRoutingConfigResponse {
                config: Some(v1::RoutingConfig {
                    destinations: vec![server("source"), server("target")],
                    ..v1::RoutingConfig::default()
                }),
                ..v1::GetRoutingConfigResponse::default()
            },
            unlisted: v1::ListUnlistedLoginsResponse::default(),
            shown: Vec::new(),
            now: NOW,
        }
    }

    /// What is found once something is changed.
    pub(super) fn found(change: impl FnOnce(&mut Facts)) -> String {
        let mut facts = sound();
        change(&mut facts);
        Report::of(&facts).render(Output::Short)
    }

    #[test]
    fn a_sound_installation_has_no_findings() {
        let report = Report::of(&sound());
        assert_eq!(report.render(Output::Short), "");
        assert!(report.render(Output::Table).ends_with("\nNothing found.\n"));
        assert_eq!(report.json()["ok"], true);
    }

    #[test]
    fn what_stops_all_moves_is_found() {
        let no_leader = found(|facts| facts.stats.header = None);
        assert_eq!(no_leader, "no replica leads, so nothing moves");
        let rewound = found(|facts| facts.stats.rewound = Some(v1::Rewound::default()));
        assert!(rewound.contains("restored"), "{rewound}");
        let unrouted = found(|facts| facts.destinations = None);
        assert!(unrouted.contains("no routing configuration"), "{unrouted}");
        let file = found(|facts| facts.routing.file_difference = "it is older".into());
        assert_eq!(file, "the control plane's file: it is older");
    }

    #[test]
    fn a_login_that_a_move_left_behind_is_found() {
        let said = found(|facts| {
            facts.unlisted.logins.push(v1::UnlistedLogin {
                name: "alice".into(),
                destination: "source".into(),
                home: "target".into(),
                ..v1::UnlistedLogin::default()
            });
        });
        assert!(
            said.starts_with("alice: logs in and goes to source"),
            "{said}"
        );
    }

    #[test]
    fn every_finding_has_a_hint_in_every_form() {
        let mut facts = sound();
        facts.stats.header = None;
        let report = Report::of(&facts);
        let text = report.render(Output::Table);
        assert!(
            text.contains("!!  somebody leads\n") && text.contains("      hint: a leader"),
            "{text}"
        );
        assert!(text.ends_with("\n1 finding.\n"), "{text}");
        let json = report.json();
        assert_eq!(json["ok"], false);
        assert!(
            json["checks"][0]["findings"][0]["hint"].is_string(),
            "{json}"
        );
    }
}
