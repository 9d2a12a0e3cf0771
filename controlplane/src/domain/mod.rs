//! What the control plane knows about accounts and moves, without any I/O: conversions, comparisons and
//! decisions. Nothing here waits, reads a clock or draws a random number of its own.

pub mod commit;
pub mod placement;
pub mod resolution;
pub mod start;
