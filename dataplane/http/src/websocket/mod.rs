//! WebSocket (RFC 6455), as far as whoever carries one has to know it.
//!
//! A tunnel changes nothing. But before there is one, somebody has to be sure that the server speaks WebSocket
//! from here on, or a client would have a connection to it that nobody looks at: [`handshake`]. And at its end
//! the client is told to come again, which can only be said between two frames of the server's: [`frames`].

pub mod frames;
pub mod handshake;

pub use frames::{CLOSE_RESTART, Frames, Sender};
pub use handshake::{BadUpgrade, Handshake, Outcome};
