//! Where we take more than the grammar allows, and for whose sake. The one list: each quirk is a function or
//! a constant that is used where it applies.
//!
//! The measure is what the servers take that people leave: `tests/leniency/pop3.txt` has our answers beside
//! Dovecot's. Nothing is guessed about a name or a password: it is what stands behind the first space, up to
//! the line's end.
//!
//! Shared by all protocols: a line may end with LF alone, and names of commands, mechanisms and response codes
//! are taken in any case.

// What clients send before the login.

/// AUTH without a mechanism asks which there are: it was so before CAPA, and c-client still does. Dovecot takes
/// a second space for that too.
pub(super) fn asks_for_mechanisms(mechanism: &[u8]) -> bool {
    mechanism.is_empty()
}

/// Any number of spaces before and behind a first response. (Dovecot)
pub(super) fn trimmed(response: &[u8]) -> &[u8] {
    response.trim_ascii()
}

// What servers say.

/// `+` alone asks to go on, without the space and the text.
pub(super) const BARE_CONTINUE: &[u8] = b"+";

/// A server that knows no CAPA is one of RFC 1939: it has USER and PASS.
pub(super) const WITHOUT_CAPA: [&str; 1] = ["USER"];
