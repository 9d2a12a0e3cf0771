//! Data planes: whether they serve, with what they should have, and alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrypost_proto::v1;

use super::{DAY, Facts, Finding, end_in_words};

/// A certificate of 90 days has been renewed long before, and there is a weekend to look why it was not.
const SOON: i64 = 14 * DAY;

pub(super) fn serving(facts: &Facts) -> Vec<Finding> {
    let planes = &facts.data_planes.data_planes;
    if planes.is_empty() {
        return vec![Finding::new(
            "",
            "no data plane is registered, so nobody serves and nothing moves",
            "start one; its log says why it does not register",
        )];
    }
    let mut findings = Vec::new();
    for plane in planes {
        if !plane.connected {
            findings.push(Finding::new(
                &*plane.instance,
                "does not answer; moves wait for it",
                "start it with its state directory; if it will never come back: ferrypost expel",
            ));
        } else if !plane.ready {
            findings.push(Finding::new(
                &*plane.instance,
                "does not serve clients",
                "its log and /readyz say what it waits for",
            ));
        }
        if let Some(claim) = &plane.refused {
            findings.push(Finding::new(
                &*plane.instance,
                format!("another process wants its place: {}", claim.why),
                "give each data plane an instance id and a state directory of its own; expel the one that is gone",
            ));
        }
    }
    findings
}

pub(super) fn current(facts: &Facts) -> Vec<Finding> {
    let connected = facts
        .data_planes
        .data_planes
        .iter()
        .filter(|it| it.connected);
    let mut findings = Vec::new();
    for plane in connected {
        for entry in &plane.rejected {
            findings.push(Finding::new(
                &*plane.instance,
                format!(
                    "rejects the record of {}: {}",
                    entry.account_id, entry.reason
                ),
                "an older version of it may not know what the record says: docs/upgrading.md",
            ));
        }
        for endpoint in &plane.rejected_endpoints {
            findings.push(Finding::new(
                &*plane.instance,
                format!(
                    "does not use {} for {}: it does not know its {}",
                    endpoint.destination,
                    endpoint.protocol().word(),
                    endpoint.field
                ),
                "upgrade it: docs/upgrading.md",
            ));
        }
        if matches!(plane.sync(), v1::SyncState::Stale | v1::SyncState::NotSent) {
            findings.push(Finding::new(
                &*plane.instance,
                "has not applied what it was sent",
                "some seconds are usual after a start; then its log says why",
            ));
        }
    }
    findings
}

pub(super) fn versions(facts: &Facts) -> Vec<Finding> {
    const HINT: &str = "upgrade the older one: docs/upgrading.md has the order";
    let stats = &facts.stats;
    let newest = |range: &Option<v1::VersionRange>| range.as_ref().map_or(1, |it| it.newest);
    let mut findings = Vec::new();
    for plane in &facts.data_planes.data_planes {
        let mut differs = |what: &str, theirs: &str, ours: &str| {
            if theirs != ours {
                let what = format!("{what} {theirs}, and the control plane {ours}");
                findings.push(Finding::new(&*plane.instance, what, HINT));
            }
        };
        differs("is version", &plane.version, &stats.version);
        let number = |range| newest(range).to_string();
        differs(
            "speaks contract",
            &number(&plane.contracts),
            &number(&stats.contracts),
        );
        differs(
            "reads routing schema",
            &number(&plane.schemas),
            &number(&stats.schemas),
        );
    }
    findings
}

/// By certificate: a fleet shows the same one at many listeners.
pub(super) fn certificates(facts: &Facts) -> Vec<Finding> {
    const RENEW: &str = "renew it: a new file is taken over within a second, without a restart";
    let mut shown: BTreeMap<(&str, Option<i64>), [BTreeSet<&str>; 2]> = BTreeMap::new();
    for plane in &facts.data_planes.data_planes {
        for certificate in &plane.certificates {
            let end = certificate.not_after.map(|it| it.seconds);
            let [planes, listeners] = shown.entry((&certificate.name, end)).or_default();
            planes.insert(&plane.instance);
            listeners.insert(&certificate.listener);
        }
    }
    let findings = shown.into_iter().filter_map(|((name, end), where_shown)| {
        let [planes, listeners] = where_shown.map(|it| it.into_iter().collect::<Vec<_>>());
        let ends = match end.map(|end| end - facts.now) {
            Some(SOON..) => return None,
            Some(left) => end_in_words(left),
            None => "does not say when it ends".to_owned(),
        };
        let what = format!(
            "the certificate shown by {} at {} {ends}",
            planes.join(", "),
            listeners.join(", ")
        );
        let finding = Finding::new(name, what, RENEW);
        let has_ended = end.is_some_and(|end| end < facts.now);
        Some(if has_ended {
            finding
        } else {
            finding.that_can_wait()
        })
    });
    findings.collect()
}

pub(super) fn limits(facts: &Facts) -> Vec<Finding> {
    let planes = &facts.data_planes.data_planes;
    let mut findings = Vec::new();
    let mut said: BTreeMap<[Duration; 3], Vec<&str>> = BTreeMap::new();
    for plane in planes {
        let Some(limits) = &plane.limits else {
            findings.push(Finding::new(
                &*plane.instance,
                "does not say how long it holds logins and closes sessions; moves wait",
                "upgrade it: docs/upgrading.md",
            ));
            continue;
        };
        let [hold, drain, close] = [limits.hold, limits.drain, limits.close].map(time);
        if hold < drain + close {
            findings.push(Finding::new(
                &*plane.instance,
                format!("holds logins for {hold:?}, and closing sessions may take {:?}", drain + close),
                "raise limits.hold.timeout above limits.relay.drain and limits.relay.close: docs/limits.md",
            ));
        }
        said.entry([hold, drain, close])
            .or_default()
            .push(&plane.instance);
    }
    if said.len() > 1 {
        let groups = said.iter().map(|([hold, drain, close], planes)| {
            format!(
                "{}: hold {hold:?}, drain {drain:?}, close {close:?}",
                planes.join(", ")
            )
        });
        let groups: Vec<_> = groups.collect();
        findings.push(Finding::new(
            "",
            format!("data planes have different limits: {}", groups.join("; ")),
            "give all the same [limits]: users should not notice which one they meet",
        ));
    }
    findings
}

fn time(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|it| it.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Report,
            tests::{NOW, found, sound},
        },
        *,
    };
    use crate::args::Output;

    fn with_first(change: impl FnOnce(&mut v1::DataPlane)) -> String {
        found(|facts| change(&mut facts.data_planes.data_planes[0]))
    }

    #[test]
    fn a_data_plane_that_does_not_serve_is_found() {
        let none = found(|facts| facts.data_planes.data_planes.clear());
        assert!(none.starts_with("no data plane is registered"), "{none}");
        let silent = with_first(|plane| plane.connected = false);
        assert_eq!(silent, "gateway-1: does not answer; moves wait for it");
        let unready = with_first(|plane| plane.ready = false);
        assert_eq!(unready, "gateway-1: does not serve clients");
        let claimed = with_first(|plane| {
            plane.refused = Some(v1::RefusedClaim {
                why: "it runs".into(),
                ..v1::RefusedClaim::default()
            });
        });
        assert_eq!(
            claimed,
            "gateway-1: another process wants its place: it runs"
        );
    }

    #[test]
    fn one_that_is_behind_or_rejects_something_is_found() {
        let stale = with_first(|plane| plane.set_sync(v1::SyncState::Stale));
        assert_eq!(stale, "gateway-1: has not applied what it was sent");
        let rejecting = with_first(|plane| {
            plane.rejected_endpoints.push(v1::RejectedEndpoint {
                destination: "target".into(),
                protocol: v1::Protocol::Imap.into(),
                field: "announcement".into(),
            });
        });
        assert_eq!(
            rejecting,
            "gateway-1: does not use target for imap: it does not know its announcement"
        );
    }

    #[test]
    fn versions_that_differ_are_found() {
        let older = with_first(|plane| {
            plane.version = "0.0.9".into();
            plane.contracts = None;
        });
        assert_eq!(
            older,
            "gateway-1: is version 0.0.9, and the control plane 0.1.0\n\
             gateway-1: speaks contract 1, and the control plane 3"
        );
    }

    #[test]
    fn a_certificate_that_is_shown_to_clients_is_said_two_weeks_before_it_ends_and_once_it_has() {
        let shown = |listener: &str, days: i64| v1::ListenerCertificate {
            listener: listener.into(),
            name: "mail.example.org".into(),
            not_after: Some(prost_types::Timestamp {
                seconds: NOW + days * DAY,
                nanos: 0,
            }),
        };
        let ending = |days| {
            let mut facts = sound();
            for plane in &mut facts.data_planes.data_planes {
                plane.certificates = vec![shown("pop3s", days), shown("imaps", days)];
            }
            let report = Report::of(&facts);
            (report.render(Output::Short), report.findings())
        };
        let said = |ends: &str| {
            format!(
                "mail.example.org: the certificate shown by gateway-1, gateway-2 at imaps, pop3s {ends}"
            )
        };
        assert_eq!(ending(14), (String::new(), 0));
        assert_eq!(ending(13), (said("ends in 13 days"), 0));
        assert_eq!(ending(-1), (said("has ended"), 1));

        // One that was not renewed is told from those that were.
        let behind = with_first(|plane| {
            plane.certificates = vec![shown("imaps", -3), shown("imap", 80)];
        });
        assert_eq!(
            behind,
            "mail.example.org: the certificate shown by gateway-1 at imaps has ended"
        );
        let unread = with_first(|plane| {
            plane.certificates = vec![v1::ListenerCertificate {
                listener: "imaps".into(),
                ..v1::ListenerCertificate::default()
            }];
        });
        assert_eq!(
            unread,
            "the certificate shown by gateway-1 at imaps does not say when it ends"
        );
    }

    #[test]
    fn limits_that_differ_or_do_not_fit_are_found() {
        let silent = with_first(|plane| plane.limits = None);
        assert!(silent.contains("does not say how long"), "{silent}");
        let tight = found(|facts| {
            for plane in &mut facts.data_planes.data_planes {
                let limits = plane.limits.as_mut().unwrap();
                limits.hold = Some(prost_types::Duration {
                    seconds: 5,
                    nanos: 0,
                });
            }
        });
        assert!(tight.contains("gateway-2: holds logins for 5s"), "{tight}");
        assert!(!tight.contains("different"), "{tight}");
        let different = with_first(|plane| {
            let limits = plane.limits.as_mut().unwrap();
            limits.hold = Some(prost_types::Duration {
                seconds: 30,
                nanos: 0,
            });
        });
        assert!(
            different.starts_with("data planes have different limits: gateway-2: hold 25s"),
            "{different}"
        );
    }
}
