//! Watching the relay.
//!
//! Commands and replies are counted, not understood: SMTP's replies come in the order of its commands. What the
//! client sends is looked at before it goes on; where its meaning depends on a reply that the backend still
//! owes, it waits for that reply:
//!
//! ```text
//!   client sends             the octets behind it are
//!   DATA                     a message after 354, to CRLF . CRLF; a command after a refusal
//!   BDAT n                   n octets of a message, whatever the reply is (RFC 3030 §2)
//!   AUTH, STARTTLS           a command after a refusal, and must never be anything else
//! ```
//!
//! Clients wait there by themselves (RFC 2920 §3.1), so that nothing is slowed down.
//!
//! From the end of a message to its reply nobody can tell whether the backend has taken it over: the session is
//! [committed](Safety::Committed). Where replies come that nobody is owed, or what is no reply, the count is no
//! longer to be trusted: the session goes on, and is never called safe again. A backend that lies about how many
//! replies it owes can only get there; one that ends a message where we do not (LF . LF) does as well.
//!
//! The message itself is neither changed nor judged, and passed on octet by octet: what a bare LF means in it is
//! between the client and its server (<https://www.postfix.org/smtp-smuggling.html>).

use memchr::{memchr, memmem};

use super::command::{self, Chunk, Verb};
use super::{quirks, words};
use crate::reply::Farewell;
use crate::{ClientVerdict, Follower, Refusal, Safety, Then};

/// A second login on this connection would stay on the first account's server. AUTH itself goes on: a server has
/// to refuse it (RFC 4954 §4). One that does not, and one that starts TLS beneath ours, after which it would
/// take one, gets no more of this client.
const RELOGIN: Refusal = Refusal::new(
    "the client was let log in anew on a connection that belongs to one account",
    Farewell::Relogin,
);
/// The server would believe it, for it trusts us.
const TRUST: Refusal = Refusal::new(
    "the client said what only a proxy may say",
    Farewell::ProtocolError,
);

/// The end of a message, which begins behind the CRLF of DATA's own line.
const END: &[u8] = b"\r\n.\r\n";

/// Octets that are kept of a command: enough for any that matters with its arguments, BDAT the longest.
const HEAD: usize = 40;

/// Watches a submission session from its login to its end.
#[derive(Debug, Default)]
pub struct SubmissionFollower {
    client: Client,
    server: Server,
    /// Replies that the backend owes.
    owed: u32,
    /// Those up to the one to the last message that was sent whole.
    committed: u32,
    /// Those up to the one on which it depends what the client's next octets are.
    awaited: Option<Awaited>,
    /// Whether BDAT has octets behind it: the backend offered it.
    takes_chunks: bool,
    /// What the client must not get away with.
    refused: Option<Refusal>,
    /// The replies can no longer be told from each other.
    in_doubt: bool,
    said_bye: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awaited {
    kind: Kind,
    /// How many replies it takes to get there.
    replies: u32,
    /// The client sends on all the same.
    released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// DATA's.
    Message,
    /// That of AUTH or STARTTLS.
    Relogin,
}

/// The client's direction.
#[derive(Debug, Default)]
struct Client {
    place: Place,
    head: Head,
}

/// Where in it the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Between commands.
    #[default]
    Start,
    /// In a command's line.
    Line,
    /// In a message, of whose [`END`] so many octets have been seen last.
    Message { seen: usize, is_answered: bool },
    /// In a chunk, of which this many octets are to come.
    Chunk { missing: u64, is_last: bool },
}

/// The beginning of a line.
#[derive(Debug, Clone, Copy)]
struct Head {
    octets: [u8; HEAD],
    length: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            octets: [0; HEAD],
            length: 0,
        }
    }
}

impl Head {
    /// Takes what there is room for; not the spaces in front, of which there may be any number.
    fn push(&mut self, octets: &[u8]) {
        let is_text = |&octet: &u8| self.length > 0 || !quirks::is_space(octet);
        let start = octets.iter().position(is_text).unwrap_or(octets.len());
        let octets = &octets[start..];
        let room = &mut self.octets[self.length..];
        let count = room.len().min(octets.len());
        room[..count].copy_from_slice(&octets[..count]);
        self.length += count;
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    /// Whether the line may be longer than what is kept of it.
    fn is_full(&self) -> bool {
        self.length == HEAD
    }
}

/// The backend's direction.
#[derive(Debug, Default)]
struct Server {
    /// The first four octets of the line that is not over.
    start: [u8; 4],
    length: usize,
    /// A reply goes on in the next line.
    is_within: bool,
}

/// What a line of the backend's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The last of a reply with this code.
    End([u8; 3]),
    /// Another of a reply's.
    More,
    /// None of a reply's.
    Nonsense,
}

/// The code of a goodbye, which may come at any time (RFC 5321 §3.8).
const GOODBYE: [u8; 3] = *b"421";

impl SubmissionFollower {
    /// For a backend that takes messages in chunks, or not.
    pub(super) fn new(takes_chunks: bool) -> Self {
        Self {
            takes_chunks,
            ..Self::default()
        }
    }

    /// What keeps the client's next octet from going on, if anything does.
    fn obstacle(&self, draining: bool) -> Option<Then> {
        if let Some(refusal) = self.refused {
            return Some(Then::Refuse(refusal));
        }
        if self.awaited.is_some_and(|awaited| !awaited.released) {
            return Some(Then::Hold);
        }
        (draining && self.client.place == Place::Start).then_some(Then::Stop)
    }

    /// Reads on in the client's direction; returns how many octets that took.
    fn scan(&mut self, chunk: &[u8]) -> usize {
        match self.client.place {
            Place::Start => {
                self.client.head = Head::default();
                self.client.place = Place::Line;
                0
            }
            Place::Line => self.line(chunk),
            Place::Message { seen, is_answered } => self.message(seen, is_answered, chunk),
            Place::Chunk { missing, is_last } => self.chunk(missing, is_last, chunk),
        }
    }

    /// Reads a command's line. Of one that is refused the end is not read.
    fn line(&mut self, chunk: &[u8]) -> usize {
        let Some(end) = memchr(b'\n', chunk) else {
            self.client.head.push(chunk);
            return chunk.len();
        };
        self.client.head.push(&chunk[..end]);
        let head = self.client.head;
        let (verb, arguments) = command::split(head.octets());
        if verb == Verb::Trust {
            self.refused = Some(TRUST);
            return end;
        }
        self.client.place = Place::Start;
        self.owe();
        match verb {
            Verb::Data => self.await_reply(Kind::Message),
            Verb::Auth | Verb::StartTls => self.await_reply(Kind::Relogin),
            Verb::Bdat if self.takes_chunks => match command::chunk(arguments) {
                Some(chunk) if !head.is_full() => self.enter(chunk),
                _ => self.in_doubt = true,
            },
            // A message by its address (RFC 4468), of which the server may have it all.
            Verb::Burl => self.commit(),
            _ => {}
        }
        end + 1
    }

    /// The next octets are a chunk.
    fn enter(&mut self, Chunk { size, is_last }: Chunk) {
        let missing = size;
        self.client.place = Place::Chunk { missing, is_last };
        self.end_chunk();
    }

    fn chunk(&mut self, missing: u64, is_last: bool, chunk: &[u8]) -> usize {
        let count = usize::try_from(missing)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        self.client.place = Place::Chunk {
            missing: missing - count as u64,
            is_last,
        };
        self.end_chunk();
        count
    }

    /// Leaves a chunk that has been read to its end.
    fn end_chunk(&mut self) {
        if let Place::Chunk {
            missing: 0,
            is_last,
        } = self.client.place
        {
            self.client.place = Place::Start;
            if is_last {
                self.commit();
            }
        }
    }

    /// Reads on in a message. One that was answered before its end is owed no other answer.
    fn message(&mut self, seen: usize, is_answered: bool, chunk: &[u8]) -> usize {
        let (count, seen) = find_end(seen, chunk);
        if seen < END.len() {
            self.client.place = Place::Message { seen, is_answered };
            return count;
        }
        self.client.place = Place::Start;
        if !is_answered {
            self.owe();
            self.commit();
        }
        count
    }

    fn owe(&mut self) {
        match self.owed.checked_add(1) {
            Some(owed) => self.owed = owed,
            None => self.in_doubt = true,
        }
    }

    fn commit(&mut self) {
        self.committed = self.owed;
    }

    fn await_reply(&mut self, kind: Kind) {
        // Only where the client did not wait there is one already.
        if self.awaited.is_none() {
            self.awaited = Some(Awaited {
                kind,
                replies: self.owed,
                released: false,
            });
        }
    }

    /// The backend has ended a reply.
    fn replied(&mut self, code: [u8; 3]) {
        self.said_bye |= code == GOODBYE;
        let class = code[0];
        if let Some(awaited) = self.awaited
            && self.is_the_awaited(awaited, class)
        {
            self.answered(awaited.replies);
            self.awaited = None;
            self.heard(awaited, class);
        } else if self.owed == 0 {
            self.unasked(code);
        } else if self.awaited.is_some_and(|awaited| awaited.replies == 1) {
            // DATA is never answered by 2xx, so this is one too many.
            self.in_doubt = true;
        } else {
            self.in_doubt |= class == b'3';
            self.answered(1);
        }
    }

    /// The backend has replied to nothing that has been said whole. Unless it leaves, it has given up a message,
    /// or sees its end where we do not.
    fn unasked(&mut self, code: [u8; 3]) {
        if let Place::Message { is_answered, .. } = &mut self.client.place {
            *is_answered = true;
            self.in_doubt = true;
        }
        self.in_doubt |= code != GOODBYE;
    }

    /// Whether a reply is the awaited one. Leave to go on is given to nothing else, so that one which comes too
    /// soon says that others were left out.
    fn is_the_awaited(&mut self, awaited: Awaited, class: u8) -> bool {
        let is_next = awaited.replies == 1;
        match (awaited.kind, class) {
            (_, b'3') => {
                self.in_doubt |= !is_next;
                true
            }
            (Kind::Message, b'2') => false,
            _ => is_next,
        }
    }

    /// So many replies have come.
    fn answered(&mut self, replies: u32) {
        self.owed = self.owed.saturating_sub(replies);
        self.committed = self.committed.saturating_sub(replies);
        if let Some(awaited) = &mut self.awaited {
            awaited.replies = awaited.replies.saturating_sub(replies);
        }
    }

    /// It is known what the client's next octets are.
    fn heard(&mut self, awaited: Awaited, class: u8) {
        match (awaited.kind, class) {
            // Where in its message a client is that did not wait, nobody knows.
            (Kind::Message, b'3') if !awaited.released => {
                self.client.place = Place::Message {
                    seen: b"\r\n".len(),
                    is_answered: false,
                };
            }
            (Kind::Relogin, b'2' | b'3') => self.refused = Some(RELOGIN),
            _ => {}
        }
    }
}

impl Server {
    /// Takes the rest of a line, without its end.
    fn line(&mut self, octets: &[u8]) -> Said {
        self.begin(octets);
        let [class, b, c, separator] = self.start;
        let length = std::mem::take(&mut self.length);
        let is_code = matches!(class, b'2'..=b'5') && b.is_ascii_digit() && c.is_ascii_digit();
        let separator = if length < 4 { b' ' } else { separator };
        match separator {
            b'-' if is_code => {
                self.is_within = true;
                Said::More
            }
            b' ' | b'\r' if is_code && length >= 3 => {
                self.is_within = false;
                Said::End([class, b, c])
            }
            _ => Said::Nonsense,
        }
    }

    /// Takes octets of a line that goes on.
    fn begin(&mut self, octets: &[u8]) {
        let room = &mut self.start[self.length..];
        let count = room.len().min(octets.len());
        room[..count].copy_from_slice(&octets[..count]);
        self.length += count;
    }

    /// Whether the stream is between replies.
    fn is_between(&self) -> bool {
        self.length == 0 && !self.is_within
    }
}

impl Follower for SubmissionFollower {
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
            if at == chunk.len() {
                return ClientVerdict {
                    forward: at,
                    then: Then::Continue,
                };
            }
            if self.client.place == Place::Start {
                line = at;
            }
            at += self.scan(&chunk[at..]);
        }
    }

    fn release(&mut self) {
        if let Some(awaited) = self.awaited.as_mut().filter(|awaited| !awaited.released) {
            // What goes on now is read as commands, whatever it is: a message is not a safe place to hide one.
            awaited.released = true;
            self.in_doubt = true;
        }
    }

    fn server(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(end) = memchr(b'\n', rest) {
            match self.server.line(&rest[..end]) {
                Said::End(code) => self.replied(code),
                Said::More => {}
                Said::Nonsense => self.in_doubt = true,
            }
            rest = &rest[end + 1..];
        }
        self.server.begin(rest);
    }

    fn safety(&self) -> Safety {
        if self.committed > 0 {
            return Safety::Committed;
        }
        let between = self.client.place == Place::Start && self.server.is_between();
        if between && self.owed == 0 && !self.in_doubt {
            Safety::Safe
        } else {
            Safety::Busy
        }
    }

    fn awaits_the_client(&self) -> bool {
        let is_begun = self.client.place != Place::Start;
        let of_its_own = u32::from(matches!(self.client.place, Place::Chunk { .. }));
        self.committed == 0 && (self.in_doubt || is_begun && self.owed <= of_its_own)
    }

    fn goodbye(&self, why: Farewell) -> Option<&'static [u8]> {
        let fits = self.server.is_between() && !self.said_bye;
        fits.then(|| words::goodbye(why).as_bytes())
    }
}

/// Looks for the [`END`] of a message, of which `seen` octets were there already: how many octets it takes to get
/// to it, or all there are, and how many of it have been seen then.
fn find_end(seen: usize, chunk: &[u8]) -> (usize, usize) {
    let (mut seen, mut at) = (seen, 0);
    while seen > 0 && at < chunk.len() {
        seen = match chunk[at] {
            octet if octet == END[seen] => seen + 1,
            b'\r' => 1,
            _ => 0,
        };
        at += 1;
        if seen == END.len() {
            return (at, seen);
        }
    }
    if seen > 0 {
        return (at, seen);
    }
    if let Some(found) = memmem::find(&chunk[at..], END) {
        return (at + found + END.len(), END.len());
    }
    let is_begun = |count: &usize| chunk[at..].ends_with(&END[..*count]);
    (
        chunk.len(),
        (1..END.len()).rev().find(is_begun).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_costs_an_idle_session_little() {
        assert!(size_of::<SubmissionFollower>() <= 256);
    }

    #[test]
    fn the_end_of_a_message_is_found_however_it_arrives() {
        for message in [
            &b".\r\n"[..],
            b"x\r\n.\r\n",
            b"\r\n..\r\n\r\n.\r\n",
            b"x\n.\n\r\n.\n.\r\n\r.\r\n\r\r\n.\r\n",
            b"\r\n.\r\r\n.\r\n",
        ] {
            for split in 0..=message.len() {
                let (one, two) = message.split_at(split);
                let (count, seen) = find_end(b"\r\n".len(), one);
                if seen < END.len() {
                    assert_eq!(count, one.len());
                    assert_eq!(find_end(seen, two), (two.len(), END.len()));
                } else {
                    assert_eq!((count, two.len()), (message.len(), 0));
                }
            }
        }
    }
}
