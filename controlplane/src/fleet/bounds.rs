//! What a data plane says, brought to a size. Its certificate says that it is one of ours, not that it is
//! sound: whatever it says is kept in memory, written to the store and shown to people, so all of it has
//! a bound.

use std::collections::BTreeSet;

use ferrypost_proto::{
    AccountId,
    routing::v1::{EndpointHealth, Hello, Rejected, RejectedEntry, UnsettledSessions},
    store::v1 as stored,
    v1,
};

/// Most verdicts that are kept of one data plane.
const ENDPOINTS: usize = 1_000;

/// Most certificates that are kept of one data plane.
const CERTIFICATES: usize = 256;

/// Most capabilities that are kept of one endpoint: twice what the longest list of a server has.
const CAPABILITIES: usize = 128;

/// Most rejected accounts that are kept of one data plane: they stand in one value of the store. It holds
/// the accounts beyond them all the same, so a move of one of those is aborted instead of waiting.
const REJECTED: usize = 1_000;

/// Most accounts that are kept of which a data plane has lost sight lately. Beyond them it is as if it had said
/// that there are more.
const UNSETTLED: usize = 256;

/// Rejected entries that are logged by name.
const LOGGED: usize = 10;

/// Longest text for people, in octets.
const TEXT: usize = 200;

/// Longest text that names something, in octets.
const WORD: usize = 128;

/// Whether the words of a Hello may be kept with the registration; the field that may not, if any.
pub(super) fn oversized(hello: &Hello) -> Option<&'static str> {
    let place = hello.place.clone().unwrap_or_default();
    let fields = [
        ("place.kernel", &place.kernel),
        ("place.machine", &place.machine),
        ("place.file", &place.file),
        ("group", &hello.group),
        ("version", &hello.version),
        ("admin_address", &hello.admin_address),
    ];
    let is_bad = |text: &str| text.len() > WORD || text.chars().any(char::is_control);
    fields
        .into_iter()
        .find_map(|(field, text)| is_bad(text).then_some(field))
}

/// Verdicts as they are kept.
pub(super) fn endpoints(said: Vec<EndpointHealth>) -> Vec<EndpointHealth> {
    said.into_iter()
        .filter(|endpoint| endpoint.destination.len() <= WORD)
        .take(ENDPOINTS)
        .map(|endpoint| EndpointHealth {
            problem: cut(&endpoint.problem),
            facts: endpoint.facts.as_ref().map(facts),
            ..endpoint
        })
        .collect()
}

/// Certificates as they are kept.
pub(super) fn certificates(said: Vec<v1::ListenerCertificate>) -> Vec<v1::ListenerCertificate> {
    let kept = said.into_iter().take(CERTIFICATES);
    kept.map(|it| v1::ListenerCertificate {
        listener: cut(&it.listener),
        name: cut(&it.name),
        not_after: it.not_after,
    })
    .collect()
}

fn facts(said: &v1::ServerFacts) -> v1::ServerFacts {
    let capabilities = said.capabilities.iter().take(CAPABILITIES);
    v1::ServerFacts {
        tls: cut(&said.tls),
        trust: cut(&said.trust),
        tls_version: cut(&said.tls_version),
        certificate_not_after: said.certificate_not_after,
        greeting: cut(&said.greeting),
        capabilities: capabilities.map(|it| cut(it)).collect(),
    }
}

/// The same for `/live`.
pub(super) fn to_live(endpoints: &[EndpointHealth]) -> Vec<stored::LiveEndpoint> {
    endpoints
        .iter()
        .map(|endpoint| stored::LiveEndpoint {
            destination: endpoint.destination.clone(),
            protocol: endpoint.protocol,
            reachable: endpoint.reachable,
            problem: endpoint.problem.clone(),
        })
        .collect()
}

/// The accounts whose entries were rejected, as they are kept.
pub(super) fn rejected(said: &Rejected) -> Vec<stored::LiveRejected> {
    let entries: BTreeSet<_> = said
        .entries
        .iter()
        .filter(|entry| AccountId::parse(&entry.account_id).is_ok())
        .map(|entry| (&*entry.account_id, entry.reason().as_str_name()))
        .collect();
    entries
        .into_iter()
        .take(REJECTED)
        .map(|(account_id, reason)| stored::LiveRejected {
            account_id: account_id.to_owned(),
            reason: reason.to_owned(),
        })
        .collect()
}

/// The endpoints that are not used, as they are kept.
pub(super) fn rejected_endpoints(said: &Rejected) -> Vec<stored::LiveRejectedEndpoint> {
    said.endpoints
        .iter()
        .filter(|endpoint| endpoint.destination.len() <= WORD && endpoint.field.len() <= WORD)
        .take(ENDPOINTS)
        .map(|endpoint| stored::LiveRejectedEndpoint {
            destination: endpoint.destination.clone(),
            protocol: endpoint.protocol,
            field: cut(&endpoint.field),
        })
        .collect()
}

/// The entries that are worth a line each in the log.
pub(super) fn logged(said: &Rejected) -> impl Iterator<Item = &RejectedEntry> {
    said.entries.iter().take(LOGGED)
}

/// The accounts whose sessions ended lately without their server's close having been seen, sorted; and whether there
/// are more than that.
pub(super) fn unsettled(said: UnsettledSessions) -> (Vec<String>, bool) {
    let named: BTreeSet<String> = said
        .account_ids
        .into_iter()
        .filter(|id| AccountId::parse(id).is_ok())
        .collect();
    let more = said.more || named.len() > UNSETTLED;
    (named.into_iter().take(UNSETTLED).collect(), more)
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT);
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::routing::v1::RejectedEndpoint;
    use ferrypost_runtime::Random;

    use super::*;

    #[test]
    fn what_is_kept_of_a_data_plane_has_a_bound() {
        let endpoint = |n: usize| EndpointHealth {
            destination: format!("d{n}"),
            problem: "ü".repeat(10_000),
            facts: (n == 0).then(|| v1::ServerFacts {
                capabilities: vec!["x".repeat(10_000); 1_000],
                ..v1::ServerFacts::default()
            }),
            ..EndpointHealth::default()
        };
        let kept = endpoints((0..5_000).map(endpoint).collect());
        assert_eq!(kept.len(), ENDPOINTS);
        assert!(kept.iter().all(|endpoint| endpoint.problem.len() <= TEXT));
        let listed = &kept[0].facts.as_ref().expect("facts").capabilities;
        assert_eq!((listed.len(), listed[0].len()), (CAPABILITIES, TEXT));
        assert_eq!(to_live(&kept).len(), ENDPOINTS);
        let shown = v1::ListenerCertificate {
            listener: "l".repeat(10_000),
            name: "n".repeat(10_000),
            not_after: None,
        };
        let shown = certificates(vec![shown; 5_000]);
        assert_eq!(shown.len(), CERTIFICATES);
        assert_eq!((shown[0].listener.len(), shown[0].name.len()), (TEXT, TEXT));
        let random = Random::seeded(1);
        let entry = |_| RejectedEntry {
            account_id: AccountId::generate(random.bytes()).into(),
            ..RejectedEntry::default()
        };
        let said = Rejected {
            entries: (0..5_000).map(entry).collect(),
            endpoints: vec![RejectedEndpoint::default(); 5_000],
            ..Rejected::default()
        };
        assert_eq!(rejected(&said).len(), REJECTED);
        assert_eq!(rejected_endpoints(&said).len(), ENDPOINTS);
        let lost = UnsettledSessions {
            account_ids: (0..5_000)
                .map(|_| AccountId::generate(random.bytes()).into())
                .collect(),
            more: false,
        };
        let (named, more) = unsettled(lost);
        assert_eq!(
            (named.len(), more),
            (UNSETTLED, true),
            "never fewer than it said"
        );
        let endless = Rejected {
            endpoints: vec![RejectedEndpoint {
                field: "f".repeat(WORD + 1),
                ..RejectedEndpoint::default()
            }],
            ..Rejected::default()
        };
        assert!(rejected_endpoints(&endless).is_empty());
        assert_eq!(logged(&said).count(), LOGGED);
    }

    #[test]
    fn a_hello_with_endless_or_unprintable_words_is_found_out() {
        let hello = Hello {
            group: "g".repeat(WORD),
            ..Hello::default()
        };
        assert_eq!(oversized(&hello), None);
        let long = Hello {
            group: "g".repeat(WORD + 1),
            ..Hello::default()
        };
        assert_eq!(oversized(&long), Some("group"));
        let odd = Hello {
            version: "1\u{1b}[2J".to_owned(),
            ..Hello::default()
        };
        assert_eq!(oversized(&odd), Some("version"));
    }
}
