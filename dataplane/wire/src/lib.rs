//! Placeholder of the crate root.
