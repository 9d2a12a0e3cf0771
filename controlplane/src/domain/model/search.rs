//! Breadth first, through every state that can be reached.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use ferrypost_proto::Phase;

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

/// How a state was first reached.
type Origin = Option<(Rc<World>, String)>;

/// Searches everything in `scope`, with one guard taken away or none.
pub(super) fn search(scope: Scope, without: Option<Guard>) -> Outcome {
    let first = Rc::new(World::new(scope));
    let mut seen: HashMap<Rc<World>, Origin> = HashMap::from([(first.clone(), None)]);
    let mut open = VecDeque::from([first]);
    let mut flips = 0;
    while let Some(world) = open.pop_front() {
        if let Some(why) = world.broken() {
            return Outcome::Broken {
                why,
                trace: trace(&seen, &world),
            };
        }
        flips += usize::from(world.record().phase == Phase::Flipped);
        for (name, to) in Steps::of(&world, scope, without) {
            let to = Rc::new(to);
            if !seen.contains_key(&to) {
                seen.insert(to.clone(), Some((world.clone(), name)));
                open.push_back(to);
            }
        }
        assert!(seen.len() < LIMIT, "the scope is too large");
    }
    Outcome::Holds {
        states: seen.len(),
        flips,
    }
}

fn trace(seen: &HashMap<Rc<World>, Origin>, to: &World) -> Vec<String> {
    let mut steps = Vec::new();
    let mut at = seen.get(to);
    while let Some(Some((from, name))) = at {
        steps.push(name.clone());
        at = seen.get(from);
    }
    steps.reverse();
    steps
}
