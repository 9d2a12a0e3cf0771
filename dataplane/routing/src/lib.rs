//! Where every name goes: a table that knows neither the stream that brings it nor the sessions that ask it,
//! and no I/O, clock or runtime.
//!
//! ```text
//!   snapshot / delta ──▶ RoutingTable ──▶ resolve(name)
//! ```
//!
//! A [`RoutingTable`] is an immutable value with two functions: [`resolve`](RoutingTable::resolve) and
//! [`apply`](RoutingTable::apply). The data plane publishes the one in force.
#![warn(missing_docs)]

mod account_key;
mod base;
mod cow;
mod delta;
mod draft;
#[cfg(test)]
mod garbage;
mod hash;
mod merge;
#[cfg(test)]
mod model;
mod overlay;
mod rejections;
mod route;
#[cfg(feature = "sabotage")]
pub mod sabotage;
mod snapshot;
mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use base::BuildError;
pub use delta::{Applied, ApplyError};
pub use draft::{TooManyRejected, Touched};
pub use hash::KeyedState;
pub use merge::Merge;
pub use route::{Fenced, Resolution, Route, Rule};
pub use snapshot::{Assembly, SnapshotError};
pub use table::RoutingTable;
