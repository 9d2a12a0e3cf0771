//! Watching the relay.
//!
//! Commands and answers are counted, not understood. What the client sends is looked at before it
//! goes on; where its meaning depends on an answer that the backend still owes, it waits for that
//! answer:
//!
//! ```text
//!   client sends                   the octets behind it are
//!   ... {n}                        the literal after "+", a command after a tagged refusal
//!   a IDLE                         the line that ends it after "+", a command after a refusal
//!   a COMPRESS DEFLATE             unreadable after OK, a command after a refusal
//! ```
//!
//! Clients wait there by themselves (RFC 9051 §4.3, RFC 2177, RFC 4978 §3), so that nothing is
//! slowed down, and no client that keeps to the grammar is misread. One that breaks it on purpose, to
//! hide a command from us that its server understands, can do harm to nobody but itself
//! (docs/guarantees.md, G14).

use super::lex::MAX_LITERAL;
use super::scan::{Event, Fingerprint, Scanner};
use super::{quirks, words};
use crate::reply::Farewell;
use crate::{ClientVerdict, Follower, Refusal, Safety, Then};

/// UNAUTHENTICATE (RFC 8437): a second login on this connection would stay on the first account's server.
const RELOGIN: Refusal = Refusal::new(
    "the client asked to log in anew on a connection that belongs to one account",
    Farewell::Relogin,
);
/// A literal whose length no server can mean.
const IMPOSSIBLE_LITERAL: Refusal = Refusal::new(
    "the client announced a literal of an impossible length",
    Farewell::ProtocolError,
);

const UNTAGGED: Fingerprint = Fingerprint::of(b'*');
const CONTINUE: Fingerprint = Fingerprint::of(b'+');

/// Watches an IMAP session from its login to its end.
#[derive(Debug)]
pub struct ImapFollower {
    client: Scanner,
    server: Scanner,
    stream: Stream,
    /// Commands begun and not answered.
    open: u32,
    /// What the client's next octets depend on.
    owed: Owed,
    /// The command whose literal the backend has refused without the command's tag. It has been counted as
    /// answered; the backend may answer it all the same.
    given_up: Option<Fingerprint>,
    /// The IDLE that the backend has begun and the client has not ended.
    idle: Option<Fingerprint>,
    /// Whether the client's current line ends an IDLE rather than being a command.
    ends_idle: bool,
    refused: Option<Refusal>,
    said_bye: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Followed,
    /// The backend answered what nobody asked. The client's side is read on as well as may be.
    Lost,
    /// Nothing can be read (RFC 4978).
    Compressed,
}

/// An answer without which it is not known what the client's next octets are. Holds the tag of the
/// command that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    Literal(Fingerprint),
    Idle(Fingerprint),
    Compress(Fingerprint),
}

impl Default for ImapFollower {
    fn default() -> Self {
        Self {
            client: Scanner::new(),
            server: Scanner::new(),
            stream: Stream::Followed,
            open: 0,
            owed: Owed::Nothing,
            given_up: None,
            idle: None,
            ends_idle: false,
            refused: None,
            said_bye: false,
        }
    }
}

impl ImapFollower {
    /// What keeps the client's next octet from going on, if anything does.
    fn obstacle(&self, draining: bool) -> Option<Then> {
        if let Some(refusal) = self.refused {
            Some(Then::Refuse(refusal))
        } else if self.stream == Stream::Compressed {
            None
        } else if draining && self.client.is_between_lines() {
            Some(Then::Stop)
        } else {
            (self.owed != Owed::Nothing).then_some(Then::Hold)
        }
    }

    fn client_event(&mut self, event: Event) {
        match event {
            Event::Begin => {
                self.ends_idle = self.idle.is_some();
                if !self.ends_idle {
                    self.open = self.open.saturating_add(1);
                }
            }
            Event::Word => self.refused = self.refused.or(self.refusal()),
            // Whatever this line is, it ends the IDLE: DONE well, anything else with an error. It
            // never carries a literal.
            Event::End if self.ends_idle => self.idle = None,
            Event::End => self.client_line(),
        }
    }

    /// Why the command whose name is known now must not be completed, if so.
    fn refusal(&self) -> Option<Refusal> {
        let asks_relogin = self.client.second().is(b"UNAUTHENTICATE");
        asks_relogin.then_some(RELOGIN)
    }

    /// The client's line is over: its command goes on behind a literal, or is complete.
    fn client_line(&mut self) {
        let tag = self.client.first();
        if self.given_up == Some(tag) {
            // It is another command's now.
            self.given_up = None;
        }
        if let Some(literal) = self.client.announced_by_client() {
            if literal.length > MAX_LITERAL {
                self.refused = Some(IMPOSSIBLE_LITERAL);
            }
            self.client.enter_literal(literal.length);
            if literal.synchronising {
                self.owe(Owed::Literal(tag));
            }
        } else if self.client.second().is(b"IDLE") {
            self.owe(Owed::Idle(tag));
        } else if self.client.second().is(b"COMPRESS") {
            self.owe(Owed::Compress(tag));
        }
    }

    /// Makes the client wait for an answer, unless answers can no longer be told.
    fn owe(&mut self, owed: Owed) {
        if self.stream == Stream::Followed {
            self.owed = owed;
        }
    }

    /// The backend's line is over.
    fn server_line(&mut self) {
        let (first, second) = (self.server.first(), self.server.second());
        let is = |word: &[u8]| second.is(word);
        if first == CONTINUE {
            self.go_on();
        } else if first != UNTAGGED {
            let is_ok = is(b"OK");
            self.answered(first, is_ok);
        } else if is(b"BYE") {
            self.said_bye = true;
        } else if quirks::refuses_literal(second) {
            self.refused_without_tag();
        } else if !(is(b"OK") || is(b"NO") || is(b"BAD") || is(b"PREAUTH")) {
            match self.server.announced_by_server() {
                Some(length) if length > MAX_LITERAL => self.lose(),
                Some(length) => self.server.enter_literal(length),
                None => {}
            }
        }
    }

    /// The backend called something BAD and did not say what. The client knows of nothing but a literal that
    /// it asked leave for.
    fn refused_without_tag(&mut self) {
        if let Owed::Literal(tag) = self.owed {
            self.answered(tag, false);
            self.given_up = Some(tag);
        }
    }

    /// The backend gave leave to go on.
    fn go_on(&mut self) {
        if self.given_up.is_some() {
            // For the literal after all: what the client makes of it cannot be told.
            return self.lose();
        }
        match self.owed {
            Owed::Literal(_) => self.owed = Owed::Nothing,
            Owed::Idle(tag) => {
                self.owed = Owed::Nothing;
                self.idle = Some(tag);
            }
            Owed::Nothing | Owed::Compress(_) => {}
        }
    }

    /// The backend answered the command with this tag.
    fn answered(&mut self, tag: Fingerprint, is_ok: bool) {
        if self.given_up == Some(tag) {
            self.given_up = None;
            return;
        }
        let Some(open) = self.open.checked_sub(1) else {
            return self.lose();
        };
        self.open = open;
        if self.idle == Some(tag) {
            self.idle = None;
        }
        match self.owed {
            Owed::Literal(owed) if owed == tag => {
                // Declined: the client sends no literal, its next octet starts a command.
                self.owed = Owed::Nothing;
                self.client.restart();
            }
            Owed::Idle(owed) if owed == tag => self.owed = Owed::Nothing,
            Owed::Compress(owed) if owed == tag => {
                self.owed = Owed::Nothing;
                if is_ok {
                    self.stream = Stream::Compressed;
                }
            }
            _ => {}
        }
    }

    fn lose(&mut self) {
        self.stream = Stream::Lost;
        self.owed = Owed::Nothing;
    }
}

impl Follower for ImapFollower {
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
            if at == chunk.len() || self.stream == Stream::Compressed {
                return ClientVerdict {
                    forward: chunk.len(),
                    then: Then::Continue,
                };
            }
            let (count, event) = self.client.scan(&chunk[at..]);
            at += count;
            if event == Some(Event::Begin) {
                line = at;
            }
            if let Some(event) = event {
                self.client_event(event);
            }
        }
    }

    fn server(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() && self.stream == Stream::Followed {
            let (count, event) = self.server.scan(&chunk[at..]);
            at += count;
            if event == Some(Event::End) {
                self.server_line();
            }
        }
    }

    fn release(&mut self) {
        if self.owed != Owed::Nothing {
            self.lose();
            self.client.restart();
        }
    }

    fn safety(&self) -> Safety {
        if self.stream != Stream::Followed {
            return Safety::Opaque;
        }
        let only_idle = self.open == 1 && self.idle.is_some();
        let between = self.client.is_between_lines() && self.server.is_between_lines();
        if between && (self.open == 0 || only_idle) {
            Safety::Safe
        } else {
            Safety::Busy
        }
    }

    fn awaits_the_client(&self) -> bool {
        self.stream == Stream::Followed && !self.client.is_between_lines() && self.open <= 1
    }

    fn goodbye(&self, why: Farewell) -> Option<&'static [u8]> {
        let fits = self.stream == Stream::Followed && self.server.is_between_lines();
        (fits && !self.said_bye).then(|| words::goodbye(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_costs_an_idle_session_little() {
        assert!(size_of::<ImapFollower>() <= 256);
    }
}
