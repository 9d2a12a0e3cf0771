//! Keeping a second login off a connection whose server would take one (RFC 8437).
//!
//! The scanner finds commands as the grammar has them. Servers do not keep to the grammar when a client
//! does not: one takes a form feed for a space, one goes on behind an unknown word in the same line, one
//! gives up a line at an open quote and reads as commands what the line had announced as a literal. Each
//! would let a client hide UNAUTHENTICATE from us. So on such a server the word itself is looked for,
//! wherever the server might take it for a command: everywhere, but in the text of a message that is
//! appended by a line in which nothing can be misread.

/// The command.
const WORD: &[u8] = b"UNAUTHENTICATE";
/// Of WORD's beginnings, the one that ends as the word begins: UNAU.
const SELF_OVERLAP: usize = 4;
/// Octets of a line that can be trusted to be read as we read it. Servers give up longer ones.
const MAX_PLAIN_LINE: u16 = 1000;
/// Digits in a row, likewise: more than in any literal's length.
const MAX_DIGITS: u8 = 10;

/// Looks for the word in what a client sends.
#[derive(Debug, Default)]
pub(super) struct ReloginWatch {
    /// Octets of the word that stand behind us.
    matched: usize,
    /// Octets of a literal that cannot be taken for commands and are still to come.
    exempt: u64,
    line: Line,
}

/// How the current line might be misread.
#[derive(Debug, Default)]
struct Line {
    length: u16,
    digits: u8,
    /// The last two octets.
    before: [u8; 2],
    quote: Quote,
    /// It has something that servers read in different ways.
    is_odd: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Quote {
    #[default]
    Outside,
    Inside,
    Escaped,
}

impl ReloginWatch {
    /// Shows it the next octets; whether the word ended in them.
    pub(super) fn finds(&mut self, octets: &[u8]) -> bool {
        let skipped = octets
            .len()
            .min(usize::try_from(self.exempt).unwrap_or(usize::MAX));
        self.exempt -= skipped as u64;
        let mut found = false;
        for &octet in &octets[skipped..] {
            self.line.push(octet);
            self.matched = after(self.matched, octet);
            if self.matched == WORD.len() {
                self.matched = 0;
                found = true;
            }
        }
        found
    }

    /// Whether the line that has just ended is read by every server as we read it.
    pub(super) fn line_was_plain(&self) -> bool {
        !self.line.is_odd && self.line.quote == Quote::Outside
    }

    /// The next `length` octets are a literal, and the server knows it.
    pub(super) fn exempt(&mut self, length: u64) {
        self.exempt = length;
        self.matched = 0;
    }

    /// The server declined the literal.
    pub(super) fn restart(&mut self) {
        self.exempt = 0;
    }
}

impl Line {
    fn push(&mut self, octet: u8) {
        // The line's end stays to be asked about until the next line begins.
        if self.before[1] == b'\n' {
            *self = Self::default();
        }
        self.length = self.length.saturating_add(1);
        self.digits = match octet {
            b'0'..=b'9' => self.digits.saturating_add(1),
            _ => 0,
        };
        self.is_odd |= self.length > MAX_PLAIN_LINE || self.digits > MAX_DIGITS;
        self.is_odd |= octet.is_ascii_control() && !matches!(octet, b'\r' | b'\n');
        self.is_odd |= self.before[1] == b'\r' && octet != b'\n';
        let may_open = match octet {
            b'"' => matches!(self.before[1], b' ' | b'('),
            b'{' => matches!(self.before, [_, b' '] | [b' ', b'~']),
            _ => true,
        };
        self.is_odd |= self.quote == Quote::Outside && !may_open;
        self.quote = match (self.quote, octet) {
            (Quote::Outside, b'"') | (Quote::Escaped, _) => Quote::Inside,
            (Quote::Inside, b'"') => Quote::Outside,
            (Quote::Inside, b'\\') => Quote::Escaped,
            (quote, _) => quote,
        };
        self.before = [self.before[1], octet];
    }
}

/// How much of the word stands behind `octet`, when `matched` octets of it stood before.
fn after(matched: usize, octet: u8) -> usize {
    let octet = octet.to_ascii_uppercase();
    if octet == WORD[matched] {
        matched + 1
    } else if matched == SELF_OVERLAP && octet == WORD[1] {
        2
    } else {
        usize::from(octet == WORD[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(line: &[u8]) -> bool {
        let mut watch = ReloginWatch::default();
        watch.finds(line);
        watch.line_was_plain()
    }

    #[test]
    fn the_word_is_found_wherever_it_stands_and_however_it_arrives() {
        for text in [
            &b"a UNAUTHENTICATE"[..],
            b"a unauthenticate\r\n",
            b"xunaunauthenticatex",
            b"UUNAUUNAUTHENTICATE",
        ] {
            assert!(ReloginWatch::default().finds(text));
            let mut watch = ReloginWatch::default();
            let found = text.iter().filter(|octet| watch.finds(&[**octet]));
            assert_eq!(found.count(), 1, "{}", text.escape_ascii());
        }
        for text in [&b"UNAUTHENTICAT"[..], b"UNAUTH ENTICATE", b"AUTHENTICATE"] {
            assert!(!ReloginWatch::default().finds(text));
        }
    }

    #[test]
    fn a_line_is_plain_when_nobody_can_misread_it() {
        for line in [
            &b"a APPEND INBOX {18+}\r\n"[..],
            b"a APPEND \"a \\\"b\" (\\Seen) \"01-Jan-2026 00:00:00 +0000\" {18}\n",
            b"a APPEND x ~{18+}\r\n",
        ] {
            assert!(is_plain(line), "{}", line.escape_ascii());
        }
        for line in [
            &b"a APPEND \"x {18+}\r\n"[..],
            b"a APPEND x\" \"y {18+}\r\n",
            b"a APPEND x({18+}\r\n",
            b"a APPEND x~{18+}\r\n",
            b"a\tAPPEND y {18+}\r\n",
            b"a\rb APPEND y {18+}\r\n",
            b"a \x0cAPPEND y {18+}\r\n",
            b"a APPEND y {000000000018+}\r\n",
        ] {
            assert!(!is_plain(line), "{}", line.escape_ascii());
        }
        let long = [&b"a APPEND "[..], &[b'x'; 1000], b" {18+}\r\n"].concat();
        assert!(!is_plain(&long));
    }

    #[test]
    fn what_is_exempt_is_not_looked_at_and_nothing_behind_it_is_missed() {
        let mut watch = ReloginWatch::default();
        watch.exempt(14);
        assert!(!watch.finds(b"UNAUTHENTICATE"));
        assert!(!watch.finds(b"x UNAUTH"));
        assert!(watch.finds(b"ENTICATE"));
    }
}
