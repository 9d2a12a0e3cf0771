//! Ferrypost's data plane: stands where mail clients connect, learns from each login which account it
//! is about, and relays the session to the server that holds that account.
//!
//! # The path of a connection
//!
//! ```text
//!   client
//!     │
//!   listener     accept, permits, PROXY header in                         listener
//!     │
//!   TLS          certificate by SNI, ALPN                                 net
//!     │
//!   preauth      we are the server: greeting, STARTTLS, the login         session
//!     │
//!   identity     login or token → canonical name                          session, tokens
//!     │
//!   admission    registered and routed in one step; held while fenced     session, registry
//!     │
//!   dial         connect, announce (PROXY), TLS                           backend
//!     │
//!   negotiate    we are the client: greeting, STARTTLS, announce (ID)     backend
//!     │
//!   replay       the login again, on an encrypted leg; resolve once more  session
//!     │
//!   relay        bytes both ways, watched by a follower                   session
//!     │
//!   backend
//! ```
//!
//! By HTTP each request goes a way of its own: [`http`]. Mail arrives on ways of its own: [`pass_through`] takes whole connections to the server of a destination.
//! Beside it, a mail system asks for the way of a recipient, by the same table: lookup.
//!
//! # The path of a change
//!
//! ```text
//!   control plane ─ stream ─ feed ─ table ─┬─ sessions that it fences or moves are closed
//!                         tables, routing  ├─ held logins resolve again
//!                                          ├─ applied, drained go back up     fence
//!                                          └─ destinations are probed, the offer is made   backend
//! ```
//!
//! [`app::build`] assembles all of it from a valid [`config::Config`]; the program and every test
//! start the same thing.

pub mod admin;
pub mod app;
pub mod backend;
pub mod certificates;
pub mod config;
pub mod control_plane;
pub mod cookie_keys;
pub mod delivery;
pub mod descriptors;
pub mod feed;
pub mod fence;
pub mod http;
pub mod limits;
pub mod listener;
pub mod lookup;
pub mod metrics;
pub mod net;
pub mod network;
pub mod pass_through;
pub mod ready;
pub mod redact;
pub mod registry;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod session;
pub mod state_dir;
pub mod tables;
pub mod tokens;
