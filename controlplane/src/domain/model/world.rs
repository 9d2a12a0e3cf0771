//! The model's state.

use ferrypost_proto::Phase;

/// A guard that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// QUIESCED and FLIPPED need a drained report of every registered data plane.
    Drained,
    /// They need the fleet's revision to be the one that was looked at.
    Fleet,
    /// A report counts only for the boot that is registered.
    Boot,
    /// QUIESCED waits until every end that nobody saw is settled.
    Settled,
    /// A data plane resolves again before it relays.
    ResolveAgain,
    /// A write needs the record's epoch.
    Epoch,
    /// A write needs the leader's fencing token.
    Token,
    /// The next fence, and the end of the move, wait out the deadline of a hook that may still run.
    HookDeadline,
    /// A leader withdraws a fence that it has not begun itself.
    OwnFence,
    /// A leader that takes over after FLIPPED withdraws nothing.
    NotAfterFlip,
}

/// What may happen, so that the search stays small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// Data planes.
    pub(super) planes: usize,
    /// Data planes that are registered at first.
    pub(super) registered: usize,
    /// Deaths of data planes.
    pub(super) deaths: u8,
    /// Changes of the leader, at any step.
    pub(super) takeovers: usize,
    /// The move has a hook.
    pub(super) hook: bool,
    /// Transactions whose outcome their leader does not learn.
    pub(super) losses: u8,
}

impl Scope {
    /// All that data planes can do, under one leader that learns what became of its writes.
    pub(super) const FLEET: Self = Self {
        planes: 2,
        registered: 1,
        deaths: 1,
        takeovers: 0,
        hook: false,
        losses: 0,
    };
    /// Writes of unknown outcome.
    pub(super) const WRITES: Self = Self {
        planes: 1,
        registered: 1,
        deaths: 1,
        takeovers: 0,
        hook: false,
        losses: 2,
    };
    /// All that leaders can do, over one data plane: they die and freeze at every step.
    pub(super) const LEADERS: Self = Self {
        planes: 1,
        registered: 1,
        deaths: 0,
        takeovers: 1,
        hook: true,
        losses: 1,
    };
    /// Whoever takes over is taken over from. No data plane is in the way.
    pub(super) const SUCCESSION: Self = Self {
        planes: 0,
        registered: 0,
        deaths: 0,
        takeovers: 2,
        hook: true,
        losses: 0,
    };
    /// A data plane dies while the leader changes.
    pub(super) const TAKEOVER: Self = Self {
        planes: 1,
        registered: 1,
        deaths: 1,
        takeovers: 1,
        hook: false,
        losses: 0,
    };
}

/// How often the move may be fenced.
pub(super) const ATTEMPTS: u8 = 2;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Old,
    New,
}

/// One write of the account's record; its place in the history is its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) phase: Phase,
    pub(super) home: Side,
    /// The epoch of the FENCING write, in the held window.
    pub(super) fence: usize,
    /// FENCING writes so far.
    pub(super) attempts: u8,
    /// A hook was started, and nobody has fenced since.
    pub(super) hook: bool,
}

impl Record {
    /// Where a login goes: `None` while it is held.
    pub(super) fn route(self) -> Option<Side> {
        (!self.phase.is_fenced()).then_some(self.home)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Session {
    None,
    /// Its route is chosen, the server has not said OK yet.
    LoggingIn(Side),
    /// Bytes are relayed.
    Relaying(Side),
}

/// A drained report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Report {
    pub(super) boot: u8,
    pub(super) fence: usize,
}

/// A data plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Plane {
    pub(super) alive: bool,
    /// 0: it has never been started.
    pub(super) boot: u8,
    /// The epoch of the record in its table.
    pub(super) table: usize,
    pub(super) session: Session,
    /// On its way to the store, for ever: it may arrive at any time, again and again, or never.
    pub(super) sent: Option<Report>,
    /// A dead process's session that its server has not seen the end of.
    pub(super) lingering: Option<Side>,
}

/// What the store says about a data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    /// The registered boot.
    pub(super) registered: Option<u8>,
    /// An end that nobody saw, whose settle time is not over.
    pub(super) unsettled: bool,
    pub(super) report: Option<Report>,
}

/// A hook's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Run {
    /// None yet, by this leader.
    None,
    /// Written down; the process is about to start.
    Announced,
    Running,
    Succeeded,
    Failed,
}

/// A leader, or who thinks that it is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// 0: it has never led.
    pub(super) token: u8,
    /// The fleet as it last looked: the revision, and who was registered.
    pub(super) fleet: u8,
    pub(super) registered: Vec<Option<u8>>,
    pub(super) run: Run,
    /// The fence that the run is for.
    pub(super) run_fence: usize,
    /// The fence that it has begun.
    pub(super) fence: Option<usize>,
    /// Its term has lasted for as long as any hook that was started before it.
    pub(super) waited: bool,
}

/// A transaction under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Txn {
    pub(super) by: usize,
    pub(super) to: Phase,
    /// The leader still waits for its outcome.
    pub(super) awaited: bool,
    pub(super) epoch: usize,
    pub(super) token: u8,
    pub(super) fleet: Option<u8>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// Every write of the record; the last one is in force.
    pub(super) history: Vec<Record>,
    pub(super) fleet: u8,
    pub(super) standings: Vec<Standing>,
    pub(super) token: u8,
    pub(super) planes: Vec<Plane>,
    /// By their terms.
    pub(super) leaders: Vec<Leader>,
    pub(super) in_flight: Vec<Txn>,
    pub(super) deaths: u8,
    pub(super) losses: u8,
    /// Somebody went on with a fence that he does not know the beginning of.
    pub(super) carried_on: bool,
}

impl World {
    /// COPYING, one leader, and the first data planes registered.
    pub(super) fn new(scope: Scope) -> Self {
        let copying = Record {
            phase: Phase::Copying,
            home: Side::Old,
            fence: 0,
            attempts: 0,
            hook: false,
        };
        let boot = |n: usize| u8::from(n < scope.registered);
        let standings: Vec<_> = (0..scope.planes)
            .map(|n| Standing {
                registered: (boot(n) > 0).then(|| boot(n)),
                unsettled: false,
                report: None,
            })
            .collect();
        let planes = (0..scope.planes)
            .map(|n| Plane {
                alive: boot(n) > 0,
                boot: boot(n),
                table: 0,
                session: Session::None,
                sent: None,
                lingering: None,
            })
            .collect();
        let leader = |token| Leader {
            token,
            fleet: 0,
            registered: standings
                .iter()
                .map(|standing| standing.registered)
                .collect(),
            run: Run::None,
            run_fence: 0,
            fence: None,
            // There was nobody before the first one.
            waited: token == 1,
        };
        let takeovers = (0..scope.takeovers).map(|_| leader(0));
        Self {
            history: vec![copying],
            fleet: 0,
            token: 1,
            planes,
            leaders: [leader(1)].into_iter().chain(takeovers).collect(),
            standings,
            in_flight: Vec::new(),
            deaths: scope.deaths,
            losses: scope.losses,
            carried_on: false,
        }
    }

    pub(super) fn epoch(&self) -> usize {
        self.history.len() - 1
    }

    pub(super) fn record(&self) -> Record {
        self.history[self.epoch()]
    }

    /// The promise that is broken here, if one is.
    pub(super) fn broken(&self) -> Option<&'static str> {
        let home = self.record().home;
        for plane in &self.planes {
            if matches!(plane.session, Session::Relaying(side) if side != home) {
                return Some("a session is relayed to the other side");
            }
            if plane.lingering.is_some_and(|side| side != home) {
                return Some("a server still executes what a dead session has sent it");
            }
        }
        if self.carried_on {
            return Some(
                "a fence goes on under a leader that does not know how long it has lasted",
            );
        }
        self.broken_by_hook()
    }

    /// A hook writes to the target. One whose leader is gone may run on beside clients of the source, in a move
    /// that waits, and nowhere else.
    fn broken_by_hook(&self) -> Option<&'static str> {
        let record = self.record();
        let mut running = self
            .leaders
            .iter()
            .filter(|leader| leader.run == Run::Running);
        let run = running.next()?;
        if running.next().is_some() {
            return Some("two hooks run at once");
        }
        match record.phase {
            Phase::Copying => None,
            phase if !phase.is_fenced() => Some("a hook runs beside clients of its target"),
            _ if run.run_fence != record.fence => Some("a hook runs into the next fence"),
            _ => None,
        }
    }
}
