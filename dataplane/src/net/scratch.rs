//! The memory that relayed bytes are moved through.
//!
//! A session has no relay buffer. When it has something to move it is lent its worker thread's, for as
//! long as it takes without waiting; what the other side does not take at once is kept by the
//! session in a piece of memory of just that size. So a hundred thousand idle sessions hold nothing, and
//! one whose client is stuck holds what is stuck.

use std::cell::Cell;

/// Octets of a thread's buffer. Larger ones save system calls on bulk transfer up to about this
/// size; smaller ones cost up to a third more CPU a byte.
pub(crate) const SCRATCH_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends this thread's buffer to `work`. The contents are what the last borrower left, so that `work`
/// looks only at what it has written itself.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken out rather than borrowed: were `work` ever to come back here it would get a buffer of
    // its own and no panic.
    let mut buffer = SCRATCH
        .take()
        .unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
    let result = work(&mut buffer);
    SCRATCH.set(Some(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_one_buffer_and_a_nested_loan_gets_another() {
        let first = with_scratch(|outer| {
            let inner = with_scratch(|inner| inner.as_ptr());
            assert_ne!(outer.as_ptr(), inner);
            outer.as_ptr()
        });
        assert_eq!(with_scratch(|again| again.as_ptr()), first);
    }
}
