//! HTTP, as the tests speak it: a [`client`] of one connection, a [`backend`] that a test has in its hand, and what both
//! say over a WebSocket's [`socket`].

pub mod backend;
pub mod client;
pub mod socket;

pub use backend::{Backend, Done, Sessions, Setup};
pub use client::{Answer, Question, Version, WebClient, WebError};
pub use socket::{Message, Socket};
