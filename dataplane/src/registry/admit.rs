//! Admission: a session is registered and its route chosen in one step.
//!
//! A session is whatever a server does for somebody at our word: what a client has logged in for, an exchange, a
//! delivery to one recipient, a connection that is kept for the next one.
//!
//! The step runs under the lock of the subject's shard: resolve in the table in force, insert the entry. A
//! new table is published *before* the entries that it changes are closed, under the same locks; so each
//! session is either seen by that close or has already taken the new route. Only memory is touched under
//! the lock, never I/O.

use std::net::SocketAddr;

use ferrypost_proto::{NoRoute, v1::Protocol};
use strum::{IntoStaticStr, VariantNames};

use super::{CloseReason, HeldLogin, SessionGuard, Subject};

/// Who wants in.
#[derive(Debug, Clone)]
pub struct AdmitRequest {
    /// Whom it is for.
    pub subject: Subject,
    /// What it will be.
    pub kind: SessionKind,
    /// What becomes of it while its subject is fenced.
    pub on_fence: OnFence,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Where it comes from. `None`: from this machine, over a socket that has no address.
    pub client: Option<SocketAddr>,
    /// The session's reference, as logged and announced.
    pub reference: String,
}

/// What a session is, in the words of `ListSessions`, `/stats` and `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum SessionKind {
    /// A client's whole connection, from its login on.
    Session,
    /// One request and its response, which has a client's credentials with it.
    Exchange,
    /// A message on its way to one recipient: from RCPT to the server's last reply about it.
    Delivery,
    /// A connection to a server on which nothing is going on, kept for the next exchange of the same subject. Nobody
    /// waits for it, and a fence closes it all the same.
    IdleUpstream,
}

/// What becomes of an admission while its subject is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFence {
    /// It takes one of the places for held logins and waits.
    Hold,
    /// It is sent away at once, and comes again by itself: a message from its queue, a connection when it is needed.
    /// It takes no place.
    Defer,
}

/// The answer.
#[derive(Debug)]
pub enum Admission {
    /// Registered, with a route.
    Routed(SessionGuard),
    /// Registered without a route: the subject is fenced. Wait for
    /// [`released`](HeldLogin::released), then drop it and admit again.
    Held(HeldLogin),
    /// The subject is fenced, and this was not to wait. Nothing is registered.
    Deferred,
    /// The subject goes nowhere, as a configured fact. Nothing is registered.
    Refused(NoRoute),
    /// There is no table yet: temporarily unavailable (rule 5).
    NoTable,
    /// The subject is fenced and too many logins are held already: temporarily unavailable.
    TooManyHeld(HoldLimit),
    /// [`close_all`](super::Registry::close_all) was called: nobody is admitted any more.
    Closed(CloseReason),
}

/// Which limit on held logins was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldLimit {
    /// [`HoldLimits::total`](crate::limits::HoldLimits::total)
    Total,
    /// [`HoldLimits::per_name`](crate::limits::HoldLimits::per_name)
    PerName,
    /// [`HoldLimits::per_name_and_address`](crate::limits::HoldLimits::per_name_and_address)
    PerNameAndAddress,
}

impl HoldLimit {
    /// Its key in `[limits.hold]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerName => "per_name",
            Self::PerNameAndAddress => "per_name_and_address",
        }
    }
}
