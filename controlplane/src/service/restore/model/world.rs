//! The model's state.

use ferrypost_proto::{InstanceId, Revision, routing::v1::AccountEntry};

use super::super::{Doubtful, Picture, PlaneWord};

/// A guard that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// What a data plane held in an earlier life proves a restore too.
    HeldIsProof,
    /// A table is in the witness before it is in force.
    WitnessFirst,
    /// Who has restarted holds what store and witness disagree about.
    DoubtIsHeld,
    /// Who has said goodbye serves nobody while the store is rewound.
    Current,
    /// Who has never acknowledged a table does not register while the store is rewound.
    NewIsRefused,
    /// A decision needs the answer of every registered data plane.
    AllAnswer,
    /// It waits until all of them hold what any of them has in doubt.
    Held,
    /// And for the settle time after that.
    Settled,
    /// Its last write needs the registrations to be those that it was begun with.
    Fleet,
    /// Its writes need the proof to be the one that it was begun with.
    Proof,
    /// Once the fleet's word is being written, it stays the word of whoever was decided for.
    FirstDecision,
}

/// How a data plane comes into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// It is in the fleet from first to last.
    Stays,
    /// It may say goodbye before the restore.
    Leaves,
    /// It never was there before the restore.
    New,
}

/// What may happen, so that the search stays small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    kinds: [Kind; 2],
    deaths: u8,
    calls: u8,
}

impl Scope {
    pub(super) const STAYS: Self = Self::of([Kind::Stays, Kind::Stays]);
    pub(super) const LEAVES: Self = Self::of([Kind::Stays, Kind::Leaves]);
    pub(super) const NEW: Self = Self::of([Kind::Stays, Kind::New]);

    /// One death, and one call.
    pub(super) const fn of(kinds: [Kind; 2]) -> Self {
        Self {
            kinds,
            deaths: 1,
            calls: 1,
        }
    }

    pub(super) const fn deaths(self, deaths: u8) -> Self {
        Self { deaths, ..self }
    }

    pub(super) const fn calls(self, calls: u8) -> Self {
        Self { calls, ..self }
    }
}

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Old,
    New,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    /// By its word.
    pub(super) fn parse(word: &str) -> Self {
        if word == "new" { Self::New } else { Self::Old }
    }
}

/// The last write of the account's record that a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Word {
    /// The backup's, which is in both histories.
    Backup,
    /// The fence of the move that the restore loses.
    Fenced,
    /// Its flip.
    Flipped,
    /// The restored store's, as it was after so many writes.
    Restored(u8, Side),
}

impl Word {
    /// Where a login goes: `None` while it is held.
    pub(super) fn route(self) -> Option<Side> {
        (self != Self::Fenced).then(|| self.home())
    }

    /// Where the account lives.
    pub(super) fn home(self) -> Side {
        match self {
            Self::Backup | Self::Fenced => Side::Old,
            Self::Flipped => Side::New,
            Self::Restored(_, side) => side,
        }
    }

    /// Of the history that the restore loses.
    pub(super) fn is_lost(self) -> bool {
        matches!(self, Self::Fenced | Self::Flipped)
    }

    /// The restored history grows beyond what was lost.
    fn revision(self) -> Revision {
        let store = match self {
            Self::Backup => 1,
            Self::Fenced => 2,
            Self::Flipped => 3,
            Self::Restored(writes, _) => 4 + u64::from(writes),
        };
        Revision::new(0, store)
    }

    /// The next write of the restored store.
    pub(super) fn followed_by(self, home: Side) -> Self {
        match self {
            Self::Restored(writes, _) => Self::Restored(writes + 1, home),
            _ => Self::Restored(1, home),
        }
    }

    fn entry(self) -> AccountEntry {
        AccountEntry {
            account_id: ACCOUNT.to_owned(),
            home: self.home().word().to_owned(),
            ..AccountEntry::default()
        }
    }
}

const ACCOUNT: &str = "acct";

/// What a process sends people by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// It serves nobody.
    None,
    /// A table of the stream.
    Of(Word),
    /// What it has compared: where both agree the account lives.
    Agreed(Side),
    /// The account is held.
    Held,
}

impl Table {
    pub(super) fn route(self) -> Option<Side> {
        match self {
            Self::Of(word) => word.route(),
            Self::Agreed(side) => Some(side),
            Self::None | Self::Held => None,
        }
    }
}

/// What the store says of a data plane's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Registered {
    No,
    /// An earlier process of it.
    Earlier,
    Yes,
}

/// A stream, by what its Welcome has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    None,
    Open,
    Rewound,
}

/// A data plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Plane {
    pub(super) kind: Kind,
    pub(super) alive: bool,
    pub(super) table: Table,
    /// What its state directory holds.
    pub(super) witness: Option<Word>,
    /// It has said goodbye since.
    pub(super) left: bool,
    /// It was sent the restored store's table by a control plane that did not know better: it found nothing to
    /// compare with. The promise to it begins with the resolution (decision 0019, "Not for").
    pub(super) misled: bool,
    pub(super) registered: Registered,
    pub(super) stream: Stream,
    /// Where it relays to.
    pub(super) session: Option<Side>,
    /// A dead process's session that its server has not seen the end of.
    pub(super) lingering: Option<Side>,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Holding,
    /// It has waited, and has looked once more.
    Settled,
    Chosen,
    Written,
}

/// A call that resolves the restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) fleets_word: bool,
    pub(super) stage: Stage,
    /// Which data planes hold what is in doubt.
    pub(super) held: [bool; 2],
    /// The registrations are others since it began.
    pub(super) fleet_changed: bool,
    /// So is the proof.
    pub(super) proof_changed: bool,
    /// Whose word it has read to be the fleet's, and where that has the account.
    pub(super) newest: Option<usize>,
    pub(super) home: Side,
}

/// The restored store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) record: Word,
    pub(super) rewound: bool,
    /// Whose word was decided for.
    pub(super) chosen: Option<usize>,
    /// Its replicas cannot tell any more that a position is lost: a new one's log begins above it.
    pub(super) forgotten: bool,
    /// The decision that has ended it: true for the fleet's word.
    pub(super) resolved: Option<bool>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// The record, in the history that will be lost.
    pub(super) record: Word,
    /// `None`: the store has not been put back yet.
    pub(super) store: Option<Store>,
    /// The newest that anybody had acknowledged when it was.
    pub(super) newest: Word,
    pub(super) planes: [Plane; 2],
    pub(super) calls: [Option<Call>; 2],
    pub(super) deaths: u8,
    /// Calls that may still be made.
    pub(super) calls_left: u8,
}

impl World {
    pub(super) fn new(scope: Scope) -> Self {
        let plane = |kind| {
            let new = kind == Kind::New;
            Plane {
                kind,
                alive: !new,
                table: if new {
                    Table::None
                } else {
                    Table::Of(Word::Backup)
                },
                witness: (!new).then_some(Word::Backup),
                left: false,
                misled: false,
                registered: if new { Registered::No } else { Registered::Yes },
                stream: if new { Stream::None } else { Stream::Open },
                session: None,
                lingering: None,
            }
        };
        Self {
            record: Word::Backup,
            store: None,
            newest: Word::Backup,
            planes: scope.kinds.map(plane),
            calls: [None; 2],
            deaths: scope.deaths,
            calls_left: scope.calls,
        }
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.store
            .as_ref()
            .is_some_and(|store| store.resolved.is_some())
    }

    /// What `GetRewound` puts together from who answers.
    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        let Some(store) = &self.store else {
            return picture;
        };
        picture.chosen = store.chosen.map(instance);
        for (n, plane) in self.planes.iter().enumerate() {
            let Some(held) = plane.witness.filter(|_| plane.answers()) else {
                continue;
            };
            let doubts = held.route() != store.record.route();
            let mut word = PlaneWord {
                doubts: u64::from(doubts),
                current: !plane.left,
                lost: held.is_lost() && !store.forgotten,
                ..PlaneWord::default()
            };
            word.held.revision = held.revision();
            picture.planes.insert(instance(n), word);
            if doubts {
                let account = picture.accounts.entry(ACCOUNT.to_owned());
                let account: &mut Doubtful = account.or_default();
                account.stored = Some(store.record.entry());
                account.held.insert(instance(n), Some(held.entry()));
            }
        }
        picture
    }

    /// The promise that is broken here, if one is.
    pub(super) fn broken(&self) -> Option<&'static str> {
        let store = self.store.as_ref()?;
        let home = store.record.home();
        if let Some(fleets_word) = store.resolved {
            let kept = if fleets_word {
                self.newest
            } else {
                Word::Backup
            };
            if home != kept.home() {
                return Some("the word that was decided for is not the one that counts");
            }
            let elsewhere = |plane: &Plane| {
                let sides = plane.session.iter().chain(&plane.lingering);
                sides.copied().any(|side| side != home)
            };
            // Who is not told yet holds it.
            return self.planes.iter().any(elsewhere).then_some(
                "the restore is resolved, and a server works for somebody who lives elsewhere",
            );
        }
        let sent_back = |plane: &Plane| {
            !plane.misled && plane.session.is_some_and(|side| side != self.newest.home())
        };
        let sent_back = self.planes.iter().any(sent_back);
        sent_back.then_some("somebody is sent back before anybody has decided that")
    }
}

impl Plane {
    /// It is asked what it has acknowledged, and has compared it.
    pub(super) fn answers(&self) -> bool {
        self.alive && self.stream == Stream::Rewound
    }
}

pub(super) fn instance(n: usize) -> InstanceId {
    InstanceId::parse(["dp-0", "dp-1"][n]).expect("it is one")
}

/// Which data plane it is.
pub(super) fn number(instance: &InstanceId) -> usize {
    usize::from(instance.as_str() == "dp-1")
}
