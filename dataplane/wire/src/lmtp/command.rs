//! What a mail system asks for.

use crate::smtp::quirks;

/// The commands that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Lhlo,
    /// SMTP's own, which no LMTP server may take (RFC 2033 §4.1).
    Hello,
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
            (b"HELO", Verb::Hello),
            (b"EHLO", Verb::Hello),
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
    let line = quirks::trim(line);
    let end = line.iter().position(|&octet| quirks::is_space(octet));
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    (Verb::from_name(name), quirks::trim(rest))
}
