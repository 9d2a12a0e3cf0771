//! What the control plane knows about accounts and moves, without any I/O: conversions, comparisons and
//! decisions. Nothing here waits, reads a clock or draws a random number of its own.
//!
//! * [`state`]: the whole installation at one revision. [`placement`]: an account's record. [`resolution`]: where a name goes, and whether a write would
//!   change it.
//! * [`start`]: what Migrate and Rollback write. [`migration`]: what comes next in a move. [`queue`]: whose turn it is. [`fence`]: what
//!   the fleet says about it. [`transition`]: what each step writes, under which guards.
//! * [`readers`]: which data planes read a routing configuration. [`commit`]: how every change of routing
//!   is written.

pub mod commit;
pub mod fence;
pub mod migration;
#[cfg(test)]
mod model;
pub mod placement;
pub mod queue;
pub mod readers;
pub mod resolution;
pub mod start;
pub mod state;
#[cfg(test)]
mod tests;
pub mod transition;
