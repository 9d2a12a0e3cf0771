//! Admission: a session is registered and its route chosen in one step.
//!
//! The step runs under the lock of the name's shard: resolve in the table in force, insert the entry. A
//! new table is published *before* the entries that it changes are closed, under the same locks; so each
//! session is either seen by that close or has already taken the new route. Only memory is touched under
//! the lock, never I/O.

use std::net::SocketAddr;

use ferrypost_proto::{Name, NoRoute, v1::Protocol};

use super::{CloseReason, HeldLogin, SessionGuard};

/// Who wants in.
#[derive(Debug, Clone)]
pub struct AdmitRequest {
    /// The canonical name of the login.
    pub name: Name,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Where it comes from.
    pub client: SocketAddr,
    /// The session's reference, as logged and announced.
    pub reference: String,
}

/// The answer.
#[derive(Debug)]
pub enum Admission {
    /// Registered, with a route.
    Routed(SessionGuard),
    /// Registered without a route: the name is fenced. Wait for
    /// [`released`](HeldLogin::released), then drop it and admit again.
    Held(HeldLogin),
    /// The name goes nowhere, as a configured fact. Nothing is registered.
    Refused(NoRoute),
    /// There is no table yet: temporarily unavailable (rule 5).
    NoTable,
    /// The name is fenced and too many logins are held already: temporarily unavailable.
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
