//! The admin endpoint of either plane: what an operator sees of one process.
//!
//! | path | token | answer |
//! |---|---|---|
//! | `/stats` | yes | JSON |
//! | `/metrics` | yes | Prometheus' text format, see `docs/metrics.md` |
//! | `/healthz` | no | 200: the process runs |
//! | `/readyz` | no | 200: it serves; 503: it does not |
//! | POST `/drain` | yes | JSON, when nobody is served any more; 404 where a plane has nothing to drain |
//!
//! TLS only; the two last may also be served in clear on a port that says nothing else.
//!
//! ```text
//!   server   connections, TLS, and what a stranger may cost
//!   access   who may see what: the token and its lock-out
//! ```
//!
//! What is served is a plane's own ([`Source`]), and so are its sockets and its TLS ([`Door`]).

mod access;
mod server;

pub use access::Access;
pub use server::{Connection, Door, Drained, Server, Source};
