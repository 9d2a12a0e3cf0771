//! The log of a program: one line an event, on standard error, in one of two forms.

use std::{
    io::{self, IsTerminal as _},
    panic::PanicHookInfo,
};

use tracing::{Subscriber, level_filters::LevelFilter, subscriber::SetGlobalDefaultError};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::Targets,
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload::{self, Handle},
};

use crate::telemetry::{Tap, Wanted};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, the event's fields beside its level, time and target.
    Json,
}

/// The words for [`Format`] in a configuration.
pub const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// The words for levels in a configuration. There is no `trace`: what a library says there is not ours
/// to vouch for, and we say nothing there ourselves.
pub const LEVELS: &[(&str, LevelFilter)] = &[
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
];

/// What is logged, and how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How lines look.
    pub format: Format,
    /// The least severe level that is written.
    pub level: LevelFilter,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: LevelFilter::INFO,
        }
    }
}

/// The level of an installed log, which may change while the process runs.
#[derive(Debug, Clone)]
pub struct Level {
    lines: Handle<Targets, Registry>,
    /// `None`: nothing is exported.
    exported: Option<(Tap, Handle<Wanted, Registry>)>,
}

impl Level {
    /// From now on this is the least severe level that is written, and exported.
    pub fn set(&self, level: LevelFilter) {
        // Both fail when the log is gone, and nobody is left to hear of it.
        _ = self.lines.reload(filter(level));
        if let Some((tap, exported)) = &self.exported {
            _ = exported.reload(tap.wanted(level));
        }
    }
}

/// Installs the log for the whole process: ours at the configured level, what the libraries say only
/// from warnings up. (Theirs is not ours to vouch for: a library's trace of a connection may hold what
/// a client sent, or an operator's token.) From here on a panic is a line of the log as well. What is
/// exported is taken by `tap`.
///
/// # Errors
/// A log was installed before.
pub fn install(settings: Settings, tap: Option<Tap>) -> Result<Level, SetGlobalDefaultError> {
    let colours = io::stderr().is_terminal();
    let (subscriber, level) = subscriber(settings, io::stderr, colours, tap);
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(level)
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("ferrypost", level)
}

fn subscriber<W>(
    settings: Settings,
    writer: W,
    colours: bool,
    tap: Option<Tap>,
) -> (
    impl Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    Level,
)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (shown, of_lines) = reload::Layer::new(filter(settings.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match settings.format {
        Format::Text => lines.with_ansi(colours).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // Each layer has a filter of its own.
    let mut layers = vec![lines.with_filter(shown).boxed()];
    let exported = tap.map(|tap| {
        let (wanted, of_tap) = reload::Layer::new(tap.wanted(settings.level));
        layers.push(tap.clone().with_filter(wanted).boxed());
        (tap, of_tap)
    });
    let level = Level {
        lines: of_lines,
        exported,
    };
    (tracing_subscriber::registry().with(layers), level)
}

/// A panic ends one task. Its place is what finds the mistake; a message that was put together at run
/// time may hold what a peer sent, so only one from our own text is shown.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let said = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(tracing::field::display);
    tracing::error!(place, said, "a task panicked; what it served is closed");
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::telemetry::tests::exporting;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// What `act` logs.
        fn of(settings: Settings, act: impl FnOnce()) -> String {
            Self::of_changing(settings, |_| act())
        }

        /// The same of what may change the level.
        fn of_changing(settings: Settings, act: impl FnOnce(&Level)) -> String {
            Self::of_tapped(settings, None, act)
        }

        /// The same where lines are exported, too.
        fn of_tapped(settings: Settings, tap: Option<Tap>, act: impl FnOnce(&Level)) -> String {
            let written = Self::default();
            let writer = written.clone();
            let (subscriber, level) = subscriber(settings, move || writer.clone(), false, tap);
            tracing::subscriber::with_default(subscriber, || act(&level));
            let bytes = written.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        }
    }

    #[test]
    fn the_fields_of_a_json_line_stand_beside_its_level() {
        let settings = Settings {
            format: Format::Json,
            level: LevelFilter::INFO,
        };
        let line = Written::of(settings, || {
            tracing::info!(target: "ferrypost_x", destination = "new", "login");
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "login");
        assert_eq!(line["destination"], "new");
    }

    #[test]
    fn what_libraries_say_is_shown_from_warnings_up_whatever_our_own_level_is() {
        let settings = Settings {
            format: Format::Text,
            level: LevelFilter::DEBUG,
        };
        let lines = Written::of(settings, || {
            tracing::debug!(target: "ferrypost_x", "ours");
            tracing::info!(target: "hyper", "theirs, with a token");
            tracing::warn!(target: "hyper", "a warning");
        });
        assert!(
            lines.contains("ours") && lines.contains("a warning"),
            "{lines}"
        );
        assert!(!lines.contains("token"), "{lines}");
    }

    #[test]
    fn a_level_that_is_set_holds_from_the_next_line_on() {
        let say = |text| tracing::debug!(target: "ferrypost_x", "{text}");
        let lines = Written::of_changing(Settings::default(), |level| {
            say("one");
            level.set(LevelFilter::DEBUG);
            say("two");
            tracing::info!(target: "hyper", "theirs");
            level.set(LevelFilter::ERROR);
            say("three");
            tracing::warn!(target: "hyper", "theirs");
        });
        assert!(lines.contains("two"), "{lines}");
        for silent in ["one", "three", "theirs"] {
            assert!(!lines.contains(silent), "{silent}: {lines}");
        }
    }

    #[test]
    fn a_level_that_is_set_holds_for_what_is_exported_too() {
        let telemetry = exporting();
        let say = |text| tracing::debug!(target: "ferrypost_x", "{text}");
        Written::of_tapped(Settings::default(), telemetry.tap(), |level| {
            say("one");
            level.set(LevelFilter::DEBUG);
            say("two");
            level.set(LevelFilter::ERROR);
            say("three");
            tracing::warn!(target: "ferrypost_x", "four");
        });
        assert_eq!(telemetry.waiting_lines(), ["two"]);
    }

    #[test]
    fn a_panic_shows_its_place_and_no_text_that_was_made_at_run_time() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let password = String::from("hunter2");
        let lines = Written::of(Settings::default(), || {
            let made = std::panic::catch_unwind(|| panic!("cannot parse {password}"));
            assert!(made.is_err());
            let fixed = std::panic::catch_unwind(|| panic!("a text of our own"));
            assert!(fixed.is_err());
        });
        std::panic::set_hook(before);
        assert_eq!(lines.matches("logging.rs").count(), 2, "{lines}");
        assert!(lines.contains("a text of our own"), "{lines}");
        assert!(!lines.contains("hunter2"), "{lines}");
    }
}
