//! Watching the relay.
//!
//! Commands are noted, with what kind of answer each has, and answers are taken off in their order (RFC 2449
//! §6.6). Which one is a list depends on the command. Behind a yes to a command of which that is not known there is a
//! list or nothing, and the next line tells: until it comes nobody knows where the session is.

use memchr::memmem;

use super::words;
use crate::reply::Farewell;
use crate::{ClientVerdict, Follower, Refusal, Safety, Then};

/// Words by which only proxies speak, to servers that believe them.
const PROXY_WORD: Refusal = Refusal::new(
    "the client gave a command by which only proxies speak",
    Farewell::ProtocolError,
);

/// A second login on this connection would stay on the first account's server. Its commands go on, since servers have
/// to refuse them (RFC 1939 §3); one that does not, and one that starts TLS beneath ours, after which it would take
/// one, gets no more of this client.
const RELOGIN: Refusal = Refusal::new(
    "the client was let log in anew on a connection that belongs to one account",
    Farewell::Relogin,
);

/// Watches a POP3 session from its login to its end.
#[derive(Debug, Default)]
pub struct Pop3Follower {
    client: Line,
    owed: Owed,
    server: Answer,
    /// The backend has said yes to a command that nobody knows: a list may follow.
    in_doubt: bool,
    /// The backend answered what nobody asked, or in a way that is not known.
    is_lost: bool,
    refused: Option<Refusal>,
}

/// The client's line as far as it has come.
#[derive(Debug, Default)]
struct Line {
    word: Word,
    /// How much of the word has come; more than there is room for is the word of no command.
    length: usize,
    place: Place,
}

/// A command's name, in capitals; the longest that means something has seven.
type Word = [u8; 8];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before a line.
    #[default]
    Between,
    /// In its word.
    Word,
    /// In the spaces behind it.
    Spaces,
    /// Behind those.
    Argument,
}

/// The kind of answer that a command has if the backend agrees. A refusal is always one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Line,
    List,
    Unknown,
    /// One line, and a yes or a challenge begins another account's session.
    Login,
}

/// The kinds of the answers that the backend owes, the next one in the lowest bit.
#[derive(Debug, Default)]
struct Owed {
    lists: u64,
    unknown: u64,
    logins: u64,
    count: u32,
}

/// The backend's stream as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// In an answer's first line, with its beginning and its length.
    Line([u8; 5], usize),
    /// In a list.
    List(ListPlace),
}

/// Where in a list: it ends with a line that is a full stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListPlace {
    LineStart,
    Dot,
    DotCr,
    Middle,
}

impl Line {
    /// Takes an octet. `true`: the word is over.
    fn push(&mut self, octet: u8) -> bool {
        let was_word = matches!(self.place, Place::Between | Place::Word);
        self.place = match (octet, was_word) {
            (b'\n', _) => Place::Between,
            // A line's end, in all but the oddest case.
            (b'\r', _) if self.place == Place::Between => Place::Word,
            (b'\r', _) | (b' ', false) => self.place,
            (b' ', true) => Place::Spaces,
            (_, true) => {
                if let Some(place) = self.word.get_mut(self.length) {
                    *place = octet.to_ascii_uppercase();
                }
                self.length += 1;
                Place::Word
            }
            (_, false) => Place::Argument,
        };
        was_word && self.place != Place::Word
    }

    fn is(&self, word: &[u8]) -> bool {
        self.word.get(..self.length) == Some(word)
    }

    /// The answer to the command that the line is, when it is over.
    fn kind(&self, has_argument: bool) -> Kind {
        const LINES: [&[u8]; 9] = [
            b"STAT", b"DELE", b"NOOP", b"RSET", b"QUIT", b"LAST", b"UTF8", b"USER", b"",
        ];
        const LOGINS: [&[u8]; 3] = [b"PASS", b"APOP", b"STLS"];
        // With a mechanism; without one it asks which there are.
        const LOGINS_WITH_ARGUMENT: [&[u8]; 1] = [b"AUTH"];
        const LISTS: [&[u8]; 3] = [b"RETR", b"TOP", b"CAPA"];
        // Of all of them, unless the command names one.
        const LISTS_OF_ALL: [&[u8]; 3] = [b"LIST", b"UIDL", b"LANG"];
        let is_one_of = |words: &[&[u8]]| words.iter().any(|word| self.is(word));
        if is_one_of(&LISTS) || is_one_of(&LISTS_OF_ALL) && !has_argument {
            Kind::List
        } else if is_one_of(&LISTS_OF_ALL) || is_one_of(&LINES) {
            Kind::Line
        } else if is_one_of(&LOGINS) || is_one_of(&LOGINS_WITH_ARGUMENT) && has_argument {
            Kind::Login
        } else {
            Kind::Unknown
        }
    }
}

impl Owed {
    fn is_full(&self) -> bool {
        self.count == u64::BITS
    }

    /// Only while it is not full.
    fn push(&mut self, kind: Kind) {
        let next = 1 << self.count;
        match kind {
            Kind::Line => {}
            Kind::List => self.lists |= next,
            Kind::Unknown => self.unknown |= next,
            Kind::Login => self.logins |= next,
        }
        self.count += 1;
    }

    fn pop(&mut self) -> Option<Kind> {
        self.count = self.count.checked_sub(1)?;
        let kind = match (self.lists & 1, self.unknown & 1, self.logins & 1) {
            (1, _, _) => Kind::List,
            (_, 1, _) => Kind::Unknown,
            (_, _, 1) => Kind::Login,
            _ => Kind::Line,
        };
        self.lists >>= 1;
        self.unknown >>= 1;
        self.logins >>= 1;
        Some(kind)
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::Line([0; 5], 0)
    }
}

impl Answer {
    fn is_between(&self) -> bool {
        matches!(self, Self::Line(_, 0))
    }
}

impl ListPlace {
    /// Goes on in the list. Returns how much was taken, and whether that is the list's end.
    fn scan(&mut self, chunk: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < chunk.len() {
            if *self == Self::Middle {
                // Messages go by in steps as large as this allows.
                let Some(found) = memmem::find(&chunk[at..], b"\n.") else {
                    if chunk.ends_with(b"\n") {
                        *self = Self::LineStart;
                    }
                    return (chunk.len(), false);
                };
                at += found + 2;
                *self = Self::Dot;
                continue;
            }
            let octet = chunk[at];
            at += 1;
            *self = match (*self, octet) {
                (Self::Dot | Self::DotCr, b'\n') => return (at, true),
                (Self::LineStart, b'.') => Self::Dot,
                (Self::Dot, b'\r') => Self::DotCr,
                (_, b'\n') => Self::LineStart,
                _ => Self::Middle,
            };
        }
        (at, false)
    }
}

impl Pop3Follower {
    /// What keeps the client's next octet from going on, if anything does.
    fn obstacle(&self, draining: bool) -> Option<Then> {
        let is_between = self.client.place == Place::Between;
        if let Some(refusal) = self.refused {
            Some(Then::Refuse(refusal))
        } else if draining && is_between {
            Some(Then::Stop)
        } else if (self.owed.is_full() || self.owed.logins != 0) && !self.is_lost {
            // More is not remembered than that; and whose the next command is depends on a login's answer.
            Some(Then::Hold)
        } else {
            None
        }
    }

    fn client_octet(&mut self, octet: u8) {
        let has_argument = self.client.place == Place::Argument;
        if self.client.push(octet) {
            let words: [&[u8]; 2] = [b"XCLIENT", b"XOIP"];
            let is_one = words.iter().any(|word| self.client.is(word));
            self.refused = is_one.then_some(PROXY_WORD);
        }
        if octet == b'\n' {
            if !self.is_lost && self.refused.is_none() {
                self.owed.push(self.client.kind(has_argument));
            }
            self.client = Line::default();
        }
    }

    /// A line that is in no list as far as is known is over.
    fn answered(&mut self, beginning: [u8; 5]) {
        let is_ok = beginning[..3].eq_ignore_ascii_case(b"+OK");
        let is_err = beginning[..4].eq_ignore_ascii_case(b"-ERR");
        self.server = Answer::default();
        if std::mem::take(&mut self.in_doubt) && !is_ok && !is_err {
            // No answer begins so: it is the first line of the list, or its end.
            if !beginning.starts_with(b".\n") && !beginning.starts_with(b".\r\n") {
                self.server = Answer::List(ListPlace::LineStart);
            }
            return;
        }
        match self.owed.pop() {
            Some(Kind::List) if is_ok => self.server = Answer::List(ListPlace::LineStart),
            Some(Kind::Line) if is_ok => {}
            Some(Kind::Unknown) if is_ok => self.in_doubt = true,
            Some(Kind::Login) if beginning[0] == b'+' => self.refused = Some(RELOGIN),
            Some(_) if is_err => {}
            Some(_) | None => self.is_lost = true,
        }
    }

    /// Takes what belongs to one line or one list, and returns how much that was.
    fn server_part(&mut self, chunk: &[u8]) -> usize {
        match &mut self.server {
            Answer::List(place) => {
                let (count, is_over) = place.scan(chunk);
                if is_over {
                    self.server = Answer::default();
                }
                count
            }
            Answer::Line(beginning, length) => {
                let end = memchr::memchr(b'\n', chunk);
                let count = end.map_or(chunk.len(), |end| end + 1);
                let room = beginning.get_mut(*length..).unwrap_or_default();
                for (place, octet) in room.iter_mut().zip(&chunk[..count]) {
                    *place = *octet;
                }
                *length += count;
                if end.is_some() {
                    let beginning = *beginning;
                    self.answered(beginning);
                }
                count
            }
        }
    }
}

impl Follower for Pop3Follower {
    fn client(&mut self, chunk: &[u8], draining: bool) -> ClientVerdict {
        // Where the current line starts in this chunk, so that a refused command is not even begun.
        let mut line = 0;
        let mut at = 0;
        loop {
            if let Some(then) = self.obstacle(draining) {
                let forward = match then {
                    Then::Refuse(_) => line,
                    _ => at,
                };
                return ClientVerdict { forward, then };
            }
            let Some(&octet) = chunk.get(at) else {
                return ClientVerdict {
                    forward: chunk.len(),
                    then: Then::Continue,
                };
            };
            if self.client.place == Place::Between {
                line = at;
            }
            self.client_octet(octet);
            at += 1;
        }
    }

    fn server(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_lost {
            let count = self.server_part(rest);
            rest = &rest[count..];
        }
    }

    fn release(&mut self) {
        if self.owed.logins != 0 {
            // The answer may come yet, and nothing may go on in between.
            self.refused = Some(RELOGIN);
        }
        self.is_lost |= self.owed.is_full();
    }

    fn safety(&self) -> Safety {
        let between = self.client.place == Place::Between && self.server.is_between();
        if self.is_lost || self.in_doubt {
            Safety::Opaque
        } else if between && self.owed.count == 0 {
            Safety::Safe
        } else {
            Safety::Busy
        }
    }

    fn awaits_the_client(&self) -> bool {
        !self.is_lost && self.client.place != Place::Between && self.owed.count == 0
    }

    /// In POP3 whatever a server says is the answer to the oldest command that has none, so words of ours are
    /// none while one is owed.
    fn goodbye(&self, why: Farewell) -> Option<&'static [u8]> {
        let is_followed = !self.is_lost && !self.in_doubt;
        let fits = is_followed && self.owed.count == 0 && self.server.is_between();
        fits.then(|| words::goodbye(why).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_costs_an_idle_session_little() {
        assert!(size_of::<Pop3Follower>() <= 128);
    }

    #[test]
    fn a_list_ends_with_a_full_stop_on_a_line_of_its_own_and_nowhere_else() {
        for whole in [
            &b".\r\n"[..],
            b".\n",
            b"a\r\n.\r\n",
            b"a\r\n..\r\n.\r\n",
            b".a\r\n.\r\n",
            b"a.\r\n.\r\n",
            b".\rx\r\n.\r\n",
            b"\r\n\r\n.\r\n",
            b"a\n.b\n.\r\n",
        ] {
            let mut place = ListPlace::LineStart;
            assert_eq!(
                place.scan(whole),
                (whole.len(), true),
                "{}",
                whole.escape_ascii()
            );
        }
    }
}
