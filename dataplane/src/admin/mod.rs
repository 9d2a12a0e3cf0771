//! The admin endpoint: what the operator sees of this data plane. How it is served is
//! [`ferrypost_runtime::admin`]'s.
//!
//! ```text
//!   door     its sockets and its TLS
//!   stats    the document of `/stats`
//!   levels   the gauges of `/metrics`
//!   drain    the order to drain, on its way to the program
//!   order    the same from the other side: gives it to the data plane of this machine
//! ```

mod door;
pub mod drain;
pub mod levels;
pub mod order;
pub mod stats;
#[cfg(test)]
mod tests;

pub use door::AdminDoor;
