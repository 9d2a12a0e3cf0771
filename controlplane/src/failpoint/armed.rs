//! Failpoints that do something.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time;

use super::{ALL, Injected, OF_A_RESTORE};

/// How often a paused step looks for its file.
const LOOK: Duration = Duration::from_millis(20);

/// What happens at a failpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The process is killed with SIGKILL.
    Kill,
    /// The step fails.
    Error,
    /// The step is late.
    Sleep(Duration),
    /// The step waits until the file exists.
    Pause(PathBuf),
    /// The step never ends: as if the process had died there, for tests in one process.
    Halt,
}

/// What is armed.
#[derive(Debug, Clone, Default)]
pub struct Failpoints(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    armed: HashMap<&'static str, Action>,
    passed: Vec<&'static str>,
}

/// The list of failpoints cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a failpoint and its action: {0}")]
pub struct BadFailpoint(String);

impl Failpoints {
    /// What `FERRYPOST_FAILPOINTS` arms, one for the whole process.
    ///
    /// # Panics
    /// If it says something else: a test that fails nowhere would pass for nothing.
    pub fn from_environment() -> Self {
        static OF_THE_PROCESS: OnceLock<Failpoints> = OnceLock::new();
        let of_the_process = OF_THE_PROCESS.get_or_init(|| {
            let text = std::env::var("FERRYPOST_FAILPOINTS").unwrap_or_default();
            match Self::parse(&text) {
                Ok(failpoints) => failpoints,
                Err(error) => panic!("FERRYPOST_FAILPOINTS: {error}"),
            }
        });
        of_the_process.clone()
    }

    /// Arms what a list says.
    pub fn parse(text: &str) -> Result<Self, BadFailpoint> {
        let failpoints = Self::default();
        for item in text
            .split(';')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let bad = || BadFailpoint(item.to_owned());
            let (name, action) = item.split_once('=').ok_or_else(bad)?;
            let name = ALL
                .iter()
                .chain(OF_A_RESTORE)
                .find(|known| **known == name)
                .ok_or_else(bad)?;
            failpoints.arm(name, parse_action(action).ok_or_else(bad)?);
        }
        Ok(failpoints)
    }

    /// Arms one.
    pub fn arm(&self, name: &'static str, action: Action) {
        assert!(
            ALL.iter().chain(OF_A_RESTORE).any(|known| *known == name),
            "{name} is a failpoint"
        );
        self.inner().armed.insert(name, action);
    }

    /// Disarms all of them.
    pub fn disarm(&self) {
        self.inner().armed.clear();
    }

    /// The names that were reached so far, in order.
    pub fn passed(&self) -> Vec<&'static str> {
        self.inner().passed.clone()
    }

    /// Does what is armed for `name`.
    pub async fn reach(&self, name: &'static str) -> Result<(), Injected> {
        let action = {
            let mut inner = self.inner();
            inner.passed.push(name);
            inner.armed.get(name).cloned()
        };
        match action {
            None => {}
            Some(Action::Error) => return Err(Injected(name)),
            Some(Action::Sleep(time)) => time::sleep(time).await,
            Some(Action::Pause(file)) => {
                while !file.exists() {
                    time::sleep(LOOK).await;
                }
            }
            Some(Action::Halt) => std::future::pending().await,
            Some(Action::Kill) => kill_ourselves().await,
        }
        Ok(())
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn kill_ourselves() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::future::pending::<()>().await;
}

fn parse_action(text: &str) -> Option<Action> {
    let (verb, argument) = match text.split_once('(') {
        None => (text, None),
        Some((verb, rest)) => (verb, Some(rest.strip_suffix(')')?)),
    };
    Some(match (verb, argument) {
        ("kill", None) => Action::Kill,
        ("error", None) => Action::Error,
        ("sleep", Some(ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
        ("pause", Some(file)) if !file.is_empty() => Action::Pause(file.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_arms_what_it_names() {
        let text = "flipped.before=error; fencing.after=sleep(1500)";
        let failpoints = Failpoints::parse(text).unwrap();
        assert_eq!(
            failpoints.reach("flipped.before").await,
            Err(Injected("flipped.before"))
        );
        let before = time::Instant::now();
        assert_eq!(failpoints.reach("fencing.after").await, Ok(()));
        assert_eq!(before.elapsed(), Duration::from_millis(1500));
        assert_eq!(failpoints.reach("settled.after").await, Ok(()));
        assert_eq!(
            failpoints.passed(),
            ["flipped.before", "fencing.after", "settled.after"]
        );
    }

    #[test]
    fn a_misspelt_list_is_refused() {
        for bad in [
            "flipped",
            "flipt.before=kill",
            "flipped.before=die",
            "flipped.before=pause()",
        ] {
            assert!(Failpoints::parse(bad).is_err(), "{bad}");
        }
        assert!(Failpoints::parse("").is_ok());
    }

    #[tokio::test]
    async fn a_paused_step_waits_for_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("go");
        let failpoints = Failpoints::default();
        failpoints.arm("flipped.before", Action::Pause(file.clone()));
        let reach = failpoints.reach("flipped.before");
        tokio::pin!(reach);
        let early = time::timeout(LOOK * 3, &mut reach).await;
        assert!(early.is_err(), "it waits");
        std::fs::write(&file, "").unwrap();
        assert_eq!(reach.await, Ok(()));
    }
}
