//! The trace that a call, a move and what data planes do for it belong to: W3C Trace Context, level 1.
//!
//! Nothing is decided by it: it is what a caller says, checked for its form and then carried. Of OpenTelemetry's interface
//! these are the words and what reads a carrier; the propagator that its kit has would take for valid what is not (a sign
//! before a number, a number with too few digits).

use std::{fmt, str::FromStr};

use opentelemetry::{
    SpanId, TraceFlags, TraceId,
    propagation::Extractor,
    trace::{SpanContext, TraceState},
};

/// A `traceparent`: which trace, which span in it, and whether its maker records it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: TraceId,
    parent: SpanId,
    /// None but the one that version 00 knows (§3.2.2.5): the maker of the parent may have recorded it.
    flags: TraceFlags,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid traceparent")]
pub struct BadTraceParent;

/// `00-<32 digits>-<16 digits>-<2 digits>`
const LENGTH: usize = 55;

impl TraceParent {
    /// The name of the header and of the gRPC metadata.
    pub const HEADER: &str = "traceparent";

    /// A new trace, which asks to be recorded. Its first span is ours, and is called
    /// as the second half of the trace is, by which it is [known](Self::begins_here).
    ///
    /// `random` names it; all zeros are no name (§3.2.2.3).
    pub fn generate(random: [u8; 16]) -> Self {
        let trace = TraceId::from_bytes(random);
        let parent = second_half(trace);
        if parent == SpanId::INVALID {
            return Self::generate([1; 16]);
        }
        Self {
            trace,
            parent,
            flags: TraceFlags::SAMPLED,
        }
    }

    /// What a carrier brings, if that is valid and there once: two say nothing (§4.3), and an invalid one is as none
    /// (§3.2.3).
    pub fn extract(carrier: &dyn Extractor) -> Option<Self> {
        match carrier.get_all(Self::HEADER)?[..] {
            [only] => only.parse().ok(),
            _ => None,
        }
    }

    /// The same, not to be recorded.
    #[must_use]
    pub const fn unrecorded(self) -> Self {
        Self {
            flags: TraceFlags::NOT_SAMPLED,
            ..self
        }
    }

    /// Whether no caller has begun the trace: what is done for it is its first span.
    pub fn begins_here(&self) -> bool {
        self.parent == second_half(self.trace)
    }

    /// The trace alone, as logs and exporters name it.
    pub const fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// The span of it that this names.
    pub const fn span_id(&self) -> SpanId {
        self.parent
    }

    /// That span, as another process's.
    pub fn parent(&self) -> SpanContext {
        SpanContext::new(self.trace, self.parent, self.flags, true, TraceState::NONE)
    }

    /// A span of this process in the same trace, which is recorded if the parent is.
    pub fn span(&self, id: SpanId) -> SpanContext {
        SpanContext::new(self.trace, id, self.flags, false, TraceState::NONE)
    }
}

fn second_half(trace: TraceId) -> SpanId {
    let mut half = [0; 8];
    half.copy_from_slice(&trace.to_bytes()[8..]);
    SpanId::from_bytes(half)
}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    /// Reads version 00, and of a later version what version 00 has (§3.2.4). It is carried on as 00.
    fn from_str(text: &str) -> Result<Self, BadTraceParent> {
        let (known, later) = text.split_at_checked(LENGTH).ok_or(BadTraceParent)?;
        let mut parts = known.split('-');
        let mut part = || parts.next().ok_or(BadTraceParent);
        let [version] = digits(part()?)?;
        let trace = TraceId::from_bytes(digits(part()?)?);
        let parent = SpanId::from_bytes(digits(part()?)?);
        let [flags] = digits(part()?)?;
        let has_its_length = match version {
            0 => later.is_empty(),
            0xff => false,
            _ => later.is_empty() || later.starts_with('-'),
        };
        if !has_its_length || trace == TraceId::INVALID || parent == SpanId::INVALID {
            return Err(BadTraceParent);
        }
        Ok(Self {
            trace,
            parent,
            flags: TraceFlags::new(flags) & TraceFlags::SAMPLED,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.parent, self.flags)
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
        let trace = parsed.trace_id().to_string();
        assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!parsed.begins_here());
        let parent = parsed.parent();
        assert!(parent.is_valid() && parent.is_remote() && parent.is_sampled());
        assert_eq!(parent.span_id().to_string(), "00f067aa0ba902b7");
        for random in [[7; 16], [0; 16]] {
            let made = TraceParent::generate(random);
            assert!(made.begins_here());
            let (trace, span) = (made.trace_id().to_bytes(), made.span_id());
            assert_eq!(span.to_bytes(), trace[8..]);
            assert!(made.span(span).is_sampled() && !made.span(span).is_remote());
            let unrecorded = made.unrecorded();
            assert_eq!(unrecorded.trace_id(), made.trace_id());
            assert!(unrecorded.begins_here() && !unrecorded.parent().is_sampled());
            assert_eq!(made.to_string().parse(), Ok(made));
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
            VALID.replace("4bf9", "+bf9"),
            "é".repeat(200),
            "0".repeat(1 << 20),
        ];
        for text in bad {
            assert_eq!(
                text.parse::<TraceParent>(),
                Err(BadTraceParent),
                "{text:.80}"
            );
            assert_eq!(TraceParent::extract(&carrier(&[&text])), None);
        }
    }

    /// Headers of this name, as a call has them.
    struct Carrier(Vec<String>);

    fn carrier(headers: &[&str]) -> Carrier {
        Carrier(headers.iter().map(|it| (*it).to_owned()).collect())
    }

    impl Extractor for Carrier {
        fn get(&self, key: &str) -> Option<&str> {
            assert_eq!(key, "traceparent");
            self.0.first().map(String::as_str)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }

        fn get_all(&self, key: &str) -> Option<Vec<&str>> {
            assert_eq!(key, "traceparent");
            Some(self.0.iter().map(String::as_str).collect())
        }
    }

    #[test]
    fn a_carrier_brings_one_or_none() {
        assert_eq!(TraceParent::extract(&carrier(&[VALID])), VALID.parse().ok());
        assert_eq!(TraceParent::extract(&carrier(&[])), None);
        assert_eq!(TraceParent::extract(&carrier(&[VALID, VALID])), None);
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
