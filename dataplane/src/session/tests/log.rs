//! What is written into the log while a test runs.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use serde_json::Value;
use tracing::{
    Dispatch, dispatcher,
    level_filters::LevelFilter,
    subscriber::{DefaultGuard, NoSubscriber},
};

use super::eventually;

/// Makes a subscriber this thread's, as long as the guard lives.
///
/// Where a process has one subscriber alone, tracing asks the thread that comes to a span first whether anybody wants
/// it, and believes it for all: a test beside this one, which has none, would take its spans away. With another one
/// about, which wants nothing, each is asked.
pub(crate) fn subscribe(subscriber: impl Into<Dispatch>) -> DefaultGuard {
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&ANOTHER);
    dispatcher::set_default(&subscriber.into())
}

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
        (log, subscribe(subscriber))
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
