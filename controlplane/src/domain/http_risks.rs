//! What HTTP requests may do in a move that no fence knows of, and what to do about it.

use ferrypost_proto::{DestinationId, RoutingConfig};

/// One sentence for each side to which rules send what can write to accounts without anybody knowing to whose.
pub(super) fn of(
    routing: &RoutingConfig,
    source: &DestinationId,
    target: &DestinationId,
) -> Vec<String> {
    if routing.http_rules().is_none() {
        return vec![
            "The rules for HTTP say something that this replica does not know: what they send past the fence is not \
             known either. Upgrade it."
                .to_owned(),
        ];
    }
    let rules = |destination| {
        let rules: Vec<_> = routing.writing_pins(destination).collect();
        (!rules.is_empty()).then(|| rules.join(", "))
    };
    let at_source = rules(source).map(|rules| {
        format!(
            "Rules for HTTP send to {source} what can write to an account and does not say to which \
             (writes_to_accounts): {rules}. Such requests are held while the account is fenced, and after the flip a \
             web session that was opened before goes on writing on {source}: end those sessions there (docs/http.md)."
        )
    });
    let at_target = rules(target).map(|rules| {
        format!(
            "Rules for HTTP send to {target} what can write to an account and does not say to which \
             (writes_to_accounts): {rules}. What such a request writes there before the flip is not in the source, \
             and the delta may overwrite it."
        )
    });
    at_source.into_iter().chain(at_target).collect()
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::v1;

    use super::*;
    use crate::domain::tests::document;

    fn document_with(rules: Vec<v1::HttpRule>) -> v1::RoutingConfig {
        let mut document = document();
        for destination in &mut document.destinations {
            let mut http = destination.endpoints[0].clone();
            http.protocol = v1::Protocol::Http.into();
            destination.endpoints.push(http);
        }
        document.http = Some(v1::HttpRouting { rules });
        document.schema = ferrypost_proto::SCHEMAS.newest();
        document
    }

    fn pin(name: &str, destination: &str, writes: bool) -> v1::HttpRule {
        v1::HttpRule {
            name: name.to_owned(),
            paths: vec![format!("/{name}")],
            pin: destination.to_owned(),
            writes_to_accounts: Some(writes),
            ..v1::HttpRule::default()
        }
    }

    fn risks(routing: &RoutingConfig, source: &str, target: &str) -> Vec<String> {
        let id = |id| DestinationId::parse(id).expect("an id");
        of(routing, &id(source), &id(target))
    }

    #[test]
    fn a_pin_is_a_risk_on_both_sides_if_it_can_write() {
        let document = document_with(vec![
            pin("page", "source", false),
            pin("token", "source", true),
            pin("app", "source", true),
        ]);
        let routing = RoutingConfig::try_from(&document).expect("valid");
        let [leaving] = &risks(&routing, "source", "target")[..] else {
            panic!("{document:?}");
        };
        assert!(leaving.contains(": token, app."), "{leaving}");
        assert!(leaving.contains("goes on writing on source"), "{leaving}");
        let [coming] = &risks(&routing, "target", "source")[..] else {
            panic!("{document:?}");
        };
        assert!(coming.contains("before the flip"), "{coming}");
        let harmless = document_with(vec![pin("page", "source", false)]);
        let routing = RoutingConfig::try_from(&harmless).expect("valid");
        assert!(risks(&routing, "source", "target").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_a_risk_and_not_none() {
        let mut unknown = pin("page", "source", false);
        unknown.pin.clear();
        let routing = RoutingConfig::in_force(&document_with(vec![unknown])).expect("in force");
        let [risk] = &risks(&routing, "source", "target")[..] else {
            panic!("one risk");
        };
        assert!(risk.contains("Upgrade"), "{risk}");
    }
}
