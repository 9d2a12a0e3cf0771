//! Where a move stands, in one line.

use ferrypost_proto::v1;

use crate::{show::word, table::printable};

/// Says each thing once.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    said: String,
}

impl Progress {
    /// What there is to say now that was not said just before.
    pub(crate) fn step(&mut self, migration: &v1::Migration) -> Option<String> {
        let line = line(migration);
        let is_new = self.said != line;
        self.said.clone_from(&line);
        is_new.then_some(line)
    }
}

/// True once it is known whether the account has moved.
pub(crate) fn is_decided(migration: &v1::Migration) -> bool {
    matches!(
        migration.state(),
        v1::MigrationState::Succeeded | v1::MigrationState::Aborted
    )
}

/// True once nothing will change any more.
pub(crate) fn has_ended(migration: &v1::Migration) -> bool {
    match migration.state() {
        v1::MigrationState::Aborted => true,
        v1::MigrationState::Succeeded => migration.phase() == v1::Phase::Settled,
        _ => false,
    }
}

/// Where it stands.
pub(crate) fn line(migration: &v1::Migration) -> String {
    let names: Vec<_> = migration
        .accounts
        .iter()
        .filter_map(|it| it.names.first())
        .collect();
    let mut line = format!(
        "{} {}",
        names.first().map_or("", |name| name.as_str()),
        word(migration.state().as_str_name(), "MIGRATION_STATE_"),
    );
    if !is_decided(migration) || migration.phase() == v1::Phase::Flipped {
        line = format!("{line} {}", word(migration.phase().as_str_name(), "PHASE_"));
    }
    let undrained = migration.data_planes.iter().filter(|it| !it.drained);
    let left: Vec<_> = undrained
        .map(|it| format!("{} has {} sessions", it.instance, it.sessions_left))
        .collect();
    if !left.is_empty() {
        line = format!("{line}, {}", left.join(", "));
    }
    if let Some(held) = &migration.held {
        line = format!("{line}, held for {held}");
    }
    for blocker in &migration.blockers {
        line = format!("{line}; waits: {}", blocker.message);
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(state: v1::MigrationState, phase: v1::Phase) -> v1::Migration {
        v1::Migration {
            accounts: vec![v1::MigratingAccount {
                account_id: "id".into(),
                names: vec!["alice@example.org".into()],
            }],
            state: state.into(),
            phase: phase.into(),
            ..v1::Migration::default()
        }
    }

    #[test]
    fn each_thing_is_said_once() {
        let mut progress = Progress::default();
        let mut fencing = migration(v1::MigrationState::Running, v1::Phase::Fencing);
        fencing.data_planes = vec![v1::DataPlaneProgress {
            instance: "gateway-1".into(),
            sessions_left: 2,
            ..v1::DataPlaneProgress::default()
        }];
        let line = progress.step(&fencing).unwrap();
        assert_eq!(
            line,
            "alice@example.org RUNNING FENCING, gateway-1 has 2 sessions"
        );
        assert_eq!(progress.step(&fencing), None);
        fencing.data_planes[0].sessions_left = 1;
        assert!(progress.step(&fencing).is_some());
    }

    #[test]
    fn what_a_move_waits_for_is_said() {
        let mut queued = migration(v1::MigrationState::Queued, v1::Phase::Copying);
        queued.blockers.push(v1::Blocker {
            message: "gateway-2 is silent".into(),
            ..v1::Blocker::default()
        });
        let line = Progress::default().step(&queued).unwrap();
        assert_eq!(
            line,
            "alice@example.org QUEUED COPYING; waits: gateway-2 is silent"
        );
        assert!(!is_decided(&queued) && !has_ended(&queued));
    }

    #[test]
    fn a_move_is_decided_before_it_has_ended() {
        let flipped = migration(v1::MigrationState::Succeeded, v1::Phase::Flipped);
        assert!(is_decided(&flipped) && !has_ended(&flipped));
        let settled = migration(v1::MigrationState::Succeeded, v1::Phase::Settled);
        assert!(has_ended(&settled));
        let aborted = migration(v1::MigrationState::Aborted, v1::Phase::Settled);
        assert!(is_decided(&aborted) && has_ended(&aborted));
    }
}
