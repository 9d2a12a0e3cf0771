//! The delta hook as a real process under the real guard.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use ferrypost_controlplane::hook::{
    Deadline, DeltaHook, GuardedHook, HookError, Order, OrderAccount, SCHEMA,
};
use tempfile::TempDir;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

mod guards;

/// Nothing takes as long as this unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// A limit that no test waits for.
const LONG: Duration = Duration::from_mins(10);

/// The control plane's binary, which is also the guard.
fn guard() -> PathBuf {
    env!("CARGO_BIN_EXE_ferrypost-controlplane").into()
}

/// A hook that is a shell script, with a folder of its own as its argument.
struct Script {
    folder: TempDir,
    hook: GuardedHook,
}

impl Script {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = folder.path().join("hook");
        fs::write(&script, format!("#!/bin/sh\ncd \"$1\" || exit 9\n{body}\n"))
            .expect("the folder is ours");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .expect("the script is ours");
        let command: Vec<OsString> = vec![script.into(), folder.path().into()];
        Self {
            hook: GuardedHook::new(guard(), command, PATIENCE),
            folder,
        }
    }

    async fn run(&self, limit: Duration) -> Result<(), HookError> {
        self.run_until(limit, CancellationToken::new()).await
    }

    async fn run_until(&self, limit: Duration, stop: CancellationToken) -> Result<(), HookError> {
        self.hook.run(order(), Deadline::after(limit), stop).await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a number that the script has written.
    async fn pid(&self, name: &str) -> i32 {
        eventually("the script's process id", || self.pid_now(name)).await
    }

    fn pid_now(&self, name: &str) -> Option<i32> {
        fs::read_to_string(self.file(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A process is gone when it has no entry any more, or is a zombie that only waits to be read.
fn is_gone(pid: i32) -> Option<()> {
    matches!(state_of(pid), None | Some('Z')).then_some(())
}

/// The letter of a process's state; `None`: there is no such process.
fn state_of(pid: i32) -> Option<char> {
    after_name(pid)?.chars().next()
}

/// What the kernel tells of a process, from its state on.
fn after_name(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn order() -> Order {
    Order {
        schema: SCHEMA,
        migration_id: "move-00000000000000000000000000".to_owned(),
        kind: "migrate",
        source: "old".to_owned(),
        target: "new".to_owned(),
        accounts: vec![OrderAccount {
            account_id: "acct-00000000000000000000000000".to_owned(),
            names: vec!["alice@example.org".to_owned()],
        }],
        deadline_seconds: 0.0,
        attempt: 2,
    }
}

#[tokio::test]
async fn a_hook_gets_its_order_and_an_environment_of_its_own() {
    let script = Script::new("cat > order; env | sort > environment; pwd -P > where");
    assert_eq!(script.run(PATIENCE).await, Ok(()));
    let order: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(script.file("order")).unwrap()).unwrap();
    assert_eq!(order["schema"], 1);
    assert_eq!(order["kind"], "migrate");
    assert_eq!(
        (&order["source"], &order["target"]),
        (&"old".into(), &"new".into())
    );
    assert_eq!(order["accounts"][0]["names"][0], "alice@example.org");
    assert_eq!(order["attempt"], 2);
    let deadline = order["deadline_seconds"].as_f64().unwrap();
    assert!(deadline > 0.0 && deadline <= PATIENCE.as_secs_f64());
    let environment = fs::read_to_string(script.file("environment")).unwrap();
    let names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        // The shell's own.
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(names, ["LANG", "PATH"]);
}

#[tokio::test]
async fn its_exit_code_decides() {
    assert_eq!(
        Script::new("exit 3").run(PATIENCE).await,
        Err(HookError::Code(3))
    );
    assert_eq!(
        Script::new("exit 124").run(PATIENCE).await,
        Err(HookError::Code(123))
    );
    assert_eq!(
        Script::new("kill -TERM $$").run(PATIENCE).await,
        Err(HookError::Signal(15))
    );
}

#[tokio::test]
async fn a_hook_that_cannot_be_started_is_told_from_one_that_failed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = |name: &str, mode| {
        let file = folder.path().join(name);
        fs::write(&file, "#!/nonexistent/interpreter\n").expect("the folder is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("the file is ours");
        file
    };
    let programs = [
        folder.path().join("missing"),
        script("not-for-running", 0o644),
        script("without-interpreter", 0o755),
    ];
    for program in programs {
        let hook = GuardedHook::new(guard(), vec![program.into()], PATIENCE);
        let outcome = hook
            .run(order(), Deadline::after(PATIENCE), CancellationToken::new())
            .await;
        assert!(matches!(outcome, Err(HookError::Start(_))), "{outcome:?}");
    }
}

/// Our own programs ignore it, and whoever is started with it ignored never dies of it.
#[tokio::test]
async fn a_hook_dies_of_a_broken_pipe_as_a_program_does_that_a_shell_has_started() {
    assert_eq!(
        Script::new("kill -PIPE $$").run(PATIENCE).await,
        Err(HookError::Signal(13))
    );
}

#[tokio::test]
async fn a_hook_that_does_not_read_its_order_may_still_succeed() {
    assert_eq!(Script::new("exec <&-; exit 0").run(PATIENCE).await, Ok(()));
}

#[tokio::test]
async fn a_late_hook_is_killed_with_all_its_children() {
    let script = Script::new("echo $$ > self; sleep 600 & echo $! > child; wait");
    let mut limit = Duration::from_millis(800);
    // On a machine that is busy the hook may not have got that far.
    while script.pid_now("child").is_none() {
        let started = Instant::now();
        assert_eq!(script.run(limit).await, Err(HookError::Late));
        assert!(started.elapsed() >= limit);
        assert!(limit < LONG, "the hook is never started");
        limit *= 2;
    }
    for name in ["self", "child"] {
        let pid = script.pid(name).await;
        eventually("its end", || is_gone(pid)).await;
    }
}

#[tokio::test]
async fn what_a_successful_hook_leaves_behind_is_killed() {
    let script = Script::new("sleep 600 & echo $! > child; exit 0");
    let started = Instant::now();
    assert_eq!(script.run(PATIENCE).await, Ok(()));
    assert!(
        started.elapsed() < PATIENCE,
        "the child's hold on the pipes does not matter"
    );
    let child = script.pid("child").await;
    eventually("its end", || is_gone(child)).await;
}

#[tokio::test]
async fn a_daemon_that_a_successful_hook_leaves_behind_is_dead_when_its_run_ends() {
    let script = Script::new(
        "(setsid sh -c 'echo $$ > daemon; exec sleep 600' </dev/null >/dev/null 2>&1 &)\n\
         until [ -s daemon ]; do sleep 0.01; done",
    );
    assert_eq!(script.run(PATIENCE).await, Ok(()));
    assert_eq!(is_gone(script.pid("daemon").await), Some(()));
}

#[tokio::test]
async fn a_hook_dies_with_the_control_plane() {
    let script = Script::new("echo $$ > self; sleep 600");
    let pid = {
        let run = Box::pin(script.run(PATIENCE));
        let pid = script.pid("self");
        match futures_util::future::select(run, Box::pin(pid)).await {
            futures_util::future::Either::Left((outcome, _)) => panic!("it ended: {outcome:?}"),
            // Dropping the run closes the lifeline, as the death of the process does.
            futures_util::future::Either::Right((pid, _run)) => pid,
        }
    };
    eventually("its end", || is_gone(pid)).await;
}

#[tokio::test]
async fn a_deadline_that_is_over_starts_nothing() {
    let script = Script::new("touch started");
    let outcome = script.run(Duration::ZERO).await;
    assert_eq!(outcome, Err(HookError::Late));
    assert!(!script.file("started").exists());
}

#[tokio::test]
async fn endless_output_neither_blocks_nor_fills_the_memory() {
    let script = Script::new("head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 0");
    assert_eq!(script.run(LONG).await, Ok(()));
}

#[tokio::test]
async fn a_hook_that_is_stopped_is_dead_when_its_run_ends() {
    let script = Script::new("trap '' TERM; echo $$ > self; sleep 600");
    let stop = CancellationToken::new();
    let stopping = async {
        let pid = script.pid("self").await;
        stop.cancel();
        pid
    };
    let (outcome, pid) = tokio::join!(script.run_until(PATIENCE, stop.clone()), stopping);
    assert_eq!(outcome, Err(HookError::Stopped));
    assert_eq!(is_gone(pid), Some(()));
}
