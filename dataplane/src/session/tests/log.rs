//! What is written into the log while a test runs.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::{level_filters::LevelFilter, subscriber::DefaultGuard};

use super::eventually;

/// The log of this thread, and so of everything that a test on one thread starts.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// From here on, as long as the guard lives.
    pub(crate) fn begin() -> (Self, DefaultGuard) {
        Self::at(LevelFilter::INFO)
    }

    /// The same at another level.
    pub(crate) fn at(level: LevelFilter) -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about logins, when there are as many as expected.
    pub(crate) async fn logins(&self, count: usize) -> Vec<Value> {
        let logins = || {
            let text = self.text();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines
                .filter(|line: &Value| line["message"] == "login")
                .collect::<Vec<_>>()
        };
        eventually("the logins are in the log", || logins().len() >= count).await;
        let logins = logins();
        assert_eq!(logins.len(), count, "{logins:#?}");
        logins
    }
}
