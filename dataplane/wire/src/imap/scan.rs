//! Finding lines and literals in a stream of either direction, at little cost and without keeping
//! any of it.

use super::lex::{Announcement, announced_literal, trailing_literal};
use super::quirks;

/// Octets that are kept of a word: one more than in the longest that matters, UNAUTHENTICATE.
const WORD: usize = 15;
/// Octets that are kept of a line's end: enough for `~{` + twenty digits + `+}`, what stands before
/// it, and CR.
const TAIL: usize = 32;

/// Reads one direction of a stream line by line.
///
/// Of each line it keeps the first word's fingerprint, the start of the second word, and the end.
/// Literals are stepped over by their length.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    place: Place,
    first: Fingerprint,
    second: Word,
    tail: Tail,
}

/// Where in a line the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between lines.
    Start,
    First,
    Gap,
    Second,
    Rest,
    /// In a literal, of which this many octets are to come.
    Literal(u64),
}

/// What [`Scanner::scan`] stopped at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A line that is not empty begins; its first octet has not been read yet, empty lines before
    /// it have.
    Begin,
    /// The second word is known; the octet that ends it has not been read yet.
    Word,
    /// The line is over.
    End,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Start,
            first: Fingerprint::EMPTY,
            second: Word::EMPTY,
            tail: Tail::EMPTY,
        }
    }

    /// Whether the stream is between lines.
    pub(super) fn is_between_lines(&self) -> bool {
        self.place == Place::Start
    }

    /// The first word of the current line or of the last one.
    pub(super) fn first(&self) -> Fingerprint {
        self.first
    }

    /// The second word of the current line or of the last one.
    pub(super) fn second(&self) -> &Word {
        &self.second
    }

    /// The literal that a client's line announces, of which the [end](Event::End) has been reached.
    pub(super) fn announced_by_client(&self) -> Option<Announcement> {
        announced_literal(self.tail.line())
    }

    /// The literal that a server's line announces, of which the [end](Event::End) has been reached.
    /// A brace has no other meaning at the end of what a server sends as data, and a server never
    /// waits.
    pub(super) fn announced_by_server(&self) -> Option<u64> {
        let (_, literal) = trailing_literal(self.tail.line())?;
        literal.synchronising.then_some(literal.length)
    }

    /// The line goes on behind a literal of `length` octets.
    pub(super) fn enter_literal(&mut self, length: u64) {
        self.tail = Tail::EMPTY;
        self.place = Place::Literal(length);
    }

    /// The next octet starts a line, whatever was expected.
    pub(super) fn restart(&mut self) {
        self.place = Place::Start;
    }

    /// Reads up to the next event; returns how many octets that took.
    pub(super) fn scan(&mut self, chunk: &[u8]) -> (usize, Option<Event>) {
        let mut at = 0;
        while at < chunk.len() {
            let rest = &chunk[at..];
            let (count, event) = match self.place {
                Place::Start => self.start(rest),
                Place::First | Place::Gap | Place::Second => self.head(rest),
                Place::Rest => self.rest(rest),
                Place::Literal(missing) => (self.literal(missing, rest), None),
            };
            at += count;
            if event.is_some() {
                return (at, event);
            }
        }
        (at, None)
    }

    /// Skips empty lines, which are nothing to anybody.
    fn start(&mut self, chunk: &[u8]) -> (usize, Option<Event>) {
        let is_end = |octet: &&u8| matches!(octet, b'\r' | b'\n');
        let count = chunk.iter().take_while(is_end).count();
        if count == chunk.len() {
            return (count, None);
        }
        self.second = Word::EMPTY;
        self.tail = Tail::EMPTY;
        (self.first, self.place) = match &chunk[count..] {
            // Data about a message, which is most of what servers say. That its second word is a
            // number is all there is to know about it.
            [b'*', b' ', b'0'..=b'9', ..] => (Fingerprint::of(b'*'), Place::Rest),
            _ => (Fingerprint::EMPTY, Place::First),
        };
        (count, Some(Event::Begin))
    }

    /// Reads the first two words.
    fn head(&mut self, chunk: &[u8]) -> (usize, Option<Event>) {
        let mut at = 0;
        loop {
            at += self.word(&chunk[at..]);
            let Some(&delimiter) = chunk.get(at) else {
                self.tail.push(chunk);
                return (at, None);
            };
            match self.place {
                Place::Second => {
                    self.place = Place::Rest;
                    self.tail.push(&chunk[..at]);
                    return (at, Some(Event::Word));
                }
                _ if delimiter == b'\n' => return (at + 1, Some(self.end(&chunk[..at]))),
                Place::First if delimiter != b'\r' && self.first != Fingerprint::EMPTY => {
                    self.place = Place::Gap;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads what there is of a word; returns how many octets that was.
    fn word(&mut self, chunk: &[u8]) -> usize {
        let is_within = |octet: &&u8| !quirks::ends_word(**octet);
        let count = chunk.iter().take_while(is_within).count();
        let octets = &chunk[..count];
        if self.place == Place::First {
            self.first.extend(octets);
        } else if count > 0 {
            self.place = Place::Second;
            self.second.extend(octets);
        }
        count
    }

    fn rest(&mut self, chunk: &[u8]) -> (usize, Option<Event>) {
        match memchr::memchr(b'\n', chunk) {
            None => {
                self.tail.push(chunk);
                (chunk.len(), None)
            }
            Some(end) => (end + 1, Some(self.end(&chunk[..end]))),
        }
    }

    fn literal(&mut self, missing: u64, chunk: &[u8]) -> usize {
        let count = chunk
            .len()
            .min(usize::try_from(missing).unwrap_or(usize::MAX));
        self.place = match missing - count as u64 {
            0 => Place::Rest,
            missing => Place::Literal(missing),
        };
        count
    }

    /// Ends the line with these octets.
    fn end(&mut self, octets: &[u8]) -> Event {
        match octets {
            // Nearly every line: it announces nothing, and its end need not be kept.
            [.., before, last] if *last != b'}' && (*before, *last) != (b'}', b'\r') => {
                self.tail = Tail::EMPTY;
            }
            _ => self.tail.push(octets),
        }
        self.place = Place::Start;
        Event::End
    }
}

/// Tells words apart without keeping them (64-bit FNV-1a). A client could find two tags that
/// collide and would confuse nothing but its own session's count of open commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// The fingerprint of a word of one octet.
    pub(super) const fn of(octet: u8) -> Self {
        Self((Self::EMPTY.0 ^ octet as u64).wrapping_mul(0x0100_0000_01b3))
    }

    fn extend(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        }
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

    fn extend(&mut self, octets: &[u8]) {
        let room = &mut self.octets[usize::from(self.length)..];
        for (place, octet) in room.iter_mut().zip(octets) {
            *place = *octet;
            self.length += 1;
        }
    }
}

/// The last octets of a line.
#[derive(Debug, Clone, Copy)]
struct Tail {
    octets: [u8; TAIL],
    length: usize,
}

impl Tail {
    const EMPTY: Self = Self {
        octets: [0; TAIL],
        length: 0,
    };

    fn push(&mut self, octets: &[u8]) {
        let octets = &octets[octets.len().saturating_sub(TAIL)..];
        let excess = (self.length + octets.len()).saturating_sub(TAIL);
        self.octets.copy_within(excess..self.length, 0);
        self.length -= excess;
        self.octets[self.length..self.length + octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }

    /// The line's end without CR.
    fn line(&self) -> &[u8] {
        let line = &self.octets[..self.length];
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_same_however_it_arrives() {
        let line: Vec<u8> = (0..100).collect();
        for split in 0..line.len() {
            let mut tail = Tail::EMPTY;
            tail.push(&line[..split]);
            tail.push(&line[split..]);
            assert_eq!(tail.line(), &line[68..]);
        }
    }

    #[test]
    fn a_word_longer_than_any_that_matters_is_not_mistaken_for_one() {
        let mut scanner = Scanner::new();
        let line = b"a UNAUTHENTICATED\r\n";
        let mut at = 0;
        while at < line.len() {
            let (count, _) = scanner.scan(&line[at..]);
            at += count;
        }
        assert!(!scanner.second().is(b"UNAUTHENTICATE"));
    }
}
