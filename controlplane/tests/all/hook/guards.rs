//! What becomes of a hook, and of all that it has started, when one or several of those above it die or hang.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use ferrypost_controlplane::hook::HookError;
use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};

use super::{LONG, Script, after_name, eventually, guard, is_gone, state_of};

/// A hook with a grandchild, a child in a session of its own, and a daemon: that has no parent of the family either.
const FAMILY: &str = "echo $PPID > inner; echo $$ > self
    sh -c 'sleep 600 & echo $! > grandchild; wait' &
    setsid sh -c 'echo $$ > escaped; exec sleep 600' &
    (setsid sh -c 'echo $$ > daemon; exec sleep 600' </dev/null >/dev/null 2>&1 &)
    wait";

const MEMBERS: [&str; 4] = ["self", "grandchild", "escaped", "daemon"];

/// Until a deadline that a test waits for, on a machine that is not too busy to have the family there before.
const SHORT: Duration = Duration::from_secs(3);

/// The guards with a family under a process that stands for the control plane: it holds the lifeline and does nothing
/// else.
struct Household {
    /// On the clock since the boot.
    deadline: Duration,
    above: Child,
    outer: Child,
    inner: i32,
    /// By [`MEMBERS`].
    family: Vec<i32>,
    /// Last, since the folder goes with it.
    script: Script,
}

impl Household {
    async fn new() -> Self {
        let household = Self::within(LONG).await;
        household.expect("the family comes before the deadline")
    }

    /// `None`: the deadline came before the family was complete.
    async fn within(limit: Duration) -> Option<Self> {
        let script = Script::new(FAMILY);
        let mut above = Command::new("sh")
            .args(["-c", "echo '{}'; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let deadline = since_boot() + limit;
        let outer = Command::new(guard())
            .args(["hook-guard", "outer"])
            .arg(deadline.as_nanos().to_string())
            .args([&script.file("hook"), script.folder.path()])
            .stdin(above.stdout.take().expect("it is piped"))
            .spawn()
            .expect("the guard is built");
        let mut household = Self {
            deadline,
            above,
            outer,
            inner: 0,
            family: Vec::new(),
            script,
        };
        let complete = eventually("the family", || {
            if household.is_over() {
                return Some(None);
            }
            let now = |name: &&str| household.script.pid_now(name);
            let family = MEMBERS.iter().map(now).collect::<Option<Vec<_>>>()?;
            Some(Some((now(&"inner")?, family)))
        });
        (household.inner, household.family) = complete.await?;
        Some(household)
    }

    /// Whether the deadline has come.
    fn is_over(&self) -> bool {
        since_boot() >= self.deadline
    }

    fn outer(&self) -> i32 {
        i32::try_from(self.outer.id()).expect("a process id")
    }

    fn kill_above(&mut self) {
        self.above.kill().expect("it is ours");
        self.above.wait().expect("it is ours");
    }

    fn kill_outer(&mut self) {
        self.outer.kill().expect("it is ours");
        self.outer.wait().expect("it is ours");
    }

    fn kill_inner(&self) {
        signal(self.inner, Signal::KILL);
    }

    /// Nobody of the family is left in the end, nor the guard next to it.
    async fn ends(&self) {
        for (member, pid) in MEMBERS.iter().zip(&self.family) {
            eventually(member, || is_gone(*pid)).await;
        }
        eventually("the inner guard", || is_gone(self.inner)).await;
    }
}

/// Whatever is done to the guards, the family ends at the deadline, and no earlier.
async fn the_deadline_holds_after(what: impl AsyncFn(&Household)) {
    let mut limit = SHORT;
    loop {
        if let Some(household) = Household::within(limit).await {
            what(&household).await;
            if !household.is_over() {
                household.ends().await;
                assert!(household.is_over(), "they ended before the deadline");
                return;
            }
        }
        // The machine is busy.
        limit *= 2;
        assert!(limit < LONG, "the family never comes to be");
    }
}

impl Drop for Household {
    /// Whatever a failed test leaves.
    fn drop(&mut self) {
        for child in [&mut self.above, &mut self.outer] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let ours = self.family.iter().filter(|pid| is_gone(**pid).is_none());
        for pid in ours {
            let _ = kill_process(Pid::from_raw(*pid).expect("a process id"), Signal::KILL);
        }
    }
}

fn parent_of(pid: i32) -> Option<i32> {
    after_name(pid)?.split(' ').nth(1)?.parse().ok()
}

fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id");
    kill_process(pid, signal).expect("the process is there and ours");
}

/// Stops a process, so that what happens next happens at one moment for it.
async fn freeze(pid: i32) {
    signal(pid, Signal::STOP);
    eventually("its stop", || (state_of(pid) == Some('T')).then_some(())).await;
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    now.try_into().expect("the clock counts from the boot")
}

#[tokio::test]
async fn at_the_deadline_those_die_as_well_that_have_left_the_hooks_group() {
    the_deadline_holds_after(async |_| {}).await;
}

#[tokio::test]
async fn the_deadline_holds_while_the_guard_hangs() {
    the_deadline_holds_after(async |household| freeze(household.outer()).await).await;
}

#[tokio::test]
async fn the_deadline_holds_while_the_guard_next_to_the_hook_hangs() {
    the_deadline_holds_after(async |household| freeze(household.inner).await).await;
}

#[tokio::test]
async fn a_hook_and_all_that_it_started_die_when_the_guard_alone_is_killed() {
    let mut household = Household::new().await;
    household.kill_outer();
    household.ends().await;
}

#[tokio::test]
async fn a_hook_and_all_that_it_started_die_when_the_guard_next_to_it_is_killed() {
    let household = Household::new().await;
    household.kill_inner();
    household.ends().await;
}

#[tokio::test]
async fn a_hook_and_all_that_it_started_die_when_the_control_plane_alone_is_killed() {
    let mut household = Household::new().await;
    household.kill_above();
    household.ends().await;
}

#[tokio::test]
async fn a_hook_and_all_that_it_started_die_when_control_plane_and_guard_are_killed_at_once() {
    let mut household = Household::new().await;
    freeze(household.outer()).await;
    household.kill_above();
    household.kill_outer();
    household.ends().await;
}

#[tokio::test]
async fn a_hook_and_all_that_it_started_die_when_control_plane_and_the_guard_next_to_it_are_killed_at_once()
 {
    let mut household = Household::new().await;
    freeze(household.outer()).await;
    household.kill_above();
    household.kill_inner();
    signal(household.outer(), Signal::CONT);
    household.ends().await;
}

/// Nobody of ours is left then: it is the kernel that ends the hook, and only the hook (`docs/guarantees.md`).
#[tokio::test]
async fn a_hook_dies_when_everybody_above_it_is_killed_at_once() {
    let mut household = Household::new().await;
    freeze(household.inner).await;
    freeze(household.outer()).await;
    household.kill_above();
    household.kill_outer();
    household.kill_inner();
    eventually("its end", || is_gone(household.family[0])).await;
}

#[tokio::test]
async fn a_run_whose_guard_was_killed_is_over_only_when_the_hook_is_with_all_that_it_started() {
    let script = Script::new(FAMILY);
    let killing = async {
        let inner = script.pid("inner").await;
        let mut family = Vec::new();
        for member in MEMBERS {
            family.push(script.pid(member).await);
        }
        let outer = parent_of(inner).expect("the guard is there");
        signal(outer, Signal::KILL);
        family
    };
    let (outcome, family) = tokio::join!(script.run(LONG), killing);
    assert_eq!(outcome, Err(HookError::Signal(9)));
    for (member, pid) in MEMBERS.iter().zip(family) {
        assert_eq!(is_gone(pid), Some(()), "{member}");
    }
}
