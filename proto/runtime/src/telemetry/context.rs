//! Where a span stands in a trace, and which traces are recorded.

use opentelemetry::{TraceId, trace::SpanContext};

/// How traces begin that go through more than one process: as the environment says.
#[derive(Debug, Clone, Copy)]
pub struct Tracing {
    follows_callers: bool,
    share: Share,
}

impl Default for Tracing {
    fn default() -> Self {
        Self::new(true, None)
    }
}

impl Tracing {
    /// Where no spans are exported, it is others who look at what a trace says of itself.
    pub(super) fn new(follows_callers: bool, share: Option<Share>) -> Self {
        Self {
            follows_callers,
            share: share.unwrap_or(Share::All),
        }
    }

    /// Whether callers' traces are gone on with.
    pub const fn follows_callers(self) -> bool {
        self.follows_callers
    }

    /// Whether a trace that begins here is recorded.
    pub fn records(self, trace: TraceId) -> bool {
        self.share.takes(trace)
    }
}

/// Which traces are recorded: `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// Whether a span with a parent does as its parent.
    pub(super) follows_parent: bool,
    /// What is recorded beside that.
    pub(super) share: Share,
}

/// So much of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Share {
    All,
    Nothing,
    /// Between 0 and 1.
    Ratio(f64),
}

impl Sampler {
    /// What the standard says where nothing is said.
    pub(super) const DEFAULT: Self = Self {
        follows_parent: true,
        share: Share::All,
    };

    /// Whether a span is recorded.
    pub(super) fn takes(self, trace: TraceId, parent: Option<&SpanContext>) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.is_sampled(),
            _ => self.share.takes(trace),
        }
    }
}

impl Share {
    /// By the trace alone, so that each process comes to the same result.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of all traces needs no last digit"
    )]
    fn takes(self, trace: TraceId) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Ratio(ratio) => {
                let low = (u128::from_be_bytes(trace.to_bytes()) & u128::from(u64::MAX)) >> 1;
                (low as f64) < ratio * (1_u64 << 63) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{SpanId, TraceFlags, trace::TraceState};

    use super::*;
    use crate::Random;

    const TRACE: TraceId = TraceId::from_bytes([7; 16]);

    fn parent(sampled: bool) -> SpanContext {
        SpanContext::new(
            TRACE,
            SpanId::from_bytes([1; 8]),
            TraceFlags::default().with_sampled(sampled),
            false,
            TraceState::NONE,
        )
    }

    #[test]
    fn a_span_with_a_parent_does_as_its_parent_where_that_is_asked_for() {
        let by_parent = |share| Sampler {
            follows_parent: true,
            share,
        };
        assert!(by_parent(Share::Nothing).takes(TRACE, Some(&parent(true))));
        assert!(!by_parent(Share::All).takes(TRACE, Some(&parent(false))));
        assert!(!by_parent(Share::Nothing).takes(TRACE, None));
        let alone = Sampler {
            follows_parent: false,
            share: Share::Nothing,
        };
        assert!(!alone.takes(TRACE, Some(&parent(true))));
    }

    #[test]
    fn a_share_of_traces_is_recorded_and_a_larger_one_has_them_all() {
        let random = Random::seeded(38);
        let traces: Vec<_> = (0..10_000)
            .map(|_| TraceId::from_bytes(random.bytes()))
            .collect();
        let taken = |ratio| {
            let takes = move |trace: &&TraceId| Share::Ratio(ratio).takes(**trace);
            traces.iter().filter(takes).collect::<Vec<_>>()
        };
        assert!(taken(0.0).is_empty());
        assert_eq!(taken(1.0).len(), traces.len());
        let tenth = taken(0.1);
        assert!((800..1200).contains(&tenth.len()), "{}", tenth.len());
        let fifth = taken(0.2);
        assert!(tenth.iter().all(|trace| fifth.contains(trace)));
    }
}
