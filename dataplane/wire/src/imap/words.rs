//! What we say ourselves, all of it constant, and how an answer line is written.

use super::lex::Tag;
use crate::reply::{ClientReply, ClientViolation, Farewell, Rejection, RejectionKind};
use crate::secret::InvalidCredentials;

/// The same for every reason, so that unknown names, wrong passwords and the servers behind us look
/// alike.
const AUTH_FAILED: &str = "NO [AUTHENTICATIONFAILED] The name or the password is wrong.";
/// For a refusal that the server did not call a wrong password: at that code clients drop the one that they
/// have stored. As long as the other, so that it tells no more from outside TLS.
const REFUSED: &str = "NO The server refused the login and did not say why exactly.";
const MALFORMED: &str = "BAD The response is not what the mechanism wants.";
const UNAVAILABLE: &str = "NO [UNAVAILABLE] The login is not possible for now, try again later.";

/// Writes the answer that ends a command.
pub(super) fn tagged(out: &mut Vec<u8>, tag: &Tag, text: &str) {
    out.extend_from_slice(tag.as_bytes());
    out.push(b' ');
    line(out, text);
}

/// Writes an answer that belongs to no command.
pub(super) fn untagged(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"* ");
    line(out, text);
}

/// Writes a challenge.
pub(super) fn continuation(out: &mut Vec<u8>, challenge: &str) {
    out.extend_from_slice(b"+ ");
    line(out, challenge);
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Answers the login that `tag` belongs to with something other than success.
pub(super) fn refuse_login(out: &mut Vec<u8>, tag: &Tag, reply: &ClientReply) {
    match reply {
        ClientReply::Rejected(rejection) => pass_on(out, tag, rejection),
        ClientReply::Unfit(InvalidCredentials::Malformed | InvalidCredentials::TooLong) => {
            tagged(out, tag, MALFORMED);
        }
        ClientReply::AuthFailed
        | ClientReply::Unfit(_)
        | ClientReply::Closing(Farewell::TooManyFailures) => tagged(out, tag, AUTH_FAILED),
        ClientReply::Unavailable | ClientReply::Closing(_) => tagged(out, tag, UNAVAILABLE),
    }
}

/// A backend's refusal goes on with its code and text if it has a code that steers what clients do
/// next (RFC 5530); otherwise in words of ours, which are the same for every server, unless it is a token's, which
/// the backend has refused in its own words.
fn pass_on(out: &mut Vec<u8>, tag: &Tag, rejection: &Rejection) {
    let is_wrong = rejection.kind() == RejectionKind::Credentials;
    // What begins like a code would be read as one.
    let own = Some(rejection.text()).filter(|text| !text.is_empty() && !text.starts_with('['));
    match (rejection.code(), own) {
        (Some(code), _) => tagged(out, tag, &format!("NO [{code}] {}", rejection.text())),
        (None, Some(text)) if is_wrong => {
            tagged(out, tag, &format!("NO [AUTHENTICATIONFAILED] {text}"));
        }
        (None, Some(text)) => tagged(out, tag, &format!("NO {text}")),
        (None, None) if is_wrong => tagged(out, tag, AUTH_FAILED),
        (None, None) => tagged(out, tag, REFUSED),
    }
}

/// The goodbye to a client that broke the rules.
pub(super) fn violation(violation: ClientViolation) -> &'static str {
    match violation {
        ClientViolation::LineTooLong => "BYE The line is too long.",
        ClientViolation::LiteralTooLong => "BYE The literal is too long.",
        ClientViolation::TooManyCommands => "BYE Too many commands before the login.",
        ClientViolation::TooManyErrors => "BYE Too many mistakes.",
        ClientViolation::ForeignProtocol => "BYE This is an IMAP server.",
    }
}

/// The whole line that ends a session.
pub(super) fn goodbye(why: Farewell) -> &'static [u8] {
    match why {
        Farewell::Moved => b"* BYE [UNAVAILABLE] This account is being moved, connect again.\r\n",
        Farewell::Kicked => b"* BYE The session was ended by an administrator.\r\n",
        Farewell::ShuttingDown => {
            b"* BYE [UNAVAILABLE] The server is shutting down, connect again.\r\n"
        }
        Farewell::TooMany => b"* BYE [LIMIT] Too many connections.\r\n",
        Farewell::TooManyFailures => b"* BYE Too many failed logins.\r\n",
        Farewell::IdleTimeout => b"* BYE Nothing was heard for too long.\r\n",
        Farewell::LoginTimeout => b"* BYE The login took too long.\r\n",
        Farewell::Relogin => b"* BYE One connection serves one account, connect again.\r\n",
        Farewell::ProtocolError => b"* BYE That was not understood.\r\n",
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
