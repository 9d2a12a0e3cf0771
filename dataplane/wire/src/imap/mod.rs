//! `IMAP4rev1` and `IMAP4rev2` (RFC 3501, RFC 9051), up to the login and around it.
//!
//! ```text
//!   lex       tags, atoms, quoted strings, literals: the grammar of both directions
//!   command   what a client asks for before it is logged in
//!   front     we are the server, until the login succeeds
//!   quirks    where we take more than the grammar allows, and for whose sake
//!   offer     what that server may offer, given what the backends can do
//!   response  what a backend answers
//!   back      we are the client, up to the point where a secret may be sent
//!   id        announcing the client by ID
//!   login     replaying the login
//!   scan      finding lines and literals in a stream
//!   follow    watching the relay
//!   words     what we say ourselves
//! ```

mod back;
mod command;
mod follow;
mod front;
mod id;
mod lex;
mod login;
mod offer;
mod quirks;
mod response;
mod scan;
mod words;

pub use back::ImapBack;
pub use follow::ImapFollower;
pub use front::ImapFront;
pub use login::ImapLogin;

use crate::capability::{Capabilities, Offer};
use crate::settings::{BackSettings, FrontSettings};
use crate::{LineProtocol, ProtocolKind};

/// IMAP.
#[derive(Debug, Clone, Copy)]
pub struct Imap;

impl LineProtocol for Imap {
    const KIND: ProtocolKind = ProtocolKind::Imap;
    type Front = ImapFront;
    type Back = ImapBack;
    type Follow = ImapFollower;

    fn offer(destinations: &[Capabilities]) -> Offer {
        offer::before_login(destinations)
    }

    fn front(settings: FrontSettings) -> ImapFront {
        ImapFront::new(settings)
    }

    fn back(settings: BackSettings) -> ImapBack {
        ImapBack::new(settings)
    }
}
