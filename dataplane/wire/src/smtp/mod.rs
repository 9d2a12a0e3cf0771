//! Message submission (RFC 6409) by SMTP (RFC 5321) with AUTH (RFC 4954), up to the login and around it.
//!
//! ```text
//!   command   what a client asks for before it is logged in
//!   front     we are the server, until the login succeeds
//!   quirks    where we take more than the grammar allows, and for whose sake
//!   offer     what that server may offer, given what the backends can do
//!   reply     what a backend answers
//!   opening   we are the client, up to the point where a secret or a message may be sent
//!   back      the same for submission
//!   xclient   announcing the client by XCLIENT
//!   login     replaying the login
//!   verdict   what a backend's refusal means
//!   follow    watching the relay
//!   words     what we say ourselves
//! ```
//!
//! For whoever reads transactions (LMTP) there are, beside these:
//!
//! ```text
//!   envelope  who sends a message and who is to get it
//!   content   where a message ends
//!   chunks    the same of one that comes in chunks
//!   hops      how many servers it has passed
//! ```
//!
//! And for whoever reads nothing at all, `through`: what follows a connection that is passed on as a whole.

mod back;
pub(crate) mod chunks;
mod command;
pub(crate) mod content;
pub(crate) mod envelope;
mod follow;
mod front;
mod hops;
mod login;
pub(crate) mod offer;
pub(crate) mod opening;
pub(crate) mod quirks;
pub(crate) mod reply;
mod through;
mod verdict;
mod words;
mod xclient;

pub use back::SubmissionBack;
pub use content::{BareLineEnd, Piece};
pub use envelope::{Address, BadEnvelope, Envelope, Parameter};
pub use follow::SubmissionFollower;
pub use front::SubmissionFront;
pub use hops::Hops;
pub use login::{Acceptance, SubmissionLogin};
pub use offer::Offer;
pub use through::PassedThrough;

pub(crate) use words::goodbye;

use crate::keywords::Keywords;
use crate::settings::{BackSettings, FrontSettings, Tokens};
use crate::{BackendViolation, Capabilities as _, LineProtocol, Negotiate as _, ProtocolKind};

/// Message submission.
#[derive(Debug, Clone, Copy)]
pub struct Submission;

impl LineProtocol for Submission {
    const KIND: ProtocolKind = ProtocolKind::Submission;
    const ALPN: Option<&'static str> = None;
    /// The lines of an answer to EHLO (RFC 5321 §4.1.1.1).
    type Capabilities = Keywords;
    type Offer = Offer;
    type Welcome = Acceptance;
    type Front = SubmissionFront;
    type Back = SubmissionBack;
    type Follow = SubmissionFollower;

    fn offer(destinations: &[Keywords], tokens: Tokens) -> Offer {
        offer::before_login(destinations, tokens)
    }

    fn least() -> Keywords {
        Keywords::from_items(["AUTH PLAIN"])
    }

    fn fit(offered: Option<&Keywords>, _announced: bool) -> Result<(), BackendViolation> {
        // A server that does not offer XCLIENT is spoken to without it, and the operator is told.
        let offered = offered.ok_or(BackendViolation::CapabilitiesMissing)?;
        offer::fit(offered)
    }

    fn ignores_announcements(back: &SubmissionBack) -> bool {
        !back.takes_announcements()
    }

    fn ignores_authorization(back: &SubmissionBack) -> bool {
        // Stalwart 0.16 names itself behind its host name; it can be told not to.
        back.greeting().contains("Stalwart ")
    }

    fn front(settings: FrontSettings<Offer>) -> SubmissionFront {
        SubmissionFront::new(settings)
    }

    fn back(settings: BackSettings) -> SubmissionBack {
        SubmissionBack::new(settings)
    }
}
