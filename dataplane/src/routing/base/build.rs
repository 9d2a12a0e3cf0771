//! Building a base: from a snapshot, or from an older base and what changed since.

use std::collections::HashMap;

use ferrypost_proto::{DestinationId, Epoch, Random, Record, Revision, routing::v1::RejectReason};

use super::{
    AccountRow, Base, LEAST_BUCKET_BITS, NameCount, NameKey, NameRow, Slot, slot, write_row,
};
use crate::routing::{account_key::AccountKey, hash::NameHash};

/// Collects accounts in any order and packs them at the end.
#[derive(Debug)]
pub(in crate::routing) struct BaseBuilder {
    key: NameKey,
    names: Vec<NameEntry>,
    /// In the order of arrival: a name's slot counts in it until the end.
    accounts: Vec<AccountRow>,
    homes: Vec<DestinationId>,
    home_index: HashMap<DestinationId, u16>,
    bases: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct NameEntry {
    hash: u64,
    check: u32,
    slot: Slot,
}

/// A finished base and the accounts in it that were found wrong only then. They are marked as fenced.
#[derive(Debug)]
pub(in crate::routing) struct Built {
    pub(in crate::routing) base: Base,
    pub(in crate::routing) rejected: Vec<(AccountKey, RejectReason)>,
}

/// Why the accounts make no base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// One account came twice.
    #[error("an account is there twice")]
    AccountTwice,
    /// Two names have one hash. Under the next random key they will not.
    #[error("two names have the same hash under this table's key; another key is needed")]
    Collision,
}

impl BaseBuilder {
    /// Nothing yet, under a fresh key.
    pub(in crate::routing) fn new(random: &Random) -> Self {
        Self::with_key(NameKey::new(random))
    }

    pub(in crate::routing) fn with_key(key: NameKey) -> Self {
        Self {
            key,
            names: Vec::new(),
            accounts: Vec::new(),
            homes: Vec::new(),
            home_index: HashMap::new(),
            bases: Vec::new(),
        }
    }

    /// Begins with the accounts of `base` that `keep` wants.
    pub(in crate::routing) fn from_base(base: &Base, keep: impl Fn(AccountKey) -> bool) -> Self {
        let mut builder = Self::with_key(base.key.clone());
        builder.homes.clone_from(&base.homes);
        builder.bases.clone_from(&base.bases);
        builder.home_index = (0..)
            .zip(&base.homes)
            .map(|(n, id)| (id.clone(), n))
            .collect();
        let mut kept = vec![None; base.accounts.len()];
        for (row, kept) in base.accounts.iter().zip(&mut kept) {
            if keep(row.key) {
                *kept = Some(slot(builder.accounts.len()));
                builder.accounts.push(*row);
            }
        }
        builder.names = base
            .names()
            .filter_map(|(hash, slot)| {
                Some(NameEntry {
                    hash,
                    check: 0,
                    slot: kept[slot.0 as usize]?,
                })
            })
            .collect();
        builder
    }

    /// Adds an account that nobody holds. False if it has no place in the packed form.
    pub(in crate::routing) fn push(&mut self, record: &Record) -> bool {
        let (Some(home), Some(base)) = (self.home(&record.home), self.base(record.epoch)) else {
            return false;
        };
        let at = self.accounts.len();
        if at.max(self.names.len() + record.names.len()) >= u32::MAX as usize {
            return false;
        }
        for name in &record.names {
            let NameHash { hash, check } = self.key.hash(name);
            self.names.push(NameEntry {
                hash,
                check,
                slot: slot(at),
            });
        }
        self.accounts.push(AccountRow {
            key: AccountKey::from(&record.account),
            home: home.to_le_bytes(),
            base,
            store: record.epoch.revision().store().to_le_bytes(),
            names: NameCount::of(record.names.len()),
            fenced: false,
        });
        true
    }

    fn home(&mut self, id: &DestinationId) -> Option<u16> {
        if let Some(at) = self.home_index.get(id) {
            return Some(*at);
        }
        let at = u16::try_from(self.homes.len()).ok()?;
        self.homes.push(id.clone());
        self.home_index.insert(id.clone(), at);
        Some(at)
    }

    fn base(&mut self, epoch: Epoch) -> Option<u8> {
        let base = epoch.revision().base();
        let at = self.bases.iter().position(|known| *known == base);
        let at = at.unwrap_or(self.bases.len());
        let index = u8::try_from(at).ok()?;
        if at == self.bases.len() {
            self.bases.push(base);
        }
        Some(index)
    }

    /// Packs a snapshot. `held` says the epoch at which the table before it holds an account, and is asked
    /// in ascending order: an account below it is rejected, and so is the later of two that claim one
    /// name. Both stay in the base, fenced, since their other names are known by hash alone.
    pub(in crate::routing) fn finish(
        mut self,
        mut held: impl FnMut(AccountKey) -> Option<Epoch>,
    ) -> Result<Built, BuildError> {
        let mut rejected = Vec::new();
        self.names
            .sort_unstable_by_key(|name| (name.hash, name.slot));
        for pair in self.names.windows(2) {
            let [first, second] = pair else { continue };
            if first.hash != second.hash {
                continue;
            }
            if first.check != second.check {
                return Err(BuildError::Collision);
            }
            // An account that names itself twice claims nothing from another.
            let account = &mut self.accounts[second.slot.0 as usize];
            if first.slot != second.slot && !account.fenced {
                account.fenced = true;
                rejected.push((account.key, RejectReason::NameTaken));
            }
        }
        self.sort_accounts();
        if self
            .accounts
            .windows(2)
            .any(|pair| pair[0].key == pair[1].key)
        {
            return Err(BuildError::AccountTwice);
        }
        for at in 0..self.accounts.len() {
            let row = self.accounts[at];
            let Some(held) = held(row.key).filter(|held| *held > self.epoch(&row)) else {
                continue;
            };
            if !row.fenced {
                rejected.push((row.key, RejectReason::BadEpoch));
            }
            self.fence_at(at, held);
        }
        Ok(Built {
            base: self.pack(),
            rejected,
        })
    }

    /// Packs a base that was checked before and what was added to it without a clash.
    pub(in crate::routing) fn finish_merge(mut self) -> Base {
        self.names.sort_by_key(|name| (name.hash, name.slot));
        self.sort_accounts();
        self.pack()
    }

    fn epoch(&self, row: &AccountRow) -> Epoch {
        Epoch::new(Revision::new(
            self.bases[usize::from(row.base)],
            u64::from_le_bytes(row.store),
        ))
    }

    /// Marks an account and keeps the higher epoch, below which nothing is taken over later.
    fn fence_at(&mut self, at: usize, held: Epoch) {
        let base = self.base(held);
        let row = &mut self.accounts[at];
        row.fenced = true;
        // Without a place for the base the lower epoch stays: the account is fenced either way.
        if let Some(base) = base {
            row.base = base;
            row.store = held.revision().store().to_le_bytes();
        }
    }

    /// Sorts the accounts by key and lets the names follow.
    fn sort_accounts(&mut self) {
        let mut order: Vec<u32> = (0..).take(self.accounts.len()).collect();
        // Stable sorts find the long run that a merge begins with.
        order.sort_by_key(|at| self.accounts[*at as usize].key);
        let mut moved = vec![Slot(0); order.len()];
        for (to, from) in order.iter().enumerate() {
            moved[*from as usize] = slot(to);
        }
        self.accounts = order.iter().map(|at| self.accounts[*at as usize]).collect();
        for name in &mut self.names {
            name.slot = moved[name.slot.0 as usize];
        }
    }

    fn pack(mut self) -> Base {
        self.names.dedup_by_key(|name| (name.hash, name.slot));
        let bucket_bits = bucket_bits(self.names.len());
        let mut starts = Vec::with_capacity((1 << bucket_bits) + 1);
        let mut rows: Vec<NameRow> = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let bucket = name.hash >> (64 - bucket_bits);
            starts.resize(usize::try_from(bucket).expect("few bits") + 1, len(&rows));
            rows.push(write_row(
                name.hash << bucket_bits >> bucket_bits,
                name.slot,
            ));
        }
        starts.resize((1 << bucket_bits) + 1, len(&rows));
        self.accounts.shrink_to_fit();
        Base {
            key: self.key,
            bucket_bits,
            starts,
            rows,
            accounts: self.accounts,
            homes: self.homes,
            bases: self.bases,
        }
    }
}

/// About eight names a bucket.
fn bucket_bits(names: usize) -> u32 {
    let wanted = usize::BITS - (names / 8).leading_zeros();
    wanted.max(LEAST_BUCKET_BITS)
}

fn len(rows: &[NameRow]) -> u32 {
    u32::try_from(rows.len()).expect("a base holds at most u32::MAX names")
}
