//! Why a follower ends a session.

use crate::reply::Farewell;

/// Something of the client's that must never reach the backend. Each protocol has its own; this is what the
/// driver needs to know of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    reason: &'static str,
    farewell: Farewell,
}

impl Refusal {
    /// A refusal, with what the operator reads and what the client hears.
    pub const fn new(reason: &'static str, farewell: Farewell) -> Self {
        Self { reason, farewell }
    }

    /// What the client hears.
    pub const fn farewell(&self) -> Farewell {
        self.farewell
    }
}
