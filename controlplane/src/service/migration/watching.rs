//! Watching every migration that fits a filter.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ferrypost_proto::{MigrationId, v1};
use futures_util::{Stream, stream};
use tokio::time;

use super::{MigrationFilter, MigrationUseCases, lookup::Wanted, waiting::has_ended};
use crate::{domain::state::State, refusal::Answer, service::ending};

/// Between two looks at all migrations. A thousand moves write some ten revisions each: whoever watches all of them
/// looks now and then, and not at each.
const PAUSE: Duration = Duration::from_millis(250);

/// A migration that has changed; `None` once all that there was at first has been said.
type Change = (Arc<State>, Option<v1::Migration>);

impl MigrationUseCases {
    /// Each migration that fits, and each change of it, for as long as somebody listens.
    ///
    /// # Errors
    /// When the account cannot be a name, or this replica does not catch up.
    pub async fn watch_all(
        &self,
        filter: &MigrationFilter,
    ) -> Answer<impl Stream<Item = Answer<Change>> + Send + use<>> {
        let state = self.core.caught_up().await?;
        let mut watching = Watching {
            desk: self.clone(),
            wanted: Wanted::of(&state, filter)?,
            shown: HashMap::new(),
            waiting: VecDeque::new(),
        };
        watching.look(&state, Look::First);
        watching.waiting.push_back((state, None));
        Ok(stream::try_unfold(watching, Watching::next))
    }
}

/// A watch of all that fit.
struct Watching {
    desk: MigrationUseCases,
    wanted: Wanted,
    /// What was sent last of each, as long as it is remembered here: ended ones as well, so that each is sent once.
    shown: HashMap<MigrationId, v1::Migration>,
    /// What is to be sent.
    waiting: VecDeque<Change>,
}

/// Which look it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Ended ones are taken note of and not sent: they are for `ListMigrations`.
    First,
    Later,
}

impl Watching {
    async fn next(mut self) -> Answer<Option<(Change, Self)>> {
        let core = self.desk.core.clone();
        let mut changed = core.mirror.changed();
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Ok(Some((change, self)));
            }
            changed.borrow_and_update();
            self.look(&core.mirror.read(), Look::Later);
            if !self.waiting.is_empty() {
                continue;
            }
            let news = async {
                _ = changed.changed().await;
                time::sleep(PAUSE).await;
            };
            tokio::select! {
                biased;
                () = core.ending.cancelled() => return Err(ending()),
                () = news => {}
            }
        }
    }

    /// Takes note of what is different.
    fn look(&mut self, state: &Arc<State>, look: Look) {
        self.shown.retain(|id, _| state.migration(id).is_some());
        for (id, record) in state.migrations() {
            let before = self.shown.get(id);
            if before.is_none() && !self.wanted.fits(&record.value) {
                continue;
            }
            if before.is_some_and(has_ended) {
                continue;
            }
            let now = self.desk.show(state, id, record);
            if before == Some(&now) {
                continue;
            }
            if look == Look::Later || !has_ended(&now) {
                self.waiting.push_back((state.clone(), Some(now.clone())));
            }
            if self.wanted.fits(&record.value) {
                self.shown.insert(id.clone(), now);
            } else {
                self.shown.remove(id);
            }
        }
    }
}
