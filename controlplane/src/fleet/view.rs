//! What a replica knows of a data plane whose stream it serves.

use ferrypost_proto::{Revision, routing::v1 as wire};

/// The last that was heard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The boot id.
    pub boot: String,
    /// The last table that was sent, whole; `None`: none yet.
    pub sent: Option<Revision>,
    /// The last table that it has applied; `None`: none yet.
    pub applied: Option<Revision>,
    /// It has answered within two heartbeats.
    pub answers: bool,
    /// It serves clients.
    pub ready: bool,
    /// Its sessions, held logins included.
    pub sessions: u64,
    /// Its held logins.
    pub held_logins: u64,
    /// Its verdict on each endpoint.
    pub endpoints: Vec<wire::EndpointHealth>,
}
