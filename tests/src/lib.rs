//! What Ferrypost's tests, demo and benchmark stand on: real servers, real processes, real clients.
//!
//! - [`dovecot`], [`postfix`] and [`cyrus`]: the servers between which accounts move; [`ports`] and [`certs`] for them.
//! - [`process`]: children that end with the test, [`log_file`] to read what they say; [`network`]: as far apart as two
//!   machines.
//! - [`helm`]: the chart, and its pods without a cluster; [`mod@image`]: what their containers are made of.
//! - [`issuer`]: who knows whose bearer tokens are.
//! - [`imap`], [`sieve`] and [`web`]: clients that say what they got, [`mod@line`]: one that speaks by hand, [`grpcurl`]:
//!   the operator's; [`recipes`]: what people type into a [`mod@shell`].
//! - [`world`]: all of it together with both planes, as an installation.
//! - [`story`]: what an operator and a user do, one step each.
//! - [`workload`]: clients that live through moves, [`history`]: what they saw,
//!   [`checker`]: what must not have happened.
//! - [`torture`]: moves without end while everything breaks; [`demo`]: what `make demo` shows;
//!   [`mod@bench`]: what it costs.
//! - [`monitoring`]: dashboards and alerts, and a real Prometheus that looks at them.
//! - [`wait`]: waiting for facts, [`turn`]: for the machine; [`tools`]: programs that Debian does not have.

pub mod bench;
pub mod certs;
pub mod checker;
pub mod cyrus;
pub mod demo;
pub mod dovecot;
pub mod grpcurl;
pub mod helm;
pub mod history;
pub mod image;
pub mod imap;
pub mod issuer;
pub mod line;
pub mod log_file;
pub mod monitoring;
pub mod network;
pub mod ports;
pub mod postfix;
pub mod process;
pub mod recipes;
pub mod shell;
pub mod sieve;
pub mod story;
pub mod tools;
pub mod torture;
pub mod turn;
pub mod wait;
pub mod web;
pub mod workload;
pub mod world;
