//! Everything that can happen next.

use std::fmt;

use ferrypost_proto::{
    Phase,
    v1::{Blocker, BlockerReason},
};

use super::world::{ATTEMPTS, Guard, Record, Report, Run, Scope, Session, Side, Txn, World};
use crate::domain::migration::{Action, Drain, Hook, Observed, blocker, next};

/// Collects the steps from one state.
pub(super) struct Steps<'a> {
    from: &'a World,
    scope: Scope,
    without: Option<Guard>,
    found: Vec<World>,
    /// The names of the steps, when somebody will read them.
    names: Option<Vec<String>>,
}

impl<'a> Steps<'a> {
    /// Where the steps from here lead.
    pub(super) fn of(from: &'a World, scope: Scope, without: Option<Guard>) -> Vec<World> {
        Self::collect(from, scope, without, None).found
    }

    /// Their names, in the same order.
    pub(super) fn names(from: &'a World, scope: Scope, without: Option<Guard>) -> Vec<String> {
        let steps = Self::collect(from, scope, without, Some(Vec::new()));
        steps.names.unwrap_or_default()
    }

    fn collect(
        from: &'a World,
        scope: Scope,
        without: Option<Guard>,
        names: Option<Vec<String>>,
    ) -> Self {
        let mut steps = Self {
            from,
            scope,
            without,
            found: Vec::new(),
            names,
        };
        for n in 0..from.planes.len() {
            steps.plane(n);
            steps.end_of_plane(n);
        }
        for n in 0..from.leaders.len() {
            steps.leader(n);
            steps.hook(n);
        }
        steps.transactions();
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

    /// What a running data plane does.
    fn plane(&mut self, n: usize) {
        let plane = &self.from.planes[n];
        if !plane.alive {
            return;
        }
        let record = self.from.history[plane.table];
        if plane.table < self.from.epoch() {
            let now = self.from.history[plane.table + 1];
            self.step(format_args!("plane {n} applies {:?}", now.phase), |world| {
                let plane = &mut world.planes[n];
                plane.table += 1;
                // What is relayed elsewhere is closed, and the servers' own closes are seen. A login
                // that is still under way is caught when it is resolved again.
                if matches!(plane.session, Session::Relaying(side) if now.route() != Some(side)) {
                    plane.session = Session::None;
                }
            });
        }
        match plane.session {
            Session::None => {
                if let Some(side) = record.route() {
                    self.step(
                        format_args!("plane {n} admits a login to {side:?}"),
                        |world| {
                            world.planes[n].session = Session::LoggingIn(side);
                        },
                    );
                }
            }
            Session::LoggingIn(side) => {
                let goes_on = record.route() == Some(side) || !self.has(Guard::ResolveAgain);
                self.step(
                    format_args!("plane {n}'s login is accepted by {side:?}"),
                    |world| {
                        world.planes[n].session = if goes_on {
                            Session::Relaying(side)
                        } else {
                            Session::None
                        };
                    },
                );
            }
            Session::Relaying(_) => {}
        }
        if record.phase.is_fenced() && !matches!(plane.session, Session::Relaying(_)) {
            let report = Report {
                boot: plane.boot,
                fence: record.fence,
            };
            if plane.sent != Some(report) {
                self.step(format_args!("plane {n} says that it is drained"), |world| {
                    world.planes[n].sent = Some(report);
                });
            }
        }
    }

    /// Its life and death, what the operator says of it, and its messages, which need no sender alive.
    fn end_of_plane(&mut self, n: usize) {
        let plane = &self.from.planes[n];
        let standing = self.from.standings[n];
        if plane.sent.is_some() && standing.report != plane.sent {
            self.step(format_args!("plane {n}'s report arrives"), |world| {
                world.standings[n].report = world.planes[n].sent;
            });
        }
        if plane.alive && self.from.deaths > 0 {
            self.step(format_args!("plane {n} is killed"), |world| {
                world.deaths -= 1;
                let plane = &mut world.planes[n];
                plane.alive = false;
                if let Session::Relaying(side) = plane.session {
                    plane.lingering = Some(side);
                }
                plane.session = Session::None;
            });
        }
        if !plane.alive && plane.boot < 2 {
            for behind in 0..=1.min(self.from.epoch()) {
                self.step(format_args!("plane {n} starts, {behind} behind"), |world| {
                    start(world, n, behind);
                });
            }
        }
        if !plane.alive && standing.registered.is_some() {
            self.step(format_args!("plane {n} is expelled"), |world| {
                world.fleet += 1;
                world.standings[n].registered = None;
                world.standings[n].unsettled = true;
            });
        }
        if standing.unsettled {
            self.step(format_args!("plane {n}'s settle time is over"), |world| {
                world.standings[n].unsettled = false;
                world.planes[n].lingering = None;
            });
        }
    }

    fn leader(&mut self, n: usize) {
        let leader = &self.from.leaders[n];
        if leader.token == 0 {
            // They come one after the other.
            if self.from.leaders[n - 1].token > 0 {
                self.step(format_args!("leader {n} takes over"), |world| {
                    take_over(world, n);
                });
            }
            return;
        }
        if !leader.waited && !self.earlier_runs(n) {
            self.step(format_args!("leader {n} has waited for hooks"), |world| {
                world.leaders[n].waited = true;
            });
        }
        if leader.fleet != self.from.fleet {
            self.step(format_args!("leader {n} looks at the fleet"), |world| {
                world.leaders[n].fleet = world.fleet;
                world.leaders[n].registered =
                    world.standings.iter().map(|s| s.registered).collect();
            });
        }
        // While it waits for a hook or an outcome it decides nothing.
        let waits = matches!(leader.run, Run::Announced | Run::Running)
            || self
                .from
                .in_flight
                .iter()
                .any(|txn| txn.by == n && txn.awaited);
        if waits {
            return;
        }
        for window_over in [false, true] {
            let record = self.from.record();
            let mut action = next(record.phase, &self.observe(n, window_over));
            let is_successor = leader.fence != Some(record.fence);
            if record.phase == Phase::Flipped && is_successor && !self.has(Guard::NotAfterFlip) {
                action = Action::Withdraw;
            }
            let Some((to, on_reports)) = write_of(&action) else {
                continue;
            };
            let txn = Txn {
                by: n,
                to,
                awaited: true,
                epoch: self.from.epoch(),
                token: leader.token,
                fleet: on_reports.then_some(leader.fleet),
            };
            self.step(format_args!("leader {n} decides {action:?}"), |world| {
                world.in_flight.push(txn);
                world.in_flight.sort();
            });
        }
    }

    fn observe(&self, n: usize, window_over: bool) -> Observed {
        let leader = &self.from.leaders[n];
        let record = self.from.record();
        let missing = leader
            .registered
            .iter()
            .zip(&self.from.standings)
            .any(|(seen, now)| !self.drained(*seen, now.report, record));
        let unsettled = self
            .from
            .standings
            .iter()
            .any(|standing| standing.unsettled);
        let why = |reason| -> Vec<Blocker> { vec![blocker(reason, "", "")] };
        Observed {
            rewound: false,
            superseded: false,
            abort_requested: None,
            inherited: leader.fence != Some(record.fence) && self.has(Guard::OwnFence),
            hook_may_run: (record.hook && !leader.waited && self.has(Guard::HookDeadline))
                .then(|| blocker(BlockerReason::HookMayRun, "", "")),
            attempts_used_up: (record.attempts >= ATTEMPTS)
                .then(|| blocker(BlockerReason::AttemptsUsedUp, "", "")),
            // A move is fenced as soon as it can be, and also when it should not be.
            before_fence: Vec::new(),
            drain: if missing && self.has(Guard::Drained) {
                Drain::Waiting(why(BlockerReason::NotDrained))
            } else {
                Drain::Complete
            },
            unsettled: if unsettled && self.has(Guard::Settled) {
                why(BlockerReason::Settling)
            } else {
                Vec::new()
            },
            // That would only be an abort more.
            settles_late: false,
            window_over,
            hook: self.hook_state(n),
            unapplied: false,
        }
    }

    fn drained(&self, registered: Option<u8>, report: Option<Report>, record: Record) -> bool {
        let Some(boot) = registered else {
            return true;
        };
        report.is_some_and(|report| {
            report.fence == record.fence && (report.boot == boot || !self.has(Guard::Boot))
        })
    }

    fn hook_state(&self, n: usize) -> Hook {
        if !self.scope.hook {
            return Hook::None;
        }
        let leader = &self.from.leaders[n];
        match leader.run {
            Run::Succeeded => Hook::Succeeded,
            Run::Failed => Hook::Failed(String::new()),
            _ => Hook::Pending { fits: true },
        }
    }

    /// Whether a hook of an earlier term may still run.
    fn earlier_runs(&self, n: usize) -> bool {
        let earlier = &self.from.leaders[..n];
        earlier
            .iter()
            .any(|leader| matches!(leader.run, Run::Announced | Run::Running))
    }

    fn hook(&mut self, n: usize) {
        match self.from.leaders[n].run {
            Run::Announced => {
                self.step(format_args!("leader {n}'s hook starts"), |world| {
                    world.leaders[n].run = Run::Running;
                });
            }
            Run::Running => {
                self.step(format_args!("leader {n}'s hook succeeds"), |world| {
                    world.leaders[n].run = Run::Succeeded;
                });
            }
            Run::None | Run::Succeeded | Run::Failed => return,
        }
        self.step(
            format_args!("leader {n}'s hook is at its deadline"),
            |world| {
                world.leaders[n].run = Run::Failed;
            },
        );
    }

    fn transactions(&mut self) {
        for (at, txn) in self.from.in_flight.iter().enumerate() {
            let holds = (!self.has(Guard::Epoch) || txn.epoch == self.from.epoch())
                && (!self.has(Guard::Token) || txn.token == self.from.token)
                && (!self.has(Guard::Fleet)
                    || txn.fleet.is_none_or(|fleet| fleet == self.from.fleet));
            let what = if holds { "is written" } else { "is refused" };
            self.step(
                format_args!("leader {}'s {:?} {what}", txn.by, txn.to),
                |world| {
                    let txn = world.in_flight.remove(at);
                    if holds {
                        write(world, &txn);
                    }
                },
            );
            if txn.awaited && self.from.losses > 0 {
                self.step(
                    format_args!("leader {} loses sight of its {:?}", txn.by, txn.to),
                    |world| {
                        world.losses -= 1;
                        world.in_flight[at].awaited = false;
                        world.in_flight.sort();
                    },
                );
            }
        }
    }
}

fn start(world: &mut World, n: usize, behind: usize) {
    world.fleet += 1;
    let epoch = world.epoch();
    let standing = &mut world.standings[n];
    // A registration that was still there is succeeded: nobody saw how its servers' sessions ended.
    standing.unsettled |= standing.registered.is_some();
    let plane = &mut world.planes[n];
    plane.boot += 1;
    plane.alive = true;
    plane.table = epoch - behind;
    standing.registered = Some(plane.boot);
}

/// It knows what is in the store, and nothing of what others remember.
fn take_over(world: &mut World, n: usize) {
    world.token += 1;
    let leader = &mut world.leaders[n];
    leader.token = world.token;
    leader.fleet = world.fleet;
    leader.registered = world
        .standings
        .iter()
        .map(|standing| standing.registered)
        .collect();
}

/// What an action writes, and whether it rests on drained reports.
fn write_of(action: &Action) -> Option<(Phase, bool)> {
    match action {
        Action::Wait | Action::Show(_) | Action::Finish | Action::Release | Action::Settle => None,
        Action::Fence => Some((Phase::Fencing, true)),
        Action::Quiesce => Some((Phase::Quiesced, true)),
        Action::RunHook => Some((Phase::Delta, false)),
        Action::Flip => Some((Phase::Flipped, true)),
        Action::Withdraw => Some((Phase::Copying, false)),
        Action::Abort(_) => Some((Phase::Settled, false)),
    }
}

fn write(world: &mut World, txn: &Txn) {
    let mut record = world.record();
    let leader = &mut world.leaders[txn.by];
    match txn.to {
        Phase::Fencing => {
            record.fence = world.history.len();
            record.attempts += 1;
            record.hook = false;
            // What it does not hear of it has not begun.
            leader.fence = txn.awaited.then_some(record.fence);
            leader.run = Run::None;
        }
        Phase::Copying | Phase::Settled => record.home = Side::Old,
        _ => world.carried_on |= record.phase.is_fenced() && leader.fence != Some(record.fence),
    }
    match txn.to {
        Phase::Flipped => record.home = Side::New,
        Phase::Delta => {
            record.hook = true;
            if txn.awaited {
                (leader.run, leader.run_fence) = (Run::Announced, record.fence);
            }
        }
        _ => {}
    }
    record.phase = txn.to;
    world.history.push(record);
}
