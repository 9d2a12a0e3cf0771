//! What is in doubt after a restore.

use std::fmt::Write as _;

use ferrypost_proto::v1;

use super::{View, revision, word};
use crate::table::Table;

/// In short, the digest that a decision names: empty while nothing is to be decided.
pub(crate) fn list(answer: &v1::GetRewoundResponse) -> View {
    let text = match &answer.proof {
        None => "The store was not found restored: there is nothing to decide.\n".to_owned(),
        Some(proof) => doubts(answer, proof),
    };
    let digest = (!answer.digest.is_empty()).then(|| answer.digest.clone());
    View::new("GetRewoundResponse", answer, &text, digest)
}

fn doubts(answer: &v1::GetRewoundResponse, proof: &v1::Rewound) -> String {
    let mut text = format!(
        "The store was restored: {} held {}, the store had {}.\n\
         {} accounts are in doubt; of {} of them the store has no record.\n\
         digest: {}\n\n",
        proof.instance,
        revision(proof.held.as_ref()),
        revision(proof.store.as_ref()),
        answer.in_doubt,
        answer.unknown_to_store,
        answer.digest,
    );
    let rows = answer.accounts.iter().map(|it| {
        let held: Vec<_> = it.held.iter().map(place).collect();
        vec![
            it.account_id.clone(),
            it.names.join(","),
            it.stored
                .as_ref()
                .map_or_else(|| "no record".to_owned(), place),
            held.join(", "),
        ]
    });
    let accounts = Table::new(&["ACCOUNT", "NAMES", "STORE SAYS", "DATA PLANES SAY"], rows);
    let rows = answer.data_planes.iter().map(|it| {
        vec![
            it.instance.clone(),
            revision(it.held.as_ref()),
            it.in_doubt.to_string(),
            if it.newest {
                "its word is the fleet's"
            } else {
                ""
            }
            .to_owned(),
            if it.current {
                ""
            } else {
                "may have missed moves, serves nobody"
            }
            .to_owned(),
        ]
    });
    let planes = Table::new(
        &["INSTANCE", "HOLDS", "IN DOUBT", "NEWEST", "CURRENT"],
        rows,
    );
    _ = write!(text, "{accounts}\n{planes}");
    text
}

fn place(said: &v1::AcknowledgedPlacement) -> String {
    let home = match said.destination.as_str() {
        "" => "no record",
        home => home,
    };
    let phase = match said.phase() {
        v1::Phase::Settled | v1::Phase::Unspecified => String::new(),
        phase => format!(" ({})", word(phase.as_str_name(), "PHASE_")),
    };
    match said.instance.as_str() {
        "" => format!("{home}{phase}"),
        instance => format!("{instance}: {home}{phase}"),
    }
}

pub(crate) fn resolved(answer: &v1::ResolveRewoundResponse) -> View {
    let text = format!(
        "Decided for {} accounts; moves go on. Revisions begin with {} from now on.",
        answer.accounts, answer.base
    );
    View::new(
        "ResolveRewoundResponse",
        answer,
        &text,
        [answer.accounts.to_string()],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn without_a_restore_there_is_nothing_to_decide() {
        let view = list(&v1::GetRewoundResponse::default());
        assert!(view.render(Output::Table).contains("nothing to decide"));
        assert_eq!(view.render(Output::Short), "");
    }

    #[test]
    fn both_words_are_shown_for_each_account_in_doubt() {
        let said = |instance: &str, home: &str| v1::AcknowledgedPlacement {
            instance: instance.into(),
            destination: home.into(),
            ..v1::AcknowledgedPlacement::default()
        };
        let answer = v1::GetRewoundResponse {
            proof: Some(v1::Rewound::default()),
            digest: "d1".into(),
            in_doubt: 1,
            accounts: vec![v1::DoubtfulAccount {
                account_id: "id".into(),
                names: vec!["alice".into()],
                stored: Some(said("", "source")),
                held: vec![said("gateway-1", "target")],
            }],
            ..v1::GetRewoundResponse::default()
        };
        let text = list(&answer).render(Output::Table);
        assert!(
            text.contains("id       alice  source      gateway-1: target"),
            "{text}"
        );
        assert_eq!(list(&answer).render(Output::Short), "d1");
    }
}
