//! What both of Ferrypost's planes are made of, and nothing of what either of them does.
//!
//! ```text
//!   random    the one source of random numbers: injected
//!   backoff   pauses between attempts
//!   shutdown  how a process ends: what it is told, and who waits for whom
//!   token     bearer tokens: from a file, compared in constant time
//! ```
//!
//! Both planes depend on this crate; it depends on neither, nor on the contract between them. What is
//! here has the same form on both sides for an operator's sake: a mistake in a configuration, a line of
//! the log, a renewed certificate and a wrong token look alike wherever they are met.

mod backoff;
mod random;
pub mod shutdown;
pub mod token;

pub use backoff::Backoff;
pub use random::Random;
