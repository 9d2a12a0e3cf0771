//! Everything that can happen next.

use std::fmt;

use super::{
    super::Picture,
    world::{
        Call, Guard, Kind, Registered, Side, Stage, Store, Stream, Table, Word, World, number,
    },
};

/// Collects the steps from one state.
pub(super) struct Steps<'a> {
    from: &'a World,
    without: Option<Guard>,
    found: Vec<World>,
    /// The names of the steps, when somebody will read them.
    names: Option<Vec<String>>,
}

impl<'a> Steps<'a> {
    /// Where the steps from here lead.
    pub(super) fn of(from: &'a World, without: Option<Guard>) -> Vec<World> {
        Self::collect(from, without, None).found
    }

    /// Their names, in the same order.
    pub(super) fn names(from: &'a World, without: Option<Guard>) -> Vec<String> {
        let steps = Self::collect(from, without, Some(Vec::new()));
        steps.names.unwrap_or_default()
    }

    fn collect(from: &'a World, without: Option<Guard>, names: Option<Vec<String>>) -> Self {
        let mut steps = Self {
            from,
            without,
            found: Vec::new(),
            names,
        };
        match &from.store {
            None => steps.before_the_restore(),
            Some(store) => {
                steps.operators(store);
                for c in 0..from.calls.len() {
                    steps.call(c, store);
                }
            }
        }
        for n in 0..from.planes.len() {
            steps.process(n);
            match &from.store {
                None => steps.follow(n),
                Some(store) => steps.connect(n, store),
            }
        }
        steps
    }

    fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn step(&mut self, name: fmt::Arguments<'_>, change: impl FnOnce(&mut World)) {
        let mut to = self.from.clone();
        change(&mut to);
        self.found.push(to);
        if let Some(names) = &mut self.names {
            names.push(name.to_string());
        }
    }

    /// The move that will be lost, and its loss.
    fn before_the_restore(&mut self) {
        match self.from.record {
            Word::Backup => self.step(format_args!("the account is fenced"), |world| {
                world.record = Word::Fenced;
            }),
            Word::Fenced if self.is_drained() => {
                self.step(format_args!("the account is flipped"), |world| {
                    world.record = Word::Flipped;
                });
            }
            _ => {}
        }
        self.step(format_args!("the store is put back"), restore);
    }

    /// What the fence has seen to, by the model of the fence.
    fn is_drained(&self) -> bool {
        self.from.planes.iter().all(|plane| {
            let reports = plane.table == Table::Of(Word::Fenced)
                && (plane.witness == Some(Word::Fenced) || !self.has(Guard::WitnessFirst));
            let gone = plane.registered == Registered::No;
            plane.lingering.is_none() && (gone || reports && plane.session.is_none())
        })
    }

    /// A data plane's process: its life and its logins.
    fn process(&mut self, n: usize) {
        let plane = &self.from.planes[n];
        if !plane.alive {
            let can_start = plane.kind != Kind::New || self.from.store.is_some();
            if can_start {
                self.step(format_args!("plane {n} starts"), |world| start(world, n));
            }
            return;
        }
        if let Some(side) = plane.table.route()
            && plane.session.is_none()
        {
            self.step(format_args!("plane {n} relays to {side:?}"), |world| {
                world.planes[n].session = Some(side);
            });
        }
        if let Table::Of(word) = plane.table
            && plane.witness != Some(word)
        {
            self.step(format_args!("plane {n} writes {word:?} down"), |world| {
                world.planes[n].witness = Some(word);
            });
        }
        if self.from.deaths > 0 {
            self.step(format_args!("plane {n} is killed"), |world| {
                world.deaths -= 1;
                let plane = &mut world.planes[n];
                plane.lingering = plane.session.take().or(plane.lingering);
                end(world, n);
            });
        }
    }

    /// A data plane and the store that will be lost.
    fn follow(&mut self, n: usize) {
        let plane = &self.from.planes[n];
        if !plane.alive {
            return;
        }
        let record = self.from.record;
        let first = self.has(Guard::WitnessFirst);
        if plane.stream == Stream::None {
            self.step(format_args!("plane {n} registers"), |world| {
                take(world, n, record, first);
            });
            return;
        }
        if plane.table != Table::Of(record) {
            self.step(format_args!("plane {n} applies {record:?}"), |world| {
                take(world, n, record, first);
            });
        }
        if plane.kind == Kind::Leaves && plane.session.is_none() {
            self.step(format_args!("plane {n} says goodbye"), |world| {
                let plane = &mut world.planes[n];
                plane.left = true;
                plane.registered = Registered::No;
                end(world, n);
            });
        }
    }

    /// A data plane and the restored store.
    fn connect(&mut self, n: usize, store: &Store) {
        let plane = &self.from.planes[n];
        let knows = match plane.stream {
            Stream::None => false,
            Stream::Open => !store.rewound,
            Stream::Rewound => store.rewound,
        };
        if !plane.alive || knows {
            return;
        }
        let held = match plane.table {
            Table::Of(word) => Some(word),
            _ => plane.witness.filter(|_| self.has(Guard::HeldIsProof)),
        };
        let proves = store.resolved.is_none() && held.is_some_and(Word::is_lost);
        if !store.rewound && !proves {
            let record = store.record;
            self.step(format_args!("plane {n} is sent {record:?}"), |world| {
                be_sent(world, n, record);
            });
            return;
        }
        if plane.witness.is_none() && self.has(Guard::NewIsRefused) {
            return;
        }
        let table = self.compared(n, store);
        self.step(format_args!("plane {n} compares: {table:?}"), |world| {
            if let Some(store) = &mut world.store {
                store.rewound = true;
            }
            register(world, n);
            let plane = &mut world.planes[n];
            plane.stream = Stream::Rewound;
            plane.table = table;
        });
    }

    /// What it serves when it has compared what it remembers with what the store holds.
    fn compared(&self, n: usize, store: &Store) -> Table {
        let plane = &self.from.planes[n];
        if plane.table != Table::None {
            return plane.table;
        }
        let word = store.record.home();
        match plane.witness {
            // Somebody let it in who should not have.
            None => Table::Of(store.record),
            Some(_) if plane.left && self.has(Guard::Current) => Table::None,
            Some(held) if held.route() == store.record.route() => Table::Agreed(word),
            Some(_) if self.has(Guard::DoubtIsHeld) => Table::Held,
            Some(_) => Table::Agreed(word),
        }
    }

    /// Somebody decides.
    fn operators(&mut self, store: &Store) {
        let free = self.from.calls.iter().position(Option::is_none);
        let Some(c) = free.filter(|_| store.rewound && self.from.calls_left > 0) else {
            return;
        };
        if self.has(Guard::AllAnswer) && !self.all_answer() {
            return;
        }
        let picture = self.from.picture();
        for fleets_word in [false, true] {
            let begun = picture.begun().is_some() && self.has(Guard::FirstDecision);
            if !fleets_word && begun {
                continue;
            }
            let call = Call {
                fleets_word,
                stage: Stage::Holding,
                held: [!self.has(Guard::Held); 2],
                fleet_changed: false,
                proof_changed: false,
                newest: None,
                home: store.record.home(),
            };
            let whose = if fleets_word { "fleet" } else { "store" };
            self.step(
                format_args!("call {c} is to keep the {whose}'s word"),
                |world| {
                    world.calls_left -= 1;
                    world.calls[c] = Some(call);
                },
            );
        }
    }

    fn all_answer(&self) -> bool {
        let mut planes = self.from.planes.iter();
        planes.all(|plane| plane.registered == Registered::No || plane.answers())
    }

    /// A call goes on, or dies.
    fn call(&mut self, c: usize, store: &Store) {
        let Some(call) = self.from.calls[c] else {
            return;
        };
        self.step(format_args!("call {c} dies"), |world| {
            world.calls[c] = None;
            if let Some(store) = &mut world.store {
                store.forgotten = true;
            }
        });
        match call.stage {
            Stage::Holding => self.hold(c, call, store),
            Stage::Settled if call.fleets_word => self.choose(c, call),
            Stage::Chosen => self.write(c, call),
            Stage::Settled | Stage::Written => self.end(c, call),
        }
    }

    fn hold(&mut self, c: usize, call: Call, store: &Store) {
        let mut all = true;
        for (n, plane) in self.from.planes.iter().enumerate() {
            if call.held[n] || plane.registered == Registered::No {
                continue;
            }
            all = false;
            if plane.answers() {
                self.step(format_args!("plane {n} holds for call {c}"), |world| {
                    let plane = &mut world.planes[n];
                    plane.table = Table::Held;
                    plane.session = None;
                    if let Some(call) = &mut world.calls[c] {
                        call.held[n] = true;
                    }
                });
            }
        }
        if all && (self.all_answer() || !self.has(Guard::AllAnswer)) {
            self.settle(c, call, store);
        }
    }

    /// It waits, looks once more, and reads whose word is the fleet's.
    fn settle(&mut self, c: usize, call: Call, store: &Store) {
        let settles = self.has(Guard::Settled);
        let mut picture = self.from.picture();
        if !self.has(Guard::FirstDecision) {
            picture.chosen = None;
        }
        let newest = picture.newest();
        if call.fleets_word && newest.is_none() {
            return;
        }
        let home = newest.map(|newest| word_of(&picture, newest, store));
        self.step(format_args!("call {c} has waited"), |world| {
            for plane in &mut world.planes {
                plane.lingering = plane.lingering.filter(|_| !settles);
            }
            if let Some(call) = &mut world.calls[c] {
                call.stage = Stage::Settled;
                if call.fleets_word {
                    call.newest = newest.map(number);
                    call.home = home.unwrap_or(call.home);
                }
            }
        });
    }

    /// Writes down whose word it is, before the first record.
    fn choose(&mut self, c: usize, call: Call) {
        if call.proof_changed && self.has(Guard::Proof) {
            return;
        }
        let newest = call.newest;
        self.step(format_args!("call {c} chooses plane {newest:?}"), |world| {
            if let Some(store) = &mut world.store
                && store.chosen != newest
            {
                store.chosen = newest;
                change_proof(world, c);
            }
            go_on(world, c, Stage::Chosen);
        });
    }

    fn write(&mut self, c: usize, call: Call) {
        if call.proof_changed && self.has(Guard::Proof) {
            return;
        }
        self.step(format_args!("call {c} writes {:?}", call.home), |world| {
            if let Some(store) = &mut world.store
                && store.record.home() != call.home
            {
                store.record = store.record.followed_by(call.home);
            }
            go_on(world, c, Stage::Written);
        });
    }

    fn end(&mut self, c: usize, call: Call) {
        let conflicts = call.fleet_changed && self.has(Guard::Fleet)
            || call.proof_changed && self.has(Guard::Proof);
        if conflicts {
            return;
        }
        self.step(format_args!("call {c} ends the restore"), |world| {
            if let Some(store) = &mut world.store {
                store.rewound = false;
                store.resolved = Some(call.fleets_word);
                // The base rises: it is above everything.
                store.record = store.record.followed_by(store.record.home());
            }
            world.calls[c] = None;
            change_proof(world, c);
        });
    }
}

/// Where that data plane has the account; one that does not disagree has what the store has.
fn word_of(picture: &Picture, newest: &ferrypost_proto::InstanceId, store: &Store) -> Side {
    let account = picture.accounts.values().next();
    let entry = account.and_then(|account| account.word_of(newest));
    entry.map_or(store.record.home(), |entry| Side::parse(&entry.home))
}

fn restore(world: &mut World) {
    let newer = |a: Word, b: Word| {
        if a == Word::Flipped || b == Word::Backup {
            a
        } else {
            b
        }
    };
    for plane in &mut world.planes {
        let in_force = match plane.table {
            Table::Of(applied) => applied,
            _ => Word::Backup,
        };
        let known = newer(in_force, plane.witness.unwrap_or(Word::Backup));
        world.newest = newer(world.newest, known);
        plane.stream = Stream::None;
        // The backup knows who was in the fleet then.
        if plane.kind != Kind::New && plane.registered == Registered::No {
            plane.registered = Registered::Earlier;
        }
    }
    world.store = Some(Store {
        record: Word::Backup,
        rewound: false,
        chosen: None,
        forgotten: false,
        resolved: None,
    });
}

fn start(world: &mut World, n: usize) {
    let plane = &mut world.planes[n];
    plane.alive = true;
    if plane.registered == Registered::Yes {
        plane.registered = Registered::Earlier;
    }
}

/// What ends with a process.
fn end(world: &mut World, n: usize) {
    let plane = &mut world.planes[n];
    plane.alive = false;
    plane.table = Table::None;
    plane.stream = Stream::None;
}

/// A table is taken over from a store that nobody knows to be restored.
fn take(world: &mut World, n: usize, record: Word, witness_first: bool) {
    register(world, n);
    let plane = &mut world.planes[n];
    plane.stream = Stream::Open;
    plane.left = false;
    plane.table = Table::Of(record);
    if witness_first {
        plane.witness = Some(record);
    }
    // What is relayed elsewhere is closed, and the servers' own closes are seen.
    plane.session = plane.session.filter(|side| record.route() == Some(*side));
}

/// The same from the restored store, before anybody has found it out or after it was resolved.
fn be_sent(world: &mut World, n: usize, record: Word) {
    let resolved = world.is_resolved();
    let plane = &mut world.planes[n];
    plane.misled = !resolved && (plane.misled || plane.left || plane.witness.is_none());
    take(world, n, record, true);
}

fn register(world: &mut World, n: usize) {
    let plane = &mut world.planes[n];
    if plane.registered != Registered::Yes {
        plane.registered = Registered::Yes;
        for call in world.calls.iter_mut().flatten() {
            call.fleet_changed = true;
        }
    }
}

fn go_on(world: &mut World, c: usize, stage: Stage) {
    if let Some(call) = &mut world.calls[c] {
        call.stage = stage;
    }
}

/// The proof is written over or removed by a call: the others have read another one.
fn change_proof(world: &mut World, by: usize) {
    for (c, call) in world.calls.iter_mut().enumerate() {
        if let Some(call) = call.as_mut().filter(|_| c != by) {
            call.proof_changed = true;
        }
    }
}
