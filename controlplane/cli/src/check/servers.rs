//! The servers, as each data plane sees them.

use std::collections::BTreeSet;

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
    use super::{super::tests::found, *};

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
