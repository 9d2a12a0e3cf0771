//! The trace that a call, a move and what data planes do for it belong to: W3C Trace Context, level 1.
//!
//! Nothing is decided by it: it is what a caller says, checked for its form and then carried.

use std::{fmt, str::FromStr};

/// A `traceparent`: which trace, which span in it, and whether its maker records it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid traceparent")]
pub struct BadTraceParent;

/// `00-<32 digits>-<16 digits>-<2 digits>`
const LENGTH: usize = 55;

/// The one flag that version 00 knows (§3.2.2.5): the maker of the parent may have recorded it.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// The name of the header and of the gRPC metadata.
    pub const HEADER: &str = "traceparent";

    /// A new trace, which asks to be recorded. Its first span is ours, and is called
    /// as the second half of the trace is, by which it is [known](Self::begins_here).
    ///
    /// `random` names it; all zeros are no name (§3.2.2.3).
    pub fn generate(random: [u8; 16]) -> Self {
        let mut parent = [0; 8];
        parent.copy_from_slice(&random[8..]);
        if parent == [0; 8] {
            return Self::generate([1; 16]);
        }
        Self {
            trace: random,
            parent,
            flags: SAMPLED,
        }
    }

    /// The same, not to be recorded.
    #[must_use]
    pub const fn unrecorded(self) -> Self {
        Self {
            flags: self.flags & !SAMPLED,
            ..self
        }
    }

    /// Whether no caller has begun the trace: what is done for it is its first span.
    pub fn begins_here(&self) -> bool {
        self.parent == self.trace[8..]
    }

    /// The trace, the span in it, and whether its maker records it.
    pub const fn parts(&self) -> ([u8; 16], [u8; 8], bool) {
        (self.trace, self.parent, self.flags & SAMPLED != 0)
    }

    /// What a caller sends, if it is valid; else a new trace (§3.2.3: an invalid one is as none).
    pub fn of_caller(header: Option<&str>, random: [u8; 16]) -> Self {
        header
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| Self::generate(random))
    }

    /// The trace alone, as logs and exporters name it.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }
}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    /// Reads version 00, and of a later version what version 00 has (§3.2.4). It is carried on as 00.
    fn from_str(text: &str) -> Result<Self, BadTraceParent> {
        let (known, later) = text.split_at_checked(LENGTH).ok_or(BadTraceParent)?;
        let mut parts = known.split('-');
        let mut part = || parts.next().ok_or(BadTraceParent);
        let [version] = digits(part()?)?;
        let trace = digits(part()?)?;
        let parent = digits(part()?)?;
        let [flags] = digits(part()?)?;
        let has_its_length = match version {
            0 => later.is_empty(),
            0xff => false,
            _ => later.is_empty() || later.starts_with('-'),
        };
        if !has_its_length || trace == [0; 16] || parent == [0; 8] {
            return Err(BadTraceParent);
        }
        Ok(Self {
            trace,
            parent,
            flags: flags & SAMPLED,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent) = (self.trace_id(), u64::from_be_bytes(self.parent));
        write!(f, "00-{trace}-{parent:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Exactly `2 * N` hexadecimal digits in lower case.
fn digits<const N: usize>(text: &str) -> Result<[u8; N], BadTraceParent> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return Err(BadTraceParent);
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| BadTraceParent)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_comes_back_as_it_was() {
        let parsed: TraceParent = VALID.parse().expect("valid");
        assert_eq!(parsed.to_string(), VALID);
        assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!parsed.begins_here());
        for random in [[7; 16], [0; 16]] {
            let made = TraceParent::generate(random);
            assert!(made.begins_here());
            let (trace, parent, sampled) = made.parts();
            assert_eq!(parent, trace[8..]);
            assert!(sampled);
            assert_eq!(made.unrecorded().parts(), (trace, parent, false));
            assert_eq!(made.to_string().parse(), Ok(made));
            assert_eq!(TraceParent::of_caller(Some(VALID), random), parsed);
        }
    }

    #[test]
    fn what_is_not_valid_is_as_none() {
        let zeros = "0".repeat(32);
        let bad = [
            String::new(),
            VALID.to_uppercase(),
            VALID.replace('-', "_"),
            VALID[..54].to_owned(),
            format!("{VALID}-more"),
            format!("{VALID} "),
            VALID.replacen("00-", "ff-", 1),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros),
            VALID.replace("00f067aa0ba902b7", "0000000000000000"),
            VALID.replace("4bf9", "4bfé"),
            "é".repeat(200),
            "0".repeat(1 << 20),
        ];
        for text in bad {
            assert_eq!(
                text.parse::<TraceParent>(),
                Err(BadTraceParent),
                "{text:.80}"
            );
            let made = TraceParent::of_caller(Some(&text), [7; 16]);
            assert_ne!(made, VALID.parse().expect("valid"));
        }
    }

    #[test]
    fn of_a_later_version_what_is_known_is_read() {
        let later = format!("{}-what-is-not-known", VALID.replacen("00-", "cc-", 1));
        assert_eq!(later.parse(), VALID.parse::<TraceParent>());
        let glued = format!("{}x", VALID.replacen("00-", "cc-", 1));
        assert_eq!(glued.parse::<TraceParent>(), Err(BadTraceParent));
        let flags = VALID.replacen("-01", "-ff", 1);
        assert_eq!(
            flags.parse(),
            VALID.parse::<TraceParent>(),
            "unknown flags are dropped"
        );
    }
}
