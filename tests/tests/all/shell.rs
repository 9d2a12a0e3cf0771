//! Commands as people type them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

/// Runs a script in a shell, and gives back what it printed. It must end by itself, and with success.
pub(crate) async fn shell(script: &str) -> String {
    ferrypost_tests::shell::shell(script).await.unwrap()
}
