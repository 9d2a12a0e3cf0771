//! What a client asks for, before it is logged in and after.

use super::quirks;

/// The commands that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ehlo,
    Helo,
    Auth,
    StartTls,
    Noop,
    Rset,
    Quit,
    /// For who is logged in, as are the next three.
    Transaction,
    /// With a message behind its reply.
    Data,
    /// With octets of a message behind it (RFC 3030).
    Bdat,
    /// With a message's address (RFC 4468).
    Burl,
    /// What only a proxy may say.
    Trust,
    Other,
}

impl Verb {
    fn from_name(name: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 16] = [
            (b"EHLO", Verb::Ehlo),
            (b"HELO", Verb::Helo),
            (b"AUTH", Verb::Auth),
            (b"STARTTLS", Verb::StartTls),
            (b"NOOP", Verb::Noop),
            (b"RSET", Verb::Rset),
            (b"QUIT", Verb::Quit),
            (b"MAIL", Verb::Transaction),
            (b"RCPT", Verb::Transaction),
            (b"VRFY", Verb::Transaction),
            (b"DATA", Verb::Data),
            (b"BDAT", Verb::Bdat),
            (b"BURL", Verb::Burl),
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

/// The arguments of AUTH: the mechanism's name and the initial response (RFC 4954 §4), still in base64.
pub(super) fn auth(arguments: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut words = words(arguments);
    let mechanism = words.next()?;
    let response = words.next().map(|response| match response {
        // "=" stands for a response that is there and empty.
        b"=" => &[][..],
        response => response,
    });
    words.next().is_none().then_some((mechanism, response))
}

/// What stands behind BDAT: octets of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) size: u64,
    pub(super) is_last: bool,
}

/// The arguments of BDAT: digits and perhaps LAST (RFC 3030 §2).
pub(super) fn chunk(arguments: &[u8]) -> Option<Chunk> {
    let mut words = words(arguments);
    let digits = words.next()?;
    let last = words.next();
    let ends_well = last.is_none_or(|word| word.eq_ignore_ascii_case(b"LAST"));
    // Digits alone: "+5" would be a number too.
    let is_sound = ends_well && words.next().is_none() && digits.iter().all(u8::is_ascii_digit);
    let size = str::from_utf8(digits).ok()?.parse().ok();
    let is_last = last.is_some();
    size.filter(|_| is_sound)
        .map(|size| Chunk { size, is_last })
}

fn words(arguments: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = arguments.split(|&octet| quirks::is_space(octet));
    words.filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_around_a_command_do_not_matter() {
        for line in [
            &b"EHLO client.example.org"[..],
            b"  ehlo   client.example.org ",
            b"EHLO\tclient.example.org\r",
        ] {
            assert_eq!(split(line), (Verb::Ehlo, &b"client.example.org"[..]));
        }
        assert_eq!(split(b""), (Verb::Other, &b""[..]));
        assert_eq!(split(b" \t"), (Verb::Other, &b""[..]));
        assert_eq!(split(b"AUTH=PLAIN x").0, Verb::Other);
    }

    #[test]
    fn an_empty_initial_response_is_not_a_missing_one() {
        assert_eq!(auth(b"PLAIN ="), Some((&b"PLAIN"[..], Some(&b""[..]))));
        assert_eq!(auth(b"PLAIN"), Some((&b"PLAIN"[..], None)));
        assert_eq!(auth(b"PLAIN  x"), Some((&b"PLAIN"[..], Some(&b"x"[..]))));
        assert_eq!(auth(b"PLAIN x AUTH=<>"), None);
        assert_eq!(auth(b""), None);
    }

    #[test]
    fn only_digits_are_the_size_of_a_chunk() {
        let whole = |size, is_last| Some(Chunk { size, is_last });
        assert_eq!(chunk(b"3 LAST"), whole(3, true));
        assert_eq!(chunk(b"86400 last"), whole(86400, true));
        assert_eq!(chunk(b"0"), whole(0, false));
        for other in [
            &b""[..],
            b"+3",
            b"3 FIRST",
            b"3 LAST x",
            b"LAST",
            b"18446744073709551616",
        ] {
            assert_eq!(chunk(other), None, "{}", other.escape_ascii());
        }
    }
}
