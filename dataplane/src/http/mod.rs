//! HTTP: JMAP, DAV, web interfaces. Each request goes to the server that holds its account, by rules that the routing
//! configuration has; a connection may carry the requests of several accounts.
//!
//! ```text
//!   listener   where clients connect
//!   client     one client's connection: TLS, and hyper as its server
//!     guarded  what hyper may read of it
//!     busy     whether it has a request
//!   exchange   one request, to the head of its response
//!   running    an exchange that a server may be executing
//!   streams    those of an HTTP/2 client, which nobody polls if their responses are not taken
//!   rest       what is left of one when nobody waits for it
//!   body       the bodies on their way
//!   tunnel     a WebSocket
//!   upstream   the connections to servers, with hyper as their client
//!   lent       a connection that hyper has the use of
//!   failure    why no server answers, and what the client hears
//!   record     the line in the log
//! ```
//!
//! What is decided about a request is decided in the crate `ferrypost-http`, which does no I/O (`docs/decisions/0033`).
//!
//! A session is the exchange: it is registered with its route, before its body is read, and leaves when its response was
//! read to the end, or with the end of the server's connection where that did not come. Nothing is ever sent twice.

mod body;
mod busy;
mod client;
mod exchange;
mod failure;
mod guarded;
mod lent;
mod listener;
mod record;
mod rest;
mod running;
mod streams;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;

use std::sync::Arc;

use crate::{cookie_keys::CookieKeys, session::context::Services};

pub use listener::WebListening;

/// What all clients share.
pub struct Web {
    /// What everybody needs.
    pub services: Arc<Services>,
    /// By which sign-ins are remembered.
    pub cookie_keys: CookieKeys,
}
