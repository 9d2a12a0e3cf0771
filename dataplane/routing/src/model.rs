//! The table against a map: whatever the history, a table resolves every name as the map does, and a
//! table that followed it by deltas (and merges) is the one that a snapshot gives.

use std::collections::{BTreeMap, BTreeSet};

use ferrypost_proto::{
    AccountId, Phase, Record, RoutingConfig, UnlistedRoute,
    routing::v1::{AccountEntry, Change},
};
use proptest::prelude::*;

use super::{testing::*, *};

const ACCOUNTS: u64 = 6;
const NAMES: [&str; 9] = [
    "a",
    "b",
    "c",
    "a@a.example",
    "b@a.example",
    "c@a.example",
    "a@t.example",
    "b@t.example",
    "c@closed.example",
];

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Put {
        account: u64,
        names: BTreeSet<usize>,
        home: usize,
        phase: Phase,
        defect: Option<Defect>,
    },
    Remove(u64),
    /// What was put since the last one becomes a delta.
    Commit,
    StartMerge,
    EndMerge,
    Resync,
}

/// What makes an entry one that is rejected for itself.
#[derive(Debug, Clone, Copy)]
enum Defect {
    Home,
    Phase,
    Name,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let phase = prop_oneof![
        4 => Just(Phase::Settled),
        1 => Just(Phase::Copying),
        2 => Just(Phase::Fencing),
        1 => Just(Phase::Delta),
        1 => Just(Phase::Flipped),
    ];
    let defect = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Defect::Home)),
        1 => Just(Some(Defect::Phase)),
        1 => Just(Some(Defect::Name)),
    ];
    let names = prop::collection::btree_set(0..NAMES.len(), 0..4);
    let put = (0..ACCOUNTS, names, 0..3_usize, phase, defect).prop_map(
        |(account, names, home, phase, defect)| Step::Put {
            account,
            names,
            home,
            phase,
            defect,
        },
    );
    let step = prop_oneof![
        8 => put,
        2 => (0..ACCOUNTS).prop_map(Step::Remove),
        6 => Just(Step::Commit),
        1 => Just(Step::StartMerge),
        1 => Just(Step::EndMerge),
        1 => Just(Step::Resync),
    ];
    prop::collection::vec(step, 0..60)
}

/// The store as the control plane keeps it: no two accounts of it have one name.
#[derive(Default)]
struct Store {
    revision: u64,
    accounts: BTreeMap<u64, AccountEntry>,
    uncommitted: Vec<Change>,
    followed: u64,
}

impl Store {
    fn put(
        &mut self,
        n: u64,
        names: &BTreeSet<usize>,
        home: usize,
        phase: Phase,
        defect: Option<Defect>,
    ) {
        let others: BTreeSet<_> = self
            .accounts
            .iter()
            .filter(|(other, _)| **other != n)
            .flat_map(|(_, entry)| entry.names.iter().map(String::as_str))
            .collect();
        let mut names: Vec<_> = names
            .iter()
            .map(|at| NAMES[*at])
            .filter(|name| !others.contains(name))
            .collect();
        if matches!(defect, Some(Defect::Name)) {
            names.push("X@A.example");
        }
        self.revision += 1;
        let home = ["source", "target", "third"][home];
        let mut entry = entry(n, &names, home, self.revision);
        if phase != Phase::Settled {
            entry = moving(entry, phase, None);
        }
        match defect {
            Some(Defect::Home) => entry.home = "nowhere".into(),
            Some(Defect::Phase) => entry.phase = 99,
            _ => {}
        }
        self.accounts.insert(n, entry.clone());
        self.uncommitted.push(put(entry));
    }

    fn remove(&mut self, n: u64) {
        if self.accounts.remove(&n).is_some() {
            self.revision += 1;
            self.uncommitted.push(removed(n));
        }
    }

    fn snapshot(&self) -> ferrypost_proto::routing::v1::SnapshotChunk {
        chunk(self.revision, self.accounts.values().cloned().collect())
    }

    /// What a name should resolve to.
    fn resolve(&self, config: &RoutingConfig, login: &str) -> Resolution {
        let login = name(login);
        let mut route = None;
        for entry in self.accounts.values() {
            let record = Record::from_wire(entry, config.names())
                .ok()
                .filter(|record| config.destination(&record.home).is_some());
            match record {
                None => {
                    let carries =
                        |text| config.names().canonicalise(text).ok().as_ref() == Some(&login);
                    if entry.names.iter().any(|text| carries(text)) {
                        return Resolution::Fenced(Fenced {
                            account: AccountId::parse(&entry.account_id).ok(),
                            migration: None,
                            fence: None,
                        });
                    }
                }
                Some(record) if record.names.contains(&login) => {
                    route = Some(match record.fence {
                        Some(fence) => Resolution::Fenced(Fenced {
                            account: Some(record.account),
                            migration: record.migration,
                            fence: Some(fence),
                        }),
                        None => Resolution::Route(Route {
                            destination: record.home,
                            account: Some(record.account),
                            epoch: Some(record.epoch),
                            rule: Rule::Placement,
                        }),
                    });
                }
                Some(_) => {}
            }
        }
        route.unwrap_or_else(|| {
            let unlisted = |destination, rule| {
                Resolution::Route(Route {
                    destination,
                    account: None,
                    epoch: None,
                    rule,
                })
            };
            match config.unlisted(&login) {
                UnlistedRoute::DomainDefault(id) => unlisted(id, Rule::DomainDefault),
                UnlistedRoute::Default(id) => unlisted(id, Rule::Default),
                UnlistedRoute::Refused(refusal) => Resolution::Refused(refusal),
            }
        })
    }
}

fn same(store: &Store, followed: &RoutingTable) {
    let snapshot = table_at(store);
    let asked = NAMES
        .into_iter()
        .chain(["x@a.example", "nobody", "n@t.example"]);
    for login in asked {
        let expected = store.resolve(followed.config(), login);
        assert_eq!(
            followed.resolve(&name(login)),
            expected,
            "followed: {login}"
        );
        assert_eq!(
            snapshot.resolve(&name(login)),
            expected,
            "snapshot: {login}"
        );
    }
    let fenced = |table: &RoutingTable| -> Vec<_> {
        table.fenced().map(|record| (**record).clone()).collect()
    };
    assert_eq!(fenced(followed), fenced(&snapshot));
    assert_eq!(followed.rejected(), snapshot.rejected());
    assert_eq!(followed.position(), snapshot.position());
}

fn table_at(store: &Store) -> RoutingTable {
    snapshot_after(None, store.snapshot()).expect("a good snapshot")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_sequence_of_deltas_and_merges_is_the_snapshot(steps in steps()) {
        let mut store = Store::default();
        let mut followed = table_at(&store);
        let mut merge = None;
        for step in steps {
            match step {
                Step::Put { account, names, home, phase, defect } => {
                    store.put(account, &names, home, phase, defect);
                    continue;
                }
                Step::Remove(account) => {
                    store.remove(account);
                    continue;
                }
                Step::Commit => {
                    let changes = std::mem::take(&mut store.uncommitted);
                    let delta = delta(store.followed, store.revision, changes);
                    followed = followed.apply(delta).expect("the delta follows").table;
                }
                Step::StartMerge => {
                    merge = Some(followed.merge());
                    continue;
                }
                Step::EndMerge => {
                    let merged = merge.take().and_then(|merge| followed.with_merged(merge));
                    let Some(merged) = merged else { continue };
                    followed = merged;
                    if store.followed != store.revision {
                        continue;
                    }
                }
                Step::Resync => {
                    store.uncommitted.clear();
                    followed = snapshot_after(Some(&followed), store.snapshot()).expect("good");
                }
            }
            store.followed = store.revision;
            same(&store, &followed);
        }
    }
}
