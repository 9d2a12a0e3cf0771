//! What both of Ferrypost's planes are made of, and nothing of what either of them does.
//!
//! ```text
//!   cli       what both programs can be asked to do
//!   program   a program around what it serves: its log, its telemetry, how it ends
//!   config    reads a configuration key by key: every mistake at once, with file, line and key; follows its file
//!   logging   the log's lines, and panics among them
//!   admin     the admin endpoint: stats, metrics, health
//!   metrics   instruments: one table, every series from the start
//!   telemetry traces, metrics and logs to an OpenTelemetry collector
//!   core_dump what a process holds stays in its memory
//!   tls       the cryptography of all our TLS; certificates and keys from files
//!   token     bearer tokens: from a file, compared in constant time
//!   reload    files that are taken over again when they change
//!   random    the one source of random numbers: injected
//!   backoff   pauses between attempts
//!   accept    the loop in which a listener takes connections
//!   shutdown  how a process ends: what it is told, and who waits for whom
//! ```
//!
//! Both planes depend on this crate; it depends on neither, nor on the contract between them. What is
//! here has the same form on both sides for an operator's sake: a mistake in a configuration, a line of
//! the log, a renewed certificate and a wrong token look alike wherever they are met.

pub mod accept;
pub mod admin;
mod backoff;
pub mod cli;
pub mod config;
pub mod core_dump;
pub mod logging;
pub mod metrics;
pub mod program;
mod random;
pub mod reload;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod token;

pub use backoff::Backoff;
pub use random::Random;
