//! Which refusals of a login say "later" and not "wrong".

use crate::history::Protocol;

/// RFC 5530 §3, and RFC 9051 §7.1 for LIMIT.
const IMAP: [&str; 3] = ["UNAVAILABLE", "INUSE", "LIMIT"];

/// RFC 2449 §8.1, RFC 3206 §4.
const POP3: [&str; 3] = ["SYS/TEMP", "IN-USE", "LOGIN-DELAY"];

/// RFC 5804 §1.3.
const MANAGE_SIEVE: [&str; 1] = ["TRYLATER"];

/// Whether whoever is refused with this code is to try again.
pub(super) fn is_temporary(protocol: Protocol, code: Option<&str>) -> bool {
    let code = code.unwrap_or_default();
    let is_known = |known: &[&str]| known.iter().any(|it| it.eq_ignore_ascii_case(code));
    match protocol {
        Protocol::Imap => is_known(&IMAP),
        Protocol::Pop3 => is_known(&POP3),
        Protocol::ManageSieve => is_known(&MANAGE_SIEVE),
        // RFC 5321 §4.2.1.
        Protocol::Submission | Protocol::Lmtp => code.starts_with('4'),
        // RFC 9110 §15.6.4. No server of a torture run is ever away, so that no gateway's status is right.
        Protocol::Http => code == "503",
    }
}
