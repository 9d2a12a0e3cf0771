//! What a machine is made with: limits, the state of its leg, and what to offer or announce.

use std::sync::Arc;

use crate::facts::{ClientFacts, Introduction};

/// Whether a leg may carry a secret as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// It is in clear: STARTTLS comes before any secret.
    Clear,
    /// It is encrypted, or its configuration declares it safe in clear.
    Secure,
}

/// Whether the driver can tell whose a bearer token is. Where it cannot, such a login goes nowhere, and is not
/// offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// It can, as far as its configuration goes.
    Readable,
    /// It cannot of any.
    Unreadable,
}

/// What a [`Front`](crate::Front) is made with. `O` is the protocol's [`Offer`](crate::Offer).
#[derive(Debug)]
pub struct FrontSettings<O> {
    /// How the client is connected.
    pub channel: Channel,
    /// What to offer before login.
    pub offer: Arc<O>,
    /// What a stranger may make us do.
    pub limits: FrontLimits,
}

/// What a client may do before it is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontLimits {
    /// Octets of a line without its end, responses of AUTHENTICATE included. The default is the
    /// 12288 that RFC 4954 §4 asks for such responses: bearer tokens of 6 KB are seen. Past it: a
    /// farewell and the end.
    pub max_line: usize,
    /// Octets of all literals of a command together, which one of them may use up. The default is that of
    /// a line, 12288: what may be typed may come as a literal too, and LITERAL- promises 4096 for each
    /// (RFC 7888 §5). Past it: the command is refused, and what comes of it unasked is read and dropped.
    pub max_literal: usize,
    /// Commands before a login succeeds, default 100. Past it: a farewell and the end.
    pub max_commands: u32,
    /// Commands that are not understood or out of place, default 10; few, since what makes many is
    /// not a mail client. Past it: a farewell and the end. Failed logins are counted by the driver.
    pub max_errors: u32,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            max_line: 12_288,
            max_literal: 12_288,
            max_commands: 100,
            max_errors: 10,
        }
    }
}

/// What a [`Negotiate`](crate::Negotiate) is made with.
#[derive(Debug, Clone)]
pub struct BackSettings {
    /// How we are connected to the backend. With [`Channel::Clear`] STARTTLS is demanded.
    pub channel: Channel,
    /// The client to announce in the protocol's own words; `None` where it is announced by PROXY
    /// protocol or not at all, and for a probe.
    pub announce: Option<ClientFacts>,
    /// What the client said about itself, for a backend that it is not announced to in the protocol's own
    /// words (an announcement carries it too). Empty for a probe.
    pub introduction: Introduction,
    /// Whether something went before on the connection that is not of the protocol, as a PROXY header: what a
    /// backend calls an error before the login that belongs to no command is about it.
    pub prefaced: bool,
    /// What a backend may make us do.
    pub limits: BackLimits,
}

/// What a backend may say before and at a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackLimits {
    /// Octets of a line without its end, default 8192: capability lists are the longest.
    pub max_line: usize,
    /// Lines until the login is decided, default 100. Past either the backend is unavailable.
    pub max_lines: u32,
    /// Octets of lines that are passed on to the client with a backend's OK, default 8192.
    pub max_untagged: usize,
}

impl Default for BackLimits {
    fn default() -> Self {
        Self {
            max_line: 8192,
            max_lines: 100,
            max_untagged: 8192,
        }
    }
}
