//! Finding lines and literals in a stream of either direction, without keeping any of it.

use super::lex::{Behind, Place};

/// Octets that are kept of a word: one more than in the longest that matters, UNAUTHENTICATE.
const WORD: usize = 15;

/// Reads one direction of a stream, line by line, and steps over literals by their length.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    part: Part,
    place: Place,
    word: Word,
}

/// Which part of a line the next octet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// None: the stream is between lines.
    Between,
    First,
    Rest,
    /// A literal, of which this many octets are to come.
    Literal(u32),
}

/// What [`Scanner::scan`] stopped at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A line that is not blank begins; its first octet has not been read yet, blank lines before it have.
    Begin,
    /// The first word is known; the octet that ends it has not been read yet.
    Word,
    /// The line is over, with its literals.
    End,
    /// The line announces a literal of an impossible length.
    Unclear,
}

impl Scanner {
    pub(super) const fn new() -> Self {
        Self {
            part: Part::Between,
            place: Place::Gap,
            word: Word::EMPTY,
        }
    }

    /// Whether the stream is between lines.
    pub(super) fn is_between_lines(&self) -> bool {
        self.part == Part::Between
    }

    /// The first word of the current line or of the last one.
    pub(super) fn word(&self) -> &Word {
        &self.word
    }

    /// Reads up to the next event; returns how many octets that took.
    pub(super) fn scan(&mut self, chunk: &[u8]) -> (usize, Option<Event>) {
        let mut at = 0;
        while let Some(&octet) = chunk.get(at) {
            match self.part {
                Part::Between if octet.is_ascii_whitespace() => at += 1,
                Part::Between => {
                    self.part = Part::First;
                    self.place = Place::Gap;
                    self.word = Word::EMPTY;
                    return (at, Some(Event::Begin));
                }
                Part::First if octet.is_ascii_whitespace() || octet == b'(' => {
                    self.part = Part::Rest;
                    return (at, Some(Event::Word));
                }
                Part::First | Part::Rest => {
                    at += 1;
                    if let Some(event) = self.read(octet) {
                        return (at, Some(event));
                    }
                }
                Part::Literal(missing) => {
                    let count = (chunk.len() - at).min(missing as usize);
                    at += count;
                    self.skip(missing, count);
                }
            }
        }
        (at, None)
    }

    /// Reads an octet of a line.
    fn read(&mut self, octet: u8) -> Option<Event> {
        if self.part == Part::First {
            self.word.push(octet);
        }
        if octet != b'\n' {
            self.place = self.place.behind(octet);
            return None;
        }
        let place = std::mem::replace(&mut self.place, Place::Gap);
        match place.at_end() {
            Behind::Line => {
                self.part = Part::Between;
                Some(Event::End)
            }
            Behind::Literal(length) => {
                self.skip(length, 0);
                None
            }
            Behind::Unclear => Some(Event::Unclear),
        }
    }

    /// Steps over so many octets of a literal.
    fn skip(&mut self, missing: u32, count: usize) {
        let count = u32::try_from(count).unwrap_or(missing);
        self.part = match missing.saturating_sub(count) {
            0 => Part::Rest,
            missing => Part::Literal(missing),
        };
    }
}

/// The start of a word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    octets: [u8; WORD],
    length: u8,
}

impl Word {
    const EMPTY: Self = Self {
        octets: [0; WORD],
        length: 0,
    };

    /// Whether it is `word`, in whatever case.
    pub(super) fn is(&self, word: &[u8]) -> bool {
        self.octets[..usize::from(self.length)].eq_ignore_ascii_case(word)
    }

    fn push(&mut self, octet: u8) {
        if let Some(place) = self.octets.get_mut(usize::from(self.length)) {
            *place = octet;
            self.length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a stream: their first words, and how far each is read.
    fn words(stream: &[u8], size: usize) -> Vec<(String, usize)> {
        let (mut scanner, mut words, mut at) = (Scanner::new(), Vec::new(), 0);
        while at < stream.len() {
            let end = stream.len().min(at + size);
            let (count, event) = scanner.scan(&stream[at..end]);
            at += count;
            if event == Some(Event::End) {
                let word = &scanner.word().octets[..usize::from(scanner.word().length)];
                words.push((String::from_utf8_lossy(word).into_owned(), at));
            }
        }
        words
    }

    #[test]
    fn lines_are_found_whatever_is_in_their_strings() {
        let stream = b"\r\nPUTSCRIPT \"a\" {6+}\r\nOK\r\n\r\n \"x {3}\"\r\n \"{3}\"\n\
            NO(QUOTA) {4}\r\n{9}\r\r\nUNAUTHENTICATED\r\n\"{5}\r\nOK\r\n";
        let expected = [
            ("PUTSCRIPT", 38),
            ("\"{3}\"", 45),
            ("NO", 66),
            ("UNAUTHENTICATED", 83),
            ("\"{5}", 89),
            ("OK", 93),
        ];
        let expected = expected.map(|(word, at)| (word.to_owned(), at));
        for size in 1..stream.len() {
            assert_eq!(words(stream, size), expected, "{size}");
        }
    }

    #[test]
    fn a_word_longer_than_any_that_matters_is_not_mistaken_for_one() {
        let mut scanner = Scanner::new();
        scanner.scan(b"x");
        scanner.scan(b"UNAUTHENTICATED\r\n");
        assert!(!scanner.word().is(b"UNAUTHENTICATE"));
    }
}
