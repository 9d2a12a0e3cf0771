//! Data planes, servers, sessions and figures.

use std::fmt::Write as _;

use ferrypost_proto::v1;

use super::{View, age, revision, time, word};
use crate::table::Table;

pub(crate) fn data_planes(answer: &v1::ListDataPlanesResponse) -> View {
    let rows = answer.data_planes.iter().map(|it| {
        vec![
            it.instance.clone(),
            word(it.sync().as_str_name(), "SYNC_STATE_").to_owned(),
            yes(it.connected),
            yes(it.ready),
            it.sessions.to_string(),
            it.held_logins.to_string(),
            it.version.clone(),
            revision(it.applied.as_ref()),
            it.boot.clone(),
            trouble(it),
        ]
    });
    let head = &[
        "INSTANCE",
        "SYNC",
        "CONNECTED",
        "READY",
        "SESSIONS",
        "HELD",
        "VERSION",
        "APPLIED",
        "BOOT",
        "TROUBLE",
    ];
    let mut text = Table::new(head, rows).to_string();
    if !answer.expelled.is_empty() {
        let rows = answer.expelled.iter().map(|it| {
            vec![
                it.instance.clone(),
                it.boot.clone(),
                time(it.expelled_at.as_ref()),
                it.expelled_by.clone(),
                it.reason.clone(),
            ]
        });
        let expelled = Table::new(&["EXPELLED", "BOOT", "AT", "BY", "WHY"], rows);
        _ = write!(text, "\n{expelled}");
    }
    let instances = answer.data_planes.iter().map(|it| it.instance.clone());
    View::new("ListDataPlanesResponse", answer, &text, instances)
}

/// What stands between a data plane and its work, in words.
fn trouble(plane: &v1::DataPlane) -> String {
    let mut words = Vec::new();
    for fence in &plane.blocks {
        words.push(format!("{} sessions left of a fence", fence.sessions_left));
    }
    if !plane.rejected.is_empty() {
        words.push(format!("rejects {} entries", plane.rejected.len()));
    }
    for endpoint in &plane.rejected_endpoints {
        let protocol = endpoint.protocol().word();
        words.push(format!(
            "does not use {} for {protocol}",
            endpoint.destination
        ));
    }
    if plane.settling.is_some() {
        words.push("settles after a succession".to_owned());
    }
    if plane.limits.is_none() {
        words.push("does not say its limits".to_owned());
    }
    if let Some(claim) = &plane.refused {
        words.push(format!(
            "{} is refused in its place: {}",
            claim.boot, claim.why
        ));
    }
    words.join("; ")
}

pub(crate) fn destinations(answer: &v1::ListDestinationsResponse) -> View {
    let rows = answer.destinations.iter().flat_map(|it| {
        let verdicts = it.verdicts.iter().map(|verdict| {
            let facts = verdict.facts.clone().unwrap_or_default();
            vec![
                it.destination.clone(),
                it.accounts.to_string(),
                verdict.protocol().word().to_owned(),
                verdict.instance.clone(),
                yes(verdict.reachable),
                verdict.problem.clone(),
                facts.tls,
                facts.tls_version,
                time(facts.certificate_not_after.as_ref()),
            ]
        });
        let unasked = it.verdicts.is_empty().then(|| {
            let mut row = vec![String::new(); 9];
            row[0].clone_from(&it.destination);
            row[1] = it.accounts.to_string();
            row
        });
        verdicts.chain(unasked).collect::<Vec<_>>()
    });
    let head = &[
        "DESTINATION",
        "ACCOUNTS",
        "PROTOCOL",
        "SEEN BY",
        "REACHABLE",
        "PROBLEM",
        "TLS",
        "VERSION",
        "CERTIFICATE ENDS",
    ];
    let ids = answer.destinations.iter().map(|it| it.destination.clone());
    View::new(
        "ListDestinationsResponse",
        answer,
        &Table::new(head, rows),
        ids,
    )
}

pub(crate) fn sessions(answer: &v1::ListSessionsResponse) -> View {
    let rows = answer.sessions.iter().map(|it| {
        vec![
            it.instance.clone(),
            it.reference.clone(),
            it.protocol().word().to_owned(),
            it.name.clone(),
            it.destination.clone(),
            it.client.clone(),
            age(it.age.as_ref()),
            it.stage.clone(),
            it.kind.clone(),
        ]
    });
    let head = &[
        "INSTANCE",
        "REFERENCE",
        "PROTOCOL",
        "NAME",
        "DESTINATION",
        "CLIENT",
        "AGE",
        "STAGE",
        "KIND",
    ];
    let references = answer.sessions.iter().map(|it| it.reference.clone());
    View::new(
        "ListSessionsResponse",
        answer,
        &Table::new(head, rows),
        references,
    )
}

pub(crate) fn unlisted(answer: &v1::ListUnlistedLoginsResponse) -> View {
    let rows = answer.logins.iter().map(|it| {
        vec![
            it.name.clone(),
            it.destination.clone(),
            it.account_id.clone(),
            it.home.clone(),
            age(it.age.as_ref()),
            it.instances.join(","),
        ]
    });
    let head = &[
        "LOGIN",
        "GOES TO",
        "MAY BE",
        "WHICH LIVES AT",
        "LAST",
        "SEEN BY",
    ];
    let names = answer.logins.iter().map(|it| it.name.clone());
    View::new(
        "ListUnlistedLoginsResponse",
        answer,
        &Table::new(head, rows),
        names,
    )
}

pub(crate) fn kicked(answer: &v1::KickSessionsResponse) -> View {
    let text = format!("{} sessions were told to close", answer.kicked);
    View::new(
        "KickSessionsResponse",
        answer,
        &text,
        [answer.kicked.to_string()],
    )
}

pub(crate) fn expelled(answer: &v1::ExpelDataPlaneResponse) -> View {
    let expelled = answer.expelled.clone().unwrap_or_default();
    let text = format!(
        "{} (boot {}) is expelled for ever",
        expelled.instance, expelled.boot
    );
    View::new("ExpelDataPlaneResponse", answer, &text, [expelled.instance])
}

/// In short, the number of sessions.
pub(crate) fn stats(answer: &v1::GetStatsResponse) -> View {
    let header = answer.header.clone().unwrap_or_default();
    let replica = format!(
        "{} ({}, store {})",
        header.replica, answer.version, answer.store
    );
    let data_planes = format!(
        "{} connected of {}",
        answer.data_planes_connected, answer.data_planes_registered
    );
    let accounts = format!("{} with {} names", answer.accounts, answer.names);
    let moves: u64 = answer.migrations.iter().map(|it| it.migrations).sum();
    let mut rows = vec![
        row("installation", &header.installation),
        row("replica", &replica),
        row("leader", &header.leader),
        row("revision", &revision(header.revision.as_ref())),
        row("data planes", &data_planes),
        row("sessions", &answer.sessions),
        row("held logins", &answer.held_logins),
        row("accounts", &accounts),
    ];
    rows.extend(
        answer
            .placements
            .iter()
            .map(|it| row(&format!("  at {}", it.destination), &it.accounts)),
    );
    rows.extend(answer.phases.iter().map(|it| {
        let phase = word(it.phase().as_str_name(), "PHASE_");
        row(&format!("  {phase}"), &it.accounts)
    }));
    rows.push(row("moves", &moves));
    rows.extend(
        answer
            .migrations
            .iter()
            .map(|it| row(&format!("  {}", it.state), &it.migrations)),
    );
    let table = Table::new(&["WHAT", "VALUE"], rows);
    View::new(
        "GetStatsResponse",
        answer,
        &table,
        [answer.sessions.to_string()],
    )
}

fn row(what: &str, value: &dyn ToString) -> Vec<String> {
    vec![what.to_owned(), value.to_string()]
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn a_data_plane_shows_what_it_stands_in_the_way_of() {
        let plane = v1::DataPlane {
            instance: "gateway-1".into(),
            boot: "b1".into(),
            sync: v1::SyncState::Error.into(),
            blocks: vec![v1::BlockedFence {
                sessions_left: 3,
                ..v1::BlockedFence::default()
            }],
            rejected_endpoints: vec![v1::RejectedEndpoint {
                destination: "target".into(),
                protocol: v1::Protocol::Imap.into(),
                field: "announcement".into(),
            }],
            ..v1::DataPlane::default()
        };
        let answer = v1::ListDataPlanesResponse {
            data_planes: vec![plane],
            expelled: vec![v1::ExpelledDataPlane {
                instance: "gateway-0".into(),
                ..v1::ExpelledDataPlane::default()
            }],
            ..v1::ListDataPlanesResponse::default()
        };
        let text = data_planes(&answer).render(Output::Table);
        assert!(
            text.contains(
                "3 sessions left of a fence; does not use target for imap; does not say its limits"
            ),
            "{text}"
        );
        assert!(text.contains("\ngateway-0"), "{text}");
        assert_eq!(data_planes(&answer).render(Output::Short), "gateway-1");
    }

    #[test]
    fn a_destination_that_nobody_has_asked_is_still_shown() {
        let answer = v1::ListDestinationsResponse {
            destinations: vec![v1::DestinationStatus {
                destination: "target".into(),
                accounts: 2,
                verdicts: Vec::new(),
            }],
            ..v1::ListDestinationsResponse::default()
        };
        let text = destinations(&answer).render(Output::Table);
        assert!(
            text.lines()
                .nth(1)
                .unwrap()
                .starts_with("target       2         -"),
            "{text}"
        );
    }

    #[test]
    fn stats_are_rows() {
        let answer = v1::GetStatsResponse {
            sessions: 4,
            data_planes_connected: 1,
            data_planes_registered: 2,
            placements: vec![v1::DestinationCount {
                destination: "source".into(),
                accounts: 7,
            }],
            ..v1::GetStatsResponse::default()
        };
        let text = stats(&answer).render(Output::Table);
        assert!(text.contains("data planes   1 connected of 2\n"), "{text}");
        assert!(text.contains("  at source   7\n"), "{text}");
        assert_eq!(stats(&answer).render(Output::Short), "4");
    }
}
