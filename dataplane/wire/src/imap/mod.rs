//! `IMAP4rev1` and `IMAP4rev2` (RFC 3501, RFC 9051), up to the login and around it.
//!
//! ```text
//!   capability  what a server offers and what we offer: lists of words
//!   acceptance  what a backend says to a login that it accepts
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

mod acceptance;
mod back;
mod capability;
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

pub use acceptance::Acceptance;
pub use back::ImapBack;
pub use capability::{Capabilities, Offer};
pub use follow::ImapFollower;
pub use front::ImapFront;
pub use login::ImapLogin;

use crate::settings::{BackSettings, FrontSettings, Tokens};
use crate::{BackendViolation, LineProtocol, Negotiate as _, ProtocolKind};

/// IMAP.
#[derive(Debug, Clone, Copy)]
pub struct Imap;

impl LineProtocol for Imap {
    const KIND: ProtocolKind = ProtocolKind::Imap;
    type Capabilities = Capabilities;
    type Offer = Offer;
    type Welcome = Acceptance;
    type Front = ImapFront;
    type Back = ImapBack;
    type Follow = ImapFollower;

    fn offer(destinations: &[Capabilities], tokens: Tokens) -> Offer {
        offer::before_login(destinations, tokens)
    }

    fn least() -> Capabilities {
        Capabilities::parse(b"IMAP4rev1 AUTH=PLAIN")
    }

    fn fit(offered: Option<&Capabilities>, announced: bool) -> Result<(), BackendViolation> {
        let offered = offered.ok_or(BackendViolation::CapabilitiesMissing)?;
        offer::fit(offered, announced)
    }

    fn ignores_announcements(back: &ImapBack) -> bool {
        // Dovecot takes whom it trusts for secured already; Stalwart reads the announcement of nobody.
        let distrusted = back
            .offered_in_clear()
            .is_some_and(|offered| offered.has("LOGINDISABLED"));
        distrusted || is_stalwart(back)
    }

    fn ignores_authorization(back: &ImapBack) -> bool {
        is_stalwart(back)
    }

    fn front(settings: FrontSettings<Offer>) -> ImapFront {
        ImapFront::new(settings)
    }

    fn back(settings: BackSettings) -> ImapBack {
        ImapBack::new(settings)
    }
}

/// Stalwart 0.16 names itself first; it can be told not to.
fn is_stalwart(back: &ImapBack) -> bool {
    back.greeting().starts_with("Stalwart ")
}
