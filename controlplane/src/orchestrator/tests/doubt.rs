//! A store that does not say what became of a write, which may be in it, or not, or come late.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use ferrypost_proto::{Phase, v1::MigrationState};
use ferrypost_runtime::Random;
use tokio::time;

use super::{on_both_stores, world::World};
use crate::store::{
    KeyValue, LeaseError, LeaseId, Outage, Range, Rev, Store, StoreError, Txn, TxnOutcome,
    WatchStream,
};

on_both_stores! {
    a_move_ends_once_whatever_the_store_says_of_its_writes,
}

/// Longest that a write is late.
const LATE: Duration = Duration::from_millis(120);

/// A connection that is lost again and again while a write is under way.
struct Doubtful {
    inner: Arc<dyn Store>,
    random: Random,
}

/// What becomes of a write.
enum Fate {
    /// It is applied, and said so.
    Said,
    /// It is applied, and nobody is told.
    Applied,
    /// It is lost.
    Lost,
    /// It is applied when it has been given up.
    Late(Duration),
    /// It is refused.
    Refused,
}

impl Doubtful {
    fn fate(&self) -> Fate {
        match self.random.number() % 8 {
            0 => Fate::Applied,
            1 => Fate::Lost,
            2 => Fate::Late(LATE.mul_f64(self.random.fraction())),
            3 => Fate::Refused,
            _ => Fate::Said,
        }
    }
}

#[async_trait]
impl Store for Doubtful {
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        self.inner.get(key).await
    }

    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        self.inner.range(prefix, at).await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let unknown = Err(StoreError::UnknownOutcome(Outage::Connection));
        match self.fate() {
            Fate::Said => self.inner.transact(txn).await,
            Fate::Applied => {
                let _ = self.inner.transact(txn).await;
                unknown
            }
            Fate::Lost => unknown,
            Fate::Late(by) => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    // The fault itself: this write is on its way for so long.
                    time::sleep(by).await;
                    let _ = inner.transact(txn).await;
                });
                unknown
            }
            Fate::Refused => Err(StoreError::Unavailable(Outage::NoQuorum)),
        }
    }

    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError> {
        self.inner.watch(from).await
    }

    async fn revision(&self) -> Result<Rev, StoreError> {
        self.inner.revision().await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke(lease).await
    }

    async fn compact(&self, to: Rev) -> Result<(), StoreError> {
        self.inner.compact(to).await
    }
}

async fn a_move_ends_once_whatever_the_store_says_of_its_writes(mut world: World) {
    // Short enough that some moves are aborted while a flip is still on its way, and then long enough for any.
    let windows = [Duration::from_millis(150), world.window];
    let _plane = world.plane("dp-1").await;
    let doubtful = |seed| {
        Arc::new(Doubtful {
            inner: world.store.clone(),
            random: Random::seeded(seed),
        })
    };
    let _both = [
        world.orchestrator_over("cp-1", doubtful(1)),
        world.orchestrator_over("cp-2", doubtful(2)),
    ];
    let mut ends = [0, 0];
    let mut at = "source";
    for window in windows.into_iter().cycle().take(12) {
        world.window = window;
        let to = if at == "source" { "target" } else { "source" };
        let id = world.migrate(to).await;
        let migration = world.ended(&id).await;
        let alice = world.alice().await;
        assert_eq!((alice.phase, &alice.target), (Phase::Settled, &None));
        if migration.state() == MigrationState::Succeeded {
            at = to;
            ends[0] += 1;
        } else {
            ends[1] += 1;
        }
        assert_eq!(
            alice.home.as_str(),
            at,
            "the record and the migration say the same"
        );
        // What was given up may still come.
        time::sleep(LATE * 2).await;
        assert_eq!(
            world.alice().await,
            alice,
            "a write that comes late finds its guards broken"
        );
    }
    assert!(ends[0] > 0, "some moves must succeed: {ends:?}");
}
