//! Where accounts live, and why a login goes where it goes.

use std::fmt::Write as _;

use ferrypost_proto::v1;

use super::{View, revision, word};
use crate::table::{Table, printable};

pub(crate) fn list(answer: &v1::ListPlacementsResponse) -> View {
    let accounts = answer.placements.iter().map(|it| it.account_id.clone());
    View::new(
        "ListPlacementsResponse",
        answer,
        &table(&answer.placements),
        accounts,
    )
}

/// One account: in short, where it lives.
pub(crate) fn one(answer: &v1::GetPlacementResponse) -> View {
    let placement = answer.placement.clone().unwrap_or_default();
    let home = placement.destination.clone();
    View::new("GetPlacementResponse", answer, &table(&[placement]), [home])
}

fn table(placements: &[v1::Placement]) -> Table {
    let rows = placements.iter().map(|it| {
        vec![
            it.account_id.clone(),
            it.names.join(","),
            it.destination.clone(),
            it.previous_destination.clone(),
            it.target.clone(),
            word(it.phase().as_str_name(), "PHASE_").to_owned(),
            revision(it.epoch.as_ref()),
        ]
    });
    Table::new(
        &[
            "ACCOUNT", "NAMES", "HOME", "PREVIOUS", "MOVES TO", "PHASE", "EPOCH",
        ],
        rows,
    )
}

/// In short, the destination; empty when held or refused.
pub(crate) fn route(answer: &v1::ExplainRouteResponse) -> View {
    let rule = word(answer.rule().as_str_name(), "ROUTE_RULE_");
    let facts = [
        ("name", answer.name.as_str()),
        ("rule", rule),
        ("destination", answer.destination.as_str()),
        ("after the move", answer.destination_after_move.as_str()),
        ("because", answer.explanation.as_str()),
    ];
    let said = facts.iter().filter(|(_, value)| !value.is_empty());
    let mut text = String::new();
    for (what, value) in said {
        _ = writeln!(text, "{:16}{}", format!("{what}:"), printable(value));
    }
    let text = format!("{text}{}", routes(&answer.data_planes));
    View::new(
        "ExplainRouteResponse",
        answer,
        &text,
        [answer.destination.clone()],
    )
}

/// What the data planes say, if they were asked.
fn routes(routes: &[v1::DataPlaneRoute]) -> String {
    if routes.is_empty() {
        return String::new();
    }
    let rows = routes.iter().map(|it| {
        vec![
            it.instance.clone(),
            it.destination.clone(),
            word(it.rule().as_str_name(), "ROUTE_RULE_").to_owned(),
            revision(it.applied.as_ref()),
        ]
    });
    let head = &["DATA PLANE", "SENDS IT TO", "RULE", "APPLIED"];
    format!("\n{}", Table::new(head, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn a_route_says_why() {
        let answer = v1::ExplainRouteResponse {
            name: "alice@example.org".into(),
            rule: v1::RouteRule::Placement.into(),
            destination: "target".into(),
            explanation: "Its record says so.".into(),
            ..v1::ExplainRouteResponse::default()
        };
        let view = route(&answer);
        assert_eq!(
            view.render(Output::Table),
            "name:           alice@example.org\n\
             rule:           PLACEMENT\n\
             destination:    target\n\
             because:        Its record says so.\n"
        );
        assert_eq!(view.render(Output::Short), "target");
    }

    #[test]
    fn a_placement_says_in_short_where_the_account_lives() {
        let placement = v1::Placement {
            account_id: "id".into(),
            names: vec!["a".into(), "b".into()],
            destination: "source".into(),
            phase: v1::Phase::Settled.into(),
            ..v1::Placement::default()
        };
        let single = v1::GetPlacementResponse {
            header: None,
            placement: Some(placement.clone()),
        };
        assert_eq!(one(&single).render(Output::Short), "source");
        let all = v1::ListPlacementsResponse {
            placements: vec![placement],
            ..v1::ListPlacementsResponse::default()
        };
        assert_eq!(list(&all).render(Output::Short), "id");
        assert!(list(&all).render(Output::Table).contains("a,b"));
    }
}
