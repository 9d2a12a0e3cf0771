//! Where we take more than the grammar allows, and for whose sake. The one list: each quirk is a function or
//! a constant that is used where it applies.
//!
//! The measure is what the servers take that people leave: `tests/leniency/submission.txt` has our answers
//! beside those of Dovecot and Postfix, and we take what either takes. Nothing is guessed inside a response of
//! AUTH: it may be a password.
//!
//! Two more are shared by all protocols: a line may end with LF alone ([`WireBuf::take_line`], for people who
//! type `openssl s_client <<EOF`), and names of commands and mechanisms are taken in any case.
//!
//! [`WireBuf::take_line`]: crate::WireBuf::take_line

use super::command::Verb;

// What clients send before the login, and in the relay.

/// Octets that part words, as many as there are: in front of a command's name, between arguments, behind the
/// last one. (Postfix)
pub(crate) fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r')
}

/// Without such octets around it.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let is_text = |&octet: &u8| !is_space(octet);
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &text[start..end]
}

/// NOOP and QUIT are obeyed whatever stands behind them. (Postfix)
pub(super) fn ignores_arguments(verb: Verb) -> bool {
    matches!(verb, Verb::Noop | Verb::Quit)
}

/// The longest name that is passed on, in octets (RFC 5321 §4.5.3.1.2).
const MAX_NAME: usize = 255;

/// The name that a client greets with, as it may be written into another command. Anything is taken, such as
/// `my pc`, and what cannot stand in a name becomes `?`, as Postfix writes it into its own log and headers.
/// `None`: there is nothing that could be passed on.
pub(crate) fn helo_name(argument: &[u8]) -> Option<String> {
    let fits = (1..=MAX_NAME).contains(&argument.len());
    let fit = |&octet: &u8| match octet {
        b'<' | b'>' | b'(' | b')' | b'\\' | b'"' | b';' | b'@' => '?',
        octet if octet.is_ascii_graphic() => char::from(octet),
        _ => '?',
    };
    fits.then(|| argument.iter().map(fit).collect())
}

// What servers say.

/// A line that offers AUTH as clients of the last century looked for it: `AUTH=PLAIN LOGIN`. (Postfix with
/// `broken_sasl_auth_clients`, which says it both ways)
pub(super) fn extension(line: &str) -> String {
    match line.as_bytes().split_at_checked(5) {
        Some((keyword, _)) if keyword.eq_ignore_ascii_case(b"AUTH=") => {
            format!("AUTH {}", &line[5..])
        }
        _ => line.to_owned(),
    }
}
/// A command's name and what stands behind it, without the spaces around.
pub(crate) fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let line = trim(line);
    let end = line.iter().position(|&octet| is_space(octet));
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    (name, trim(rest))
}
