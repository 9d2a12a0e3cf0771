//! What we say ourselves, all of it constant, and how an answer is written.
//!
//! Clients show these texts to people: the protocol has no other way to say why (RFC 5804 §1.3).

use super::lex::{Sender, write_string};
use crate::reply::{ClientReply, ClientViolation, Farewell, Rejection};
use crate::secret::InvalidCredentials;

/// The same for every reason, so that unknown names, wrong passwords and the servers behind us look alike. No
/// code says that a password is wrong, and so a server's NO without one may mean more than that.
const AUTH_FAILED: &str =
    "NO \"The name or the password is wrong, or the account may not log in here.\"";
const MALFORMED: &str = "NO \"The response is not what the mechanism wants.\"";
const UNAVAILABLE: &str = "NO (TRYLATER) \"The login is not possible for now, try again later.\"";

/// Writes an answer of ours.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a string of a line.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    write_string(text, Sender::Server, |octet| out.push(octet));
}

/// Answers a login with something other than success.
pub(super) fn refuse_login(out: &mut Vec<u8>, reply: &ClientReply) {
    match reply {
        ClientReply::Rejected(rejection) => pass_on(out, rejection),
        ClientReply::Unfit(InvalidCredentials::Malformed | InvalidCredentials::TooLong) => {
            line(out, MALFORMED);
        }
        ClientReply::AuthFailed
        | ClientReply::Unfit(_)
        | ClientReply::Closing(Farewell::TooManyFailures) => line(out, AUTH_FAILED),
        ClientReply::Unavailable | ClientReply::Closing(_) => line(out, UNAVAILABLE),
    }
}

/// A backend's refusal goes on with its code and text if it has a code that steers what clients do next;
/// otherwise in words of ours, which are the same for every server, unless it is a token's, which the backend has
/// refused in its own words.
fn pass_on(out: &mut Vec<u8>, rejection: &Rejection) {
    match (rejection.code(), rejection.text()) {
        (None, "") => return line(out, AUTH_FAILED),
        (None, _) => out.extend_from_slice(b"NO "),
        (Some(code), _) => out.extend_from_slice(format!("NO ({code}) ").as_bytes()),
    }
    string(out, rejection.text().as_bytes());
    line(out, "");
}

/// The goodbye to a client that broke the rules.
pub(super) fn violation(violation: ClientViolation) -> &'static str {
    match violation {
        ClientViolation::LineTooLong => "BYE \"The line is too long.\"",
        ClientViolation::LiteralTooLong => "BYE \"The literal is too long.\"",
        ClientViolation::TooManyCommands => "BYE \"Too many commands before the login.\"",
        ClientViolation::TooManyErrors => "BYE \"Too many mistakes.\"",
        ClientViolation::ForeignProtocol => "BYE \"This is a ManageSieve server.\"",
    }
}

/// The whole line that ends a session.
pub(super) fn goodbye(why: Farewell) -> &'static [u8] {
    match why {
        Farewell::Moved => b"BYE (TRYLATER) \"This account is being moved, connect again.\"\r\n",
        Farewell::Kicked => b"BYE \"The session was ended by an administrator.\"\r\n",
        Farewell::ShuttingDown => {
            b"BYE (TRYLATER) \"The server is shutting down, connect again.\"\r\n"
        }
        Farewell::TooMany => b"BYE (TRYLATER) \"Too many connections.\"\r\n",
        Farewell::TooManyFailures => b"BYE \"Too many failed logins.\"\r\n",
        Farewell::IdleTimeout => b"BYE \"Nothing was heard for too long.\"\r\n",
        Farewell::LoginTimeout => b"BYE \"The login took too long.\"\r\n",
        Farewell::Relogin => b"BYE \"One connection serves one account, connect again.\"\r\n",
        Farewell::ProtocolError => b"BYE \"That was not understood.\"\r\n",
    }
}
