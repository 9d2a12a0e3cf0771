//! Watching the relay.
//!
//! Commands and answers are counted, not understood: an answer ends with OK or NO, and answers come in the order
//! of the commands. A client never waits for leave (`{n+}`), so that what its next octets are is known from
//! what it has sent. Some servers answer what is no command to others (a blank line), or say OK to what they are
//! not asked (to a literal that came as `{n}`, Stalwart; with a list behind the login, James): what is answered
//! too often is not counted.

use super::scan::{Event, Scanner};
use super::words;
use crate::reply::Farewell;
use crate::{ClientVerdict, Follower, Refusal, Safety, Then};

/// A second login on this connection would stay on the first account's server. UNAUTHENTICATE (RFC 5804 §2.14.1), which
/// Stalwart obeys without offering it, is not let through. AUTHENTICATE is, since servers have to refuse it (§2.1); one
/// that does not gets no more of this client.
const RELOGIN: Refusal = Refusal::new(
    "the client asked to log in anew on a connection that belongs to one account",
    Farewell::Relogin,
);
/// XCLIENT, by which only proxies speak, to servers that believe them.
const PROXY_WORD: Refusal = Refusal::new(
    "the client gave a command by which only proxies speak",
    Farewell::ProtocolError,
);
/// A literal whose length no server can mean: what its next octets are is anybody's guess.
const IMPOSSIBLE_LITERAL: Refusal = Refusal::new(
    "the client announced a literal of an impossible length",
    Farewell::ProtocolError,
);

/// Watches a ManageSieve session from its login to its end.
#[derive(Debug)]
pub struct SieveFollower {
    client: Scanner,
    server: Scanner,
    /// Commands begun and not answered.
    open: u32,
    awaited: Awaited,
    /// Nothing can be read any more, or nobody knows.
    is_opaque: bool,
    refused: Option<Refusal>,
    said_bye: bool,
}

/// An answer without which it is not known what the client's next octets are, or whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    /// To STARTTLS: a server that is reached in clear may obey it (RFC 5804 §2.2).
    Tls,
    /// To AUTHENTICATE.
    Login,
}

impl Default for SieveFollower {
    fn default() -> Self {
        Self {
            client: Scanner::new(),
            server: Scanner::new(),
            open: 0,
            awaited: Awaited::Nothing,
            is_opaque: false,
            refused: None,
            said_bye: false,
        }
    }
}

impl SieveFollower {
    /// What keeps the client's next octet from going on, if anything does.
    fn obstacle(&self, draining: bool) -> Option<Then> {
        if let Some(refusal) = self.refused {
            Some(Then::Refuse(refusal))
        } else if self.is_opaque {
            None
        } else if draining && self.client.is_between_lines() {
            Some(Then::Stop)
        } else {
            (self.awaited != Awaited::Nothing).then_some(Then::Hold)
        }
    }

    fn client_event(&mut self, event: Event) {
        let word = self.client.word();
        match event {
            Event::Begin => self.open = self.open.saturating_add(1),
            Event::Word if word.is(b"UNAUTHENTICATE") => self.refused = Some(RELOGIN),
            Event::Word if word.is(b"XCLIENT") => self.refused = Some(PROXY_WORD),
            Event::End if word.is(b"STARTTLS") => self.awaited = Awaited::Tls,
            Event::End if word.is(b"AUTHENTICATE") => self.awaited = Awaited::Login,
            Event::Unclear => self.refused = Some(IMPOSSIBLE_LITERAL),
            Event::Word | Event::End => {}
        }
    }

    fn server_event(&mut self, event: Event) {
        let word = self.server.word();
        let is = |status: &[u8]| word.is(status);
        match event {
            Event::End if is(b"BYE") => self.said_bye = true,
            Event::End if is(b"OK") || is(b"NO") => {
                let is_ok = is(b"OK");
                self.answered(is_ok);
            }
            // A challenge: the server goes about it.
            Event::End if self.awaited == Awaited::Login && self.open == 1 => {
                self.refused = Some(RELOGIN);
            }
            Event::Unclear => self.is_opaque = true,
            Event::Begin | Event::Word | Event::End => {}
        }
    }

    fn answered(&mut self, is_ok: bool) {
        self.open = self.open.saturating_sub(1);
        if self.open > 0 {
            return;
        }
        match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
            Awaited::Tls if is_ok => self.is_opaque = true,
            Awaited::Login if is_ok => self.refused = Some(RELOGIN),
            _ => {}
        }
    }
}

impl Follower for SieveFollower {
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
            if at == chunk.len() || self.is_opaque {
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
        while at < chunk.len() && !self.is_opaque {
            let (count, event) = self.server.scan(&chunk[at..]);
            at += count;
            if let Some(event) = event {
                self.server_event(event);
            }
        }
    }

    fn release(&mut self) {
        match self.awaited {
            Awaited::Nothing => {}
            Awaited::Tls => self.is_opaque = true,
            // The answer may come yet, and nothing may go on in between.
            Awaited::Login => self.refused = Some(RELOGIN),
        }
    }

    fn safety(&self) -> Safety {
        let between = self.client.is_between_lines() && self.server.is_between_lines();
        if self.is_opaque {
            Safety::Opaque
        } else if between && self.open == 0 {
            Safety::Safe
        } else {
            Safety::Busy
        }
    }

    fn awaits_the_client(&self) -> bool {
        !self.is_opaque && !self.client.is_between_lines() && self.open <= 1
    }

    fn goodbye(&self, why: Farewell) -> Option<&'static [u8]> {
        let fits = !self.is_opaque && self.server.is_between_lines();
        (fits && !self.said_bye).then(|| words::goodbye(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_costs_an_idle_session_little() {
        assert!(size_of::<SieveFollower>() <= 160);
    }
}
