//! The admin endpoint of either plane: what an operator sees of one process.
//!
//! | path | token | answer |
//! |---|---|---|
//! | `/stats` | yes | JSON |
//! | `/metrics` | yes | Prometheus' text format, see `docs/metrics.md` |
//! | `/healthz` | no | 200: the process runs |
//! | `/readyz` | no | 200: it serves; 503: it does not |
//! | POST `/drain` | of its own | JSON, when nobody is served any more |
//!
//! TLS only. `/healthz` and `/readyz` may also be served in clear on a port that says nothing else; there the same is asked by
//! gRPC as well, `grpc.health.v1.Health/Check` of the services `liveness` and `readiness` (or of none, which is readiness).
//!
//! ```text
//!   server   connections, TLS, and what a stranger may cost
//!   places   who may stay connected when there is no room
//!   probe    the port in clear: HTTP and gRPC
//!   access   who may do what: the tokens and their lock-out
//! ```
//!
//! What is served is a plane's own ([`Source`]), and so are its sockets and its TLS ([`Door`]).

mod access;
mod places;
mod probe;
mod server;

pub use access::Access;
pub use server::{Connection, Door, Drained, Server, Source};
