//! What we say ourselves, all of it constant, and how an answer is written.

use crate::Keywords;
use crate::reply::{ClientReply, ClientViolation, Farewell, Rejection, RejectionKind};
use crate::secret::InvalidCredentials;

/// The same for every reason, so that unknown names, wrong passwords and the servers behind us look
/// alike.
const AUTH_FAILED: &str = "-ERR [AUTH] The name or the password is wrong.";
/// For a refusal that the server did not call a wrong password, though it could have: at [AUTH] clients drop
/// the one that they have stored. As long as the other, so that it tells no more from outside TLS.
const REFUSED: &str = "-ERR The server refused it and gave no reason.";
const UNAVAILABLE: &str = "-ERR [SYS/TEMP] The login is not possible for now, try again later.";

/// Writes an answer of one line.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a challenge (RFC 5034 §4).
pub(super) fn challenge(out: &mut Vec<u8>, challenge: &str) {
    out.extend_from_slice(b"+ ");
    line(out, challenge);
}

/// Writes a list (RFC 1939 §3). None of our lines begins with a full stop.
pub(super) fn list(
    out: &mut Vec<u8>,
    head: &str,
    lines: impl IntoIterator<Item = impl AsRef<str>>,
) {
    line(out, head);
    for text in lines {
        line(out, text.as_ref());
    }
    line(out, ".");
}

/// Writes what is offered.
pub(super) fn capabilities(out: &mut Vec<u8>, offered: &Keywords) {
    list(
        out,
        "+OK That is what is offered before the login.",
        offered.lines(),
    );
}

/// The answer to a login that does not succeed.
pub(super) fn refusal(reply: &ClientReply) -> String {
    match reply {
        ClientReply::Rejected(rejection) => pass_on(rejection),
        ClientReply::Unfit(InvalidCredentials::TooLong) => {
            violation(ClientViolation::LineTooLong).to_owned()
        }
        ClientReply::AuthFailed | ClientReply::Unfit(_) => AUTH_FAILED.to_owned(),
        ClientReply::Unavailable => UNAVAILABLE.to_owned(),
        ClientReply::Closing(why) => goodbye(*why).trim_ascii_end().to_owned(),
    }
}

/// A backend's refusal goes on with its code and text if it has a code that steers what clients do
/// next; otherwise in words of ours, which are the same for every server, unless it is a token's, which the
/// backend has refused in its own words.
fn pass_on(rejection: &Rejection) -> String {
    let is_wrong = rejection.kind() == RejectionKind::Credentials;
    // What begins like a code would be read as one.
    let own = Some(rejection.text()).filter(|text| !text.is_empty() && !text.starts_with('['));
    match (rejection.code(), own) {
        (Some(code), _) => format!("-ERR [{code}] {}", rejection.text()),
        (None, Some(text)) if is_wrong => format!("-ERR [AUTH] {text}"),
        (None, Some(text)) => format!("-ERR {text}"),
        (None, None) if is_wrong => AUTH_FAILED.to_owned(),
        (None, None) => REFUSED.to_owned(),
    }
}

/// The goodbye to a client that broke the rules.
pub(super) fn violation(violation: ClientViolation) -> &'static str {
    match violation {
        ClientViolation::LineTooLong | ClientViolation::LiteralTooLong => {
            "-ERR The line is too long."
        }
        ClientViolation::TooManyCommands => "-ERR Too many commands before the login.",
        ClientViolation::TooManyErrors => "-ERR Too many mistakes.",
        ClientViolation::ForeignProtocol => "-ERR This is a POP3 server.",
    }
}

/// The whole line that ends a session. It is read as the answer to a login that waits for one, or to the
/// command that comes next: so it never says that a password is wrong.
pub(super) fn goodbye(why: Farewell) -> &'static str {
    match why {
        Farewell::Moved => "-ERR [SYS/TEMP] This account is being moved, connect again.\r\n",
        Farewell::Kicked => "-ERR [SYS/TEMP] The session was ended by an administrator.\r\n",
        Farewell::ShuttingDown => "-ERR [SYS/TEMP] The server is shutting down, connect again.\r\n",
        Farewell::TooMany => "-ERR [SYS/TEMP] Too many connections.\r\n",
        Farewell::TooManyFailures => "-ERR Too many failed logins.\r\n",
        Farewell::IdleTimeout => "-ERR Nothing was heard for too long.\r\n",
        Farewell::LoginTimeout => "-ERR [SYS/TEMP] The login took too long.\r\n",
        Farewell::Relogin => "-ERR One connection serves one account, connect again.\r\n",
        Farewell::ProtocolError => "-ERR That was not understood.\r\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_password_and_a_refusal_without_a_reason_are_of_one_size() {
        assert_eq!(AUTH_FAILED.len(), REFUSED.len());
    }
}
