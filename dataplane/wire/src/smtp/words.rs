//! What we say ourselves, all of it constant.

use crate::reply::{ClientReply, ClientViolation, Farewell, Rejection, RejectionKind};
use crate::secret::InvalidCredentials;

/// The name that we greet with. A client knows us by the name that it connected to, which we do not.
pub(super) const NAME: &str = "ferrypost";

pub(super) const GREETING: &str = "220 ferrypost ESMTP is ready.";
pub(super) const OK: &str = "250 2.0.0 Done.";
pub(super) const BYE: &str = "221 2.0.0 Goodbye.";
pub(super) const BEGIN_TLS: &str = "220 2.0.0 Begin TLS now.";

pub(super) const UNKNOWN: &str = "500 5.5.1 Unknown command, or not one to use before the login.";
pub(super) const ARGUMENTS: &str = "501 5.5.4 The arguments of this command are wrong.";
pub(super) const TLS_IS_ON: &str = "502 5.5.1 TLS is on already.";
pub(super) const LOG_IN_FIRST: &str = "530 5.7.0 Log in first.";
pub(super) const TLS_FIRST: &str = "530 5.7.0 Use STARTTLS first.";
pub(super) const TLS_BEFORE_LOGIN: &str = "538 5.7.11 Use STARTTLS before you log in.";
pub(super) const NOT_YOURS: &str = "550 5.7.0 This command is not for you.";
pub(super) const CANCELLED: &str = "501 5.7.0 You cancelled the login.";
pub(super) const NO_MECHANISM: &str = "504 5.5.4 This mechanism is not offered.";
/// For one of ours, which a client may remember from a longer list: that list comes back.
pub(super) const NO_MECHANISM_NOW: &str = "454 4.7.0 This mechanism is not offered for now.";

/// The same for every reason, so that unknown names, wrong passwords and the servers behind us look
/// alike.
const AUTH_FAILED: &str = "535 5.7.8 The name or the password is wrong.";
/// For a refusal that the server did not call a wrong password: at 535 clients drop the one that they have
/// stored. As long as the other, so that it tells no more from outside TLS.
const REFUSED: &str = "554 5.7.0 The server said no without reason.";
const MALFORMED: &str = "501 5.5.2 The response is not what the mechanism wants.";
const UNAVAILABLE: &str = "454 4.7.0 The login is not possible for now, try again later.";

/// Writes a line.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The answer to a login that did not succeed: one line, for a command has one answer. Where the session ends
/// with it, its goodbye is that answer.
pub(super) fn refusal(reply: &ClientReply) -> String {
    match reply {
        ClientReply::Rejected(rejection) => rejected(rejection),
        ClientReply::Unfit(InvalidCredentials::TooLong) => {
            violation(ClientViolation::LineTooLong).to_owned()
        }
        ClientReply::Unfit(InvalidCredentials::Malformed) => MALFORMED.to_owned(),
        ClientReply::AuthFailed | ClientReply::Unfit(_) => AUTH_FAILED.to_owned(),
        ClientReply::Unavailable => UNAVAILABLE.to_owned(),
        ClientReply::Closing(why) => goodbye(*why).trim_ascii_end().to_owned(),
    }
}

/// A backend's refusal goes on with its code and text if it has a code that says more than no; otherwise in
/// words of ours, which are the same for every server, unless it is a token's, which the backend has refused in
/// its own words.
fn rejected(rejection: &Rejection) -> String {
    let is_wrong = rejection.kind() == RejectionKind::Credentials;
    match (rejection.code(), rejection.text()) {
        (Some(code), text) => format!("{code} {text}"),
        (None, "") if is_wrong => AUTH_FAILED.to_owned(),
        (None, "") => REFUSED.to_owned(),
        (None, text) if is_wrong => format!("535 5.7.8 {text}"),
        (None, text) => format!("554 5.7.0 {text}"),
    }
}

/// The goodbye to a client that broke the rules.
pub(super) fn violation(violation: ClientViolation) -> &'static str {
    match violation {
        ClientViolation::LineTooLong => "421 4.7.0 The line is too long.",
        // SMTP has no literals.
        ClientViolation::LiteralTooLong => "421 4.7.0 The message is too long.",
        ClientViolation::TooManyCommands => "421 4.7.0 Too many commands before the login.",
        ClientViolation::TooManyErrors => "421 4.7.0 Too many mistakes.",
        ClientViolation::ForeignProtocol => "421 4.7.0 This is a server for mail submission.",
    }
}

/// The whole line that ends a session. All of them are temporary errors (RFC 5321 §4.2.3), so that no client
/// gives up a message or a password for one.
pub(crate) fn goodbye(why: Farewell) -> &'static str {
    match why {
        Farewell::Moved => "421 4.3.2 This account is being moved, connect again.\r\n",
        Farewell::Kicked => "421 4.3.2 The session was ended by an administrator.\r\n",
        Farewell::ShuttingDown => "421 4.3.2 The server is shutting down, connect again.\r\n",
        Farewell::TooMany => "421 4.7.0 Too many connections.\r\n",
        Farewell::TooManyFailures => "421 4.7.0 Too many failed logins.\r\n",
        Farewell::IdleTimeout => "421 4.4.2 Nothing was heard for too long.\r\n",
        Farewell::LoginTimeout => "421 4.4.2 The login took too long.\r\n",
        Farewell::Relogin => "421 4.3.2 One connection serves one account, connect again.\r\n",
        Farewell::ProtocolError => "421 4.7.0 That was not understood.\r\n",
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
