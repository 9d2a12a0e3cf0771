//! From what was typed to what is asked.

use std::collections::BTreeMap;

use ferrypost_proto::v1;

use crate::args;

/// Entries of a page: as many as a page may have.
pub(crate) const PAGE: i32 = 1000;

pub(crate) fn migrate(order: &args::Migrate, request_id: &str) -> v1::MigrateRequest {
    v1::MigrateRequest {
        account: order.account.clone(),
        names: order.names.clone(),
        destination: order.to.clone(),
        expected_source: order.flags.from.clone().unwrap_or_default(),
        request_id: request_id.to_owned(),
        validate_only: false,
        reason: order.flags.reason.clone(),
        wait: Some(AT_ONCE),
        labels: labels(&order.flags.labels),
    }
}

pub(crate) fn rollback(order: &args::Rollback, request_id: &str) -> v1::RollbackRequest {
    v1::RollbackRequest {
        account: order.account.clone(),
        expected_source: order.flags.from.clone().unwrap_or_default(),
        request_id: request_id.to_owned(),
        validate_only: false,
        reason: order.flags.reason.clone(),
        wait: Some(AT_ONCE),
        labels: labels(&order.flags.labels),
    }
}

/// The outcome is watched for, so that there is something to see meanwhile.
const AT_ONCE: prost_types::Duration = prost_types::Duration {
    seconds: 0,
    nanos: 0,
};

pub(crate) fn migrations(
    asked: &args::Migrations,
    page_token: String,
) -> v1::ListMigrationsRequest {
    v1::ListMigrationsRequest {
        page_size: i32::try_from(asked.limit).unwrap_or(PAGE).clamp(1, PAGE),
        page_token,
        account: asked.account.clone().unwrap_or_default(),
        state: state(asked.state).into(),
        labels: labels(&asked.labels),
    }
}

pub(crate) fn watch(asked: &args::Watch) -> v1::WatchMigrationsRequest {
    v1::WatchMigrationsRequest {
        account: asked.account.clone().unwrap_or_default(),
        state: state(asked.state).into(),
        labels: labels(&asked.labels),
    }
}

fn labels(given: &[(String, String)]) -> BTreeMap<String, String> {
    given.iter().cloned().collect()
}

fn state(state: Option<args::MoveState>) -> v1::MigrationState {
    match state {
        None => v1::MigrationState::Unspecified,
        Some(args::MoveState::Queued) => v1::MigrationState::Queued,
        Some(args::MoveState::Running) => v1::MigrationState::Running,
        Some(args::MoveState::Succeeded) => v1::MigrationState::Succeeded,
        Some(args::MoveState::Aborted) => v1::MigrationState::Aborted,
    }
}

pub(crate) fn placements(
    asked: &args::Placements,
    page_token: String,
) -> v1::ListPlacementsRequest {
    v1::ListPlacementsRequest {
        page_size: PAGE,
        page_token,
        destination: asked.destination.clone().unwrap_or_default(),
    }
}

pub(crate) fn sessions(asked: &args::Sessions, page_token: String) -> v1::ListSessionsRequest {
    v1::ListSessionsRequest {
        account: asked.account.clone().unwrap_or_default(),
        page_size: i32::try_from(asked.limit).map_or(PAGE, |limit| limit.min(PAGE)),
        page_token,
    }
}

pub(crate) fn resolve(
    keep: args::Keep,
    asked: &args::Rewound,
    request_id: &str,
) -> v1::ResolveRewoundRequest {
    let keep = match keep {
        args::Keep::Store => v1::Keep::Store,
        args::Keep::Fleet => v1::Keep::Fleet,
    };
    v1::ResolveRewoundRequest {
        keep: keep.into(),
        reason: asked.reason.clone().unwrap_or_default(),
        digest: asked.digest.clone(),
        request_id: request_id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn typed(words: &str) -> Command {
        let words = words.split_whitespace();
        Arguments::try_parse_from(std::iter::once("ferrypost").chain(words))
            .expect("a command")
            .command
    }

    #[test]
    fn a_move_carries_all_that_was_said_of_it() {
        let Command::Migrate(order) = typed(
            "migrate alice --to target --name al --from source --reason tour --wait 0s --label wave=1",
        ) else {
            panic!("another command");
        };
        let request = migrate(&order, "r");
        assert_eq!(
            request,
            v1::MigrateRequest {
                account: "alice".into(),
                names: vec!["al".into()],
                destination: "target".into(),
                expected_source: "source".into(),
                request_id: "r".into(),
                validate_only: false,
                reason: "tour".into(),
                wait: Some(AT_ONCE),
                labels: BTreeMap::from([("wave".into(), "1".into())]),
            }
        );
    }

    #[test]
    fn a_list_asks_for_pages_no_larger_than_it_needs() {
        let size = |words: &str| match typed(words) {
            Command::Migrations(asked) => migrations(&asked, String::new()).page_size,
            Command::Sessions(asked) => sessions(&asked, String::new()).page_size,
            other => panic!("{other:?}"),
        };
        assert_eq!(size("migrations --limit 5"), 5);
        assert_eq!(size("migrations --limit 100000"), PAGE);
        assert_eq!(size("sessions --limit 5"), 5);
        assert_eq!(size("sessions --limit 100000"), PAGE);
    }
}
