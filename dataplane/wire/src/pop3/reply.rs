//! What a backend answers, line by line.

use super::quirks;
use crate::code::split_word;

/// The line that ends a list (RFC 1939 §3).
pub(super) const END_OF_LIST: &[u8] = b".";

/// The first line of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// `+OK`, with the text behind it.
    Ok(&'a [u8]),
    /// `-ERR`, with the text behind it.
    Err(&'a [u8]),
    /// `+`, with a challenge behind it (RFC 5034 §4).
    Challenge(&'a [u8]),
}

/// Reads a line; `None` for what is no answer.
pub(super) fn parse(line: &[u8]) -> Option<Reply<'_>> {
    let (word, text) = split_word(line);
    if word.eq_ignore_ascii_case(b"+OK") {
        Some(Reply::Ok(text))
    } else if word.eq_ignore_ascii_case(b"-ERR") {
        Some(Reply::Err(text))
    } else if word == quirks::BARE_CONTINUE {
        Some(Reply::Challenge(text))
    } else {
        None
    }
}

/// A line of a list as it was before the server put a full stop before its own (RFC 1939 §3).
pub(super) fn unstuffed(line: &[u8]) -> &[u8] {
    line.strip_prefix(b".").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(parse(b"+OK hi"), Some(Reply::Ok(b"hi")));
        assert_eq!(parse(b"+OK"), Some(Reply::Ok(b"")));
        assert_eq!(parse(b"-err [AUTH] no"), Some(Reply::Err(b"[AUTH] no")));
        assert_eq!(parse(b"+ e30="), Some(Reply::Challenge(b"e30=")));
        assert_eq!(parse(b"+"), Some(Reply::Challenge(b"")));
        for foreign in [
            &b"* OK imap"[..],
            b"220 smtp",
            b"+OKAY",
            b"-ERROR x",
            b"",
            b" +OK",
        ] {
            assert_eq!(parse(foreign), None, "{}", foreign.escape_ascii());
        }
    }
}
