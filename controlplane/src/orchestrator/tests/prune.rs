//! What ended long ago is removed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use ferrypost_proto::{
    MigrationId,
    store::v1::{MigrationRecord, RequestEntry},
    v1::{self, MigrationState},
};
use tokio::time;

use super::{
    on_both_stores,
    world::{Orchestrator, PATIENCE, World},
};
use crate::{
    domain::state::State,
    store::{Txn, keys, value::Stored},
    wall_clock::{self, WallClock},
};

on_both_stores! {
    what_ended_long_ago_is_removed_and_an_accounts_last_move_stays,
    a_leader_that_dies_while_it_prunes_leaves_the_rest_to_the_next_one,
}

const KEEP: Duration = Duration::from_hours(24);
const DAY: i64 = 24 * 60 * 60;

/// Seconds that the tests' clock is ahead.
type Ahead = Arc<AtomicI64>;

fn pruning(world: &World, name: &str, ahead: &Ahead) -> Orchestrator {
    let ahead = ahead.clone();
    world.orchestrator_with(name, |options| {
        options.keep = KEEP;
        options.prune_every = Duration::from_millis(20);
        options.clock = WallClock::new(move || {
            let mut now = wall_clock::now();
            now.seconds += ahead.load(Ordering::SeqCst);
            now
        });
    })
}

fn request(migration: &MigrationId) -> bytes::Bytes {
    let entry = RequestEntry {
        migration_id: migration.as_str().to_owned(),
        ..RequestEntry::default()
    };
    Stored::new(entry).bytes()
}

impl World {
    async fn is_there(&self, request: &str) -> bool {
        let (found, _) = self.store.get(&keys::request(request)).await.unwrap();
        found.is_some()
    }

    /// Waits until whoever prunes has looked at everything once more: a request that belongs to no migration
    /// goes in every round, and a round that begins after it was written ends after it is gone twice.
    async fn pruned_once_more(&self) {
        for _ in 0..2 {
            let nobody = MigrationId::generate(self.random.bytes());
            let key = keys::request("~nobody's");
            self.commit(Txn::new().put(key, request(&nobody))).await;
            let gone = async {
                while self.is_there("~nobody's").await {
                    time::sleep(Duration::from_millis(5)).await;
                }
            };
            let gone = time::timeout(PATIENCE, gone).await;
            gone.expect("somebody prunes");
        }
    }
}

async fn what_ended_long_ago_is_removed_and_an_accounts_last_move_stays(world: World) {
    let _plane = world.plane("dp-1").await;
    let ahead = Ahead::default();
    let _orchestrator = pruning(&world, "cp-1", &ahead);
    let first = world.migrate("target").await;
    world.succeeds(&first).await;
    let last = world.rollback().await;
    world.succeeds(&last).await;
    let requests = Txn::new()
        .put(keys::request("first"), request(&first))
        .put(keys::request("last"), request(&last));
    world.commit(requests).await;

    world.pruned_once_more().await;
    assert!(world.state().await.migration(&first).is_some());
    assert!(world.is_there("first").await && world.is_there("last").await);

    ahead.store(2 * DAY, Ordering::SeqCst);
    world
        .eventually("the removal of the first move", |state| {
            state.migration(&first).is_none().then_some(())
        })
        .await;
    world.pruned_once_more().await;
    assert!(!world.is_there("first").await);
    // Its migration stays as the account's last one; the request id is free all the same.
    assert!(!world.is_there("last").await);
    let state = world.state().await;
    assert!(state.migration(&last).is_some());
    assert_eq!(state.counts().migrations[&MigrationState::Succeeded], 1);
    assert_eq!(world.alice().await.migration_id, Some(last));
}

/// Removed, beside what is not old.
fn left(state: &State) -> usize {
    state.past().count()
}

async fn a_leader_that_dies_while_it_prunes_leaves_the_rest_to_the_next_one(world: World) {
    let now = wall_clock::now().seconds;
    let ended = |seconds: i64| {
        Stored::new(MigrationRecord {
            state: MigrationState::Aborted.into(),
            phase: v1::Phase::Settled.into(),
            ended_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..MigrationRecord::default()
        })
        .bytes()
    };
    for _ in 0..6 {
        let txn = (0..100).fold(Txn::new(), |txn, _| {
            let id = MigrationId::generate(world.random.bytes());
            txn.put(keys::migration(&id), ended(now - 2 * DAY))
        });
        world.commit(txn).await;
    }
    let young = MigrationId::generate(world.random.bytes());
    let key = keys::migration(&young);
    world.commit(Txn::new().put(key, ended(now))).await;
    let before = left(&world.state().await);

    let first = pruning(&world, "cp-1", &Ahead::default());
    world
        .eventually("a part of it gone", |state| {
            (left(state) < before).then_some(())
        })
        .await;
    first.kill().await;
    world.leader_lease_ends().await;
    let _second = pruning(&world, "cp-2", &Ahead::default());
    world
        .eventually("the rest gone", |state| {
            state.past().map(|(id, _)| id).eq([&young]).then_some(())
        })
        .await;
    let state = world.state().await;
    assert_eq!(state.counts().migrations[&MigrationState::Aborted], 1);
}
