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

/// One process under observation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter(u32);

impl Meter {
    /// The process of that id.
    pub(super) fn of(id: u32) -> Self {
        Self(id)
    }

    /// CPU time of all its threads, in user mode and in the kernel.
    pub(super) fn cpu(self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The fields after the command's name, which is in parentheses: proc_pid_stat(5), from 3.
        let fields: Option<Vec<&str>> = stat
            .rsplit(')')
            .next()
            .map(|rest| rest.split_whitespace().collect());
        let ticks = |field: usize| -> Option<u32> { fields.as_ref()?.get(field - 3)?.parse().ok() };
        let used = ticks(14).zip(ticks(15)).context("no times in stat")?;
        Ok(TICK * (used.0 + used.1))
    }

    /// Octets of memory, of pages shared with other processes their part (PSS).
    pub(super) fn memory(self) -> anyhow::Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let kib = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.context("no Pss in smaps_rollup")? * 1024)
    }

    /// Waits until it has nothing left to do.
    pub(super) async fn quiet(self) -> anyhow::Result<()> {
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
