//! How long moves take: to reach every data plane, and out of a client's day.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ferrypost_proto::v1::{
    MigrateRequest, Migration, MigrationState, Phase, WatchMigrationRequest,
};

use crate::imap::{Connect, ImapClient, ImapError};
use crate::world::World;

/// Accounts, each of which moves there and back.
const ACCOUNTS: usize = 25;

/// How long a client waits for a move.
const LIMIT: Duration = Duration::from_secs(30);

/// Milliseconds, one a move.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// From FLIPPED to RELEASED, as an operator who watches is told them. RELEASED is written when every
    /// data plane has reported that it routes by the flip, so this is more than what it stands for by a
    /// report's way and a commit.
    pub(super) applied: Vec<f64>,
    /// From FENCING to FLIPPED, on the leader's clock.
    pub(super) held: Vec<f64>,
    /// From the close of a client's session to the OK for its next login, on the new server.
    pub(super) away: Vec<f64>,
}

/// Moves accounts of two data planes without hooks, each with a session in IDLE on either.
pub(super) async fn measure() -> anyhow::Result<Moves> {
    let world = World::builder()
        .data_planes(2)
        .delta_hook(false)
        .numbered_accounts(ACCOUNTS)
        .start()
        .await?;
    let mut moves = Moves::default();
    for destination in ["target", "source"] {
        for account in world.accounts() {
            one(&world, account, destination, &mut moves)
                .await
                .with_context(|| format!("the move of {account} to {destination}"))?;
        }
    }
    world.stop().await?;
    Ok(moves)
}

async fn one(
    world: &World,
    account: &str,
    destination: &str,
    moves: &mut Moves,
) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for data_plane in 0..world.data_planes().len() {
        let connect = world.imaps(data_plane).limit(LIMIT);
        let mut client = log_in(&connect, account, world.password()).await?;
        let idle = client.idle().await?;
        let (account, password) = (account.to_owned(), world.password().to_owned());
        clients.push(tokio::spawn(async move {
            // Never ended by the client: the move does.
            let _ = idle;
            away(client, &connect, &account, &password).await
        }));
    }
    follow(world, account, destination, moves).await?;
    for client in clients {
        moves.away.push(milliseconds(client.await??));
    }
    Ok(())
}

/// Starts the move and notes when it comes how far.
async fn follow(
    world: &World,
    account: &str,
    destination: &str,
    moves: &mut Moves,
) -> anyhow::Result<()> {
    let mut migrations = world.operator(0).migrations();
    let answer = migrations
        .migrate(MigrateRequest {
            account: account.to_owned(),
            destination: destination.to_owned(),
            wait: Some(Duration::ZERO.try_into()?),
            ..MigrateRequest::default()
        })
        .await?;
    let migration_id = answer
        .into_inner()
        .migration
        .unwrap_or_default()
        .migration_id;
    let watch = WatchMigrationRequest { migration_id };
    let mut changes = migrations.watch_migration(watch).await?.into_inner();
    let mut flipped = None;
    let mut released = None;
    let mut last = Migration::default();
    while let Some(change) = changes.message().await? {
        let now = Instant::now();
        last = change.migration.unwrap_or_default();
        match last.phase() {
            Phase::Flipped => _ = flipped.get_or_insert(now),
            Phase::Released => _ = released.get_or_insert(now),
            _ => {}
        }
    }
    if last.state() != MigrationState::Succeeded {
        bail!("it ended in {:?}: {:?}", last.state(), last.abort_cause);
    }
    let held: Duration = last.held.context("the leader changed")?.try_into()?;
    moves.held.push(milliseconds(held));
    if let (Some(flipped), Some(released)) = (flipped, released) {
        moves.applied.push(milliseconds(released - flipped));
    }
    Ok(())
}

/// How long a client is away: from the close of its session to the OK for its next login.
async fn away(
    mut client: ImapClient,
    connect: &Connect,
    account: &str,
    password: &str,
) -> anyhow::Result<Duration> {
    loop {
        match client.next_response_within(LIMIT).await {
            Ok(_) => {}
            Err(ImapError::Closed { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let closed = Instant::now();
    let client = log_in(connect, account, password).await?;
    let away = closed.elapsed();
    client.logout().await?;
    Ok(away)
}

async fn log_in(connect: &Connect, account: &str, password: &str) -> anyhow::Result<ImapClient> {
    let mut client = connect.open().await?;
    client.login(account, password).await?.accepted()?;
    Ok(client)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
