//! The closed sets of words that attributes are made of. What ends a login or a session says which word it is
//! (`session::outcome`); a word that is missing here would be counted under no name.

/// Every word for whose fault an end was.
pub const BLAMES: &[&str] = &["nobody", "client", "backend", "us", "control_plane"];

/// Every word for the end of a login beside those of [`TOLD`].
pub const LOGIN_OUTCOMES: &[&str] = &[
    "accepted",
    "malformed",
    "no_name",
    "refused",
    "no_table",
    "too_many_held",
    "held_too_long",
    "no_endpoint",
    "backend_unavailable",
    "no_verdict",
    "rejected",
    "server_refused",
    "route_changed",
    "client_gone",
];

/// Every word for the end of a session before it was relayed, beside those of [`TOLD`].
pub const SESSION_ENDS: &[&str] = &[
    "tls_too_old",
    "handshake_failed",
    "handshake_timeout",
    "client_ended",
    "client_failed",
    "protocol_error",
    "client_left",
    "login_timeout",
    "too_many_failures",
];

/// Every word for the end of a relay that no session has before, beside those of [`TOLD`].
pub const RELAY_ENDS: &[&str] = &[
    "backend_ended",
    "backend_failed",
    "idle",
    "client_stuck",
    "backend_stuck",
    "refused_command",
    "no_room",
];

/// Every word for the end of what was told to end.
pub const TOLD: &[&str] = &["moved", "kicked", "stopping", "expelled"];
