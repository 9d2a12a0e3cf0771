//! The grammar that both directions share: tags, atoms, quoted strings, literals (RFC 9051 §9).

use zeroize::Zeroizing;

use super::quirks;
use crate::secret::{Secret, SecretWriter};

/// The longest tag that is echoed, in octets. Clients use up to a dozen; a long one would only be
/// a way to make us say something.
const MAX_TAG: usize = 128;

/// The longest literal that anybody can mean (`number64`, RFC 9051 §9).
pub(super) const MAX_LITERAL: u64 = i64::MAX as u64;

/// A command's tag: short, and of characters that mean nothing else in an answer, so that it may be
/// echoed as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A literal that a line ends with: its octets follow the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announcement {
    /// How many octets follow; saturated where the number is beyond all reason.
    pub(super) length: u64,
    /// Whether the sender waits for leave to send them. (`{n+}` does not, RFC 7888.)
    pub(super) synchronising: bool,
}

/// The literal that a client's `line`, given without its end, announces.
///
/// The brace must stand where a value may start, behind a space or a parenthesis (or behind the `~`
/// of a literal8, RFC 3516). Anything else is a brace inside a word, which is an error and no
/// literal to every server that reads the grammar.
pub(super) fn announced_literal(line: &[u8]) -> Option<Announcement> {
    let (before, literal) = trailing_literal(line)?;
    let before = before.strip_suffix(b"~").unwrap_or(before);
    matches!(before.last(), Some(b' ' | b'(')).then_some(literal)
}

/// The literal that `line`, given without its end, ends with, and what stands before its brace.
pub(super) fn trailing_literal(line: &[u8]) -> Option<(&[u8], Announcement)> {
    let inner = line.strip_suffix(b"}")?;
    let (inner, synchronising) = match inner.strip_suffix(b"+") {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    let digits = inner
        .iter()
        .rev()
        .take_while(|octet| octet.is_ascii_digit());
    let (before, digits) = inner.split_at(inner.len() - digits.count());
    let before = before.strip_suffix(b"{")?;
    if digits.is_empty() {
        return None;
    }
    let literal = Announcement {
        length: number(digits),
        synchronising,
    };
    Some((before, literal))
}

/// The value of `digits`, saturated.
pub(super) fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value: u64, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    })
}

/// What is left of a command to read, its lines joined by CRLF with their literals between.
///
/// Every method takes what it names from the front, or returns `None` and leaves an unspecified
/// rest: a command that does not parse is not read further.
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
}

impl<'a> Lexer<'a> {
    pub(super) fn new(command: &'a [u8]) -> Self {
        Self { rest: command }
    }

    /// Whether everything has been read.
    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes one `octet`, if it is next.
    pub(super) fn eat(&mut self, octet: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == octet).then(|| self.rest = rest)
    }

    /// `1*<any ASTRING-CHAR except "+">`
    pub(super) fn tag(&mut self) -> Option<Tag> {
        let tag = self.take_while(|octet| is_astring_char(octet) && octet != b'+');
        if tag.is_empty() || tag.len() > MAX_TAG {
            return None;
        }
        str::from_utf8(tag).ok().map(|tag| Tag(tag.to_owned()))
    }

    /// An atom: a command's name, a mechanism's, NIL.
    pub(super) fn atom(&mut self) -> Option<&'a [u8]> {
        let atom = self.take_while(is_atom_char);
        (!atom.is_empty()).then_some(atom)
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Everything up to the next space or the end, if there is anything.
    pub(super) fn word(&mut self) -> Option<&'a [u8]> {
        let word = self.take_while(|octet| octet != b' ');
        (!word.is_empty()).then_some(word)
    }

    /// An astring whose atoms may hold [a little more](quirks::is_in_login_atom).
    pub(super) fn login_string(&mut self) -> Option<Secret> {
        match self.rest.first()? {
            b'"' | b'{' => self.string(),
            _ => {
                let fit = |octet| is_astring_char(octet) || quirks::is_in_login_atom(octet);
                let atom = self.take_while(fit);
                (!atom.is_empty())
                    .then(|| SecretWriter::with_capacity(atom.len()).text(atom).finish())
            }
        }
    }

    /// A quoted string or a literal.
    pub(super) fn string(&mut self) -> Option<Secret> {
        match self.rest.first()? {
            b'"' => self.quoted(),
            b'{' => self.literal(),
            _ => None,
        }
    }

    fn quoted(&mut self) -> Option<Secret> {
        self.eat(b'"')?;
        let mut value = Zeroizing::new(Vec::with_capacity(self.rest.len()));
        loop {
            let (&octet, rest) = self.rest.split_first()?;
            self.rest = rest;
            match octet {
                b'"' => return Some(Secret::new(value)),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    // Only these two may be escaped; guessing what another one means could make
                    // another password of it.
                    if !matches!(escaped, b'"' | b'\\') {
                        return None;
                    }
                    value.push(escaped);
                }
                b'\0' | b'\r' | b'\n' => return None,
                _ => value.push(octet),
            }
        }
    }

    fn literal(&mut self) -> Option<Secret> {
        self.eat(b'{')?;
        let digits = self.take_while(|octet| octet.is_ascii_digit());
        let length = usize::try_from(number(digits)).ok()?;
        if digits.is_empty() {
            return None;
        }
        let _ = self.eat(b'+');
        self.eat(b'}')?;
        self.eat(b'\r')?;
        self.eat(b'\n')?;
        let (value, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(SecretWriter::with_capacity(length).text(value).finish())
    }

    fn take_while(&mut self, fit: impl Fn(u8) -> bool) -> &'a [u8] {
        let count = self.rest.iter().take_while(|&&octet| fit(octet)).count();
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }
}

/// `ATOM-CHAR`
fn is_atom_char(octet: u8) -> bool {
    is_astring_char(octet) && octet != b']'
}

/// `ASTRING-CHAR`
fn is_astring_char(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\')
}

/// Whether `text` can be written as a quoted string: US-ASCII without NUL, CR and LF
/// (RFC 9051 §4.3).
pub(super) fn can_be_quoted(text: &[u8]) -> bool {
    text.iter()
        .all(|octet| octet.is_ascii() && !matches!(octet, 0 | b'\r' | b'\n'))
}

/// Writes `text`, which [can be quoted](can_be_quoted), as a quoted string.
pub(super) fn write_quoted(text: &[u8], mut put: impl FnMut(u8)) {
    put(b'"');
    for &octet in text {
        if matches!(octet, b'"' | b'\\') {
            put(b'\\');
        }
        put(octet);
    }
    put(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(line: &[u8]) -> Option<(u64, bool)> {
        announced_literal(line).map(|literal| (literal.length, literal.synchronising))
    }

    #[test]
    fn a_literal_is_announced_only_where_a_value_may_start() {
        assert_eq!(announced(b"a LOGIN {5}"), Some((5, true)));
        assert_eq!(announced(b"a LOGIN {5+}"), Some((5, false)));
        assert_eq!(announced(b"a ID ({4}"), Some((4, true)));
        assert_eq!(announced(b"a APPEND x ~{310}"), Some((310, true)));
        for line in [
            &b"a LOGIN x{5}"[..],
            b"a LOGIN {}",
            b"a LOGIN {+}",
            b"a LOGIN {-5}",
            b"a LOGIN {5+} ",
            b"a LOGIN \"x{5}\"",
            b"{5}",
            b"}",
            b"",
        ] {
            assert_eq!(announced(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn an_absurd_length_saturates() {
        let line = b"a LOGIN {99999999999999999999999999}";
        assert_eq!(announced(line), Some((u64::MAX, true)));
    }

    #[test]
    fn strings_in_every_spelling_read_the_same() {
        for spelling in [&b"al(ice"[..2], b"\"al\"", b"{2}\r\nal", b"{2+}\r\nal"] {
            let mut lexer = Lexer::new(spelling);
            let read = lexer.login_string().unwrap();
            assert_eq!(read.expose(), b"al");
            assert!(lexer.at_end());
        }
    }

    #[test]
    fn quotes_and_backslashes_are_unescaped_and_nothing_else() {
        let mut lexer = Lexer::new(br#""a\"b\\c""#);
        assert_eq!(lexer.login_string().unwrap().expose(), br#"a"b\c"#);
        for bad in [
            &br#""a\nb""#[..],
            b"\"a",
            b"\"a\\",
            b"\"a\0b\"",
            b"\"a\r\nb\"",
        ] {
            assert!(
                Lexer::new(bad).login_string().is_none(),
                "{}",
                bad.escape_ascii()
            );
        }
    }

    #[test]
    fn a_tag_that_could_not_be_echoed_is_none() {
        for bad in [
            &b"+ x"[..],
            b"* x",
            b"\"a x",
            b"(a) x",
            b"",
            b" x",
            b"\x1b x",
            b"\xff x",
        ] {
            assert_eq!(Lexer::new(bad).tag(), None, "{}", bad.escape_ascii());
        }
        assert!(Lexer::new(&[b'a'; MAX_TAG]).tag().is_some());
        assert!(Lexer::new(&[b'a'; MAX_TAG + 1]).tag().is_none());
    }
}
