//! What the clients do, in amounts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::backend::MESSAGE;
use super::client::{Client, appended};
use super::connection::Target;
use super::visit::visit;

/// Connections at once in logins, and while many sessions are opened.
const AT_ONCE: usize = 8;

/// Connections that carry bulk at once.
const STREAMS: usize = 2;

/// Which way bulk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the client: FETCH.
    Down,
    /// From the client: APPEND.
    Up,
}

/// So many logins.
pub(super) async fn logins(target: &Target, count: usize) -> anyhow::Result<()> {
    side_by_side(target, count, |target| async move { visit(&target).await }).await?;
    Ok(())
}

/// One login, and how long it took.
pub(super) async fn login(target: &Target) -> anyhow::Result<Duration> {
    let began = Instant::now();
    visit(target).await?;
    Ok(began.elapsed())
}

/// So many sessions that are logged in and wait in IDLE.
pub(super) async fn idlers(target: &Target, count: usize) -> anyhow::Result<Vec<Client>> {
    side_by_side(target, count, idler).await
}

/// The same, with so many logins between one session and the next.
pub(super) async fn idlers_among_logins(
    target: &Target,
    count: usize,
    logins_each: usize,
) -> anyhow::Result<Vec<Client>> {
    side_by_side(target, count, move |target| async move {
        for _ in 0..logins_each {
            visit(&target).await?;
        }
        idler(target).await
    })
    .await
}

async fn idler(target: Target) -> anyhow::Result<Client> {
    let mut client = Client::logged_in(&target).await?;
    client.idle().await?;
    Ok(client)
}

/// Octets that [`bulk`] moves.
pub(super) const fn octets(messages: usize) -> usize {
    messages * STREAMS * MESSAGE
}

/// Moves so many messages on each of a few connections at once.
pub(super) async fn bulk(
    target: &Target,
    direction: Direction,
    messages: usize,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        let target = target.clone();
        tasks.spawn(async move {
            let mut client = Client::logged_in(&target).await?;
            let message = appended();
            for _ in 0..messages {
                match direction {
                    Direction::Down => client.fetch().await?,
                    Direction::Up => client.append(&message).await?,
                }
            }
            client.logout().await
        });
    }
    finish(tasks).await?;
    Ok(())
}

/// The median time of so many NOOPs, one after the other.
pub(super) async fn noops(target: &Target, count: usize) -> anyhow::Result<Duration> {
    let mut client = Client::logged_in(target).await?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        client.command("NOOP").await?;
        times.push(began.elapsed());
    }
    client.logout().await?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Does a thing so many times, [`AT_ONCE`] at once.
async fn side_by_side<T, F>(
    target: &Target,
    count: usize,
    thing: impl Fn(Target) -> F + Copy + Send + 'static,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let left = Arc::new(Semaphore::new(count));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (left, target) = (Arc::clone(&left), target.clone());
        tasks.spawn(async move {
            let mut done = Vec::new();
            while let Ok(turn) = left.try_acquire() {
                turn.forget();
                done.push(thing(target.clone()).await?);
            }
            anyhow::Ok(done)
        });
    }
    Ok(finish(tasks).await?.into_iter().flatten().collect())
}

async fn finish<T: 'static>(mut tasks: JoinSet<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok(results)
}
