//! Breadth first, through every state that can be reached.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    rc::Rc,
};

use foldhash::fast::FixedState;

/// Far more than a search that still ends in seconds may visit.
const LIMIT: usize = 3_000_000;

/// What is searched.
pub(crate) trait Model {
    /// A state.
    type World: Eq + Hash;

    /// Where it begins.
    fn first(&self) -> Self::World;

    /// Everything that can happen next.
    fn steps(&self, from: &Self::World) -> Vec<Self::World>;

    /// The names of these steps, in the same order.
    fn names(&self, from: &Self::World) -> Vec<String>;

    /// The promise that is broken here, if one is.
    fn broken(&self, world: &Self::World) -> Option<&'static str>;

    /// True where it has come to what it is all for: a search that never gets there shows nothing.
    fn is_goal(&self, world: &Self::World) -> bool;
}

/// What a search comes to.
enum Outcome {
    /// No reachable state breaks a promise.
    Holds {
        /// How many there are.
        states: usize,
        /// How many of them are goals.
        goals: usize,
    },
    /// One does; the shortest way there.
    Broken {
        why: &'static str,
        trace: Vec<String>,
    },
}

/// No reachable state breaks a promise.
pub(crate) fn holds(model: &impl Model) {
    match search(model) {
        Outcome::Holds { states, goals } => {
            assert!(goals > 0, "the goal can be reached");
            assert!(states > 100, "there is something to search: {states}");
        }
        Outcome::Broken { why, trace } => panic!("{why} after\n{}", trace.join("\n")),
    }
}

/// Without `guard` a reachable state does.
pub(crate) fn breaks(model: &impl Model, guard: impl fmt::Debug) {
    if let Outcome::Holds { states, .. } = search(model) {
        panic!("{guard:?} could be left out: nothing goes wrong in {states} states");
    }
}

/// A state and its hash, which is counted once: most of a search is looking states up.
struct Reached<W> {
    world: Rc<W>,
    hash: u64,
}

/// Every state that was reached, and whence it was first.
type Seen<W> = HashMap<Reached<W>, Option<Reached<W>>, FixedState>;

/// Searches all of it.
fn search<M: Model>(model: &M) -> Outcome {
    let first = Reached::new(model.first());
    let mut seen = Seen::from_iter([(first.clone(), None)]);
    let mut open = VecDeque::from([first]);
    let mut goals = 0;
    while let Some(from) = open.pop_front() {
        if let Some(why) = model.broken(&from.world) {
            return Outcome::Broken {
                why,
                trace: trace(model, &seen, from),
            };
        }
        goals += usize::from(model.is_goal(&from.world));
        for to in model.steps(&from.world) {
            if let Entry::Vacant(new) = seen.entry(Reached::new(to)) {
                open.push_back(new.key().clone());
                new.insert(Some(from.clone()));
            }
        }
        assert!(seen.len() < LIMIT, "the scope is too large");
    }
    Outcome::Holds {
        states: seen.len(),
        goals,
    }
}

/// The names of the steps that led here.
fn trace<M: Model>(model: &M, seen: &Seen<M::World>, mut to: Reached<M::World>) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(from) = seen.get(&to).cloned().flatten() {
        let led = model.steps(&from.world);
        let step = led.iter().position(|world| *world == *to.world);
        let mut names = model.names(&from.world);
        steps.extend(step.map(|step| names.swap_remove(step)));
        to = from;
    }
    steps.reverse();
    steps
}

impl<W: Hash> Reached<W> {
    fn new(world: W) -> Self {
        Self {
            hash: FixedState::default().hash_one(&world),
            world: Rc::new(world),
        }
    }
}

impl<W> Clone for Reached<W> {
    fn clone(&self) -> Self {
        Self {
            world: Rc::clone(&self.world),
            hash: self.hash,
        }
    }
}

impl<W: PartialEq> PartialEq for Reached<W> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.world == other.world
    }
}

impl<W: Eq> Eq for Reached<W> {}

impl<W> Hash for Reached<W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
