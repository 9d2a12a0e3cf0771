//! What a process has used, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use crate::wait::eventually;

/// The unit of `/proc/<id>/stat`, 10 ms (`USER_HZ`, which is part of the kernel's interface).
const TICK: Duration = Duration::from_millis(10);

/// A process that uses no CPU for so long has nothing left to do.
const QUIET: Duration = Duration::from_millis(300);

/// How long that may take.
const QUIET_LIMIT: Duration = Duration::from_secs(20);

/// One process under observation, with those that it has started when the observation begins.
#[derive(Debug, Clone)]
pub(super) struct Meter(Vec<u32>);

impl Meter {
    /// The process of that id.
    pub(super) fn of(id: u32) -> anyhow::Result<Self> {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let children = children.split_whitespace().map(str::parse);
        let ids: Result<_, _> = std::iter::once(Ok(id)).chain(children).collect();
        Ok(Self(ids?))
    }

    /// How many there are.
    pub(super) fn processes(&self) -> usize {
        self.0.len()
    }

    /// CPU time of all threads, in user mode and in the kernel.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        self.0.iter().map(|id| cpu(*id)).sum()
    }

    /// Octets of memory, of pages shared with other processes their part (PSS).
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        self.0.iter().map(|id| memory(*id)).sum()
    }

    /// Waits until it has nothing left to do.
    pub(super) async fn quiet(&self) -> anyhow::Result<()> {
        let mut last = None;
        let mut since = tokio::time::Instant::now();
        eventually("a process comes to rest", QUIET_LIMIT, || {
            let now = self.cpu().map_err(|error| error.to_string());
            if now.as_ref().ok() != last.as_ref() {
                last = now.as_ref().ok().copied();
                since = tokio::time::Instant::now();
            }
            let rests = now.and_then(|_| {
                if since.elapsed() >= QUIET {
                    Ok(())
                } else {
                    Err("it still works".to_owned())
                }
            });
            std::future::ready(rests)
        })
        .await?;
        Ok(())
    }
}

fn cpu(id: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The fields after the command's name, which is in parentheses: proc_pid_stat(5), from 3.
    let fields: Option<Vec<&str>> = stat
        .rsplit(')')
        .next()
        .map(|rest| rest.split_whitespace().collect());
    let ticks = |field: usize| -> Option<u32> { fields.as_ref()?.get(field - 3)?.parse().ok() };
    let used = ticks(14).zip(ticks(15)).context("no times in stat")?;
    Ok(TICK * (used.0 + used.1))
}

fn memory(id: u32) -> anyhow::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("no Pss in smaps_rollup")? * 1024)
}
