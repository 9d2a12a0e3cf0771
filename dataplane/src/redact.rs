//! How much of an account the log shows.

use std::{fmt, hash::Hasher as _, sync::Arc};

use ferrypost_proto::Name;
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

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
