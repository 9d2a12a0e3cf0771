//! POP3 (RFC 1939) with capabilities (RFC 2449) and SASL (RFC 5034), up to the login and around it.
//!
//! ```text
//!   command   what a client asks for before it is logged in
//!   quirks    where we take more than the grammar allows, and for whose sake
//!   front     we are the server, until the login succeeds
//!   offer     what that server may offer, given what the backends can do
//!   reply     what a backend answers
//!   back      we are the client, up to the point where a secret may be sent
//!   login     replaying the login
//!   follow    watching the relay
//!   words     what we say ourselves
//! ```

mod back;
mod command;
mod follow;
mod front;
mod login;
mod offer;
mod quirks;
mod reply;
mod words;

pub use back::Pop3Back;
pub use follow::Pop3Follower;
pub use front::Pop3Front;
pub use login::{Acceptance, Pop3Login};
pub use offer::Offer;

use crate::ProtocolKind;
use crate::settings::{BackSettings, FrontSettings, Tokens};
use crate::{BackendViolation, Capabilities as _, Keywords, LineProtocol, Negotiate as _};

/// POP3.
#[derive(Debug, Clone, Copy)]
pub struct Pop3;

impl LineProtocol for Pop3 {
    const KIND: ProtocolKind = ProtocolKind::Pop3;
    type Capabilities = Keywords;
    type Offer = Offer;
    type Welcome = Acceptance;
    type Front = Pop3Front;
    type Back = Pop3Back;
    type Follow = Pop3Follower;

    fn offer(destinations: &[Keywords], tokens: Tokens) -> Offer {
        offer::before_login(destinations, tokens)
    }

    fn least() -> Keywords {
        Keywords::from_items(["USER", "SASL PLAIN"])
    }

    fn fit(offered: Option<&Keywords>, _announced: bool) -> Result<(), BackendViolation> {
        let offered = offered.ok_or(BackendViolation::CapabilitiesMissing)?;
        let can = offer::can_log_in(offered);
        can.then_some(()).ok_or(BackendViolation::NoMechanism)
    }

    /// Dovecot offers XCLIENT to none but those whom it trusts, and nobody else knows it.
    fn ignores_announcements(back: &Pop3Back) -> bool {
        !back.offers_xclient()
    }

    /// Stalwart 0.16 names itself first; it can be told not to.
    fn ignores_authorization(back: &Pop3Back) -> bool {
        back.greeting().starts_with("Stalwart ")
    }

    fn front(settings: FrontSettings<Offer>) -> Pop3Front {
        Pop3Front::new(settings)
    }

    fn back(settings: BackSettings) -> Pop3Back {
        Pop3Back::new(settings)
    }
}
