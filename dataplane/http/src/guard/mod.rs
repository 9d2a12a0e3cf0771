//! Looks at an HTTP/1 client's octets before hyper does, and lets through only what all parsers read alike.
//!
//! hyper is the parser: what it makes of a request is what is forwarded. But it is lenient where a server may
//! be, and what it repaired cannot be seen any more in what it hands out: a bare LF, a `Content-Length` beside
//! `Transfer-Encoding` (dropped) or a second one (merged), a fragment in the target (cut off). Whoever stands
//! in front of us, or a server that counts differently, could see another request there. So every head passes
//! here first, whole, read by httparse (hyper's own) and held to more; and so that it is known where the next
//! head begins, the body is counted, or its chunks are followed, by a grammar that is a part of hyper's.
//! Nothing is changed.
//!
//! The driver reads into a buffer, shows it to [`Guard::step`] and hands hyper what may pass, and nothing else.
//! HTTP/2 has none of these questions and no guard.

mod chunks;
mod head;

use self::chunks::Chunks;
use crate::{Framing, Refusal};

/// The most header fields that a request may have, as in hyper.
pub const MAX_FIELDS: usize = 100;

/// What a request's head may be, in octets with its request line: a token of 8 KiB, a query that carries
/// another, and cookies. More gets 431.
pub const MAX_HEAD: usize = 64 * 1024;

/// Watches one connection of HTTP/1.
#[derive(Debug)]
pub struct Guard {
    state: State,
    max_head: usize,
    /// The last request asks for an upgrade, and nobody knows yet whether it gets that.
    awaits_verdict: bool,
}

#[derive(Debug)]
enum State {
    /// A head begins with the input, of which so much has been looked at.
    Head { seen: usize, skipped_line: bool },
    /// So many octets of a body are to come.
    Body(u64),
    /// A chunked body is on its way.
    Chunks(Chunks),
    /// No HTTP any more (RFC 9110 §7.8).
    Upgraded,
}

/// What to do with the input of [`Guard::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// This many octets from its start may be read by hyper, at least one; step again with the rest.
    Pass(usize),
    /// This many octets from its start are nobody's; step again with the rest.
    Skip(usize),
    /// Read more, and show it again from the same start.
    NeedMore,
}

impl Guard {
    /// For a connection that has just been opened, whose heads may have `max_head` octets.
    pub fn new(max_head: usize) -> Self {
        Self {
            state: State::NEW,
            max_head,
            awaits_verdict: false,
        }
    }

    /// Looks at what has been read and not passed yet.
    ///
    /// # Errors
    /// [`Refusal`]: nothing more may pass. The connection is to be ended, after the refusal has been said if no
    /// answer is on its way.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        if input.is_empty() {
            return Ok(Step::NeedMore);
        }
        match &mut self.state {
            State::Upgraded => Ok(Step::Pass(input.len())),
            State::Body(left) => {
                let passed = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= passed as u64;
                if *left == 0 {
                    self.state = State::NEW;
                }
                Ok(Step::Pass(passed))
            }
            State::Chunks(chunks) => {
                let (passed, is_over) = chunks.follow(input)?;
                if is_over {
                    self.state = State::NEW;
                }
                Ok(Step::Pass(passed))
            }
            State::Head { seen, skipped_line } => {
                // RFC 9112 §2.2: clients of long ago send an empty line behind a body.
                if input.starts_with(b"\r\n") && !*skipped_line {
                    self.state = State::Head {
                        seen: 0,
                        skipped_line: true,
                    };
                    return Ok(Step::Skip(2));
                }
                let Some(length) = head::end(input, seen, self.max_head)? else {
                    return Ok(Step::NeedMore);
                };
                let facts = head::read(&input[..length])?;
                self.awaits_verdict = facts.asks_upgrade;
                self.state = match facts.framing {
                    Framing::None | Framing::Length(0) => State::NEW,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::Chunks(Chunks::default()),
                };
                Ok(Step::Pass(length))
            }
        }
    }

    /// The server has accepted an upgrade; to be said before the client hears of it. What follows is not ours
    /// to read.
    pub fn upgrade(&mut self) {
        self.awaits_verdict = false;
        self.state = State::Upgraded;
    }

    /// The upgrade that was asked for is not to be: what follows is the next request.
    pub fn decline_upgrade(&mut self) {
        self.awaits_verdict = false;
    }

    /// Whether nobody can say yet what the next octet is: it follows a request that asks for an upgrade and is not
    /// answered. It is not to be shown before [`Guard::upgrade`] or [`Guard::decline_upgrade`].
    pub fn awaits_verdict(&self) -> bool {
        self.awaits_verdict && self.is_between_requests()
    }

    /// Whether the next octet begins a request.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head { seen: 0, .. })
    }
}

impl State {
    const NEW: Self = Self::Head {
        seen: 0,
        skipped_line: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What passes or is skipped when the input comes in pieces of this size, and what ended it.
    fn pass(input: &[u8], piece: usize) -> (Vec<u8>, Option<Refusal>) {
        let mut guard = Guard::new(1024);
        let (mut held, mut passed) = (Vec::new(), Vec::new());
        for piece in input.chunks(piece.max(1)) {
            held.extend_from_slice(piece);
            loop {
                match guard.step(&held) {
                    Ok(Step::Pass(count) | Step::Skip(count)) => {
                        passed.extend(held.drain(..count));
                    }
                    Ok(Step::NeedMore) => break,
                    Err(refusal) => return (passed, Some(refusal)),
                }
            }
            assert!(held.len() <= 1024, "it holds no more than a head");
        }
        (passed, None)
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

    #[test]
    fn requests_pass_unchanged_one_behind_another() {
        let chunked = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
            4;x=y\r\nabcd\r\n00A\r\n\r\n\n0123456\r\n0\r\nX-Sum: 1\r\n\r\n";
        let counted =
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nGET\n\n\0\r\n";
        let input = format!("{GET}{chunked}{counted}{GET}");
        for piece in [1, 7, input.len()] {
            assert_eq!(
                pass(input.as_bytes(), piece),
                (input.clone().into_bytes(), None)
            );
        }
    }

    #[test]
    fn no_octet_of_a_refused_head_passes() {
        let bad = "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let input = format!("{GET}{bad}{GET}");
        for piece in [1, input.len()] {
            let expected = (GET.as_bytes().to_vec(), Some(Refusal::Length));
            assert_eq!(pass(input.as_bytes(), piece), expected);
        }
    }

    #[test]
    fn a_head_is_never_longer_than_its_limit() {
        let head = |length: usize| {
            let filler = "x".repeat(length - GET.len() - "X: \r\n".len());
            GET.replace("\r\n\r\n", &format!("\r\nX: {filler}\r\n\r\n"))
        };
        assert_eq!(pass(head(1024).as_bytes(), 100).1, None);
        assert_eq!(
            pass(head(1025).as_bytes(), 100).1,
            Some(Refusal::HeaderTooLarge)
        );
        let start = GET.trim_end().to_owned() + "\r\nX: ";
        let across = start.clone() + &"x".repeat(1023 - start.len()) + "\r\nY: z\r\n\r\n";
        for piece in [1, across.len()] {
            let refusal = pass(across.as_bytes(), piece).1;
            assert_eq!(refusal, Some(Refusal::HeaderTooLarge));
        }
        let many = GET.replace("\r\n\r\n", &"\r\nX:".repeat(MAX_FIELDS + 1)) + "\r\n\r\n";
        assert_eq!(pass(many.as_bytes(), 100).1, Some(Refusal::HeaderTooLarge));
    }

    #[test]
    fn one_empty_line_before_a_request_is_forgiven_and_no_more() {
        let input = format!("\r\n{GET}");
        assert_eq!(pass(input.as_bytes(), 1).1, None);
        let input = format!("\r\n\r\n{GET}");
        assert_eq!(pass(input.as_bytes(), 1).1, Some(Refusal::Malformed));
    }

    #[test]
    fn one_empty_line_before_a_request_is_nobodys() {
        let mut guard = Guard::new(1024);
        assert_eq!(guard.step(b"\r"), Ok(Step::NeedMore));
        assert_eq!(guard.step(b"\r\nGET"), Ok(Step::Skip(2)));
        assert!(guard.is_between_requests());
        assert!(guard.step(b"\r\n").is_err());
    }

    #[test]
    fn what_follows_an_upgrade_is_not_read() {
        let mut guard = Guard::new(1024);
        assert_eq!(guard.step(GET.as_bytes()), Ok(Step::Pass(GET.len())));
        assert!(guard.is_between_requests());
        guard.upgrade();
        assert_eq!(guard.step(b"\x81\x85\n\n"), Ok(Step::Pass(4)));
    }

    #[test]
    fn what_follows_a_request_for_an_upgrade_is_nothing_before_that_is_answered() {
        let handshake =
            "POST / HTTP/1.1\r\nHost: a.example\r\nUPGRADE: x\r\nContent-Length: 2\r\n\r\n";
        for is_taken in [true, false] {
            let mut guard = Guard::new(1024);
            assert!(!guard.awaits_verdict());
            assert_eq!(
                guard.step(handshake.as_bytes()),
                Ok(Step::Pass(handshake.len()))
            );
            assert!(!guard.awaits_verdict(), "its body is its own");
            assert_eq!(guard.step(b"ab\x81"), Ok(Step::Pass(2)));
            assert!(guard.awaits_verdict());
            if is_taken {
                guard.upgrade();
            } else {
                guard.decline_upgrade();
            }
            assert!(!guard.awaits_verdict());
            assert_eq!(guard.step(b"\x81\n\n").is_ok(), is_taken);
        }
    }

    proptest! {
        #[test]
        fn it_matters_not_in_which_pieces_octets_come(pieces in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "Host: a\r\n", "\r\n", "\n", "\r", "Transfer-Encoding: chunked\r\n", "Content-Length: 3\r\n",
            "3\r\n", "abc", "0\r\n", "0\r\n\r\n", "A: b\r\n", " ", "x", "\0", ";e\r\n",
        ]), 0..20), piece in 1_usize..9) {
            let input = pieces.concat();
            let whole = pass(input.as_bytes(), input.len());
            let split = pass(input.as_bytes(), piece);
            prop_assert_eq!(&whole.1, &split.1);
            // In a body, what comes before the mistake may have passed in pieces.
            prop_assert!(split.0.starts_with(&whole.0));
            prop_assert!(input.as_bytes().starts_with(&split.0));
        }

        #[test]
        fn no_octets_make_it_panic(input in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
            let _ = pass(&input, piece);
        }
    }
}
