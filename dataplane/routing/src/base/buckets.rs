//! Sorted 64-bit hashes, kept as buckets and what the bucket does not say.

use std::ops::Range;

/// Where each bucket of a sorted array begins. A bucket is the high bits of a hash; a row keeps the other
/// 48 bits or fewer.
#[derive(Debug)]
pub(super) struct Buckets {
    bits: u32,
    /// One more than there are buckets: the last is the end.
    starts: Vec<u32>,
}

/// The low bits of a hash, low end first.
pub(super) type Rest = [u8; 6];

/// Below this many bucket bits a row could not hold the rest of a hash.
const LEAST_BITS: u32 = 16;

impl Buckets {
    /// For rows whose hashes are these, in ascending order.
    pub(super) fn new(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let bits = bits(hashes.len());
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        let mut rows = 0;
        for hash in hashes {
            starts.resize(bucket(hash, bits) + 1, rows);
            rows += 1;
        }
        starts.resize((1 << bits) + 1, rows);
        Self { bits, starts }
    }

    /// The rows among which a hash must be.
    pub(super) fn range(&self, hash: u64) -> Range<usize> {
        let bucket = bucket(hash, self.bits);
        self.starts[bucket] as usize..self.starts[bucket + 1] as usize
    }

    /// What a row keeps of a hash.
    pub(super) fn rest(&self, hash: u64) -> Rest {
        let mut rest = Rest::default();
        rest.copy_from_slice(&(hash << self.bits >> self.bits).to_le_bytes()[..6]);
        rest
    }

    /// The hash of each row, in order; `rest` says what the row keeps.
    pub(super) fn hashes(&self, rest: impl Fn(usize) -> Rest) -> impl Iterator<Item = u64> {
        let buckets = self.starts.windows(2).enumerate();
        let highs = buckets.flat_map(|(bucket, ends)| {
            let rows = (ends[1] - ends[0]) as usize;
            std::iter::repeat_n((bucket as u64) << (64 - self.bits), rows)
        });
        highs.enumerate().map(move |(row, high)| {
            let mut low = [0; 8];
            low[..6].copy_from_slice(&rest(row));
            high | u64::from_le_bytes(low)
        })
    }
}

/// Two to four rows a bucket, which mostly lie in one or two lines of the cache.
fn bits(rows: usize) -> u32 {
    (usize::BITS - (rows / 4).leading_zeros()).max(LEAST_BITS)
}

fn bucket(hash: u64, bits: u32) -> usize {
    usize::try_from(hash >> (64 - bits)).expect("few bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_hash_is_found_in_its_bucket_and_given_back(
            mut hashes in prop::collection::vec(any::<u64>(), 0..500)
        ) {
            hashes.extend([0, u64::MAX]);
            hashes.sort_unstable();
            let buckets = Buckets::new(hashes.iter().copied());
            for (at, hash) in hashes.iter().enumerate() {
                prop_assert!(buckets.range(*hash).contains(&at));
            }
            let back: Vec<_> = buckets.hashes(|at| buckets.rest(hashes[at])).collect();
            prop_assert_eq!(back, hashes);
        }
    }
}
