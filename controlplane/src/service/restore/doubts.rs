//! What the data planes say when they are asked what they have acknowledged otherwise than the store has it.

use std::{collections::BTreeMap, time::Duration};

use ferrypost_proto::{
    AccountId, InstanceId, TablePosition,
    routing::v1::{
        AccountEntry, Doubts, ListDoubts, command::Command, command_result::Result as Said,
    },
    store::v1::RefusedClaim,
};
use sha2::{Digest as _, Sha256};

use super::RestoreUseCases;
use crate::{
    domain::state::State,
    fleet::Fleet,
    refusal::{Answer, Reason, Refusal},
    wall_clock,
};

/// How long a data plane may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Doubts of one data plane in one answer.
const PAGE: u32 = 1_000;

/// A process that is refused comes again within so many seconds, and that is written down once a minute.
const ASKS_AGAIN: i64 = 120;

/// Accounts that are listed: beyond them the store is of another time altogether.
const MOST_ACCOUNTS: usize = 200_000;

/// Everything that is in doubt.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// By account id.
    pub accounts: BTreeMap<String, Doubtful>,
    /// Every data plane that has answered.
    pub planes: BTreeMap<InstanceId, PlaneWord>,
    /// Registered data planes that have not.
    pub missing: Vec<Missing>,
    /// Whose word was decided for, and is being written.
    pub chosen: Option<InstanceId>,
}

/// A registered data plane that does not answer what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which one.
    pub instance: String,
    /// What it says instead. Empty: nothing.
    pub why: String,
}

impl Missing {
    pub(super) fn silent(instance: &InstanceId) -> Self {
        Self {
            instance: instance.as_str().to_owned(),
            why: String::new(),
        }
    }

    pub(super) fn said(instance: &InstanceId, answer: Option<Said>) -> Self {
        let why = match answer {
            Some(Said::Failed(why)) => why,
            _ => "an answer to another question".to_owned(),
        };
        Self {
            why,
            ..Self::silent(instance)
        }
    }
}

/// An account that the store and a data plane send to different places, or may.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Doubtful {
    /// The store's record.
    pub stored: Option<AccountEntry>,
    /// What each data plane that disagrees has acknowledged; `None`: no record.
    pub held: BTreeMap<InstanceId, Option<AccountEntry>>,
}

/// What a data plane has said of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlaneWord {
    /// What it has acknowledged reaches up to here.
    pub held: TablePosition,
    /// Accounts that it has otherwise than the store.
    pub doubts: u64,
    /// It can have missed no move since.
    pub current: bool,
    /// The store has no such position, so what was acknowledged is of the history that it has lost.
    pub lost: bool,
}

impl Picture {
    /// The data plane that has acknowledged most of the history that the store has lost: its table is the
    /// newest for every account, also for those of which it says what the store says. Who has registered with
    /// the restored store counts only where nobody is known to remember more. Once one is chosen it is that one.
    pub fn newest(&self) -> Option<&InstanceId> {
        if let Some(begun) = self.begun() {
            return Some(begun);
        }
        let planes = self.planes.iter();
        let remembers = planes.filter(|(_, word)| word.lost || word.doubts > 0);
        remembers
            .max_by_key(|(_, word)| (word.lost, word.held.revision))
            .map(|(instance, _)| instance)
    }

    /// Who is missing on one page is missing.
    fn misses(&mut self, missing: Missing) {
        let known = |it: &Missing| it.instance == missing.instance;
        if !self.missing.iter().any(known) {
            self.missing.push(missing);
        }
    }

    /// Those that nothing tells apart from the restored store: they may have come before it was found out and
    /// serve its word, beside others who have acknowledged another one.
    pub(super) fn misled(&self) -> impl Iterator<Item = &InstanceId> {
        let planes = self.planes.iter().filter(|_| !self.accounts.is_empty());
        planes
            .filter(|(_, word)| word.current && !word.lost && word.doubts == 0)
            .map(|(instance, _)| instance)
    }

    fn add(&mut self, instance: &InstanceId, said: Doubts) {
        let word = PlaneWord {
            held: said.held.unwrap_or_default().into(),
            doubts: said.total,
            current: said.held_current,
            lost: false,
        };
        self.planes.insert(instance.clone(), word);
        for doubt in said.doubts {
            let account = self.accounts.entry(doubt.account_id).or_default();
            account.stored = doubt.stored;
            account.held.insert(instance.clone(), doubt.held);
        }
    }

    /// Whose word was decided for and is being written, while it can be had.
    pub fn begun(&self) -> Option<&InstanceId> {
        let chosen = self.chosen.as_ref();
        chosen.filter(|chosen| self.planes.contains_key(*chosen))
    }

    /// True if a decision is left half done for good: whose word it was is not registered any more.
    pub fn is_orphaned(&self) -> bool {
        self.chosen.is_some() && self.begun().is_none()
    }

    /// The store's word as it is now: what the data planes have compared with may have been resolved in part
    /// since.
    fn read_store(&mut self, state: &State, fleet: &Fleet) {
        for (id, account) in &mut self.accounts {
            let record = AccountId::parse(id).ok();
            let record = record.and_then(|id| state.account(&id));
            account.stored = record.map(|record| record.entry(state.base()));
        }
        let chosen = state.rewound().map(|proof| &proof.value.word_of);
        self.chosen = chosen.and_then(|chosen| InstanceId::parse(chosen).ok());
        for word in self.planes.values_mut() {
            word.lost = fleet.proves_a_restore(state, &word.held);
        }
    }

    /// The registered data planes that have not answered.
    pub fn missing_instances(&self) -> Vec<String> {
        let missing = self.missing.iter();
        missing.map(|it| it.instance.clone()).collect()
    }

    /// The accounts of which the store has no record.
    pub fn unknown_to_store(&self) -> usize {
        self.accounts
            .values()
            .filter(|account| account.stored.is_none())
            .count()
    }

    /// Names the list: another list has another one.
    pub fn digest(&self) -> String {
        let newest = self.newest();
        let mut digest = Sha256::new();
        for (id, account) in &self.accounts {
            let fleet = newest.map(|newest| account.word_of(newest));
            for side in [Some(account.stored.as_ref()), fleet] {
                let home = side.flatten().map_or("", |entry| entry.home.as_str());
                digest.update(format!("{id} {home}\n"));
            }
        }
        let digest = digest.finalize();
        let octets = digest.iter().take(8);
        let digits: Vec<_> = octets.map(|octet| format!("{octet:02x}")).collect();
        digits.concat()
    }
}

impl Doubtful {
    /// What a data plane has acknowledged: one that does not disagree has what the store has.
    pub fn word_of(&self, instance: &InstanceId) -> Option<&AccountEntry> {
        match self.held.get(instance) {
            Some(held) => held.as_ref(),
            None => self.stored.as_ref(),
        }
    }

    /// All names that anybody gives it.
    pub fn names(&self) -> Vec<String> {
        let held = self.held.values().flatten();
        let mut names: Vec<_> = self
            .stored
            .iter()
            .chain(held)
            .flat_map(|entry| entry.names.iter().cloned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl RestoreUseCases {
    /// Asks every registered data plane, page by page.
    pub(super) async fn look(&self) -> Answer<Picture> {
        let mut picture = Picture::default();
        let mut after = Some(String::new());
        while let Some(from) = after {
            after = self.page(&mut picture, from).await;
            if picture.accounts.len() > MOST_ACCOUNTS {
                return Err(too_many());
            }
        }
        let state = self.core.mirror.read();
        picture.read_store(&state, &self.fleet);
        for (instance, claim) in asking(&state, wall_clock::now().seconds) {
            picture.misses(Missing {
                instance: instance.as_str().to_owned(),
                why: format!(
                    "another process than the registered one asks for its place ({})",
                    claim.why
                ),
            });
        }
        Ok(picture)
    }

    /// Adds what comes behind `after`. Where the next page begins; `None` at the end.
    async fn page(&self, picture: &mut Picture, after: String) -> Option<String> {
        let question = Command::ListDoubts(ListDoubts {
            after: after.clone(),
            limit: PAGE,
        });
        let trace = self.core.trace(None);
        let asked = self.fleet.ask(&question, ANSWER_WITHIN, trace).await;
        for silent in &asked.unreachable {
            picture.misses(Missing::silent(silent));
        }
        let mut next: Option<String> = None;
        for (instance, answer) in asked.answers {
            let said = match answer.result {
                Some(Said::Doubts(said)) => said,
                other => {
                    picture.misses(Missing::said(&instance, other));
                    continue;
                }
            };
            if let Some(last) = said.doubts.last().filter(|_| said.more)
                && last.account_id > after
                && next.as_ref().is_none_or(|next| last.account_id < *next)
            {
                next = Some(last.account_id.clone());
            }
            picture.add(&instance, said);
        }
        next
    }
}

/// Processes that were refused lately, and may be serving what they have acknowledged: nobody can ask them.
fn asking(state: &State, now: i64) -> impl Iterator<Item = (&InstanceId, &RefusedClaim)> {
    let claims = state.claims().iter();
    let claims = claims.map(|(instance, claim)| (instance, &*claim.value));
    claims.filter(move |(_, claim)| now - claim.at.map_or(0, |at| at.seconds) < ASKS_AGAIN)
}

fn too_many() -> Refusal {
    Refusal::new(
        Reason::FieldInvalid,
        "hundreds of thousands of accounts are in doubt: restore a younger backup",
    )
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::Revision;

    use super::*;

    fn plane(store: u64, doubts: u64, lost: bool) -> PlaneWord {
        let mut word = PlaneWord {
            doubts,
            lost,
            ..PlaneWord::default()
        };
        word.held.revision = Revision::new(0, store);
        word
    }

    fn entry(home: &str) -> AccountEntry {
        AccountEntry {
            home: home.to_owned(),
            ..AccountEntry::default()
        }
    }

    fn instance(name: &str) -> InstanceId {
        InstanceId::parse(name).unwrap()
    }

    fn picture(planes: [(&str, PlaneWord); 2]) -> Picture {
        let planes = planes.map(|(name, word)| (instance(name), word));
        Picture {
            planes: planes.into(),
            ..Picture::default()
        }
    }

    /// It moved and came back; the one that was cut off in between has served it nowhere since.
    #[test]
    fn the_newest_may_be_of_the_stores_opinion() {
        let mut picture = picture([
            ("cut-off", plane(50, 1, true)),
            ("served-last", plane(60, 0, true)),
        ]);
        let account = Doubtful {
            stored: Some(entry("source")),
            held: [(instance("cut-off"), Some(entry("target")))].into(),
        };
        let newest = picture.newest().unwrap();
        assert_eq!(newest.as_str(), "served-last");
        assert_eq!(account.word_of(newest), Some(&entry("source")));
        picture.accounts.insert("id".into(), account);
        assert_eq!(picture.unknown_to_store(), 0);
    }

    /// Some records are written and a replica has died: who agrees with them looks as if it knew nothing.
    #[test]
    fn whoever_was_decided_for_stays_so_while_the_records_are_written() {
        let mut picture = picture([
            ("decided-for", plane(50, 0, false)),
            ("came-after-it", plane(70, 1, false)),
        ]);
        picture.chosen = Some(instance("decided-for"));
        assert_eq!(picture.newest().unwrap().as_str(), "decided-for");
        picture.chosen = Some(instance("gone"));
        assert_eq!(picture.newest().unwrap().as_str(), "came-after-it");
    }

    /// The store has grown since, beyond the position that was lost.
    #[test]
    fn who_has_registered_with_the_restored_store_remembers_nothing_of_what_it_lost() {
        let picture = picture([
            ("remembers", plane(50, 1, true)),
            ("came-after-it", plane(70, 1, false)),
        ]);
        assert_eq!(picture.newest().unwrap().as_str(), "remembers");
    }
}
