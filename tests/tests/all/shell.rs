//! Commands as people type them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// A command that hangs is what these tests are about.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs a script in a shell, and gives back what it printed. It must end by itself, and with success.
pub(crate) async fn shell(script: &str) -> String {
    let child = Command::new("/bin/sh")
        .args(["-e", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = timeout(LIMIT, child.wait_with_output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("it hangs:\n{script}"))
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}\n{complaints}");
    said
}
