//! The servers, as each data plane sees them.

use std::collections::{BTreeMap, BTreeSet};

use ferrypost_proto::v1;

use super::{Facts, Finding};

/// Words of a probe that are about how clients are made known.
const ABOUT_ANNOUNCEMENTS: [&str; 4] = [
    "announcement_unread",
    "no_announcement",
    "proxy_missing",
    "proxy_unexpected",
];

const PROBE: &str = "docs/probe.md explains every word of a probe";

pub(super) fn reachable(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (destination, verdict) in verdicts(facts) {
        if ABOUT_ANNOUNCEMENTS.contains(&&*verdict.problem) {
            continue;
        }
        let protocol = verdict.protocol().word();
        let what = match (verdict.reachable, &*verdict.problem) {
            (true, "") => continue,
            (true, word) => format!("{word} on {protocol}, as {} sees it", verdict.instance),
            (false, word) => format!(
                "not reachable on {protocol} from {}: {word}",
                verdict.instance
            ),
        };
        findings.push(Finding::new(destination, what, PROBE));
    }
    findings.extend(unasked(facts));
    findings
}

/// Servers that a connected data plane has no verdict on.
fn unasked(facts: &Facts) -> Vec<Finding> {
    let connected = facts
        .data_planes
        .data_planes
        .iter()
        .filter(|it| it.connected);
    let connected: Vec<_> = connected.map(|it| &*it.instance).collect();
    let destinations = facts.destinations.iter().flat_map(|it| &it.destinations);
    destinations
        .flat_map(|destination| {
            let asked: BTreeSet<_> = destination.verdicts.iter().map(|it| &*it.instance).collect();
            let unasked = connected.iter().filter(move |it| !asked.contains(**it));
            unasked.map(|instance| {
                Finding::new(
                    &*destination.destination,
                    format!("{instance} has no verdict on it yet"),
                    "a probe comes every ten seconds; then that data plane has no listener for what it speaks",
                )
            })
        })
        .collect()
}

pub(super) fn announcement(facts: &Facts) -> Vec<Finding> {
    let seen = verdicts(facts).filter(|(_, it)| ABOUT_ANNOUNCEMENTS.contains(&&*it.problem));
    let mut findings: Vec<_> = seen
        .map(|(destination, verdict)| {
            let protocol = verdict.protocol().word();
            let what = format!(
                "{} on {protocol}, as {} sees it",
                verdict.problem, verdict.instance
            );
            Finding::new(destination, what, PROBE)
        })
        .collect();
    findings.extend(unannounced(facts));
    findings
}

/// Servers that learn no client's address by a protocol by which another one does: after a move there, everybody comes
/// from one address.
fn unannounced(facts: &Facts) -> Vec<Finding> {
    let endpoints: Vec<_> = facts
        .routing
        .config
        .iter()
        .flat_map(|it| &it.destinations)
        .flat_map(|it| it.endpoints.iter().map(|endpoint| (&*it.id, endpoint)))
        .collect();
    let announces = |endpoint: &v1::Endpoint| endpoint.announcement() != v1::Announcement::None;
    endpoints
        .iter()
        .filter(|(id, silent)| {
            let mut others = endpoints.iter().filter(|(other, _)| other != id);
            !announces(silent)
                && others.any(|(_, other)| other.protocol == silent.protocol && announces(other))
        })
        .map(|(id, silent)| {
            let protocol = silent.protocol().word();
            let what = format!(
                "sees our address for every client's on {protocol}; another server does not"
            );
            Finding::new(
                *id,
                what,
                "give its endpoint an announcement, or its bans and limits hit everybody at once",
            )
        })
        .collect()
}

/// Ways to log in that one server takes and another does not: whoever has to use one of them is locked out by a move.
/// Clients are offered only what all servers take, and do not all listen.
pub(super) fn mechanisms(facts: &Facts) -> Vec<Finding> {
    let mut taken: BTreeMap<(i32, &str), BTreeSet<String>> = BTreeMap::new();
    for (destination, verdict) in verdicts(facts) {
        let seen = verdict.facts.iter().flat_map(|it| &it.capabilities);
        let of_it: BTreeSet<_> = seen.flat_map(|item| mechanisms_of(item)).collect();
        if !of_it.is_empty() {
            taken
                .entry((verdict.protocol, destination))
                .or_default()
                .extend(of_it);
        }
    }
    let all = |protocol: i32| {
        let of_protocol = taken.iter().filter(move |((it, _), _)| *it == protocol);
        of_protocol
            .flat_map(|(_, names)| names)
            .collect::<BTreeSet<_>>()
    };
    taken
        .iter()
        .filter_map(|((protocol, destination), names)| {
            let lacking: Vec<_> = all(*protocol)
                .into_iter()
                .filter(|it| !names.contains(*it))
                .cloned()
                .collect();
            let word = v1::Protocol::try_from(*protocol).unwrap_or_default().word();
            let what = format!(
                "does not take {} on {word}, and another server does",
                lacking.join(", ")
            );
            (!lacking.is_empty()).then(|| {
                Finding::new(
                    *destination,
                    what,
                    "turn it on there, or make sure that nobody depends on it",
                )
            })
        })
        .collect()
}

/// The mechanisms that an item of a list names: `AUTH=PLAIN` on IMAP, `SASL PLAIN LOGIN` on POP3 and `ManageSieve`,
/// `AUTH PLAIN LOGIN` on submission.
fn mechanisms_of(item: &str) -> Vec<String> {
    let item = item.to_ascii_uppercase();
    let list = ["AUTH=", "AUTH ", "SASL "]
        .iter()
        .find_map(|it| item.strip_prefix(it));
    let names = list.unwrap_or_default().split_whitespace();
    names.map(str::to_owned).collect()
}

/// Longer than a renewal that has failed needs to be noticed, and shorter than the shortest certificate that is common.
const SOON: i64 = 21 * 86_400;

pub(super) fn certificates(facts: &Facts) -> Vec<Finding> {
    let mut ends: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for (destination, verdict) in verdicts(facts) {
        let end = verdict
            .facts
            .as_ref()
            .and_then(|it| it.certificate_not_after);
        if let Some(end) = end {
            let first = ends
                .entry((destination, verdict.protocol))
                .or_insert(end.seconds);
            *first = end.seconds.min(*first);
        }
    }
    let soon = ends.into_iter().filter(|(_, end)| *end - facts.now < SOON);
    soon.map(|((destination, protocol), end)| {
        let word = v1::Protocol::try_from(protocol).unwrap_or_default().word();
        let days = (end - facts.now).div_euclid(86_400);
        let what = format!("the certificate on {word} ends in {days} days");
        Finding::new(
            destination,
            what,
            "renew it; one that is pinned needs next_pin_sha256 first",
        )
    })
    .collect()
}

fn verdicts(facts: &Facts) -> impl Iterator<Item = (&str, &v1::EndpointVerdict)> {
    let destinations = facts.destinations.iter().flat_map(|it| &it.destinations);
    destinations.flat_map(|it| {
        it.verdicts
            .iter()
            .map(|verdict| (&*it.destination, verdict))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{NOW, found},
        *,
    };

    fn with_first(change: impl FnOnce(&mut v1::EndpointVerdict)) -> String {
        found(|facts| {
            let destinations = facts.destinations.as_mut().unwrap();
            change(&mut destinations.destinations[1].verdicts[0]);
        })
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_found_with_the_probes_word() {
        let away = with_first(|verdict| {
            verdict.reachable = false;
            verdict.problem = "refused".into();
        });
        assert_eq!(
            away,
            "target: not reachable on imap from gateway-1: refused"
        );
        let doubtful = with_first(|verdict| verdict.problem = "breaker_open".into());
        assert_eq!(
            doubtful,
            "target: breaker_open on imap, as gateway-1 sees it"
        );
    }

    #[test]
    fn a_mechanism_that_one_server_lacks_is_found() {
        let more = with_first(|verdict| {
            let facts = verdict.facts.as_mut().unwrap();
            facts.capabilities.push("auth=xoauth2".into());
        });
        assert_eq!(
            more,
            "source: does not take XOAUTH2 on imap, and another server does"
        );
        let unknown = with_first(|verdict| verdict.facts = None);
        assert_eq!(unknown, "");
        assert_eq!(mechanisms_of("SASL PLAIN LOGIN"), ["PLAIN", "LOGIN"]);
        assert_eq!(mechanisms_of("AUTH PLAIN"), ["PLAIN"]);
        assert_eq!(mechanisms_of("IDLE"), [""; 0]);
    }

    #[test]
    fn a_certificate_that_ends_soon_is_found() {
        let in_days = |days: i64| {
            with_first(|verdict| {
                let facts = verdict.facts.as_mut().unwrap();
                let seconds = NOW + days * 86_400 + 5;
                facts.certificate_not_after = Some(prost_types::Timestamp { seconds, nanos: 0 });
            })
        };
        assert_eq!(
            in_days(10),
            "target: the certificate on imap ends in 10 days"
        );
        assert_eq!(
            in_days(-2),
            "target: the certificate on imap ends in -2 days"
        );
        assert_eq!(in_days(40), "");
    }

    #[test]
    fn a_server_that_was_not_asked_is_found() {
        let unasked = found(|facts| {
            let destinations = facts.destinations.as_mut().unwrap();
            destinations.destinations[0].verdicts.pop();
        });
        assert_eq!(unasked, "source: gateway-2 has no verdict on it yet");
    }

    #[test]
    fn a_server_that_does_not_learn_who_the_client_is_is_found() {
        let unread = with_first(|verdict| verdict.problem = "announcement_unread".into());
        assert_eq!(
            unread,
            "target: announcement_unread on imap, as gateway-1 sees it"
        );
        let silent = found(|facts| {
            let config = facts.routing.config.as_mut().unwrap();
            config.destinations[1].endpoints[0].set_announcement(v1::Announcement::None);
        });
        assert_eq!(
            silent,
            "target: sees our address for every client's on imap; another server does not"
        );
        let all_silent = found(|facts| {
            let config = facts.routing.config.as_mut().unwrap();
            for destination in &mut config.destinations {
                destination.endpoints[0].set_announcement(v1::Announcement::None);
            }
        });
        assert_eq!(all_silent, "");
    }
}
