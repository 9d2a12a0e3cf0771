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

/// One process under observation, with those that it has started.
#[derive(Debug, Clone)]
pub(super) struct Meter(Family);

/// Who belongs to it.
#[derive(Debug, Clone)]
enum Family {
    /// Those that were there when the observation began.
    Settled(Vec<u32>),
    /// Its children of the moment and those that it has outlived: processes come and go.
    Changing(u32),
}

impl Meter {
    /// The process of that id.
    pub(super) fn of(id: u32) -> anyhow::Result<Self> {
        let ids = std::iter::once(id).chain(children(id)?).collect();
        Ok(Self(Family::Settled(ids)))
    }

    /// The process of that id, which starts others for its work and waits for their end.
    pub(super) fn of_master(id: u32) -> Self {
        Self(Family::Changing(id))
    }

    /// How many there are.
    pub(super) fn processes(&self) -> usize {
        self.present().len()
    }

    fn present(&self) -> Vec<u32> {
        match &self.0 {
            Family::Settled(ids) => ids.clone(),
            Family::Changing(id) => {
                let children = children(*id).unwrap_or_default();
                std::iter::once(*id).chain(children).collect()
            }
        }
    }

    /// CPU time of all threads, in user mode and in the kernel.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        match &self.0 {
            Family::Settled(ids) => ids.iter().map(|id| Ok(cpu(*id)?.own)).sum(),
            Family::Changing(id) => {
                // One that ends in between is counted with its parent's, or the next time.
                let children = children(*id)?.into_iter().filter_map(|id| cpu(id).ok());
                let present: Duration = children.map(|it| it.own).sum();
                let master = cpu(*id)?;
                Ok(master.own + master.of_the_dead + present)
            }
        }
    }

    /// Octets of memory, of pages shared with other processes their part (PSS).
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        self.present().into_iter().map(memory).sum()
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

/// Those that a process has started and that run.
fn children(id: u32) -> anyhow::Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let children = children.split_whitespace().map(str::parse);
    Ok(children.collect::<Result<_, _>>()?)
}

/// CPU times of a process, in user mode and in the kernel.
struct Times {
    own: Duration,
    /// Of children that have ended.
    of_the_dead: Duration,
}

fn cpu(id: u32) -> anyhow::Result<Times> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The fields after the command's name, which is in parentheses: proc_pid_stat(5), from 3.
    let fields: Option<Vec<&str>> = stat
        .rsplit(')')
        .next()
        .map(|rest| rest.split_whitespace().collect());
    let ticks = |field: usize| -> Option<u32> { fields.as_ref()?.get(field - 3)?.parse().ok() };
    let time = |user, system| Some(TICK * (ticks(user)? + ticks(system)?));
    let times = time(14, 15).zip(time(16, 17));
    let (own, of_the_dead) = times.context("no times in stat")?;
    Ok(Times { own, of_the_dead })
}

fn memory(id: u32) -> anyhow::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("no Pss in smaps_rollup")? * 1024)
}
