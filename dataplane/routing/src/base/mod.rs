//! The packed part of a table: settled accounts, without the text of their names.
//!
//! ```text
//!   name ─ keyed hash ─▶ bucket (high bits) ─┬▶ account: 48 bits of its first name's hash,
//!                                            │           id, home, epoch, number of names
//!                                            └▶ alias:   48 bits of the hash, which account
//! ```
//!
//! An account lies where its first name hashes to, so that a look-up by it reads one place in memory:
//! 36 bytes, 4 more for the order by id, and 10 for every further name, beside 4 bytes a bucket of two to
//! four. A hash map of strings takes more than twice that. A name that is not stored hits a row by
//! chance once in 2^64/n look-ups, and is then sent to a server that does not know it; the key is
//! random, so nobody can aim. Two *stored* names with one hash are told apart when the table is built:
//! the second stays exact in the overlay.
//!
//! What a row cannot hold (an account in its held window, a rejected one, the 65,537th destination) stays
//! exact in the overlay.

mod buckets;
mod build;

use ferrypost_proto::{DestinationId, Epoch, Revision};

pub(super) use build::BaseBuilder;
pub use build::BuildError;

use self::buckets::{Buckets, Rest};
use super::{
    account_key::AccountKey,
    hash::{NameHash, NameKey},
};

/// Immutable, sorted, packed.
#[derive(Debug)]
pub(super) struct Base {
    key: NameKey,
    buckets: Buckets,
    /// By the hash of the first name.
    accounts: Vec<AccountRow>,
    alias_buckets: Buckets,
    /// By the hash of the name.
    aliases: Vec<AliasRow>,
    /// The accounts by their keys.
    by_key: Vec<Slot>,
    homes: Vec<DestinationId>,
    bases: Vec<u64>,
}

/// One account as it lies there; [`Packed`] is what it means. Bytes only, so that nothing is lost to
/// alignment.
#[derive(Debug, Clone, Copy)]
struct AccountRow {
    rest: Rest,
    key: AccountKey,
    home: [u8; 2],
    base: u8,
    store: [u8; 8],
    names: NameCount,
    fenced: bool,
}

/// A further name of an account.
#[derive(Debug, Clone, Copy)]
struct AliasRow {
    rest: Rest,
    slot: [u8; 4],
}

/// The index of an account row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot(u32);

/// How many names an account has, up to 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameCount(u8);

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
        let rest = self.buckets.rest(name.hash);
        let first = self.accounts[self.buckets.range(name.hash)]
            .iter()
            .filter(move |row| row.rest == rest);
        let rest = self.alias_buckets.rest(name.hash);
        let further = self.aliases[self.alias_buckets.range(name.hash)]
            .iter()
            .filter(move |row| row.rest == rest)
            .map(|row| self.row(Slot::read(row.slot)));
        first.chain(further).map(|row| self.read(row))
    }

    /// The account with this id.
    pub(super) fn find(&self, key: AccountKey) -> Option<Packed<'_>> {
        self.by_key
            .binary_search_by_key(&key, |slot| self.row(*slot).key)
            .ok()
            .map(|at| self.read(self.row(self.by_key[at])))
    }

    /// All accounts, by their keys.
    pub(super) fn accounts(&self) -> impl Iterator<Item = Packed<'_>> {
        self.by_key.iter().map(|slot| self.read(self.row(*slot)))
    }

    /// Every destination that an account of the base may live on.
    pub(super) fn homes(&self) -> &[DestinationId] {
        &self.homes
    }

    fn row(&self, slot: Slot) -> &AccountRow {
        &self.accounts[slot.index()]
    }

    fn read(&self, row: &AccountRow) -> Packed<'_> {
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
}

impl NameCount {
    fn of(names: usize) -> Self {
        Self(u8::try_from(names).unwrap_or(u8::MAX))
    }

    /// True only if it is surely so many.
    pub(super) fn is(self, names: usize) -> bool {
        self.0 < u8::MAX && usize::from(self.0) == names
    }
}

impl Slot {
    fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("a base holds fewer than u32::MAX accounts and names"))
    }

    fn index(self) -> usize {
        self.0 as usize
    }

    const fn read(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    const fn bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}
