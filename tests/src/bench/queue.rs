//! What a move costs the leader, by how many are queued beside it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ferrypost_proto::v1::MigrateRequest;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;

use super::meter::Meter;
use crate::world::{StoreKind, World};

/// Moves that are queued at once.
const QUEUES: [usize; 2] = [500, 5_000];

/// Operators who ask for them.
const OPERATORS: usize = 64;

/// How long all of them may take.
const LIMIT: Duration = Duration::from_mins(30);

/// How often it is asked how many have moved.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// One queue that was worked off.
#[derive(Debug)]
pub(super) struct Queue {
    /// The store.
    pub(super) store: &'static str,
    /// Moves in it.
    pub(super) moves: usize,
    /// CPU time of the leader's whole process a move: decisions, store, streams.
    pub(super) cpu: Duration,
    /// From the first fence to the last flip.
    pub(super) took: Duration,
}

/// Queues of either size over either store, of three data planes without sessions.
pub(super) async fn measure() -> anyhow::Result<Vec<Queue>> {
    let mut queues = Vec::new();
    for (store, name) in [(StoreKind::Embedded, "embedded"), (StoreKind::Etcd, "etcd")] {
        for moves in QUEUES {
            let queue = one(store, name, moves).await;
            queues.push(queue.with_context(|| format!("{moves} moves over {name}"))?);
        }
    }
    Ok(queues)
}

async fn one(store: StoreKind, name: &'static str, moves: usize) -> anyhow::Result<Queue> {
    let mut world = World::builder()
        .data_planes(3)
        .delta_hook(false)
        .store(store)
        .start()
        .await?;
    // Nothing is fenced while a data plane does not answer.
    world.data_plane(0).freeze()?;
    ask_for(&world, moves).await?;
    let leader = world.control_plane(0).id().context("the leader runs")?;
    let leader = Meter::of(leader)?;
    let (before, began) = (leader.cpu()?, Instant::now());
    world.data_plane(0).resume()?;
    while flipped(&world).await? < moves {
        if began.elapsed() > LIMIT {
            bail!("{} flipped within {LIMIT:?}", flipped(&world).await?);
        }
        sleep(ASK_EVERY).await;
    }
    let (used, took) = (leader.cpu()?.saturating_sub(before), began.elapsed());
    world.stop().await?;
    Ok(Queue {
        store: name,
        moves,
        cpu: used / u32::try_from(moves)?,
        took,
    })
}

async fn ask_for(world: &World, moves: usize) -> anyhow::Result<()> {
    let migrations = world.operator(0).migrations();
    let asked = (0..moves).map(|n| {
        let mut migrations = migrations.clone();
        async move {
            let request = MigrateRequest {
                account: format!("queued{n}@example.org"),
                destination: "target".to_owned(),
                wait: Some(Duration::ZERO.try_into()?),
                ..MigrateRequest::default()
            };
            migrations.migrate(request).await?;
            anyhow::Ok(())
        }
    });
    stream::iter(asked)
        .buffer_unordered(OPERATORS)
        .try_collect()
        .await
}

async fn flipped(world: &World) -> anyhow::Result<usize> {
    let stats = world.operator(0).get_stats().await?;
    let counts = stats.migrations.iter();
    let flipped = counts.filter(|count| count.state == "SUCCEEDED");
    let flipped: u64 = flipped.map(|count| count.migrations).sum();
    Ok(usize::try_from(flipped)?)
}
