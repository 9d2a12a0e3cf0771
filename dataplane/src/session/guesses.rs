//! How long who fails to log in waits for the answer: the longer, the more often it failed lately from where the client
//! is, or for the account.
//!
//! Nobody else pays. Only a refusal waits, so that the right password is never late, whoever else tries wrong ones.
//! A failure counts once for the address and once for the account, and the longer of the two times is waited, never
//! both; what a server has delayed its answer by is part of it. Where a login to the account has succeeded lately, a
//! mistyped password waits for the failures from there alone, not for those of strangers.

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ferrypost_proto::Name;
use ferrypost_routing::KeyedState;
use ferrypost_runtime::Random;
use tokio::time::Instant;

use crate::{limits::PreauthLimits, network::Network};

/// Failures that cost no more than the first: a person mistypes.
const MISTYPED: u32 = 3;

/// How long failures count at least; at most twice as long.
const LATELY: Duration = Duration::from_mins(10);

/// How long a success counts at least; at most twice as long.
const AT_HOME: Duration = Duration::from_hours(24);

/// Addresses and accounts, or pairs of them, that are remembered at least, however many come. Past it the oldest are
/// forgotten, two at most for each: some six megabytes in all.
const REMEMBERED: usize = 65_536;

/// Who failed lately, and who did not. One for the whole process.
pub struct Guesses {
    hash: KeyedState,
    floor: Duration,
    ceiling: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    failures: Lately<u32>,
    at_home: Lately<()>,
}

/// What is counted by its hash. Two that share one count together, by a chance that nobody can bring about.
type Key = u64;

impl Guesses {
    /// Nothing is known.
    pub fn new(limits: &PreauthLimits, random: &Random) -> Self {
        let hash = KeyedState::new(random);
        let seen = Seen {
            failures: Lately::new(&hash, LATELY),
            at_home: Lately::new(&hash, AT_HOME),
        };
        Self {
            floor: limits.failure_floor,
            ceiling: limits.failure_ceiling,
            seen: Mutex::new(seen),
            hash,
        }
    }

    /// A login has failed, of a name if it had one. Returns how long after it came its answer is due.
    pub(crate) fn failed(&self, client: IpAddr, name: Option<&Name>) -> Duration {
        let customer = Network::of_customer(client);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = seen.count(self.hash.hash_one(customer));
        let of_account = name.map_or(0, |name| {
            let count = seen.count(self.hash.hash_one(name));
            let at_home = seen.at_home.get(self.hash.hash_one((customer, name)));
            if at_home.is_some() { 0 } else { count }
        });
        self.wait_after(from_there.max(of_account))
    }

    /// A login has succeeded.
    pub(super) fn succeeded(&self, client: IpAddr, name: &Name) {
        let pair = self.hash.hash_one((Network::of_customer(client), name));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at_home.put(pair, ());
    }

    /// Twice as long with every failure, up to the ceiling.
    fn wait_after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(MISTYPED).min(31);
        self.floor.saturating_mul(1 << doublings).min(self.ceiling)
    }
}

impl Seen {
    fn count(&mut self, key: Key) -> u32 {
        let count = self.failures.get(key).unwrap_or(0).saturating_add(1);
        self.failures.put(key, count);
        count
    }
}

/// A map that forgets: what was not put again for a span, or when too much came since.
struct Lately<V> {
    young: HashMap<Key, V, KeyedState>,
    old: HashMap<Key, V, KeyedState>,
    since: Instant,
    span: Duration,
}

impl<V: Copy> Lately<V> {
    fn new(hash: &KeyedState, span: Duration) -> Self {
        Self {
            young: HashMap::with_hasher(hash.clone()),
            old: HashMap::with_hasher(hash.clone()),
            since: Instant::now(),
            span,
        }
    }

    fn get(&mut self, key: Key) -> Option<V> {
        self.age();
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn put(&mut self, key: Key, value: V) {
        self.age();
        if self.young.len() >= REMEMBERED {
            self.turn();
        }
        self.young.insert(key, value);
    }

    fn age(&mut self) {
        let age = self.since.elapsed();
        if age >= self.span {
            self.turn();
        }
        if age >= 2 * self.span {
            self.turn();
        }
    }

    fn turn(&mut self) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_routing::testing::name;

    use super::*;

    fn guesses() -> Guesses {
        let limits = PreauthLimits {
            failure_floor: Duration::from_secs(2),
            failure_ceiling: Duration::from_secs(15),
            ..PreauthLimits::default()
        };
        Guesses::new(&limits, &Random::seeded(1))
    }

    fn from(last: u16) -> IpAddr {
        IpAddr::from([
            192,
            0,
            u8::try_from(last >> 8).unwrap(),
            last.to_be_bytes()[1],
        ])
    }

    fn seconds(guesses: &Guesses, client: IpAddr, login: &str) -> u64 {
        guesses.failed(client, Some(&name(login))).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_waits_twice_as_long_each_time_up_to_the_ceiling() {
        let guesses = guesses();
        let waited: Vec<_> = (0..8)
            .map(|i| seconds(&guesses, from(1), &format!("user{i}@a.example")))
            .collect();
        assert_eq!(waited, [2, 2, 2, 4, 8, 15, 15, 15]);
        assert_eq!(
            seconds(&guesses, from(2), "user9@a.example"),
            2,
            "nobody else"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_is_guessed_from_everywhere_is_slow_for_strangers_and_not_where_it_is_at_home()
     {
        let guesses = guesses();
        guesses.succeeded(from(1), &name("alice@a.example"));
        let waited: Vec<_> = (10..18)
            .map(|i| seconds(&guesses, from(i), "alice@a.example"))
            .collect();
        assert_eq!(waited, [2, 2, 2, 4, 8, 15, 15, 15]);
        assert_eq!(
            seconds(&guesses, from(1), "alice@a.example"),
            2,
            "she mistypes"
        );
        assert_eq!(
            seconds(&guesses, from(9), "bob@a.example"),
            2,
            "another account"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_counted_once_for_the_address_and_once_for_the_account() {
        let guesses = guesses();
        for _ in 0..3 {
            assert_eq!(seconds(&guesses, from(1), "alice@a.example"), 2);
        }
        assert_eq!(
            seconds(&guesses, from(1), "alice@a.example"),
            4,
            "the fourth, by both"
        );
        assert_eq!(
            seconds(&guesses, from(2), "alice@a.example"),
            8,
            "the account's fifth"
        );
        assert_eq!(
            seconds(&guesses, from(1), "bob@a.example"),
            8,
            "the address's fifth"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_is_forgotten() {
        let guesses = guesses();
        for _ in 0..8 {
            seconds(&guesses, from(1), "alice@a.example");
        }
        tokio::time::advance(LATELY).await;
        assert_eq!(seconds(&guesses, from(1), "alice@a.example"), 15);
        tokio::time::advance(3 * LATELY).await;
        assert_eq!(seconds(&guesses, from(1), "alice@a.example"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_come_as_many_are_remembered_as_have_room() {
        let mut lately = Lately::new(&KeyedState::new(&Random::seeded(1)), LATELY);
        for key in 0..=3 * REMEMBERED {
            lately.put(key as u64, ());
            assert!(lately.young.len() + lately.old.len() <= 2 * REMEMBERED);
        }
        assert!(lately.get(0).is_none());
        let youngest = 2 * REMEMBERED + 1..=3 * REMEMBERED;
        assert!(
            youngest
                .into_iter()
                .all(|key| lately.get(key as u64).is_some())
        );
    }
}
