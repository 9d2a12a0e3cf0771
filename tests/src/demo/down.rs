//! `demo-down`: stops exactly what `demo-up` has started.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::process::Command;

use crate::dovecot::Role;
use crate::process::{ProcessMark, find_program};

use super::Paths;
use super::installed::Installed;

/// Above a data plane's own limit for its last sessions (20 s) and its goodbye (5 s).
const GRACE: Duration = Duration::from_secs(30);

/// Stops what an earlier `demo-up` has started, as much of it as still runs.
///
/// # Errors
/// When a file cannot be read or removed.
pub async fn down() -> anyhow::Result<()> {
    match stop(&Paths::new()).await? {
        Some(count) => println!("stopped {count} processes; the demo is down"),
        None => println!("the demo is not running"),
    }
    Ok(())
}

/// Stops everything and removes all files; how many processes still ran, or `None` without a demo.
pub(super) async fn stop(paths: &Paths) -> anyhow::Result<Option<usize>> {
    // First: whoever reads it relies on all being up.
    gone(fs::remove_file(paths.env()))?;
    let Some(installed) = Installed::read(&paths.installed())? else {
        return Ok(None);
    };
    let running = installed.processes.len() - installed.ended().len();
    // Data planes say goodbye to the control plane, and their sessions end before the servers do.
    stop_those(&installed, |name| name.starts_with("gateway")).await;
    stop_those(&installed, |name| name.starts_with("control-plane")).await;
    for role in [Role::Source, Role::Target] {
        kick_everybody(&installed.folder.join(role.name()).join("dovecot.conf")).await;
    }
    stop_those(&installed, |_| true).await;
    gone(fs::remove_dir_all(&installed.folder))?;
    gone(fs::remove_file(paths.installed()))?;
    Ok(Some(running))
}

async fn stop_those(installed: &Installed, which: impl Fn(&str) -> bool) {
    let chosen: Vec<ProcessMark> = installed
        .processes
        .iter()
        .filter(|(name, _)| which(name))
        .map(|(_, mark)| *mark)
        .collect();
    join_all(chosen.into_iter().map(|mark| mark.stop_group(GRACE))).await;
}

/// Dovecot waits ten seconds for sessions to end by themselves. That it is gone already, or that
/// nobody is there, is no failure.
async fn kick_everybody(configuration: &Path) {
    if let Ok(doveadm) = find_program(Path::new("doveadm")) {
        let kick = Command::new(doveadm)
            .arg("-c")
            .arg(configuration)
            .args(["kick", "*"])
            .output()
            .await;
        drop(kick);
    }
}

/// What is gone already need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
