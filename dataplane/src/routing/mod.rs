//! Where every name goes: the table, and the feed that keeps it up to date.
//!
//! ```text
//!   control plane ── stream ──▶ feed ──▶ snapshot / delta ──▶ RoutingTable ──▶ Tables (one swap)
//!                                  ▲                                             │
//!                                  └── applied, drained, rejected ◀── Fences ◀───┘
//! ```
//!
//! A [`RoutingTable`] is an immutable value with two functions: [`resolve`](RoutingTable::resolve) and
//! [`apply`](RoutingTable::apply). [`Tables`] publishes the one in force and wakes whoever waits for a
//! change.

pub mod feed;
mod hash;
mod route;
mod table;
mod tables;

pub use hash::KeyedState;
pub use route::{Fenced, Resolution, Route, Rule};
pub use table::RoutingTable;
pub use tables::{Published, Tables};
