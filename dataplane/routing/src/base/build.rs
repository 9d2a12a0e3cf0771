//! Building a base: from a snapshot, or from an older base and what changed since.

use std::collections::HashMap;

use ferrypost_proto::{DestinationId, Epoch, Record, Revision, routing::v1::RejectReason};
use ferrypost_runtime::Random;

use super::{AccountRow, AliasRow, Base, Buckets, NameCount, NameKey, Rest, Slot};
use crate::{account_key::AccountKey, hash::NameHash};

/// Collects accounts in any order and packs them at the end.
#[derive(Debug)]
pub(crate) struct BaseBuilder {
    key: NameKey,
    /// Every name but the first of each account.
    aliases: Vec<NameEntry>,
    /// In the order of arrival: a name's slot counts in it until the end.
    accounts: Vec<Account>,
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

#[derive(Debug, Clone, Copy)]
struct Account {
    /// Of its first name; of its id, if it has none: it must lie somewhere.
    first: NameHash,
    row: AccountRow,
}

/// A finished base and the accounts in it that were found wrong only then. They are marked as fenced.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) base: Base,
    pub(crate) rejected: Vec<(AccountKey, RejectReason)>,
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
    pub(crate) fn new(random: &Random) -> Self {
        Self::with_key(NameKey::new(random))
    }

    pub(crate) fn with_key(key: NameKey) -> Self {
        Self {
            key,
            aliases: Vec::new(),
            accounts: Vec::new(),
            homes: Vec::new(),
            home_index: HashMap::new(),
            bases: Vec::new(),
        }
    }

    /// Begins with the accounts of `base` that `keep` wants.
    pub(crate) fn from_base(base: &Base, keep: impl Fn(AccountKey) -> bool) -> Self {
        let mut builder = Self::with_key(base.key.clone());
        builder.homes.clone_from(&base.homes);
        builder.bases.clone_from(&base.bases);
        builder.home_index = (0..)
            .zip(&base.homes)
            .map(|(n, id)| (id.clone(), n))
            .collect();
        let mut kept = vec![None; base.accounts.len()];
        let hashes = base.buckets.hashes(|at| base.accounts[at].rest);
        for ((row, hash), kept) in base.accounts.iter().zip(hashes).zip(&mut kept) {
            if keep(row.key) {
                *kept = Some(Slot::at(builder.accounts.len()));
                let first = NameHash { hash, check: 0 };
                builder.accounts.push(Account { first, row: *row });
            }
        }
        let hashes = base.alias_buckets.hashes(|at| base.aliases[at].rest);
        let aliases = base.aliases.iter().zip(hashes);
        builder.aliases = aliases
            .filter_map(|(row, hash)| {
                let slot = kept[Slot::read(row.slot).index()]?;
                let check = 0;
                Some(NameEntry { hash, check, slot })
            })
            .collect();
        builder
    }

    /// Adds an account that nobody holds. False if it has no place in the packed form.
    pub(crate) fn push(&mut self, record: &Record) -> bool {
        let at = self.accounts.len();
        if at.max(self.aliases.len() + record.names.len()) >= u32::MAX as usize {
            return false;
        }
        let (Some(home), Some(base)) = (self.home(&record.home), self.base(record.epoch)) else {
            return false;
        };
        let mut hashes = record.names.iter().map(|name| self.key.hash(name));
        let key = AccountKey::from(&record.account);
        let first = hashes.next().unwrap_or_else(|| self.key.hash_bytes(&key.0));
        let slot = Slot::at(at);
        self.aliases
            .extend(hashes.map(|NameHash { hash, check }| NameEntry { hash, check, slot }));
        let row = AccountRow {
            rest: Rest::default(),
            key,
            home: home.to_le_bytes(),
            base,
            store: record.epoch.revision().store().to_le_bytes(),
            names: NameCount::of(record.names.len()),
            fenced: false,
        };
        self.accounts.push(Account { first, row });
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
    pub(crate) fn finish(
        mut self,
        mut held: impl FnMut(AccountKey) -> Option<Epoch>,
    ) -> Result<Built, BuildError> {
        let mut rejected = Vec::new();
        self.reject_taken(&mut rejected)?;
        let by_key = self.by_key();
        let same = |pair: &[Slot]| self.row(pair[0]).key == self.row(pair[1]).key;
        if by_key.windows(2).any(same) {
            return Err(BuildError::AccountTwice);
        }
        for slot in by_key {
            let row = *self.row(slot);
            let Some(held) = held(row.key).filter(|held| *held > self.epoch(&row)) else {
                continue;
            };
            if !row.fenced {
                rejected.push((row.key, RejectReason::BadEpoch));
            }
            self.fence_at(slot, held);
        }
        Ok(Built {
            base: self.pack(),
            rejected,
        })
    }

    /// Packs a base that was checked before and what was added to it without a clash.
    pub(crate) fn finish_merge(self) -> Base {
        self.pack()
    }

    fn row(&self, slot: Slot) -> &AccountRow {
        &self.accounts[slot.index()].row
    }

    /// Fences the later of two accounts that claim one name.
    fn reject_taken(
        &mut self,
        rejected: &mut Vec<(AccountKey, RejectReason)>,
    ) -> Result<(), BuildError> {
        let first = self.accounts.iter().enumerate();
        let mut names: Vec<_> = first
            .map(|(at, account)| (account.first, Slot::at(at)))
            .chain(self.aliases.iter().map(|name| {
                let NameEntry { hash, check, slot } = *name;
                (NameHash { hash, check }, slot)
            }))
            .collect();
        names.sort_unstable_by_key(|(name, slot)| (name.hash, *slot));
        for pair in names.windows(2) {
            let [(first, holder), (second, claimant)] = pair else {
                continue;
            };
            if first.hash != second.hash {
                continue;
            }
            if first.check != second.check {
                return Err(BuildError::Collision);
            }
            let row = &mut self.accounts[claimant.index()].row;
            // An account that names itself twice claims nothing from another.
            if holder != claimant && !row.fenced {
                row.fenced = true;
                rejected.push((row.key, RejectReason::NameTaken));
            }
        }
        Ok(())
    }

    fn epoch(&self, row: &AccountRow) -> Epoch {
        Epoch::new(Revision::new(
            self.bases[usize::from(row.base)],
            u64::from_le_bytes(row.store),
        ))
    }

    /// Marks an account and keeps the higher epoch, below which nothing is taken over later.
    fn fence_at(&mut self, slot: Slot, held: Epoch) {
        let base = self.base(held);
        let row = &mut self.accounts[slot.index()].row;
        row.fenced = true;
        // Without a place for the base the lower epoch stays: the account is fenced either way.
        if let Some(base) = base {
            row.base = base;
            row.store = held.revision().store().to_le_bytes();
        }
    }

    /// The accounts in the order of their keys.
    fn by_key(&self) -> Vec<Slot> {
        let keys = self.accounts.iter().enumerate();
        let mut slots: Vec<_> = keys
            .map(|(at, account)| (account.row.key, Slot::at(at)))
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Sorts the accounts by the hashes of their first names, and lets their other names follow.
    fn sort(&mut self) {
        let mut order: Vec<_> = (0..self.accounts.len()).map(Slot::at).collect();
        // Stable sorts find the long run that a merge begins with.
        order.sort_by_key(|slot| self.accounts[slot.index()].first.hash);
        let mut moved = vec![Slot(0); order.len()];
        for (to, from) in order.iter().enumerate() {
            moved[from.index()] = Slot::at(to);
        }
        self.accounts = order
            .iter()
            .map(|slot| self.accounts[slot.index()])
            .collect();
        for name in &mut self.aliases {
            name.slot = moved[name.slot.index()];
        }
        // Two names of one account may share a hash, and must not look like two claims.
        let accounts = &self.accounts;
        self.aliases
            .retain(|name| accounts[name.slot.index()].first.hash != name.hash);
        self.aliases.sort_by_key(|name| (name.hash, name.slot));
        self.aliases.dedup_by_key(|name| (name.hash, name.slot));
    }

    fn pack(mut self) -> Base {
        self.sort();
        let by_key = self.by_key();
        let buckets = Buckets::new(self.accounts.iter().map(|account| account.first.hash));
        let alias_buckets = Buckets::new(self.aliases.iter().map(|name| name.hash));
        let account_row = |account: &Account| AccountRow {
            rest: buckets.rest(account.first.hash),
            ..account.row
        };
        let alias_row = |name: &NameEntry| AliasRow {
            rest: alias_buckets.rest(name.hash),
            slot: name.slot.bytes(),
        };
        Base {
            key: self.key,
            accounts: self.accounts.iter().map(account_row).collect(),
            aliases: self.aliases.iter().map(alias_row).collect(),
            buckets,
            alias_buckets,
            by_key,
            homes: self.homes,
            bases: self.bases,
        }
    }
}
