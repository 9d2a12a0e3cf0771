//! Breadth first, through every state that can be reached.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, Hash, Hasher},
    rc::Rc,
};

use ferrypost_proto::Phase;
use foldhash::fast::FixedState;

use super::{
    steps::Steps,
    world::{Guard, Scope, World},
};

/// Far more than a search that still ends in seconds may visit.
const LIMIT: usize = 3_000_000;

/// What a search comes to.
pub(super) enum Outcome {
    /// No reachable state breaks a promise.
    Holds {
        /// How many there are.
        states: usize,
        /// In how many of them the move has just flipped.
        flips: usize,
    },
    /// One does; the shortest way there.
    Broken {
        why: &'static str,
        trace: Vec<String>,
    },
}

/// A state and its hash, which is counted once: most of a search is looking states up.
#[derive(Clone)]
struct Reached {
    world: Rc<World>,
    hash: u64,
}

/// Every state that was reached, and whence it was first.
type Seen = HashMap<Reached, Option<Reached>, FixedState>;

/// Searches everything in `scope`, with one guard taken away or none.
pub(super) fn search(scope: Scope, without: Option<Guard>) -> Outcome {
    let first = Reached::new(World::new(scope));
    let mut seen = Seen::from_iter([(first.clone(), None)]);
    let mut open = VecDeque::from([first]);
    let mut flips = 0;
    while let Some(from) = open.pop_front() {
        if let Some(why) = from.world.broken() {
            return Outcome::Broken {
                why,
                trace: trace(&seen, from, scope, without),
            };
        }
        flips += usize::from(from.world.record().phase == Phase::Flipped);
        for to in Steps::of(&from.world, scope, without) {
            if let Entry::Vacant(new) = seen.entry(Reached::new(to)) {
                open.push_back(new.key().clone());
                new.insert(Some(from.clone()));
            }
        }
        assert!(seen.len() < LIMIT, "the scope is too large");
    }
    Outcome::Holds {
        states: seen.len(),
        flips,
    }
}

/// The names of the steps that led here.
fn trace(seen: &Seen, mut to: Reached, scope: Scope, without: Option<Guard>) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(from) = seen.get(&to).cloned().flatten() {
        let led = Steps::of(&from.world, scope, without);
        let step = led.iter().position(|world| *world == *to.world);
        let mut names = Steps::names(&from.world, scope, without);
        steps.extend(step.map(|step| names.swap_remove(step)));
        to = from;
    }
    steps.reverse();
    steps
}

impl Reached {
    fn new(world: World) -> Self {
        Self {
            hash: FixedState::default().hash_one(&world),
            world: Rc::new(world),
        }
    }
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.world == other.world
    }
}

impl Eq for Reached {}

impl Hash for Reached {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
