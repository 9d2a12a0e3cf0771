//! The log: how it is written, and how much of an account it shows.

use std::{fmt, hash::Hasher as _, io, sync::Arc};

use ferrypost_proto::Name;
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LevelFilter,
    /// How accounts are shown.
    pub redact: Redact,
}

/// Installs the log for the whole process: to standard error, ours at the configured level, what
/// the libraries say only from warnings up. (Theirs is not ours to vouch for: a library's trace of a
/// connection may hold what a client sent.)
///
/// # Errors
/// A log was installed before.
pub fn install(settings: &LogSettings) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    let filter = Targets::new()
        .with_default(settings.level.min(LevelFilter::WARN))
        .with_target("ferrypost", settings.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match settings.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic ends one task. Its place is what finds the mistake; a message that was put together at run
/// time may hold what a peer sent, so only one from our own text is shown.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(tracing::field::display);
    tracing::error!(place, message, "a task panicked; what it served is closed");
}

/// How names are shown in logs. Cheap to clone.
#[derive(Clone)]
pub struct Redact(Arc<Mode>);

enum Mode {
    Full,
    Hashed([u8; 16]),
    Absent,
}

impl Redact {
    /// Names as they are.
    pub fn full() -> Self {
        Self(Arc::new(Mode::Full))
    }

    /// A keyed hash in place of a name: lines about one account can be found together, and nobody
    /// without the key can tell whose they are or try names until one fits. The same key on every
    /// data plane gives the same hash.
    pub fn hashed(key: &[u8]) -> Self {
        let digest = Sha256::digest(key);
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Self(Arc::new(Mode::Hashed(short)))
    }

    /// No names.
    pub fn absent() -> Self {
        Self(Arc::new(Mode::Absent))
    }

    /// A name as it may be shown: itself, `#` and 32 hex digits, or `-`.
    pub fn name<'a>(&'a self, name: &'a Name) -> impl fmt::Display + 'a {
        self.text(name.as_str())
    }

    /// Another form of an account's identity (its id), shown like a name.
    pub fn text<'a>(&'a self, text: &'a str) -> impl fmt::Display + 'a {
        Shown {
            mode: &self.0,
            text,
        }
    }
}

impl fmt::Debug for Redact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.0 {
            Mode::Full => "full",
            Mode::Hashed(_) => "hashed",
            Mode::Absent => "absent",
        })
    }
}

struct Shown<'a> {
    mode: &'a Mode,
    text: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::Full => f.write_str(self.text),
            Mode::Absent => f.write_str("-"),
            Mode::Hashed(key) => {
                let mut hasher = SipHasher24::new_with_key(key);
                hasher.write(self.text.as_bytes());
                write!(f, "#{:032x}", hasher.finish128().as_u128())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_repeats_under_one_key_and_differs_under_another() {
        let one = Redact::hashed(b"key").text("alice@example.org").to_string();
        assert_eq!(
            one,
            Redact::hashed(b"key").text("alice@example.org").to_string()
        );
        assert_ne!(
            one,
            Redact::hashed(b"yek").text("alice@example.org").to_string()
        );
        assert_ne!(
            one,
            Redact::hashed(b"key").text("bob@example.org").to_string()
        );
        assert!(one.len() == 33 && one.starts_with('#'), "{one}");
    }

    #[test]
    fn full_shows_and_absent_hides() {
        assert_eq!(Redact::full().text("alice").to_string(), "alice");
        assert_eq!(Redact::absent().text("alice").to_string(), "-");
    }

    #[test]
    fn the_key_is_not_in_debug_output() {
        assert_eq!(format!("{:?}", Redact::hashed(b"key")), "hashed");
    }
}
