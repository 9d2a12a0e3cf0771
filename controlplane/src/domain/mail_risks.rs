//! What may become of mail in a move, and what to do about it.

use ferrypost_proto::{Acceptance, DestinationId, MailSplit, RoutingConfig};

/// One sentence for each way in which a message may come to the wrong server: by who decides which one gets it, and
/// by a server that answers for more than it has done.
pub(super) fn of(
    routing: &RoutingConfig,
    source: &DestinationId,
    target: &DestinationId,
) -> Vec<String> {
    let mut risks: Vec<_> = of_split(routing, source, target).into_iter().collect();
    for protocol in routing.accepting(source, Acceptance::NotKnown) {
        risks.push(format!(
            "Nobody has said what {source} means by its 250 by {} (acceptance): if the message is only queued then, it may \
             be stored on it after the flip. Say which it is (docs/inbound-mail.md).",
            protocol.word()
        ));
    }
    for protocol in routing.accepting(source, Acceptance::Queued) {
        risks.push(format!(
            "{source} answers 250 by {} when a message is in its queue (acceptance = \"queued\"): one that is there \
             at the fence may be stored on it after the flip. Deliver by LMTP to a server that stores before it \
             answers, or let a hook of yours flush that queue before the delta.",
            protocol.word()
        ));
    }
    risks
}

fn of_split(
    routing: &RoutingConfig,
    source: &DestinationId,
    target: &DestinationId,
) -> Option<String> {
    match routing.mail_split() {
        MailSplit::ByPlacement if routing.takes_messages(source) => None,
        MailSplit::ByPlacement => Some(format!(
            "Mail follows the placement by look-ups alone (mail_split): {source} has no endpoint for lmtp or smtp, so mail \
             systems deliver to it past Ferrypost, and what one was told before the fence may be stored there behind the \
             delta. Let the last hop go through Ferrypost (docs/deliveries.md), or let a hook of yours wait before the \
             delta until nothing for the account is on its way there."
        )),
        MailSplit::ByExistence => Some(format!(
            "Mail is split by existence (mail_split): a mail system that knows the account on {target} has delivered there \
             since it was created, before this move, and one that knows it on {source} goes on delivering there behind \
             it. Ask Ferrypost for the way of each recipient, or deliver through it (docs/inbound-mail.md); or let the \
             account exist on one side alone."
        )),
        MailSplit::NotKnown => Some(
            "Nobody has said who decides which server gets the mail that arrives (mail_split): a mail system that \
             delivers to whomever a server knows does so before a move, and again after a rollback. Let it follow \
             the placement (docs/inbound-mail.md), and say so."
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::v1;

    use super::*;
    use crate::domain::tests::document;

    fn risks(document: &v1::RoutingConfig, source: &str, target: &str) -> Vec<String> {
        let routing = RoutingConfig::try_from(document).expect("valid");
        let id = |id| DestinationId::parse(id).expect("an id");
        of(&routing, &id(source), &id(target))
    }

    #[test]
    fn whoever_else_splits_mail_is_a_risk() {
        let mut document = document();
        let mut risk = |split: v1::MailSplit| {
            document.mail_split = split.into();
            risks(&document, "source", "target")
        };
        assert!(risk(v1::MailSplit::Unspecified)[0].contains("Nobody has said"));
        let by_existence = risk(v1::MailSplit::ByExistence);
        assert!(by_existence[0].contains("knows the account on target"));
        assert!(by_existence[0].contains("on source goes on"));
    }

    /// The document with this protocol beside the first one of a destination.
    fn with_endpoint(document: &mut v1::RoutingConfig, n: usize, protocol: v1::Protocol) {
        let mut endpoint = document.destinations[n].endpoints[0].clone();
        endpoint.protocol = protocol.into();
        endpoint.acceptance = v1::Acceptance::Delivered.into();
        document.destinations[n].endpoints.push(endpoint);
    }

    #[test]
    fn look_ups_alone_are_a_risk_on_the_side_that_an_account_leaves() {
        for protocol in [v1::Protocol::Lmtp, v1::Protocol::Smtp] {
            let mut document = document();
            document.mail_split = v1::MailSplit::ByPlacement.into();
            let ids = document.destinations.clone();
            let [first, second] = [0, 1].map(|n: usize| &*ids[n].id);
            with_endpoint(&mut document, 0, protocol);
            for other in &mut document.destinations[1..] {
                other.without.push(protocol.into());
            }
            assert!(risks(&document, first, second).is_empty());
            let [risk] = &risks(&document, second, first)[..] else {
                panic!("{document:?}");
            };
            assert!(risk.contains("by look-ups alone") && risk.contains(second));
        }
    }

    #[test]
    fn a_queue_is_a_risk_on_the_side_that_an_account_leaves() {
        let mut document = document();
        document.mail_split = v1::MailSplit::ByPlacement.into();
        for (n, acceptance) in [v1::Acceptance::Queued, v1::Acceptance::Delivered]
            .into_iter()
            .enumerate()
        {
            let mut lmtp = document.destinations[n].endpoints[0].clone();
            lmtp.protocol = v1::Protocol::Lmtp.into();
            lmtp.acceptance = acceptance.into();
            document.destinations[n].endpoints.push(lmtp);
        }
        document.destinations[2]
            .without
            .push(v1::Protocol::Lmtp.into());
        let ids: Vec<_> = document
            .destinations
            .iter()
            .map(|it| it.id.clone())
            .collect();
        let [risk] = &risks(&document, &ids[0], &ids[1])[..] else {
            panic!("{document:?}");
        };
        assert!(
            risk.contains("answers 250 by lmtp") && risk.contains("flush"),
            "{risk}"
        );
        assert!(risks(&document, &ids[1], &ids[0]).is_empty());
        let lmtp = document.destinations[1].endpoints.last_mut();
        lmtp.expect("it is for LMTP").acceptance = v1::Acceptance::Unspecified.into();
        let [risk] = &risks(&document, &ids[1], &ids[0])[..] else {
            panic!("{document:?}");
        };
        assert!(risk.contains("means by its 250 by lmtp"), "{risk}");
    }
}
