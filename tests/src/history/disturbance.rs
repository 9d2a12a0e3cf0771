//! When something was broken on purpose, which explains what is a violation in peace.

use std::time::Duration;

use super::{Moment, Operation};

/// A time in which something between clients and their servers was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// The only data plane whose clients noticed; `None`: everybody's did.
    pub data_plane: Option<usize>,
    /// That data plane was killed, and with it all of its connections.
    pub killed: bool,
    /// That data plane stood still: limits that ran out meanwhile act at once when it goes on, before it has read what
    /// its clients had sent.
    pub frozen: bool,
    /// When it was broken.
    pub begun: Moment,
    /// When it was whole again.
    pub mended: Moment,
}

impl Disturbance {
    /// Whether it may have stood in the way of an operation, which began not longer after it than `slack`.
    pub fn is_around(&self, operation: &Operation, slack: Duration) -> bool {
        let concerns = self.data_plane.is_none_or(|n| n == operation.data_plane);
        concerns && self.begun <= operation.ended && operation.begun.since(self.mended) <= slack
    }
}
