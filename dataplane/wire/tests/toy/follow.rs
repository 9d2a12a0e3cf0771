//! Watching the relay: one answer a command, and data of which a server may have taken over all when its end
//! has been sent.

use ferrypost_wire::{ClientVerdict, Farewell, Follower, Refusal, Safety, Then};

use super::front::goodbye;

const AGAIN: Refusal = Refusal::new("the client asked to log in anew", Farewell::Relogin);

/// Watches a relay.
#[derive(Default)]
pub(crate) struct ToyFollower {
    /// Commands without an answer.
    open: u32,
    /// Answers until the one to the data that was sent whole.
    committed: u32,
    client: Line,
    server: Line,
    is_data: bool,
    refused: bool,
}

/// The beginning of a line that has not ended.
#[derive(Default)]
struct Line {
    start: [u8; 8],
    length: usize,
}

impl Line {
    /// Takes an octet; at the end of the line, what it begins with.
    fn push(&mut self, octet: u8) -> Option<[u8; 8]> {
        if octet == b'\n' {
            return Some(std::mem::take(self).start);
        }
        if octet != b'\r' && self.length < self.start.len() {
            self.start[self.length] = octet;
        }
        self.length = self.length.saturating_add(1);
        None
    }

    fn is_begun(&self) -> bool {
        self.length > 0
    }
}

impl ToyFollower {
    fn client_line(&mut self, line: [u8; 8]) {
        match &line {
            b".\0\0\0\0\0\0\0" if self.is_data => {
                self.is_data = false;
                self.committed = self.open;
            }
            _ if self.is_data => {}
            line => {
                self.is_data = line == b"DATA\0\0\0\0";
                self.open = self.open.saturating_add(1);
            }
        }
    }
}

impl Follower for ToyFollower {
    fn client(&mut self, chunk: &[u8], draining: bool) -> ClientVerdict {
        let mut begin = 0;
        for (at, octet) in chunk.iter().enumerate() {
            if self.refused {
                break;
            }
            let between = !self.client.is_begun() && !self.is_data;
            if between {
                begin = at;
                if draining {
                    return ClientVerdict {
                        forward: at,
                        then: Then::Stop,
                    };
                }
            }
            match self.client.push(*octet) {
                Some(line) if line == *b"AGAIN\0\0\0" && !self.is_data => self.refused = true,
                Some(line) => self.client_line(line),
                None => {}
            }
        }
        if self.refused {
            return ClientVerdict {
                forward: begin,
                then: Then::Refuse(AGAIN),
            };
        }
        let at_boundary = !self.client.is_begun() && !self.is_data;
        ClientVerdict {
            forward: chunk.len(),
            then: if draining && at_boundary {
                Then::Stop
            } else {
                Then::Continue
            },
        }
    }

    fn server(&mut self, chunk: &[u8]) {
        for octet in chunk {
            if self.server.push(*octet).is_some() {
                self.open = self.open.saturating_sub(1);
                self.committed = self.committed.saturating_sub(1);
            }
        }
    }

    fn release(&mut self) {}

    fn safety(&self) -> Safety {
        if self.committed > 0 {
            Safety::Committed
        } else if self.open > 0 || self.client.is_begun() || self.server.is_begun() {
            Safety::Busy
        } else {
            Safety::Safe
        }
    }

    fn awaits_the_client(&self) -> bool {
        self.is_data || self.client.is_begun() && self.open == 0
    }

    fn goodbye(&self, why: Farewell) -> Option<&'static [u8]> {
        (!self.server.is_begun()).then(|| goodbye(why))
    }
}
