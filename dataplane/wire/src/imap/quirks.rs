//! Where we take more than the grammar allows, and for whose sake. The one list: each quirk is a function or
//! a constant that is used where it applies.
//!
//! The measure is what the servers take that people leave: `tests/leniency/imap.txt` has our answers beside those
//! of Dovecot and Cyrus. Nothing is guessed inside a quoted string or a literal: what is in there may be a
//! password.
//!
//! Two more are shared by all protocols: a line may end with LF alone ([`WireBuf::take_line`], for people who
//! type `openssl s_client <<EOF`), and names of commands, mechanisms and response codes are taken in any case.
//!
//! [`WireBuf::take_line`]: crate::WireBuf::take_line

use super::lex::Lexer;
use super::scan::Word;

// What clients send before the login.

/// Any number of spaces where the grammar has one, and none where a quoted string or a parenthesis ends what
/// stands before: before a command's name, between arguments, behind the last one, inside a list's parentheses. aioimaplib writes
/// `ID ( "name" "x" )`; others leave a space at the end of CAPABILITY or LOGIN.
pub(super) fn stray_spaces(lexer: &mut Lexer<'_>) {
    while lexer.eat(b' ').is_some() {}
}

/// CAPABILITY, NOOP and LOGOUT are obeyed whatever stands behind them, as far as it is no literal. Dovecot
/// does not look at it.
pub(super) fn ignores_arguments(rest: &[u8]) -> bool {
    rest.is_empty() || rest.starts_with(b" ")
}

/// ID without an argument is `ID NIL`. (Dovecot)
pub(super) fn is_id_without_argument(rest: &[u8]) -> bool {
    rest.iter().all(|&octet| octet == b' ')
}

/// In ID, the last name may lack its value; the name is left out. What stands behind the list or NIL is not
/// looked at. (Dovecot)
pub(super) fn ends_id_list(lexer: &mut Lexer<'_>) -> bool {
    lexer.eat(b')').is_some()
}

/// An unquoted name or password may hold the list wildcards, as people type `user%master`, and a backslash,
/// as domain logins have it.
pub(super) fn is_in_login_atom(octet: u8) -> bool {
    matches!(octet, b'%' | b'*' | b'\\')
}

// What servers say.

/// `+` alone asks to go on, without the space and the text. (Exchange)
pub(super) const BARE_CONTINUE: &[u8] = b"+";

/// Response codes that are in use without being registered for IMAP, and the registered ones that say the same
/// (RFC 5530): what clients know is passed on. `THROTTLED` is said by large providers, `IN-USE` is POP3's.
pub(super) const CODE_ALIASES: [(&str, &str); 2] = [("THROTTLED", "LIMIT"), ("IN-USE", "INUSE")];

// What clients and servers say in the relay.

/// Octets that end a word, when commands and answers are counted: a tab may stand for a space.
pub(super) fn ends_word(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// `* BAD`, where a server owes leave for a literal, refuses the literal's command for good: some limits are
/// announced without the command's tag. The next octets of the client's are a command.
pub(super) fn refuses_literal(status: &Word) -> bool {
    status.is(b"BAD")
}
