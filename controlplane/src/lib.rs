//! Placeholder of the crate root.

pub mod store;
