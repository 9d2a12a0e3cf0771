//! The grammar that both directions share: words, quoted strings, literals (RFC 5804 §1.2, §4).

use zeroize::Zeroizing;

use crate::secret::{Secret, SecretWriter};

/// The longest quoted string that is sent, in octets: what peers are asked to take (`quoted`, RFC 5804 §4).
const MAX_QUOTED: usize = 1024;

/// Where in a line the next octet stands. Read from a line's start to its end it tells which literal the line
/// announces: braces inside a string are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where a value may start: at the line's start, behind a space, a parenthesis, a string.
    Gap,
    Word,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    /// Behind the brace of a literal and this many digits of this value.
    Length(u64, u8),
    /// Behind the plus of a literal.
    Plus(u64),
    /// Behind a literal's closing brace.
    Announced(u64),
    /// Behind that and a CR.
    AnnouncedCr(u64),
}

/// What follows a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Another line.
    Line,
    /// A literal of so many octets, and the rest of the line behind it.
    Literal(u32),
    /// Nobody can tell: the line ends like one that announces a literal, of a length that none can have
    /// (`number`, RFC 5804 §4).
    Unclear,
}

impl Place {
    /// The place behind `octet`, which is not LF.
    pub(super) fn behind(self, octet: u8) -> Self {
        match (self, octet) {
            (Self::Quoted, b'"') => Self::Gap,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted | Self::Escaped, _) | (Self::Gap, b'"') => Self::Quoted,
            (Self::Gap, b'{') => Self::Length(0, 0),
            (Self::Length(length, digits), b'0'..=b'9') => {
                let length = length.saturating_mul(10);
                let length = length.saturating_add(u64::from(octet - b'0'));
                Self::Length(length, digits.saturating_add(1))
            }
            (Self::Length(length, 1..), b'+') => Self::Plus(length),
            (Self::Length(length, 1..) | Self::Plus(length), b'}') => Self::Announced(length),
            (Self::Announced(length), b'\r') => Self::AnnouncedCr(length),
            (_, b' ' | b'\t' | b'(' | b')') => Self::Gap,
            _ => Self::Word,
        }
    }

    /// What follows a line that ends here. A string that is open is no string: none holds a line's end.
    pub(super) fn at_end(self) -> Behind {
        match self {
            Self::Announced(length) | Self::AnnouncedCr(length) => match u32::try_from(length) {
                Ok(length) => Behind::Literal(length),
                Err(_) => Behind::Unclear,
            },
            _ => Behind::Line,
        }
    }
}

/// What follows `line`, which is given without its end.
pub(super) fn behind(line: &[u8]) -> Behind {
    let octets = line.iter().chain(b"\r");
    let place = octets.fold(Place::Gap, |place, &octet| place.behind(octet));
    place.at_end()
}

/// What is left to read of a command or a response, its lines joined by CRLF with their literals between.
///
/// Every method takes what it names from the front, or returns `None` and leaves an unspecified rest.
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Whether everything has been read.
    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes any number of spaces.
    pub(super) fn spaces(&mut self) {
        self.take_while(|octet| octet == b' ');
    }

    /// Takes one `octet`, if it is next.
    pub(super) fn eat(&mut self, octet: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == octet).then(|| self.rest = rest)
    }

    /// An atom: the name of a command, a status or a code.
    pub(super) fn atom(&mut self) -> Option<&'a [u8]> {
        let atom = self.take_while(|octet| {
            octet.is_ascii_graphic() && !matches!(octet, b'(' | b')' | b'{' | b'"' | b'\\')
        });
        (!atom.is_empty()).then_some(atom)
    }

    /// A quoted string or a literal. What is in it may be a password, so that nothing is guessed: a backslash
    /// stands before a quote or a backslash.
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
        let end = memchr::memchr(b'\n', self.rest)?;
        let head = &self.rest[..end];
        let Behind::Literal(length) = behind(head.strip_suffix(b"\r").unwrap_or(head)) else {
            return None;
        };
        let length = usize::try_from(length).ok()?;
        let (value, rest) = self.rest[end + 1..].split_at_checked(length)?;
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

/// How a string of so many octets is begun as a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// `{n+}`: the only form for a client (`literal-c2s`, RFC 5804 §4).
    Client,
    /// `{n}`: the only form for a server.
    Server,
}

/// Writes `value` as a string: quoted if it can be, else as a literal.
pub(super) fn write_string(value: &[u8], sender: Sender, mut put: impl FnMut(u8)) {
    let quotable = |octet: &u8| !matches!(octet, 0 | b'\r' | b'\n');
    if value.len() <= MAX_QUOTED && value.iter().all(quotable) {
        put(b'"');
        for &octet in value {
            if matches!(octet, b'"' | b'\\') {
                put(b'\\');
            }
            put(octet);
        }
        put(b'"');
        return;
    }
    let plus = match sender {
        Sender::Client => "+",
        Sender::Server => "",
    };
    let head = format!("{{{}{plus}}}\r\n", value.len());
    head.bytes().chain(value.iter().copied()).for_each(put);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_announced_at_a_lines_end_where_a_value_may_start() {
        for line in [
            &b"PUTSCRIPT \"a\" {5+}"[..],
            b"PUTSCRIPT \"a\" {5}",
            b"PUTSCRIPT \"a\"{5+}",
            b"{5}",
            b"NO (QUOTA) {5}",
            b"OK (TAG {5}",
            b"PUTSCRIPT \"{7}\\\"\" {5}",
        ] {
            assert_eq!(behind(line), Behind::Literal(5), "{}", line.escape_ascii());
        }
        for line in [
            &b"PUTSCRIPT \"a {5+}\""[..],
            b"PUTSCRIPT \"a {5+}",
            b"PUTSCRIPT \"a\\\" {5+}",
            b"PUTSCRIPT a{5}",
            b"PUTSCRIPT {}",
            b"PUTSCRIPT {+}",
            b"PUTSCRIPT {-1+}",
            b"PUTSCRIPT {5++}",
            b"PUTSCRIPT {5+} ",
            b"PUTSCRIPT {5+}\r",
            b"PUTSCRIPT {5",
            b"",
        ] {
            assert_eq!(behind(line), Behind::Line, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_length_beyond_all_numbers_is_unclear() {
        assert_eq!(behind(b"X {4294967295+}"), Behind::Literal(u32::MAX));
        assert_eq!(behind(b"X {4294967296+}"), Behind::Unclear);
        assert_eq!(behind(b"X {99999999999999999999999+}"), Behind::Unclear);
    }

    #[test]
    fn strings_in_every_spelling_read_the_same() {
        for spelling in [&br#""a\"b\\c""#[..], b"{5}\r\na\"b\\c", b"{5+}\r\na\"b\\c"] {
            let mut lexer = Lexer::new(spelling);
            assert_eq!(lexer.string().unwrap().expose(), br#"a"b\c"#);
            assert!(lexer.at_end());
        }
        for bad in [
            &br#""a\nb""#[..],
            b"\"a",
            b"\"a\\",
            b"\"a\0b\"",
            b"\"a\r\nb\"",
            b"{5+}\r\nabc",
            b"{5+}abcde",
            b"abc",
        ] {
            assert!(Lexer::new(bad).string().is_none(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_is_written_is_read_again_the_same() {
        let long = vec![b'x'; MAX_QUOTED + 1];
        for value in [&b""[..], b"a\"b\\c", b"a\r\nNO", b"\0", b"\xc3\xa4", &long] {
            for sender in [Sender::Client, Sender::Server] {
                let mut written = Vec::new();
                write_string(value, sender, |octet| written.push(octet));
                let mut lexer = Lexer::new(&written);
                assert_eq!(lexer.string().unwrap().expose(), value);
                assert!(lexer.at_end());
            }
        }
    }
}
