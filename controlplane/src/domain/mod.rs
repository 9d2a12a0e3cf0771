//! What the control plane knows about accounts and moves, without any I/O: conversions, comparisons and
//! decisions. Nothing here waits, reads a clock or draws a random number of its own.
//!
//! * [`state`]: the whole installation at one revision. [`placement`]: an account's record. [`resolution`]: where a name goes, and whether a write would
//!   change it.
//! * [`start`]: what Migrate and Rollback write, and what they do not carry, `mail_risks` and `http_risks` among it. [`migration`]: what comes next in a move. [`queue`]: whose turn it is. [`fence`]: what
//!   is in the way of a fence, [`limits`] and [`mod@unsettled`] among it. [`drain`]: whether it is complete. [`transition`]: what each step writes, under which guards, and
//!   [`evidence`]: what it leaves behind for whoever asks later.
//! * [`readers`]: which data planes read a routing configuration. [`commit`]: how every change of routing
//!   is written. [`cookie_keys`]: when the keys of cookies are replaced.

pub mod commit;
pub mod cookie_keys;
pub mod drain;
pub mod evidence;
pub mod fence;
mod http_risks;
pub mod limits;
mod mail_risks;
pub mod migration;
#[cfg(test)]
pub(crate) mod model;
pub mod placement;
pub mod queue;
pub mod readers;
pub mod resolution;
pub mod start;
pub mod state;
#[cfg(test)]
mod tests;
pub mod transition;
pub mod unsettled;
