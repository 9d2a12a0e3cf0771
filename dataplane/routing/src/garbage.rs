//! Whatever comes down the stream, a table is a table: nothing panics, nothing goes backwards, and an entry
//! that cannot be read never opens a name that it carries.

use ferrypost_proto::routing::v1::{
    AccountEntry, Change, Delta, SnapshotChunk, change::Change as Kind,
};
use proptest::prelude::*;

use super::{testing::*, *};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("alice".to_owned()),
        Just("Alice@A.example".to_owned()),
        Just("source".to_owned()),
        (0..3_u64).prop_map(account),
        any::<String>(),
    ]
}

fn revisions() -> impl Strategy<Value = Option<ferrypost_proto::v1::Revision>> {
    prop_oneof![
        Just(None),
        (0..3_u64, any::<u64>())
            .prop_map(|(base, store)| Some(ferrypost_proto::v1::Revision { base, store })),
        (0..9_u64).prop_map(|store| Some(revision(store))),
    ]
}

fn entries() -> impl Strategy<Value = AccountEntry> {
    (
        text(),
        prop::collection::vec(text(), 0..4),
        text(),
        text(),
        -1..12_i32,
        revisions(),
        revisions(),
        (text(), text()),
    )
        .prop_map(
            |(
                account_id,
                names,
                home,
                target,
                phase,
                epoch,
                fence_epoch,
                (migration_id, traceparent),
            )| {
                AccountEntry {
                    account_id,
                    names,
                    home,
                    target,
                    phase,
                    epoch,
                    fence_epoch,
                    migration_id,
                    traceparent,
                }
            },
        )
}

fn deltas() -> impl Strategy<Value = Delta> {
    let kind = prop_oneof![
        6 => entries().prop_map(|entry| Some(Kind::Account(entry))),
        2 => text().prop_map(|account| Some(Kind::AccountRemoved(account))),
        1 => Just(Some(Kind::Config(config_without("third")))),
        1 => Just(Some(Kind::Config(ferrypost_proto::v1::RoutingConfig::default()))),
        1 => Just(None),
    ];
    let changes = prop::collection::vec(kind.prop_map(|change| Change { change }), 0..5);
    (revisions(), revisions(), changes).prop_map(|(from, to, changes)| Delta {
        from,
        to: to.map(|to| ferrypost_proto::routing::v1::TablePosition {
            revision: Some(to),
            head: None,
        }),
        changes,
    })
}

fn snapshots() -> impl Strategy<Value = SnapshotChunk> {
    let accounts = prop::collection::vec(entries(), 0..6);
    (0..9_u64, 0..2_u32, any::<bool>(), accounts).prop_map(|(store, index, whole, accounts)| {
        SnapshotChunk {
            index,
            config: whole.then(config),
            ..chunk(store, accounts)
        }
    })
}

/// Rejected entries hold every name that can be read in them.
fn rejections_hold(table: &RoutingTable, entries: &[AccountEntry]) {
    let rejected = table.rejected();
    let policy = table.config().names();
    for entry in entries {
        if !rejected.iter().any(|it| it.account_id == entry.account_id) {
            continue;
        }
        for name in entry
            .names
            .iter()
            .filter_map(|it| policy.canonicalise(it).ok())
        {
            assert!(
                matches!(table.resolve(&name), Resolution::Fenced(_)),
                "{name}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_delta_applies_or_changes_nothing(delta in deltas(), follows in any::<bool>()) {
        let held = table(5, vec![entry(1, &["alice"], "source", 4)]);
        let mut delta = delta;
        if follows {
            delta.from = Some(revision(5));
        }
        let last = delta.changes.clone();
        if let Ok(applied) = held.apply(delta) {
            let table = applied.table;
            prop_assert!(table.position().revision >= held.position().revision);
            let mut entries: Vec<AccountEntry> = Vec::new();
            for change in last {
                match change.change {
                    Some(Kind::Account(entry)) => {
                        entries.retain(|it| it.account_id != entry.account_id);
                        entries.push(entry);
                    }
                    Some(Kind::AccountRemoved(id)) => entries.retain(|it| it.account_id != id),
                    _ => {}
                }
            }
            rejections_hold(&table, &entries);
            let merged = table.with_merged(table.merge());
            rejections_hold(&merged.expect("the same base"), &entries);
        }
    }

    #[test]
    fn any_snapshot_makes_a_table_or_none(chunk in snapshots()) {
        let held = table(5, vec![entry(1, &["alice"], "source", 4)]);
        let entries = chunk.accounts.clone();
        if let Ok(table) = snapshot_after(Some(&held), chunk) {
            prop_assert!(table.position().revision >= held.position().revision);
            rejections_hold(&table, &entries);
        }
    }
}
