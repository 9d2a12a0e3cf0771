//! The packed part of a table: settled accounts, without the text of their names.
//!
//! ```text
//!   name ─ keyed hash ─▶ bucket (high bits) ─▶ row: 48 bits of the hash, slot ─▶ account: id, home, epoch
//! ```
//!
//! 10 bytes a name and 30 an account, beside 4 bytes a bucket of about eight names: 41 bytes for an
//! account with one name, where a hash map of strings takes more than twice that. A name that is not
//! stored hits a row by chance once in 2^64/n look-ups, and is then sent to a server that does not know
//! it; the key is random, so nobody can aim. Two *stored* names with one hash are told apart when the
//! table is built: the second stays exact in the overlay.
//!
//! What a row cannot hold (an account in its held window, a rejected one, the 65,537th destination) stays
//! exact in the overlay.

mod build;

pub(super) use build::BaseBuilder;
pub use build::BuildError;

use ferrypost_proto::{DestinationId, Epoch, Revision};

use super::{
    account_key::AccountKey,
    hash::{NameHash, NameKey},
};

/// Immutable, sorted, packed.
#[derive(Debug)]
pub(super) struct Base {
    key: NameKey,
    bucket_bits: u32,
    /// Where each bucket's rows begin, and the end.
    starts: Vec<u32>,
    rows: Vec<NameRow>,
    /// By key.
    accounts: Vec<AccountRow>,
    homes: Vec<DestinationId>,
    bases: Vec<u64>,
}

/// The low 48 bits of a name's hash and its account's slot, low end first.
type NameRow = [u8; 10];

/// Below this many bucket bits a row could not hold the rest of a 64-bit hash.
const LEAST_BUCKET_BITS: u32 = 16;

/// One account as it lies there; [`Packed`] is what it means. Bytes only, so that nothing is lost to
/// alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AccountRow {
    key: AccountKey,
    home: [u8; 2],
    base: u8,
    store: [u8; 8],
    names: NameCount,
    fenced: bool,
}

/// How many names an account has, up to 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameCount(u8);

impl NameCount {
    fn of(names: usize) -> Self {
        Self(u8::try_from(names).unwrap_or(u8::MAX))
    }

    /// True only if it is surely so many.
    pub(super) fn is(self, names: usize) -> bool {
        self.0 < u8::MAX && usize::from(self.0) == names
    }
}

/// The index of an account row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

/// An account of the base, read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) key: AccountKey,
    pub(super) home: &'a DestinationId,
    pub(super) epoch: Epoch,
    pub(super) names: NameCount,
    /// Its entry was found wrong only when the table was complete: nobody is admitted.
    pub(super) fenced: bool,
}

impl Base {
    pub(super) fn key(&self) -> &NameKey {
        &self.key
    }

    /// The accounts that a name points to: one, unless two claim it.
    pub(super) fn claims(&self, name: NameHash) -> impl Iterator<Item = Packed<'_>> {
        let bucket = self.bucket(name.hash);
        let rest = name.hash << self.bucket_bits >> self.bucket_bits;
        let range = self.starts[bucket] as usize..self.starts[bucket + 1] as usize;
        self.rows[range]
            .iter()
            .map(|row| read_row(*row))
            .skip_while(move |(row, _)| *row < rest)
            .take_while(move |(row, _)| *row == rest)
            .map(|(_, slot)| self.account(slot))
    }

    /// The account with this id.
    pub(super) fn find(&self, key: AccountKey) -> Option<Packed<'_>> {
        self.accounts
            .binary_search_by_key(&key, |row| row.key)
            .ok()
            .map(|at| self.account(slot(at)))
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = Packed<'_>> {
        (0..self.accounts.len()).map(|at| self.account(slot(at)))
    }

    /// Every destination that an account of the base may live on.
    pub(super) fn homes(&self) -> &[DestinationId] {
        &self.homes
    }

    fn bucket(&self, hash: u64) -> usize {
        usize::try_from(hash >> (64 - self.bucket_bits)).expect("few bits")
    }

    fn account(&self, slot: Slot) -> Packed<'_> {
        let row = &self.accounts[slot.0 as usize];
        Packed {
            key: row.key,
            home: &self.homes[usize::from(u16::from_le_bytes(row.home))],
            epoch: Epoch::new(Revision::new(
                self.bases[usize::from(row.base)],
                u64::from_le_bytes(row.store),
            )),
            names: row.names,
            fenced: row.fenced,
        }
    }

    /// Every name's hash with its account's slot, in the order of the hashes.
    fn names(&self) -> impl Iterator<Item = (u64, Slot)> {
        self.starts
            .windows(2)
            .enumerate()
            .flat_map(move |(bucket, ends)| {
                let high = (bucket as u64) << (64 - self.bucket_bits);
                self.rows[ends[0] as usize..ends[1] as usize]
                    .iter()
                    .map(move |row| {
                        let (rest, slot) = read_row(*row);
                        (high | rest, slot)
                    })
            })
    }
}

fn slot(at: usize) -> Slot {
    Slot(u32::try_from(at).expect("a base holds at most u32::MAX accounts"))
}

fn read_row(row: NameRow) -> (u64, Slot) {
    let mut rest = [0; 8];
    rest[..6].copy_from_slice(&row[..6]);
    let mut slot = [0; 4];
    slot.copy_from_slice(&row[6..]);
    (u64::from_le_bytes(rest), Slot(u32::from_le_bytes(slot)))
}

fn write_row(rest: u64, slot: Slot) -> NameRow {
    let mut row = [0; 10];
    row[..6].copy_from_slice(&rest.to_le_bytes()[..6]);
    row[6..].copy_from_slice(&slot.0.to_le_bytes());
    row
}
