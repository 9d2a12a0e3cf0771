//! What a backend's refusal means for the client: never more than the server said, for at a wrong password
//! clients drop the one that they have stored.
//!
//! | the server says | the client hears |
//! |---|---|
//! | 535, with any code that does not say otherwise: a wrong password (RFC 4954 §6) | 535 5.7.8, in our words |
//! | 432, 525, 534: the login is understood, and something is to be done about it | the same, with its text |
//! | another 5xx with an enhanced code | 554 5.7.1, with its text |
//! | another 5xx without one | 554 5.7.0: refused, and it did not say why |
//! | 523, 530, 538: it wants more TLS than our configuration has | 454 4.7.0 |
//! | another 4xx: not now | 454 4.7.0, with its text |
//! | 421, 500 to 504: it left, or did not understand us | 454 4.7.0, in our words |

use super::reply::Reply;
use crate::reply::{BackendViolation, Rejection, RejectionKind};

const LATER: &str = "454 4.7.0";

/// What a no to a login means.
///
/// # Errors
/// It says nothing about the login.
pub(super) fn on_login(reply: &Reply) -> Result<Rejection, BackendViolation> {
    use RejectionKind::{Policy, Temporary};
    let (enhanced, text) = reply.enhanced();
    let codes = reply.codes();
    let passed_on = |kind, code, is_about_the_login| {
        Rejection::passed_on(kind, code, text).with_server_code(&codes, is_about_the_login)
    };
    Ok(match (reply.code, enhanced) {
        (421, _) => return Err(BackendViolation::Bye),
        (500..=504, _) => return Err(BackendViolation::LoginNotUnderstood),
        // A password transition is needed (RFC 4954 §4.7.12): it is not over by itself.
        (432, _) => passed_on(Policy, "432 4.7.12", true),
        (400..=499, _) => passed_on(Temporary, LATER, false),
        (523 | 530 | 538, _) => {
            let text = b"The account cannot be served for now.";
            Rejection::passed_on(Temporary, LATER, text).with_server_code(&codes, false)
        }
        (525, _) => passed_on(Policy, "525 5.7.13", true),
        (534, _) => passed_on(Policy, "534 5.7.9", true),
        (535, code) if says_wrong_password(code) => {
            Rejection::credentials().with_server_code(&codes, true)
        }
        (500..=599, Some(_)) => passed_on(Policy, "554 5.7.1", false),
        (500..=599, None) => Rejection::unexplained().with_server_code(&codes, true),
        _ => return Err(BackendViolation::Malformed),
    })
}

/// 535 says it by itself. Some servers write an enhanced code that says less behind it (5.7.0 and 5.7.1, or
/// 5.7.3 as Exchange does); one that says something else is believed.
fn says_wrong_password(enhanced: Option<&str>) -> bool {
    matches!(enhanced, None | Some("5.7.8" | "5.7.0" | "5.7.1" | "5.7.3"))
}

/// What a no means that comes before the login, once the server knows who the client is: it is about the client
/// (its address, its name) and not about its password, so that the login fails for now, in the server's words.
pub(super) fn on_client(reply: &Reply) -> Rejection {
    let (_, text) = reply.enhanced();
    Rejection::passed_on(RejectionKind::Temporary, LATER, text)
        .with_server_code(&reply.codes(), true)
}
