//! Where every name goes: a table that knows neither the stream that brings it nor the sessions that ask it.
//!
//! ```text
//!   snapshot / delta ──▶ RoutingTable ──▶ Tables (one swap) ──▶ whoever resolves a name
//! ```
//!
//! A [`RoutingTable`] is an immutable value with two functions: [`resolve`](RoutingTable::resolve) and
//! [`apply`](RoutingTable::apply). [`Tables`] publishes the one in force and wakes whoever waits for a
//! change.

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
mod snapshot;
mod table;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
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
pub use tables::{Published, Tables};
