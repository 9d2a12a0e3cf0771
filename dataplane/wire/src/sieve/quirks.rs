//! Where we take more than the grammar allows, and for whose sake. The one list: each quirk is a function or a
//! constant that is used where it applies.
//!
//! The measure is what the servers take that people leave: `tests/leniency` has our answers beside those of
//! Dovecot. Nothing is guessed inside a string: what is in there may be a password.
//!
//! Four more have no place of their own:
//!
//! - A line may end with LF alone, and names of commands, mechanisms and codes are taken in any case, as in all
//!   protocols.
//! - A literal may be announced without the plus that a client owes (`{n}`), and without a space before it.
//!   Nobody waits for leave. (Dovecot)
//! - What stands behind a response, initial or not, is not looked at. (Dovecot)
//! - A text for people need not be a string, and need not be there. (Stalwart)

use super::lex::Lexer;

/// Any number of spaces where the grammar has one, none between strings, and some behind the last argument or
/// around a response. (Dovecot)
pub(super) fn stray_spaces(lexer: &mut Lexer<'_>) {
    lexer.spaces();
}
