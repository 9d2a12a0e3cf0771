//! The admin endpoint: what the operator sees of this data plane.
//!
//! | path | token | answer |
//! |---|---|---|
//! | `/stats` | yes | JSON, see [`stats`] |
//! | `/metrics` | yes | Prometheus' text format, see `docs/metrics.md` |
//! | `/healthz` | no | 200: the process runs |
//! | `/readyz` | no | 200: clients are accepted; 503: they are not |
//!
//! TLS only; the two last may also be served in clear on a port that says nothing else.
//!
//! ```text
//!   server   connections, TLS, and what a stranger may cost
//!   access   who may see what: the token and its lock-out
//!   stats    the document
//!   levels   the gauges of `/metrics`
//! ```

mod access;
pub mod levels;
mod server;
pub mod stats;
#[cfg(test)]
mod tests;

pub use access::Access;
pub use server::{Server, Source};
