//! `ManageSieve` (RFC 5804), up to the login and around it.
//!
//! ```text
//!   acceptance  what a backend says to a login that it accepts
//!   lex       words, quoted strings, literals: the grammar of both directions
//!   frame     reading a command or a response to its end
//!   command   what a client asks for before it is logged in
//!   front     we are the server, until the login succeeds
//!   quirks    where we take more than the grammar allows, and for whose sake
//!   offer     what that server may offer, given what the backends can do
//!   response  what a backend answers
//!   back      we are the client, up to the point where a secret may be sent
//!   login     replaying the login
//!   scan      finding lines and literals in a stream
//!   follow    watching the relay
//!   words     what we say ourselves
//! ```

mod acceptance;
mod back;
mod command;
mod follow;
mod frame;
mod front;
mod lex;
mod login;
mod offer;
mod quirks;
mod response;
mod scan;
mod words;

pub use acceptance::Acceptance;
pub use back::SieveBack;
pub use follow::SieveFollower;
pub use front::SieveFront;
pub use login::SieveLogin;
pub use offer::Offer;

use crate::keywords::Keywords;
use crate::settings::{BackSettings, FrontSettings, Tokens};
use crate::{BackendViolation, Capabilities as _, LineProtocol, Negotiate as _, ProtocolKind};

/// `ManageSieve`.
#[derive(Debug, Clone, Copy)]
pub struct Sieve;

impl LineProtocol for Sieve {
    const KIND: ProtocolKind = ProtocolKind::ManageSieve;
    type Capabilities = Keywords;
    type Offer = Offer;
    type Welcome = Acceptance;
    type Front = SieveFront;
    type Back = SieveBack;
    type Follow = SieveFollower;

    fn offer(destinations: &[Keywords], tokens: Tokens) -> Offer {
        offer::before_login(destinations, tokens)
    }

    fn least() -> Keywords {
        Keywords::from_items(["SASL PLAIN"])
    }

    fn fit(offered: Option<&Keywords>, _announced: bool) -> Result<(), BackendViolation> {
        offer::fit(offered.ok_or(BackendViolation::CapabilitiesMissing)?)
    }

    fn ignores_announcements(back: &SieveBack) -> bool {
        // It is offered to whom it is read from.
        !back.offered().is_some_and(|offered| offered.has("XCLIENT"))
    }

    fn ignores_authorization(back: &SieveBack) -> bool {
        // It names itself so, with the version or what it is behind it.
        back.offered()
            .is_some_and(|offered| offered.has_word("IMPLEMENTATION", "Stalwart"))
    }

    fn front(settings: FrontSettings<Offer>) -> SieveFront {
        SieveFront::new(settings)
    }

    fn back(settings: BackSettings) -> SieveBack {
        SieveBack::new(settings)
    }
}
