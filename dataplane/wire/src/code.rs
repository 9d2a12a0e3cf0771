//! Response codes in brackets, as IMAP (RFC 9051 §7.1) and POP3 (RFC 2449 §8) have them.

/// The response code in brackets that a status text may start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) arguments: &'a [u8],
}

impl Code<'_> {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Splits a status text into its code and what people read.
pub(crate) fn split_code(text: &[u8]) -> (Option<Code<'_>>, &[u8]) {
    let Some(inner) = text.strip_prefix(b"[") else {
        return (None, text);
    };
    let Some(end) = inner.iter().position(|&octet| octet == b']') else {
        return (None, text);
    };
    let (name, arguments) = split_word(&inner[..end]);
    let rest = &inner[end + 1..];
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    (Some(Code { name, arguments }), rest)
}

/// Splits at the first space.
pub(crate) fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_split_from_its_text() {
        let (code, text) = split_code(b"[CAPABILITY A B] Hello [x]");
        let code = code.unwrap();
        assert!(code.is("capability"));
        assert_eq!(code.arguments, b"A B");
        assert_eq!(text, b"Hello [x]");
        assert_eq!(split_code(b"[open"), (None, &b"[open"[..]));
        assert_eq!(split_code(b"plain"), (None, &b"plain"[..]));
    }
}
