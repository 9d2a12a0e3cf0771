//! The torture run: accounts move back and forth without end while clients of all protocols are at work, processes
//! are killed and frozen, networks between them cut and stalled, one thing or two at a time, and the
//! delta hook fails now and then; then all faults stop, everything must come to rest, and the checker
//! judges what the clients saw.
//!
//! ```text
//!   clients ──▶ history ◀── movers (Migrate, Rollback, AbortMigration)     nemesis ──▶ processes,
//!                  └──────▶ checker ◀── mailboxes, read from the servers               networks
//! ```
//!
//! What is done depends on the seed alone, when it happens does not: a seed makes a run similar, not
//! identical.
//!
//! Submission needs Postfixes, which only root can start: elsewhere nobody submits, and the report says so.

mod clients;
mod liveness;
mod mover;
mod nemesis;
mod report;
mod sent_away;
mod sites;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::checker::{Floors, judge, judge_so_far};
use crate::history::{
    FinalState, History, LongestWait, Move, Recorder, Side, Summary, longest_wait, read_journal,
};
use crate::postfix;
use crate::workload::{read_files, read_mailbox};
use crate::world::{Builder, Limits, World};

pub use report::Report;
pub use sent_away::SentAway;

use clients::{deliveries, logins, silent, start_clients};
use liveness::come_to_rest;
use mover::Mover;
use nemesis::{LONGEST_ABSENCE, LONGEST_STUPOR, Nemesis};
use sent_away::outcomes;
use sites::Sites;

/// Small windows, so that a short run sees many moves end in many ways.
pub const LIMITS: Limits = Limits {
    window: Duration::from_secs(6),
    hook: Duration::from_secs(3),
    settle: Duration::from_millis(500),
    heartbeat: Duration::from_millis(300),
    leader_ttl: Duration::from_secs(2),
    drain: Duration::from_secs(2),
    close: Duration::from_secs(2),
    hold: Duration::from_secs(10),
};

/// How long everything may take to come to rest once nothing breaks any more: a leader's lease, the
/// deadline of a hook that may still run, a whole window, and room for a slow machine.
const REST_LIMIT: Duration = Duration::from_mins(1);

/// What a take-over takes beside the end of the lease: a process that starts, an election, a look, data planes that
/// find the replica again, and a login; on a busy machine.
const TAKE_OVER: Duration = Duration::from_secs(4);

/// Fences that last long enough for their leader to die in them.
const LONG_FENCES: &str = "hook.before=sleep(1500)";

/// How many times its length a run may take longer, until enough has happened: others may have the machine as well.
const PATIENCE: u32 = 5;

/// How often a run without faults is judged as far as it has come.
const LOOK: Duration = Duration::from_millis(500);

/// In how many of a hundred moves the delta hook fails, in a run with faults.
const MOODS: u32 = 8;

/// What a run is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// That a build holds: processes are killed and frozen, networks are cut, and the delta hook fails.
    Endurance,
    /// That a build is broken by itself: there are no faults, and the first violation ends the run.
    Violation,
    /// That nobody waits for longer than a window and a take-over: whoever leads is killed or frozen soon, again
    /// and again, and fences take long enough to be hit.
    Leaders,
    /// That a move sends nobody away who was only early: nothing breaks.
    Quiet,
    /// That versions mix: all processes begin as the version before, are upgraded one after the other, and
    /// are taken back.
    Upgrade,
}

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// All that the world has.
    Everything,
    /// Mail alone: the servers of HTTP are not where data planes in networks of their own could reach them.
    Mail,
    /// HTTP alone.
    Http,
}

/// What to do to which world.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everybody's decisions come from.
    pub seed: u64,
    /// How long things move and break; longer, up to six times, until the floors are reached.
    pub duration: Duration,
    /// What is to be shown.
    pub aim: Aim,
    /// What clients speak.
    pub speaks: Speaks,
    /// How many writers each account has on each data plane, beside one client of every other protocol.
    pub writers: usize,
    /// How much must have happened.
    pub floors: Floors,
}

/// Starts a world, tortures it, and judges.
///
/// # Errors
/// When the world does not come up or its state cannot be read; what was found wrong is in the report.
pub async fn torture(world: Builder, plan: Plan) -> anyhow::Result<Report> {
    let mut world = world.limits(LIMITS);
    let faults = plan.aim == Aim::Endurance;
    if faults {
        world = world.links().moody_hook(plan.seed, MOODS);
    }
    if plan.aim == Aim::Leaders {
        world = world.control_plane_env("FERRYPOST_FAILPOINTS", LONG_FENCES);
    }
    if plan.aim == Aim::Upgrade {
        world = upgrade::beginning(world);
    }
    // The version before reads no rules of HTTP.
    let surfs = plan.speaks != Speaks::Mail && plan.aim != Aim::Upgrade;
    let sites = if surfs {
        Some(Sites::start().await?)
    } else {
        None
    };
    if let Some(sites) = &sites {
        world = sites.within(world);
    }
    if plan.speaks != Speaks::Http {
        world = world.deliveries();
        if postfix::can_start() {
            world = world.postfixes();
        }
    }
    let mut world = world.start().await?;
    let recorder = Recorder::new();
    let workload = start_clients(&world, &recorder, &plan).await?;
    let mut movers = Movers::start(&world, &recorder, &plan);
    let mut nemesis = Nemesis::new(StdRng::seed_from_u64(plan.seed ^ 1));
    let mut upgraded = BTreeMap::new();
    if plan.aim == Aim::Upgrade {
        upgraded = upgrade::there_and_back(&mut world).await?;
    }
    let end = Instant::now() + plan.duration;
    let latest = end + plan.duration * PATIENCE;
    // A seed that freezes the control plane twice in a row needs longer until enough has happened.
    while Instant::now() < end
        || (Instant::now() < latest && !plan.floors.are_reached(&recorder.history()))
    {
        if plan.aim == Aim::Leaders {
            nemesis.strike_the_leader(&mut world).await?;
        } else if faults {
            nemesis.strike(&mut world).await?;
        } else if is_found_out(&world, &recorder)? {
            break;
        } else {
            sleep(LOOK).await;
        }
    }
    nemesis.relent(&mut world).await?;
    let mut complaints = movers.finish().await;
    complaints.extend(come_to_rest(&mut world, REST_LIMIT).await?);
    workload.stop().await;

    let mut history = recorder.history();
    complaints.extend(too_long(&history));
    history.hook_runs = read_journal(world.journal())?;
    history.disturbances = nemesis.disturbances().to_vec();
    history.executed = sites.as_ref().map(Sites::executed).unwrap_or_default();
    if plan.speaks != Speaks::Http {
        complaints.extend(silent(&world, &history));
    }
    let finally = final_state(&world, sites.as_ref()).await?;
    let flipped = history.flips().count();
    let longest_wait = longest_wait(&history);
    if plan.aim == Aim::Leaders {
        complaints.extend(longest_wait.as_ref().and_then(waited_too_long));
    }
    let mut report = Report {
        seed: plan.seed,
        verdict: judge(&history, &finally, &plan.floors),
        complaints,
        longest_wait,
        summary: Summary::of(&history, |_| true),
        logins: logins(&history),
        deliveries: deliveries(&history),
        executed: history.executed.len(),
        sent_away: SentAway::of(&history, &outcomes(&world)),
        moves: (flipped, history.moves.len() - flipped),
        faults: nemesis.done().into_iter().chain(upgraded).collect(),
        kept: None,
    };
    if !report.is_clean() {
        report.kept = Some(world.keep());
    }
    Ok(report)
}

/// What users wait for at most, whatever becomes of leaders, as long as one of them comes to write: the window, and
/// one take-over.
fn longest_hold() -> Duration {
    let away = LONGEST_STUPOR.max(LIMITS.leader_ttl + LONGEST_ABSENCE);
    LIMITS.window + away + TAKE_OVER
}

fn waited_too_long(longest: &LongestWait) -> Option<String> {
    let bound = longest_hold();
    (longest.time > bound).then(|| {
        let LongestWait { account, time, .. } = longest;
        format!("nobody got in as {account} for {time:?}, which is longer than {bound:?}")
    })
}

/// Whether what is certain already holds a violation.
fn is_found_out(world: &World, recorder: &Recorder) -> anyhow::Result<bool> {
    let mut history = recorder.settled();
    history.hook_runs = read_journal(world.journal())?;
    Ok(!judge_so_far(&history).is_empty())
}

/// Moves whose held window was longer than it may be (G4), as the leader that fenced and flipped has
/// measured it.
fn too_long(history: &History) -> impl Iterator<Item = String> + '_ {
    let held = |movement: &'_ Move| movement.held.filter(|held| *held > LIMITS.window);
    history.moves.iter().filter_map(move |movement| {
        let held = held(movement)?;
        let (account, migration) = (&movement.account, &movement.migration);
        Some(format!("{migration} held {account} for {held:?}"))
    })
}

/// A mover for each account.
struct Movers {
    stop: CancellationToken,
    tasks: JoinSet<Vec<String>>,
}

impl Movers {
    fn start(world: &World, recorder: &Recorder, plan: &Plan) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (n, account) in world.accounts().iter().enumerate() {
            let mover = Mover {
                account: account.as_str().into(),
                operators: (0..world.control_planes().len())
                    .map(|replica| world.operator(replica))
                    .collect(),
                recorder: recorder.clone(),
                random: StdRng::seed_from_u64(plan.seed ^ ((n as u64 + 1) << 32)),
                stop: stop.clone(),
            };
            tasks.spawn(mover.run());
        }
        Self { stop, tasks }
    }

    /// Lets every move that is under way end, and gives back what was strange.
    async fn finish(&mut self) -> Vec<String> {
        self.stop.cancel();
        let mut complaints = Vec::new();
        let joining = async {
            while let Some(ended) = self.tasks.join_next().await {
                complaints.extend(ended.expect("a mover does not panic"));
            }
        };
        if timeout(REST_LIMIT, joining).await.is_err() {
            complaints.push(format!(
                "a move did not end within {REST_LIMIT:?} of the last fault"
            ));
            self.tasks.shutdown().await;
        }
        complaints
    }
}

/// Every account's mailbox on the server where the control plane says that it lives.
async fn final_state(world: &World, sites: Option<&Sites>) -> anyhow::Result<FinalState> {
    let mut finally = FinalState::new();
    for account in world.accounts() {
        let destination = liveness::destination(world, account).await?;
        let server = world
            .server(&destination)
            .ok_or_else(|| anyhow::anyhow!("{account} lives at {destination:?}"))?;
        let mut mailbox = read_mailbox(server, account).await?;
        if let (Some(sites), Some(side)) = (sites, Side::named(&destination)) {
            mailbox.files = read_files(sites.of(side), account)?;
        }
        finally.insert(Arc::from(account.as_str()), mailbox);
    }
    Ok(finally)
}
