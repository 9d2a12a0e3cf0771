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

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_unprintable_gets_through() {
        assert_eq!(printable(b"a\r\n* BYE\x1b[2J\xff", 240), "a??* BYE?[2J?");
        assert_eq!(printable(b"abcdef", 3), "abc");
    }
}
