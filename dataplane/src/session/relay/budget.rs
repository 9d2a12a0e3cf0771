//! What peers that do not take what there is for them may make us keep.
//!
//! A direction reads a record at a time, more at once the more the other side takes at once, and up to sixteen. What is
//! larger than a record is lent, and there are few such pieces: who stops reading in the middle of one holds it until
//! it is taken, and when all are held everybody moves a record at a time. So of each side that is stuck we keep a
//! record, wherever it stopped, but for those few.
//!
//! All that is kept is booked on one budget. A session that has to keep more when there is none left is ended.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::scratch::{PIECE, RECORD};

/// The most octets that a direction keeps whose piece is not lent: a record as it was read and as it will be sent, or
/// in parts of each.
pub(crate) const STUCK: usize = 2 * RECORD;

/// Pieces above a record that are on their way at once, or stuck: 16 MiB. A worker has one at a time, so that far
/// fewer would do if nobody was ever stuck.
pub(crate) const LENT: usize = 64;

/// The budget of all sessions. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    kept: AtomicUsize,
    pieces: Arc<Semaphore>,
}

impl Budget {
    /// At most `limit` octets are kept.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            limit,
            kept: AtomicUsize::new(0),
            pieces: Arc::new(Semaphore::new(LENT)),
        }))
    }

    /// Octets that are kept now.
    pub fn kept(&self) -> usize {
        self.0.kept.load(Relaxed)
    }

    /// Pieces that are lent now.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        LENT - self.0.pieces.available_permits()
    }

    /// A session that keeps nothing.
    pub(super) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            booked: 0,
        }
    }
}

/// What one session keeps of the budget; given back when it is dropped.
pub(super) struct Share {
    budget: Budget,
    booked: usize,
}

impl Share {
    /// The session keeps so many octets now. False: there is no room for as many, and what was booked stays so.
    #[must_use]
    pub(super) fn book(&mut self, kept: usize) -> bool {
        let total = &self.budget.0.kept;
        if kept > self.booked {
            let more = kept - self.booked;
            let limit = self.budget.0.limit;
            let within = |now: usize| now.checked_add(more).filter(|sum| *sum <= limit);
            if total.fetch_update(Relaxed, Relaxed, within).is_err() {
                return false;
            }
        } else if kept < self.booked {
            total.fetch_sub(self.booked - kept, Relaxed);
        }
        self.booked = kept;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.kept.fetch_sub(self.booked, Relaxed);
    }
}

/// How much one direction reads at once.
pub(super) struct Piece {
    size: usize,
    /// Something was read since the other side was found stuck.
    moved: bool,
    loan: Option<OwnedSemaphorePermit>,
}

impl Default for Piece {
    fn default() -> Self {
        Self {
            size: RECORD,
            moved: false,
            loan: None,
        }
    }
}

impl Piece {
    /// Octets to read now: everything so far has been taken.
    pub(super) fn next(&mut self, share: &Share) -> usize {
        if self.size > RECORD && self.loan.is_none() {
            let pieces = Arc::clone(&share.budget.0.pieces);
            self.loan = pieces.try_acquire_owned().ok();
        }
        match self.loan {
            Some(_) => self.size,
            None => RECORD,
        }
    }

    /// So many were there. More are likely to follow where half of the piece was filled: under TLS that is all that
    /// a piece of two records gets.
    pub(super) fn was_read(&mut self, count: usize) {
        self.moved = true;
        if count * 2 >= self.size {
            self.size = (self.size * 2).min(PIECE);
        }
    }

    /// The other side has not taken the last one at once. Asked again about the same one, this changes nothing.
    pub(super) fn is_stuck(&mut self) {
        if std::mem::take(&mut self.moved) {
            self.size = (self.size / 2).max(RECORD);
        }
    }

    /// So many octets are kept in this direction while nothing moves: few enough need no loan.
    pub(super) fn rests(&mut self, kept: usize) {
        if kept <= STUCK {
            self.loan = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_may_be_kept_and_an_octet_more_may_not() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.book(60));
        assert!(other.book(40), "the limit itself");
        assert!(!other.book(41), "one past it");
        assert_eq!(budget.kept(), 100, "what did not fit is not booked");
        assert!(one.book(59));
        assert!(other.book(41));
        drop(one);
        assert_eq!(budget.kept(), 41);
        drop(other);
        assert_eq!(budget.kept(), 0);
    }

    #[test]
    fn a_direction_reads_more_at_once_as_long_as_all_is_taken() {
        let share = Budget::new(0).share();
        let mut piece = Piece::default();
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let size = piece.next(&share);
            sizes.push(size / RECORD);
            // What TLS yields of so much ciphertext.
            piece.was_read(size / RECORD * RECORD - usize::from(size > RECORD) * RECORD);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 16]);
        for _ in 0..3 {
            piece.is_stuck();
        }
        assert_eq!(
            piece.next(&share) / RECORD,
            8,
            "once for each that was not taken"
        );
        for expected in [4, 2, 1, 1] {
            piece.moved = true;
            piece.is_stuck();
            assert_eq!(piece.next(&share) / RECORD, expected);
        }
    }

    #[test]
    fn pieces_are_lent_while_there_are_any_and_kept_by_who_is_stuck_in_one() {
        let budget = Budget::new(0);
        let share = budget.share();
        let grown = || {
            let mut piece = Piece::default();
            piece.was_read(RECORD);
            piece
        };
        let mut all: Vec<Piece> = (0..LENT).map(|_| grown()).collect();
        assert!(all.iter_mut().all(|piece| piece.next(&share) == 2 * RECORD));
        let mut late = grown();
        assert_eq!(late.next(&share), RECORD, "one more than there are");
        all[0].rests(STUCK + 1);
        assert_eq!(late.next(&share), RECORD, "it is stuck and holds it");
        all[0].rests(STUCK);
        assert_eq!(late.next(&share), 2 * RECORD);
        drop((all, late));
        assert_eq!(budget.lent(), 0);
    }
}
