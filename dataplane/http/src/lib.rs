//! Ferrypost's decisions about HTTP: what is refused, where a request goes and as whom, and no I/O.
//!
//! hyper speaks HTTP, on both sides; nothing of that is here. Here is what a proxy has to decide about a
//! request that hyper has read, each in a function that is total, bounded and without a clock or a socket, so
//! that all of it is tested with values. The driver is the data plane's; `docs/decisions/0033` says how it is
//! to be built.
//!
//! # The way of a request
//!
//! ```text
//!   octets ─► guard ─► hyper ─► fields::clean_request ─► target ─► rules ─► (body) ─► rules ─► admission, dial
//!             only what       hop-by-hop, claims and       one host,  where,    read if   with the
//!             all read        overrides are gone           one path   whose     needed    body
//!             alike
//!
//!   ─► forwarded ─► hyper ─► server ─► hyper ─► fields::clean_response ─► location ─► client
//!      who the client is               no Alt-Svc, one length             on the public host
//! ```
//!
//! What only waits for news, though its method may write, [`poll`] knows. Where a client asks for a WebSocket,
//! [`websocket`] says whether there is one, and where its frames end.
//!
//! What is decided by is what is sent: rules see the header as it was cleaned and the path as it was
//! normalised, and the server gets those. What can be read in two ways is refused ([`Refusal`] says why, and
//! what the client hears), also where RFC 9110 and 9112 let a server repair it. The table in `corpus` has an
//! example of each.
#![warn(missing_docs)]

pub mod answer;
pub mod cookie;
#[cfg(any(test, feature = "testing"))]
pub mod corpus;
pub mod fields;
pub mod forwarded;
mod framing;
pub mod guard;
pub mod identity;
pub mod jmap;
pub mod location;
pub mod poll;
mod refusal;
pub mod rules;
pub mod target;
pub mod websocket;

pub use framing::Framing;
pub use refusal::Refusal;
