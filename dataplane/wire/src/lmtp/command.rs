//! What a mail system asks for.

use crate::smtp::quirks;

/// The commands that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Lhlo,
    /// SMTP's own two, which no LMTP server may take (RFC 2033 §4.1).
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    StartTls,
    /// What only a proxy may say.
    Trust,
    Other,
}

impl Verb {
    fn from_name(name: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 15] = [
            (b"LHLO", Verb::Lhlo),
            (b"HELO", Verb::Helo),
            (b"EHLO", Verb::Ehlo),
            (b"MAIL", Verb::Mail),
            (b"RCPT", Verb::Rcpt),
            (b"DATA", Verb::Data),
            (b"BDAT", Verb::Bdat),
            (b"RSET", Verb::Rset),
            (b"NOOP", Verb::Noop),
            (b"QUIT", Verb::Quit),
            (b"VRFY", Verb::Vrfy),
            (b"STARTTLS", Verb::StartTls),
            (b"XCLIENT", Verb::Trust),
            (b"XFORWARD", Verb::Trust),
            (b"XOIP", Verb::Trust),
        ];
        VERBS
            .iter()
            .find(|(verb, _)| name.eq_ignore_ascii_case(verb))
            .map_or(Self::Other, |&(_, verb)| verb)
    }
}

/// A command's name and what stands behind it, without the spaces around.
pub(super) fn split(line: &[u8]) -> (Verb, &[u8]) {
    let (name, rest) = quirks::split(line);
    (Verb::from_name(name), rest)
}

/// The size of a chunk, and whether it is the last one (RFC 3030 §2).
pub(super) fn chunk(arguments: &[u8]) -> Option<(u64, bool)> {
    let mut words = arguments
        .split(|&octet| quirks::is_space(octet))
        .filter(|word| !word.is_empty());
    let size = words.next()?;
    let is_last = words.next();
    let is_sound = size.iter().all(u8::is_ascii_digit)
        && is_last.is_none_or(|word| word.eq_ignore_ascii_case(b"LAST"))
        && words.next().is_none();
    let size = std::str::from_utf8(size).ok()?.parse().ok()?;
    is_sound.then_some((size, is_last.is_some()))
}
