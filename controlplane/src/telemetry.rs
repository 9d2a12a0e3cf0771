//! The log: one line an event, on standard error.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _};

use crate::config::{Log, LogFormat};

/// Starts logging for the whole process: ours at the configured level, what the libraries say only
/// from warnings up. (Theirs is not ours to vouch for: a library's trace of a connection may hold an
/// operator's token.)
///
/// # Errors
/// When something else in the process has started it before.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = Targets::new()
        .with_default(log.level.min(LevelFilter::WARN))
        .with_target("ferrypost", log.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    tracing::subscriber::set_global_default(subscriber).context("logging was started before")
}
