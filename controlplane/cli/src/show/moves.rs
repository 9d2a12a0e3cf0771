//! Moves and their plans.

use std::fmt::Write as _;

use ferrypost_proto::v1;

use super::{View, time, word};
use crate::table::{Table, printable};

/// One move, after its end or in the middle of it.
pub(crate) fn migration(migration: &v1::Migration) -> View {
    View::new(
        "Migration",
        migration,
        &table(std::slice::from_ref(migration)),
        [short(migration)],
    )
}

/// What becomes of a move, among others: no head.
pub(crate) fn list(answer: &v1::ListMigrationsResponse) -> View {
    let ids = answer.migrations.iter().map(|it| it.migration_id.clone());
    View::new(
        "ListMigrationsResponse",
        answer,
        &table(&answer.migrations),
        ids,
    )
}

/// What a script asks of one move: its state, and which it was.
fn short(migration: &v1::Migration) -> String {
    format!("{} {}", state(migration), migration.migration_id)
}

fn state(migration: &v1::Migration) -> &str {
    word(migration.state().as_str_name(), "MIGRATION_STATE_")
}

fn table(migrations: &[v1::Migration]) -> Table {
    let rows = migrations.iter().map(|it| {
        vec![
            it.migration_id.clone(),
            accounts(&it.accounts),
            it.source.clone(),
            it.target.clone(),
            state(it).to_owned(),
            word(it.phase().as_str_name(), "PHASE_").to_owned(),
            time(it.requested_at.as_ref()),
            it.held
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            labels(it),
            why(it),
        ]
    });
    Table::new(
        &[
            "MIGRATION",
            "ACCOUNT",
            "FROM",
            "TO",
            "STATE",
            "PHASE",
            "REQUESTED",
            "HELD",
            "LABELS",
            "WHY",
        ],
        rows,
    )
}

fn accounts(accounts: &[v1::MigratingAccount]) -> String {
    let names: Vec<_> = accounts
        .iter()
        .map(|it| it.names.first().unwrap_or(&it.account_id).clone())
        .collect();
    names.join(",")
}

fn labels(migration: &v1::Migration) -> String {
    let labels = migration.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

/// Why it waits, or why it was given up.
pub(crate) fn why(migration: &v1::Migration) -> String {
    let causes = migration.abort_cause.as_ref().map(|it| &it.blockers);
    let blockers = causes.unwrap_or(&migration.blockers).iter();
    let messages: Vec<_> = blockers.map(|it| it.message.clone()).collect();
    messages.join("; ")
}

/// A plan as an answer by itself.
pub(crate) fn migrate_plan(answer: &v1::MigrateResponse) -> View {
    let plan = answer.plan.clone().unwrap_or_default();
    View::new(
        "MigrateResponse",
        answer,
        &plan_text(&plan),
        plan.residual_risks,
    )
}

/// The same of the way back.
pub(crate) fn rollback_plan(answer: &v1::RollbackResponse) -> View {
    let plan = answer.plan.clone().unwrap_or_default();
    View::new(
        "RollbackResponse",
        answer,
        &plan_text(&plan),
        plan.residual_risks,
    )
}

/// What a move would do, and what it does not carry.
pub(crate) fn plan_text(plan: &v1::MigrationPlan) -> String {
    let mut text = String::new();
    let mut line = |what: &str, said: String| _ = writeln!(text, "{what:16}{}", printable(&said));
    for account in &plan.accounts {
        line("account:", account.names.join(", "));
    }
    line("move:", format!("{} -> {}", plan.source, plan.target));
    for closed in &plan.disconnects {
        let (number, protocol) = (closed.sessions, closed.protocol().word());
        line(
            "closes:",
            format!("{number} {protocol} sessions on {}", closed.instance),
        );
    }
    for blocker in &plan.blockers {
        line("waits:", blocker.message.clone());
    }
    for risk in &plan.residual_risks {
        line("residual risk:", risk.clone());
    }
    for login in &plan.unlisted_logins {
        line(
            "unlisted login:",
            format!(
                "{} goes to {} and does not move; is it this account's, too? Then give it by --name",
                login.name, login.destination
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    fn aborted() -> v1::Migration {
        v1::Migration {
            migration_id: "m1".into(),
            accounts: vec![v1::MigratingAccount {
                account_id: "id".into(),
                names: vec!["alice@example.org".into(), "al".into()],
            }],
            source: "source".into(),
            target: "target".into(),
            state: v1::MigrationState::Aborted.into(),
            phase: v1::Phase::Settled.into(),
            abort_cause: Some(v1::AbortCause {
                phase: v1::Phase::Fencing.into(),
                blockers: vec![v1::Blocker {
                    message: "gateway-1 has not drained".into(),
                    ..v1::Blocker::default()
                }],
            }),
            ..v1::Migration::default()
        }
    }

    #[test]
    fn a_move_says_what_became_of_it_and_why() {
        let view = migration(&aborted());
        let text = view.render(Output::Table);
        let row = text.lines().nth(1).unwrap();
        assert!(
            row.contains("ABORTED") && row.ends_with("gateway-1 has not drained"),
            "{text}"
        );
        assert_eq!(view.render(Output::Short), "ABORTED m1");
        let answer = v1::ListMigrationsResponse {
            migrations: vec![aborted()],
            ..v1::ListMigrationsResponse::default()
        };
        assert_eq!(list(&answer).render(Output::Short), "m1");
    }

    #[test]
    fn a_plan_says_who_is_disconnected_what_blocks_and_what_stays_behind() {
        let plan = v1::MigrationPlan {
            accounts: aborted().accounts,
            source: "source".into(),
            target: "target".into(),
            disconnects: vec![v1::PlannedDisconnect {
                instance: "gateway-1".into(),
                protocol: v1::Protocol::Imap.into(),
                sessions: 2,
            }],
            blockers: vec![v1::Blocker {
                message: "nobody leads".into(),
                ..v1::Blocker::default()
            }],
            residual_risks: vec!["direct ports".into()],
            unlisted_logins: vec![v1::UnlistedLogin {
                name: "alice".into(),
                destination: "source".into(),
                ..v1::UnlistedLogin::default()
            }],
        };
        assert_eq!(
            plan_text(&plan),
            "account:        alice@example.org, al\n\
             move:           source -> target\n\
             closes:         2 imap sessions on gateway-1\n\
             waits:          nobody leads\n\
             residual risk:  direct ports\n\
             unlisted login: alice goes to source and does not move; is it this account's, too? Then give it by --name\n"
        );
    }
}
