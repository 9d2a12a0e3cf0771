//! After a restore: what the store says beside what this data plane has acknowledged.
//!
//! Where both send an account's names to the same server nobody is in doubt, whatever else the records say.
//! The rest is held by whoever restarts: no wrong server is guessed at, on either word (G16).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferrypost_proto::{
    Name, RoutingConfig,
    routing::v1::{AccountEntry, Doubt, Doubts, ListDoubts, SnapshotChunk},
    v1,
};
use ferrypost_routing::{Assembly, RoutingTable, SnapshotError};
use ferrypost_runtime::Random;
use prost::Message as _;

use crate::state_dir::Acknowledged;

/// Most doubts in one answer.
const MOST_LISTED: usize = 1_000;

/// And their octets: the answer may also travel through the store, whose values end at 1 MiB and more.
const MOST_OCTETS: usize = 256 << 10;

/// What other data planes have in doubt.
#[derive(Debug, Clone, Default)]
pub(super) struct Elsewhere {
    by_account: BTreeMap<String, Doubt>,
    /// Some of it is not held yet.
    is_new: bool,
}

impl Elsewhere {
    pub(super) fn add(&mut self, also: Vec<Doubt>) {
        for doubt in also {
            let id = doubt.account_id.clone();
            let before = self.by_account.insert(id, doubt.clone());
            self.is_new |= before != Some(doubt);
        }
    }

    /// True if some of it was not held before.
    pub(super) fn is_to_be_held(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }
}

/// What a comparison came to.
#[derive(Debug)]
pub(super) struct Standstill {
    /// In the order of the accounts' ids.
    doubts: Vec<Doubt>,
    held: Option<ferrypost_proto::TablePosition>,
    current: bool,
    /// The restored store's word, to hold more of it. `None` when nothing is agreed on.
    stored: Option<Acknowledged>,
    /// Every name of what is in doubt, here or elsewhere.
    names: BTreeSet<Name>,
    /// Serves what both agree on, and holds the rest; `None` when they do not even agree on names without a
    /// record.
    agreed: Option<Arc<RoutingTable>>,
}

impl Standstill {
    /// Compares what was acknowledged with what the restored store says, and holds what is in doubt here and
    /// elsewhere. Takes about a second for a million accounts.
    pub(super) fn between(
        (ours, current): (&Acknowledged, bool),
        stored: Acknowledged,
        elsewhere: &Elsewhere,
        random: &Random,
    ) -> Result<Self, SnapshotError> {
        let wire = stored.config.clone().ok_or(SnapshotError::Incomplete)?;
        let config = RoutingConfig::in_force(&wire)?;
        let same_rules = ours
            .config
            .as_ref()
            .is_some_and(|ours| have_same_rules(ours, &wire));
        let held = ours.position.clone();
        let doubts = doubts(ours, &stored, &config);
        let mut standstill = Self {
            doubts,
            held: Some(held),
            current,
            stored: same_rules.then_some(stored),
            names: BTreeSet::new(),
            agreed: None,
        };
        standstill.hold(elsewhere, random);
        Ok(standstill)
    }

    /// Holds all that is in doubt, here or elsewhere. More than a table can hold is nothing agreed on.
    pub(super) fn hold(&mut self, elsewhere: &Elsewhere, random: &Random) {
        let all: Vec<_> = self
            .doubts
            .iter()
            .chain(elsewhere.by_account.values())
            .collect();
        let stored = self.stored.as_ref();
        self.agreed = stored.and_then(|stored| agreed(stored, &all, random).ok());
        self.names = match &self.agreed {
            Some(table) => names_of(&all, table.config()),
            None => BTreeSet::new(),
        };
    }

    /// Every name of what is in doubt: sessions under them are not to go on.
    pub(super) const fn names(&self) -> &BTreeSet<Name> {
        &self.names
    }

    /// The table that may be put in force; `None`: nothing is agreed on.
    pub(super) fn agreed(&self) -> Option<&Arc<RoutingTable>> {
        self.agreed.as_ref()
    }

    /// How many accounts are in doubt.
    pub(super) fn len(&self) -> usize {
        self.doubts.len()
    }

    /// Whether no move can have been missed since what is compared was acknowledged.
    pub(super) const fn is_current(&self) -> bool {
        self.current
    }

    /// Answers the control plane.
    pub(super) fn list(&self, asked: &ListDoubts) -> Doubts {
        let start = self
            .doubts
            .partition_point(|doubt| doubt.account_id <= asked.after);
        let behind = &self.doubts[start..];
        let limit = usize::try_from(asked.limit).unwrap_or(MOST_LISTED);
        let listed = fitting(behind, limit.min(MOST_LISTED));
        Doubts {
            doubts: behind[..listed].to_vec(),
            more: listed < behind.len(),
            total: self.doubts.len() as u64,
            held: self.held.clone().map(Into::into),
            held_current: self.current,
        }
    }
}

/// How many of them go into one answer: one in any case.
fn fitting(doubts: &[Doubt], limit: usize) -> usize {
    let mut octets = 0;
    let fits = doubts.iter().take(limit).take_while(|doubt| {
        octets += doubt.encoded_len();
        octets <= MOST_OCTETS
    });
    fits.count().max(1).min(doubts.len())
}

/// Whether two documents send every name without a record the same way.
fn have_same_rules(ours: &v1::RoutingConfig, stored: &v1::RoutingConfig) -> bool {
    ours.default_destination == stored.default_destination
        && ours.domains == stored.domains
        && ours.names == stored.names
}

fn doubts(ours: &Acknowledged, stored: &Acknowledged, config: &RoutingConfig) -> Vec<Doubt> {
    let listed: BTreeSet<_> = stored
        .accounts
        .values()
        .flat_map(|entry| &entry.names)
        .collect();
    let by_rule = |entry: &AccountEntry| {
        let goes_home = |text: &String| {
            let name = config.names().canonicalise(text);
            !listed.contains(text) && name.is_ok_and(|name| goes_to(config, &name, &entry.home))
        };
        is_open(entry) && entry.names.iter().all(goes_home)
    };
    let ids: BTreeSet<_> = ours.accounts.keys().chain(stored.accounts.keys()).collect();
    ids.into_iter()
        .map(|id| (id, ours.accounts.get(id), stored.accounts.get(id)))
        .filter(|(_, ours, stored)| match (ours, stored) {
            (Some(ours), Some(stored)) => !agree(ours, stored),
            (Some(ours), None) => !by_rule(ours),
            _ => true,
        })
        .map(|(id, ours, stored)| Doubt {
            account_id: id.clone(),
            held: ours.cloned(),
            stored: stored.cloned(),
        })
        .collect()
}

fn goes_to(config: &RoutingConfig, name: &Name, home: &str) -> bool {
    let route = config.unlisted(name);
    route
        .destination()
        .is_some_and(|destination| destination.as_str() == home)
}

fn agree(ours: &AccountEntry, stored: &AccountEntry) -> bool {
    is_open(ours) && is_open(stored) && ours.home == stored.home && ours.names == stored.names
}

/// True if the account's names go to its home: no held window, and no phase that is not known.
fn is_open(entry: &AccountEntry) -> bool {
    ferrypost_proto::Phase::try_from(entry.phase).is_ok_and(|phase| !phase.is_fenced())
}

/// The restored store's table with every account in doubt held.
fn agreed(
    stored: &Acknowledged,
    doubts: &[&Doubt],
    random: &Random,
) -> Result<Arc<RoutingTable>, SnapshotError> {
    let position = Some(stored.position.clone().into());
    let mut accounts = stored.accounts.clone();
    let config = stored.config.as_ref();
    // A name may have changed its account since the backup: it is held once, and nobody else has it.
    let mut taken = BTreeSet::new();
    let mut all_held = Vec::new();
    for (id, sides) in by_account(doubts) {
        let mut held = held(id, &sides, config, stored.position.revision.into());
        held.names.retain(|name| taken.insert(name.clone()));
        accounts.remove(id);
        all_held.push(held);
    }
    for entry in accounts.values_mut() {
        entry.names.retain(|name| !taken.contains(name));
    }
    let all = accounts.into_values().chain(all_held);
    let chunk = SnapshotChunk {
        position,
        config: stored.config.clone(),
        accounts: all.filter(|entry| !entry.names.is_empty()).collect(),
        last: true,
        ..SnapshotChunk::default()
    };
    let assembly = Assembly::begin(chunk, None, random)?;
    assembly.finish(None).map(Arc::new)
}

/// What anybody says of each account, the restored store first.
fn by_account<'a>(doubts: &[&'a Doubt]) -> BTreeMap<&'a str, Vec<&'a AccountEntry>> {
    let mut accounts = BTreeMap::<_, Vec<_>>::new();
    for doubt in doubts {
        let sides = accounts.entry(doubt.account_id.as_str()).or_default();
        sides.extend(doubt.stored.iter().chain(&doubt.held));
    }
    accounts
}

/// A fence of nobody's move, under all names that anybody gives the account. Its home is one that the document has,
/// for an entry that cannot be taken over would hold nobody.
fn held(
    id: &str,
    sides: &[&AccountEntry],
    config: Option<&v1::RoutingConfig>,
    epoch: v1::Revision,
) -> AccountEntry {
    let names: BTreeSet<_> = sides.iter().flat_map(|entry| &entry.names).collect();
    let known = |home: &&str| {
        let destinations = config.iter().flat_map(|config| &config.destinations);
        destinations.into_iter().any(|it| it.id == *home)
    };
    let default = config.map_or("", |config| &config.default_destination);
    let home = sides.iter().map(|entry| entry.home.as_str()).find(known);
    AccountEntry {
        account_id: id.to_owned(),
        names: names.into_iter().cloned().collect(),
        home: home.unwrap_or(default).to_owned(),
        phase: v1::Phase::Fencing.into(),
        epoch: Some(epoch),
        ..AccountEntry::default()
    }
}

fn names_of(doubts: &[&Doubt], config: &RoutingConfig) -> BTreeSet<Name> {
    let sides = doubts
        .iter()
        .flat_map(|doubt| doubt.stored.iter().chain(&doubt.held));
    sides
        .flat_map(|entry| &entry.names)
        .filter_map(|name| config.names().canonicalise(name).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{NamePolicy, Phase};
    use ferrypost_routing::{Resolution, testing};

    use super::*;

    fn entry(n: u8, name: &str, home: &str, epoch: u64) -> AccountEntry {
        testing::entry(n.into(), &[name], home, epoch)
    }

    fn acknowledged(store: u64, entries: Vec<AccountEntry>) -> Acknowledged {
        let chunk = testing::chunk(store, entries);
        let accounts: BTreeMap<_, _> = chunk
            .accounts
            .into_iter()
            .map(|it| (it.account_id.clone(), it))
            .collect();
        Acknowledged {
            position: chunk.position.unwrap().into(),
            config: chunk.config,
            accounts,
        }
    }

    fn compare(ours: Vec<AccountEntry>, stored: Vec<AccountEntry>) -> Standstill {
        let (ours, stored) = (acknowledged(50, ours), acknowledged(20, stored));
        between(&ours, stored)
    }

    /// What others have acknowledged, and have in doubt.
    fn elsewhere(entries: impl IntoIterator<Item = AccountEntry>) -> Elsewhere {
        let doubts = entries.into_iter().map(|entry| Doubt {
            account_id: entry.account_id.clone(),
            held: Some(entry),
            stored: None,
        });
        let mut elsewhere = Elsewhere::default();
        elsewhere.add(doubts.collect());
        elsewhere
    }

    fn between(ours: &Acknowledged, stored: Acknowledged) -> Standstill {
        Standstill::between(
            (ours, true),
            stored,
            &Elsewhere::default(),
            &testing::random(),
        )
        .unwrap()
    }

    /// Where a name goes; `None` while it is held.
    fn goes(standstill: &Standstill, login: &str) -> Option<String> {
        let table = standstill.agreed().unwrap();
        let policy: &NamePolicy = table.config().names();
        match table.resolve(&policy.canonicalise(login).unwrap()) {
            Resolution::Route(route) => Some(route.destination.as_str().to_owned()),
            Resolution::Fenced(_) => None,
            Resolution::Refused(why) => panic!("refused: {why:?}"),
        }
    }

    #[test]
    fn what_both_send_the_same_way_is_served_and_the_rest_is_held() {
        let fenced = |mut entry: AccountEntry| {
            entry.phase = v1::Phase::from(Phase::Fencing).into();
            entry
        };
        let ours = vec![
            entry(1, "alice", "third", 9),
            entry(2, "bob", "third", 40),
            fenced(entry(3, "carol", "source", 41)),
            entry(4, "dave", "third", 42),
            entry(5, "erin", "source", 43),
        ];
        let stored = vec![
            entry(1, "alice", "third", 5),
            entry(2, "bob", "source", 6),
            entry(3, "carol", "source", 7),
            entry(6, "frank", "third", 8),
        ];
        let standstill = compare(ours, stored);
        let asked = ListDoubts {
            limit: 100,
            ..ListDoubts::default()
        };
        let names: Vec<_> = standstill
            .list(&asked)
            .doubts
            .into_iter()
            .map(|doubt| doubt.held.or(doubt.stored).unwrap().names[0].clone())
            .collect();
        assert_eq!(names, ["bob", "carol", "dave", "frank"]);
        assert_eq!(
            goes(&standstill, "alice").as_deref(),
            Some("third"),
            "moved before the backup"
        );
        assert_eq!(goes(&standstill, "bob"), None, "moved after it");
        assert_eq!(goes(&standstill, "carol"), None, "was being moved");
        assert_eq!(goes(&standstill, "dave"), None, "the store has no record");
        assert_eq!(
            goes(&standstill, "erin").as_deref(),
            Some("source"),
            "nor here, and goes there all the same"
        );
        assert_eq!(goes(&standstill, "frank"), None, "we have no record");
        assert_eq!(
            goes(&standstill, "grace").as_deref(),
            Some("source"),
            "nobody has"
        );
    }

    #[test]
    fn every_name_of_an_account_in_doubt_is_held() {
        let two = |names: &[&str], home, epoch| testing::entry(1, names, home, epoch);
        let standstill = compare(
            vec![two(&["alice", "ally"], "source", 9)],
            vec![two(&["alice", "lis"], "source", 5)],
        );
        for name in ["alice", "ally", "lis"] {
            assert_eq!(goes(&standstill, name), None, "{name}");
        }
    }

    #[test]
    fn a_home_that_the_backup_does_not_know_is_held_all_the_same() {
        let standstill = compare(
            vec![entry(1, "alice", "fourth", 9)],
            vec![entry(1, "alice", "source", 5)],
        );
        assert_eq!(goes(&standstill, "alice"), None);
        let standstill = compare(vec![entry(1, "alice", "fourth", 9)], vec![]);
        assert_eq!(goes(&standstill, "alice"), None, "nor the account");
        assert_eq!(standstill.names().len(), 1);
    }

    #[test]
    fn a_name_that_has_changed_its_account_is_held_with_all_the_others_of_both() {
        let standstill = compare(
            vec![testing::entry(2, &["alice", "ally"], "source", 9)],
            vec![testing::entry(1, &["alice", "lis"], "source", 5)],
        );
        for name in ["alice", "ally", "lis"] {
            assert_eq!(goes(&standstill, name), None, "{name}");
        }
    }

    #[test]
    fn what_others_have_in_doubt_is_held_beside_ones_own() {
        let own = (
            vec![entry(1, "alice", "third", 9)],
            vec![entry(1, "alice", "source", 5), entry(2, "bob", "source", 6)],
        );
        let mut standstill = compare([own.0, own.1[1..].to_vec()].concat(), own.1);
        assert_eq!(goes(&standstill, "bob").as_deref(), Some("source"));
        let others = [(1, "ally"), (2, "bob")].map(|(n, name)| entry(n, name, "", 0));
        standstill.hold(&elsewhere(others), &testing::random());
        for name in ["alice", "ally", "bob"] {
            assert_eq!(goes(&standstill, name), None, "{name}");
        }
        assert_eq!(standstill.names().len(), 3);
    }

    /// Whatever else a lying or an old one says of it.
    #[test]
    fn a_name_that_is_in_doubt_elsewhere_is_held_whoever_has_it_here() {
        let both = || vec![entry(1, "alice", "source", 4), entry(2, "bob", "source", 4)];
        let mut standstill = compare(both(), both());
        standstill.hold(
            &elsewhere([entry(3, "alice", "third", 2)]),
            &testing::random(),
        );
        assert_eq!(goes(&standstill, "alice"), None);
        assert_eq!(goes(&standstill, "bob").as_deref(), Some("source"));
    }

    /// One past what a table holds (`ferrypost_routing`): nobody is served, and so everybody is held.
    #[test]
    fn more_in_doubt_than_a_table_can_hold_is_nothing_agreed_on() {
        let mut standstill = compare(vec![], vec![]);
        assert!(standstill.agreed().is_some());
        let all = (0..=1 << 16).map(|n| testing::entry(n, &[&format!("u{n}")], "third", 2));
        standstill.hold(&elsewhere(all), &testing::random());
        assert!(standstill.agreed().is_none());
    }

    /// Names are few and short, or not: an answer fits into the store's values either way.
    #[test]
    fn an_answer_ends_before_it_is_too_large() {
        let wordy = |n: u64, home| {
            let names: Vec<_> = (0..40)
                .map(|i| format!("{}{i}@{n}.example.org", "a".repeat(60)))
                .collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            testing::entry(n, &names, home, 2)
        };
        let moved = |home: &'static str| (1..=200).map(|n| wordy(n, home)).collect();
        let standstill = compare(moved("third"), moved("source"));
        let mut asked = ListDoubts {
            limit: 1_000,
            ..ListDoubts::default()
        };
        let mut seen = 0;
        loop {
            let page = standstill.list(&asked);
            assert!(page.encoded_len() <= MOST_OCTETS + 1_000);
            seen += page.doubts.len();
            asked
                .after
                .clone_from(&page.doubts.last().unwrap().account_id);
            if !page.more {
                break;
            }
            assert!(page.doubts.len() < 200);
        }
        assert_eq!(seen, 200);
    }

    #[test]
    fn a_page_begins_behind_the_last_one() {
        let moved = |home: &'static str| {
            (1..=5).map(move |n| entry(n, &format!("u{n}"), home, u64::from(n) + 1))
        };
        let standstill = compare(moved("third").collect(), moved("source").collect());
        let mut asked = ListDoubts {
            limit: 2,
            ..ListDoubts::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = standstill.list(&asked);
            assert_eq!(page.total, 5);
            let Some(last) = page.doubts.last() else {
                break;
            };
            asked.after.clone_from(&last.account_id);
            seen.extend(page.doubts.into_iter().map(|doubt| doubt.account_id));
        }
        assert_eq!(seen.len(), 5);
        assert!(seen.is_sorted());
    }

    #[test]
    fn without_the_same_rules_nobody_is_served() {
        let mut ours = acknowledged(50, vec![]);
        if let Some(config) = &mut ours.config {
            config.default_destination = "third".into();
        }
        let stored = acknowledged(20, vec![]);
        let standstill = between(&ours, stored);
        assert!(standstill.agreed().is_none());
    }
}
