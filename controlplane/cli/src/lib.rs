//! Ferrypost's command line, for people. Everything that it does is a call of the operators' API, which `grpcurl` can
//! make as well; what it adds is what a person wants around the call.
//!
//! ```text
//!   args, connection ─▶ request ─▶ client ─▶ show ─▶ console
//!                                    │         ├─ table   columns for people
//!                                    │         └─ json    what grpcurl prints
//!                                    ├─ check ─▶ what is not as it should be, with a hint each
//!                                    └─ failure ─▶ exit  one code for each kind of end
//! ```
//!
//! All but `client`, `certificates`, `run` and `console` is without I/O: from arguments to requests, and from answers to text and
//! exit codes.

mod args;
mod certificates;
mod check;
mod client;
mod connection;
mod console;
#[cfg(test)]
mod docs;
mod exit;
mod failure;
mod follow;
mod follow_all;
mod json;
mod progress;
mod request;
mod run;
mod show;
mod table;

pub use args::Arguments;
pub use console::Console;
pub use exit::Exit;
pub use run::run;
