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

thread_local! {
    /// Two in practice: one for what is read and one for what is made of it.
    static IDLE: Cell<Vec<Box<[u8]>>> = const { Cell::new(Vec::new()) };
}

/// Lends one of this thread's buffers to `work`. The contents are what the last borrower left, so that
/// `work` looks only at what it has written itself.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = with_idle(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice());
    let result = work(&mut buffer);
    with_idle(|idle| idle.push(buffer));
    result
}

fn with_idle<T>(change: impl FnOnce(&mut Vec<Box<[u8]>>) -> T) -> T {
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
}
