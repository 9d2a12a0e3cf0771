//! The memory that bytes are moved through.
//!
//! A session has no buffer of its own. When it has something to move it is lent one of its worker
//! thread's, for as long as it takes without waiting; what the other side does not take at once is kept
//! by the session in a piece of memory of just that size. So a hundred thousand idle sessions hold
//! nothing, and one whose client is stuck holds what is stuck.

use std::cell::Cell;

/// The most octets of plaintext in a TLS record (RFC 8446 §5.1).
pub(crate) const RECORD: usize = 16 * 1024;

/// Octets that are moved at once: sixteen records. More saves nothing; less costs up to a third more CPU a
/// byte on bulk transfer, in system calls.
pub(crate) const PIECE: usize = 16 * RECORD;

/// Octets of a buffer: a piece, encrypted. A record grows by 29 octets at most with what we speak (header,
/// explicit nonce and tag of TLS 1.2).
const BUFFER: usize = PIECE + 16 * 64;

/// A page of memory, or a multiple of one.
const PAGE: usize = 4096;

/// Where in a page a buffer begins. The kernel copies what was received from pages that a sender has filled from their
/// beginnings, and AMD's processors copy several times slower (`rep movsb`; Zen 3 and 4 at least) when the destination
/// lies a few octets further into its page than the source lies in its own. Large allocations begin 16 octets into a page,
/// so that a mailbox's download cost a third more CPU than from here.
const START: usize = PAGE / 2;

thread_local! {
    /// Two in practice: one for what is read and one for what is made of it.
    static IDLE: Cell<Vec<Buffer>> = const { Cell::new(Vec::new()) };
}

/// [`BUFFER`] octets that begin at [`START`] of a page.
struct Buffer {
    memory: Box<[u8]>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; BUFFER + 2 * PAGE].into_boxed_slice();
        let start = memory.as_ptr().align_offset(PAGE) + START;
        Self { memory, start }
    }

    fn octets(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..BUFFER]
    }
}

/// Lends one of this thread's buffers to `work`. The contents are what the last borrower left, so that
/// `work` looks only at what it has written itself.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = with_idle(Vec::pop).unwrap_or_else(Buffer::new);
    let result = work(buffer.octets());
    with_idle(|idle| idle.push(buffer));
    result
}

fn with_idle<T>(change: impl FnOnce(&mut Vec<Buffer>) -> T) -> T {
    let mut idle = IDLE.take();
    let result = change(&mut idle);
    IDLE.set(idle);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_a_nested_loan_gets_another() {
        let first = with_scratch(|outer| {
            let inner = with_scratch(|inner| inner.as_ptr());
            assert_ne!(outer.as_ptr(), inner);
            outer.as_ptr()
        });
        assert_eq!(with_scratch(|again| again.as_ptr()), first);
        assert_eq!(with_idle(|idle| idle.len()), 2);
    }

    #[test]
    fn a_buffer_begins_in_the_middle_of_a_page() {
        let (start, length) = with_scratch(|buffer| (buffer.as_ptr().addr(), buffer.len()));
        assert_eq!((start % PAGE, length), (START, BUFFER));
    }
}
