//! The one task that feeds the mirror.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ferrypost_proto::{Revision, store::v1::Rewound};
use ferrypost_runtime::Backoff;
use futures_util::StreamExt as _;
use tokio::time;

use super::{
    Mirror, Standing,
    changelog::{ChangeLog, Entry},
    load::load,
};
use crate::{
    domain::state::{Applied, State},
    store::{
        Event, PROGRESS_INTERVAL, StoreError, Txn, WatchBatch, WatchError, keys, value::Stored,
    },
    wall_clock,
};

/// Silence after which the store counts as out of reach. The watch goes on by itself once it is back.
const SILENCE: Duration = Duration::from_secs(5 * PROGRESS_INTERVAL.as_secs());

/// First and longest pause between attempts to load.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// Loads and follows, for ever.
pub(super) async fn follow(mirror: Mirror) -> Infallible {
    let mut backoff = Backoff::new(mirror.0.options.random.clone(), PAUSES.0, PAUSES.1);
    loop {
        match load_and_watch(&mirror, &mut backoff).await {
            Interruption::Compacted => {
                tracing::info!("the store's history was compacted away; loading again");
            }
            Interruption::Store(error) => {
                tracing::warn!(%error, "the store cannot be followed; trying again");
            }
        }
        mirror.interrupted();
        time::sleep(backoff.pause()).await;
    }
}

/// Why following ended.
enum Interruption {
    Compacted,
    Store(StoreError),
}

impl From<StoreError> for Interruption {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { .. } => Self::Compacted,
            other => Self::Store(other),
        }
    }
}

impl From<WatchError> for Interruption {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Compacted { .. } => Self::Compacted,
            WatchError::Store(error) => error.into(),
        }
    }
}

async fn load_and_watch(mirror: &Mirror, backoff: &mut Backoff) -> Interruption {
    let loaded = match load(&*mirror.0.store, mirror.0.options.in_one_go).await {
        Ok(loaded) => loaded,
        Err(error) => return error.into(),
    };
    if let Err(error) = mirror.replace(loaded).await {
        return error.into();
    }
    match watch(mirror, backoff).await {
        Ok(never) => match never {},
        Err(interruption) => interruption,
    }
}

async fn watch(mirror: &Mirror, backoff: &mut Backoff) -> Result<Infallible, Interruption> {
    let from = mirror.read().revision() + 1;
    let mut batches = mirror.0.store.watch(from).await?;
    mirror.set_standing(Standing::Following);
    loop {
        match time::timeout(SILENCE, batches.next()).await {
            Err(_) => mirror.interrupted(),
            Ok(None) => return Err(Interruption::Store(StoreError::Closed)),
            Ok(Some(batch)) => {
                mirror.take(&batch?);
                mirror.set_standing(Standing::Following);
                backoff.reset();
            }
        }
    }
}

impl Mirror {
    fn interrupted(&self) {
        if self.read().revision() > 0 {
            self.set_standing(Standing::Interrupted);
        }
    }

    /// Publishes a loaded state in place of the present one. What the load lacks is gone by that.
    async fn replace(&self, loaded: State) -> Result<(), StoreError> {
        let before = self.read();
        if !continues(&before, &loaded) && loaded.rewound().is_none() {
            tracing::error!(
                before = before.revision(),
                now = loaded.revision(),
                "the store was restored to an older state"
            );
            // The next load finds it and is taken, whatever its revision.
            self.write_rewound(&before, &loaded).await?;
            return Err(StoreError::Future);
        }
        self.publish(|published| {
            published.log = ChangeLog::new(
                loaded.revision(),
                loaded.head().clone(),
                self.0.options.changes,
            );
            published.state = Arc::new(loaded);
        });
        self.0.waiters.wake_all();
        Ok(())
    }

    /// Proves the restore for everybody and for good. Whoever was first is fine.
    async fn write_rewound(&self, before: &State, loaded: &State) -> Result<(), StoreError> {
        let proof = Rewound {
            instance: self.0.options.replica.as_str().to_owned(),
            held: Some(before.wire_revision().into()),
            store: Some(Revision::new(loaded.base(), loaded.revision()).into()),
            detected_at: Some(wall_clock::now()),
            ..Rewound::default()
        };
        let txn = Txn::new()
            .absent(keys::REWOUND)
            .put(keys::REWOUND, Stored::new(proof).bytes());
        self.0.store.transact(txn).await.map(|_| ())
    }

    /// Takes in what a watch told: every transaction on its own, in order.
    fn take(&self, batch: &WatchBatch) {
        let mut migrations = Vec::new();
        self.publish(|published| {
            let state = Arc::make_mut(&mut published.state);
            for events in batch
                .events
                .chunk_by(|a, b| a.mod_revision() == b.mod_revision())
            {
                let mut applied = state.apply(events);
                migrations.append(&mut applied.migrations);
                if let Some(entry) = entry(state, events, applied) {
                    published.log.append(entry);
                }
            }
            state.reach(batch.revision);
        });
        self.0.waiters.wake(&migrations);
    }
}

/// What the events of one transaction changed in routing, for the log.
fn entry(state: &State, events: &[Event], applied: Applied) -> Option<Entry> {
    let revision = events.first()?.mod_revision();
    let changes = applied.changes;
    if !changes.is_empty() && !applied.moved_head {
        tracing::error!(revision, "routing was changed without moving the head");
    }
    (applied.moved_head || !changes.is_empty()).then(|| Entry {
        revision,
        nonce: state.head().nonce.clone().into(),
        changes,
    })
}

/// Whether `now` can be a later state of the history that `before` is of.
fn continues(before: &State, now: &State) -> bool {
    before.revision() == 0
        || (now.revision() >= before.revision()
            && now.installation() == before.installation()
            && (now.head().store > before.head().store || now.head() == before.head()))
}
