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

mod liveness;
mod mover;
mod nemesis;
mod sent_away;
mod upgrade;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::checker::{Floors, Verdict, judge, judge_so_far};
use crate::history::{
    Action, FinalState, History, LongestWait, Move, Operation, Protocol, Recorder, Summary,
    longest_wait, read_journal,
};
use crate::postfix;
use crate::workload::{Habit, Job, Place, Tls, Workload, read_mailbox};
use crate::world::{Builder, Limits, World};

pub use sent_away::SentAway;

use liveness::come_to_rest;
use mover::Mover;
use nemesis::{LONGEST_ABSENCE, LONGEST_STUPOR, Nemesis};
use sent_away::outcomes;

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

/// What a writer does by IMAP.
const WRITER: Habit = Habit {
    pause: 5..80,
    slow_percent: 25,
    login_percent: 15,
};

/// What everybody else does: each login costs a handshake on either leg, and a process of the server's.
const OTHERS: Habit = Habit {
    pause: 100..700,
    slow_percent: 50,
    login_percent: 20,
};

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

/// What to do to which world.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everybody's decisions come from.
    pub seed: u64,
    /// How long things move and break; longer, up to six times, until the floors are reached.
    pub duration: Duration,
    /// What is to be shown.
    pub aim: Aim,
    /// How many writers each account has on each data plane, beside one client of every other protocol.
    pub writers: usize,
    /// How much must have happened.
    pub floors: Floors,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The seed, to do it again.
    pub seed: u64,
    /// What the checker found.
    pub verdict: Verdict,
    /// What did not come to rest, or was refused without a reason, in words.
    pub complaints: Vec<String>,
    /// What the clients did.
    pub summary: Summary,
    /// Logins that were granted, by protocol.
    pub logins: BTreeMap<Protocol, usize>,
    /// Messages delivered, one for each recipient.
    pub deliveries: usize,
    /// The longest time in which no login of an account was admitted anywhere.
    pub longest_wait: Option<LongestWait>,
    /// Logins that were refused while their account was in a move that took less than a login is held (G4).
    pub sent_away: SentAway,
    /// Moves that ended on the other side, and that ended where they began.
    pub moves: (usize, usize),
    /// What was done to which process how often.
    pub faults: BTreeMap<String, usize>,
    /// Where the logs are, when something was found.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether nothing bad was found in a run in which enough happened.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.complaints.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let (flipped, stayed) = self.moves;
        let Summary {
            accepted,
            logins,
            writes,
            refused,
            unanswered,
            ..
        } = self.summary;
        writeln!(f, "torture with seed {}", self.seed)?;
        writeln!(
            f,
            "  operations: {accepted}, of them {writes} writes, {logins} logins; \
             {refused} logins refused, {unanswered} not answered"
        )?;
        let by_protocol = self.logins.iter();
        let by_protocol: Vec<_> = by_protocol.map(|(p, n)| format!("{n} by {p}")).collect();
        writeln!(f, "  logins: {}", by_protocol.join(", "))?;
        writeln!(f, "  deliveries: {}", self.deliveries)?;
        if !self.logins.contains_key(&Protocol::Submission) {
            writeln!(f, "  nobody submitted: only root can start a Postfix")?;
        }
        writeln!(
            f,
            "  moves: {flipped} flipped, {stayed} stayed; faults: {:?}",
            self.faults
        )?;
        if let Some(LongestWait {
            account,
            since,
            time,
        }) = &self.longest_wait
        {
            writeln!(
                f,
                "  no login of {account} was admitted anywhere for {time:.1?} from {since} on, the longest time; \
                 a window and a take-over are {:.1?}",
                longest_hold()
            )?;
        }
        writeln!(
            f,
            "  sent away in moves shorter than {:?}: {}",
            LIMITS.hold, self.sent_away
        )?;
        writeln!(f, "  violations: {}", self.verdict.violations.len())?;
        for violation in self.verdict.violations.iter().take(SHOWN) {
            writeln!(f, "    {violation}")?;
        }
        for complaint in self.complaints.iter().chain(&self.verdict.shortfalls) {
            writeln!(f, "  complaint: {complaint}")?;
        }
        if let Some(folder) = &self.kept {
            writeln!(f, "  logs: {}", folder.display())?;
        }
        Ok(())
    }
}

/// Starts a world, tortures it, and judges.
///
/// # Errors
/// When the world does not come up or its state cannot be read; what was found wrong is in the report.
pub async fn torture(world: Builder, plan: Plan) -> anyhow::Result<Report> {
    let mut world = world.limits(LIMITS).deliveries();
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
    let submits = postfix::can_start();
    if submits {
        world = world.postfixes();
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
    let logins = logins(&history);
    complaints.extend(silent(&logins, submits));
    let deliveries = deliveries(&history);
    let delivers = world
        .data_planes()
        .iter()
        .any(|it| it.deliveries().is_some());
    if delivers && deliveries == 0 {
        complaints.push("nobody delivered".to_owned());
    }
    let finally = final_state(&world).await?;
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
        logins,
        deliveries,
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

async fn start_clients(
    world: &World,
    recorder: &Recorder,
    plan: &Plan,
) -> anyhow::Result<Workload> {
    let mut workload = Workload::new(world, recorder.clone(), plan.seed);
    workload.sow(world, world.accounts()).await?;
    for data_plane in 0..world.data_planes().len() {
        for (n, account) in world.accounts().iter().enumerate() {
            let tls = if n % 2 == 0 {
                Tls::Implicit
            } else {
                Tls::Starttls
            };
            let place = Place {
                account,
                data_plane,
                tls,
            };
            workload.add(place, Job::Idle);
            for _ in 0..plan.writers {
                workload.add(place, Job::Busy(Protocol::Imap, WRITER));
            }
            for protocol in [
                Protocol::Pop3,
                Protocol::ManageSieve,
                Protocol::Submission,
                Protocol::Lmtp,
            ] {
                workload.add(place, Job::Busy(protocol, OTHERS));
            }
        }
    }
    Ok(workload)
}

/// How many logins were granted, by protocol.
fn logins(history: &History) -> BTreeMap<Protocol, usize> {
    let mut logins = BTreeMap::new();
    for operation in &history.operations {
        if operation.action.is_login() && operation.action.is_accepted() {
            *logins.entry(operation.protocol).or_default() += 1;
        }
    }
    logins
}

/// How many recipients had a message delivered.
fn deliveries(history: &History) -> usize {
    let is_delivery = |operation: &&Operation| matches!(operation.action, Action::Deliver(_));
    history.operations.iter().filter(is_delivery).count()
}

/// Protocols in which nobody ever got in.
fn silent(logins: &BTreeMap<Protocol, usize>, submits: bool) -> impl Iterator<Item = String> + '_ {
    Protocol::ALL
        .into_iter()
        .filter(move |protocol| submits || *protocol != Protocol::Submission)
        // Nobody logs in to deliver.
        .filter(|protocol| *protocol != Protocol::Lmtp)
        .filter(|protocol| !logins.contains_key(protocol))
        .map(|protocol| format!("nobody logged in by {protocol}"))
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
async fn final_state(world: &World) -> anyhow::Result<FinalState> {
    let mut finally = FinalState::new();
    for account in world.accounts() {
        let destination = liveness::destination(world, account).await?;
        let server = world
            .server(&destination)
            .ok_or_else(|| anyhow::anyhow!("{account} lives at {destination:?}"))?;
        finally.insert(
            Arc::from(account.as_str()),
            read_mailbox(server, account).await?,
        );
    }
    Ok(finally)
}
