//! HTTP, as the tests speak it: a [`client`] of one connection, a real [`browser`], a [`backend`] that a test has in its
//! hand, what both ends say over a WebSocket's [`socket`], and a [`front`] before several servers.

pub mod backend;
pub mod browser;
pub mod client;
pub mod front;
pub mod socket;

pub use backend::{Backend, Done, Sessions, Setup};
pub use browser::{Browser, BrowserError};
pub use client::{Answer, Question, Version, WebClient, WebError};
pub use front::Front;
pub use socket::{Message, Socket};
