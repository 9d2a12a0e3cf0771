//! Names without a record under which somebody was let in: what a move by name leaves behind, if they are the
//! account's. Remembered within bounds, and longer than their sessions.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use ferrypost_proto::{DestinationId, Name};
use ferrypost_routing::KeyedState;
use tokio::time::Instant;

use super::step::Lock as _;

/// Parts with a lock each, so that a list that is made keeps no login waiting: six bits of a hash.
const PARTS: usize = 1 << 6;

/// Names that a part remembers at least. Past twice as many the oldest are forgotten: 131072 in all, some 20 MB.
const REMEMBERED: usize = 1024;

/// The names, and when each was let in last.
#[derive(Debug)]
pub(super) struct UnlistedNames {
    hash: KeyedState,
    parts: Vec<Mutex<Part>>,
}

#[derive(Debug, Default)]
struct Part {
    young: HashMap<Name, Seen>,
    old: HashMap<Name, Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    destination: DestinationId,
}

/// A name without a record, as it was let in last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlistedLogin {
    /// The canonical name.
    pub name: Name,
    /// Where it went.
    pub destination: DestinationId,
    /// How long ago.
    pub age: Duration,
}

impl UnlistedNames {
    pub(super) fn new(hash: KeyedState) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hash,
        }
    }

    /// Somebody was let in.
    pub(super) fn note(&self, name: &Name, destination: &DestinationId) {
        let hash = self.hash.hash(name.as_str().as_bytes());
        let part = usize::try_from(hash >> 58).expect("6 bits");
        let seen = Seen {
            at: Instant::now(),
            destination: destination.clone(),
        };
        self.parts[part].with(|part| part.note(name, seen));
    }

    /// Those behind `after` that are `wanted`, in the order of their names and `limit` at most; and whether there
    /// are more.
    pub(super) fn list(
        &self,
        wanted: impl Fn(&Name) -> bool,
        after: &str,
        limit: usize,
    ) -> (Vec<UnlistedLogin>, bool) {
        let now = Instant::now();
        let mut logins = Vec::new();
        for part in &self.parts {
            part.with(|part| {
                let found = part
                    .all()
                    .filter(|(name, _)| name.as_str() > after && wanted(name));
                logins.extend(found.map(|(name, seen)| UnlistedLogin {
                    name: name.clone(),
                    destination: seen.destination.clone(),
                    age: now.saturating_duration_since(seen.at),
                }));
            });
        }
        logins.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let more = logins.len() > limit;
        logins.truncate(limit);
        (logins, more)
    }
}

impl Part {
    fn note(&mut self, name: &Name, seen: Seen) {
        if let Some(known) = self.young.get_mut(name) {
            *known = seen;
            return;
        }
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name.clone(), seen);
    }

    fn all(&self) -> impl Iterator<Item = (&Name, &Seen)> {
        let old = self.old.iter();
        let old = old.filter(|(name, _)| !self.young.contains_key(*name));
        self.young.iter().chain(old)
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{BareNames, NamePolicy};
    use ferrypost_runtime::Random;

    use super::*;

    fn name(text: &str) -> Name {
        let policy = NamePolicy {
            bare_names: BareNames::Listed,
            master_separators: Vec::new(),
            sub_address_separator: None,
            local_part_case_sensitive: false,
        };
        policy.canonicalise(text).unwrap()
    }

    fn names() -> UnlistedNames {
        UnlistedNames::new(KeyedState::new(&Random::seeded(1)))
    }

    fn note(names: &UnlistedNames, text: &str) {
        names.note(&name(text), &DestinationId::parse("old").unwrap());
    }

    fn list(names: &UnlistedNames, after: &str, limit: usize) -> (Vec<String>, bool) {
        let (logins, more) = names.list(|_| true, after, limit);
        let names = logins.into_iter().map(|it| it.name.as_str().to_owned());
        (names.collect(), more)
    }

    #[tokio::test(start_paused = true)]
    async fn names_come_in_order_and_once_with_their_last_login() {
        let names = names();
        for text in ["carol", "alice", "bob"] {
            note(&names, text);
        }
        tokio::time::advance(Duration::from_secs(7)).await;
        note(&names, "alice");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(list(&names, "", 2).0, ["alice", "bob"]);
        assert_eq!(list(&names, "bob", 2), (vec!["carol".to_owned()], false));
        assert!(list(&names, "", 2).1, "there are more");
        let (alice, _) = names.list(|name| name.as_str() == "alice", "", 9);
        assert_eq!(alice[0].age, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn no_more_names_are_remembered_than_may_be_and_the_latest_are() {
        let mut part = Part::default();
        let seen = Seen {
            at: Instant::now(),
            destination: DestinationId::parse("old").unwrap(),
        };
        for number in 0..=2 * REMEMBERED {
            part.note(&name(&format!("user{number}")), seen.clone());
        }
        let all: Vec<_> = part.all().map(|(name, _)| name.as_str()).collect();
        assert_eq!(all.len(), REMEMBERED + 1);
        assert!(all.contains(&&*format!("user{}", 2 * REMEMBERED)));
        assert!(!all.contains(&"user0"));
    }
}
