//! Text that a peer wrote, made fit to be shown.

/// At most `max` octets of `text`, with everything that is not printable US-ASCII replaced by `?`:
/// it may go into a log, onto a terminal or into a reply line without meaning anything there.
pub(crate) fn printable(text: &[u8], max: usize) -> String {
    text.iter()
        .take(max)
        .map(|&octet| match octet {
            b' '..=b'~' => char::from(octet),
            _ => '?',
        })
        .collect()
}

/// The longest machine-readable code that is kept, in octets; the longest that is registered has 19.
const MAX_ATOM: usize = 32;

/// A machine-readable code, if it is one: capitals and hyphens, not too many. Capitals alone, since what stands
/// in brackets may be the beginning of a sentence about somebody.
pub(crate) fn atom(code: &[u8]) -> Option<String> {
    let is_one = (1..=MAX_ATOM).contains(&code.len())
        && code
            .iter()
            .all(|&octet| octet.is_ascii_uppercase() || octet == b'-');
    is_one.then(|| printable(code, MAX_ATOM))
}

#[cfg(test)]
mod tests {
    use super::{atom, printable};

    #[test]
    fn a_code_is_capitals_and_hyphens_or_none() {
        assert_eq!(atom(b"X-KNOWN").as_deref(), Some("X-KNOWN"));
        assert_eq!(atom(&[b'A'; 32]).map(|code| code.len()), Some(32));
        for other in [
            &b""[..],
            b"alice",
            b"A B",
            b"A\x1b",
            b"A1",
            "\u{c4}".as_bytes(),
            &[b'A'; 33],
        ] {
            assert_eq!(atom(other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn nothing_unprintable_gets_through() {
        assert_eq!(printable(b"a\r\n* BYE\x1b[2J\xff", 240), "a??* BYE?[2J?");
        assert_eq!(printable(b"abcdef", 3), "abc");
    }
}
