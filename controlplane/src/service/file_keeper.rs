//! Keeps the routing configuration as the control plane's own file has it.
//!
//! Under `file` the leader applies the file whenever it has changed; under `api` whoever finds the store
//! without a document sows it. A file that is refused leaves the document in force: it is said in the
//! log once, and by `GetRoutingConfig` for as long as it is so.

use std::{path::PathBuf, time::Duration};

use ferrypost_runtime::reload::Stamps;
use tokio::time;

use super::routing_config::RoutingUseCases;
use crate::{
    config::RoutingSource, domain::state::State, refusal::Kind, routing_file::RoutingFile,
    store::Rev,
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who may put the file in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authority {
    /// The leader, by its fencing token.
    Leader(Rev),
    /// Anybody, into a store without a document.
    Sower,
}

/// What an attempt rested on. The same once more would come to the same.
#[derive(Debug, PartialEq)]
struct Occasion {
    authority: Authority,
    in_force: Option<Rev>,
    files: Stamps,
}

/// Watches the file for as long as it is polled.
pub async fn keep(desk: RoutingUseCases) {
    let mirror = desk.core().mirror.clone();
    let mut changed = mirror.changed();
    let mut keeper = Keeper::new(desk);
    let mut looking = time::interval(LOOK_EVERY);
    looking.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looking.tick() => keeper.look_at_files(),
            gone = changed.changed() => if gone.is_err() { return },
        }
        keeper.act(&mirror.read()).await;
    }
}

struct Keeper {
    desk: RoutingUseCases,
    /// The file and the certificates that it named when it was last read.
    sources: Vec<PathBuf>,
    files: Stamps,
    done: Option<Occasion>,
}

/// What came of an attempt.
enum Attempt {
    /// The file is in force, with this version.
    InForce(Rev),
    /// It is refused until it changes, or the document in force does.
    Refused,
    /// Worth trying again.
    Again,
}

impl Keeper {
    fn new(desk: RoutingUseCases) -> Self {
        let sources = vec![desk.file().to_owned()];
        Self {
            files: Stamps::of(&sources),
            sources,
            desk,
            done: None,
        }
    }

    fn look_at_files(&mut self) {
        self.files = Stamps::of(&self.sources);
    }

    /// Applies the file if it is ours to do and something has changed since the last time.
    async fn act(&mut self, state: &State) {
        let Some(authority) = self.ours_to_do(state) else {
            return;
        };
        let mut occasion = Occasion {
            authority,
            in_force: state.config().map(|config| config.version),
            files: self.files.clone(),
        };
        if self.done.as_ref() == Some(&occasion) {
            return;
        }
        match self.apply(authority).await {
            Attempt::Again => return,
            Attempt::Refused => {}
            Attempt::InForce(version) => occasion.in_force = Some(version),
        }
        occasion.files = self.files.clone();
        self.done = Some(occasion);
    }

    /// Under `file` it is the leader's, by its token; under `api` anybody's, while there is no document.
    fn ours_to_do(&self, state: &State) -> Option<Authority> {
        match self.desk.source() {
            RoutingSource::Api => {
                let empty = state.revision() > 0 && state.config().is_none();
                empty.then_some(Authority::Sower)
            }
            RoutingSource::File => state
                .leader()
                .filter(|(replica, _)| **replica == self.desk.core().replica)
                .map(|(_, token)| Authority::Leader(token)),
        }
    }

    async fn apply(&mut self, authority: Authority) -> Attempt {
        let path = self.desk.file().to_owned();
        let read = tokio::task::spawn_blocking(move || RoutingFile::load(&path)).await;
        let file = match read {
            Ok(Ok(file)) => file,
            Ok(Err(mistakes)) => {
                tracing::error!(%mistakes, "the routing file is not applied");
                return Attempt::Refused;
            }
            Err(_) => return Attempt::Again,
        };
        if self.sources != file.sources() {
            self.sources = file.sources().to_vec();
            self.look_at_files();
        }
        match self.desk.apply_file(&file, authority).await {
            Ok(version) => {
                tracing::info!(version, file = %self.desk.file().display(),
                    "the routing file is in force");
                for warning in file.config().warnings() {
                    tracing::warn!(warning, "routing configuration");
                }
                Attempt::InForce(version)
            }
            Err(refusal) if refusal.reason.kind() == Kind::Unavailable => Attempt::Again,
            Err(refusal) => {
                let why: Vec<_> = refusal
                    .violations
                    .iter()
                    .map(|v| format!("{}: {}", v.subject, v.description))
                    .collect();
                tracing::error!(%refusal, ?why, "the routing file is not applied");
                Attempt::Refused
            }
        }
    }
}
