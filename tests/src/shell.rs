//! Commands as people type them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::find_program;

/// A command that hangs is what many of them are about.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs a script in a shell, and gives back what it printed.
///
/// # Errors
/// When it does not end by itself, or not with success.
pub async fn shell(script: &str) -> anyhow::Result<String> {
    shell_within(LIMIT, script).await
}

/// The same of one that may take longer.
///
/// # Errors
/// As above.
pub async fn shell_within(limit: Duration, script: &str) -> anyhow::Result<String> {
    let child = Command::new(find_program(Path::new("sh"))?)
        .args(["-e", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let ended = timeout(limit, child.wait_with_output()).await;
    let output = ended.with_context(|| format!("it hangs:\n{script}"))??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}\n{said}\n{complaints}");
    Ok(said)
}
