//! The exact part of a table: what changed since the base was built, and what a base cannot hold.

use std::{collections::BTreeMap, sync::Arc};

use ferrypost_proto::{Name, Record};

use super::{KeyedState, account_key::AccountKey, cow::CowMap};

/// Accounts that are not as the base has them.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    names: CowMap<Name, Arc<Record>>,
    accounts: CowMap<AccountKey, Exact>,
    /// The accounts in their held window, whose number is bounded by the control plane (G15).
    fenced: Arc<BTreeMap<AccountKey, Arc<Record>>>,
}

/// What the overlay says about an account. Either way the base's word about it does not count.
#[derive(Debug, Clone)]
pub(super) enum Exact {
    /// This is its record.
    Record(Arc<Record>),
    /// It has no record, or one that was rejected.
    Gone,
}

impl Exact {
    /// True if it is the very same state, not only an equal one.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Record(a), Self::Record(b)) => Arc::ptr_eq(a, b),
            (Self::Gone, Self::Gone) => true,
            _ => false,
        }
    }
}

impl Overlay {
    pub(super) fn new(hash: &KeyedState) -> Self {
        Self {
            names: CowMap::new(hash.clone()),
            accounts: CowMap::new(hash.clone()),
            fenced: Arc::default(),
        }
    }

    pub(super) fn by_name(&self, name: &Name) -> Option<&Arc<Record>> {
        self.names.get(name)
    }

    pub(super) fn account(&self, key: AccountKey) -> Option<&Exact> {
        self.accounts.get(&key)
    }

    /// True if the base's word about the account does not count.
    pub(super) fn masks(&self, key: AccountKey) -> bool {
        self.accounts.contains(&key)
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = (AccountKey, &Exact)> {
        self.accounts.iter().map(|(key, exact)| (*key, exact))
    }

    pub(super) fn fenced(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.fenced.values()
    }

    /// How many accounts a merge could take away.
    pub(super) fn mergeable(&self) -> usize {
        self.accounts.len() - self.fenced.len()
    }

    /// Takes a record in. The account's state before it was taken out by [`remove`](Self::remove).
    pub(super) fn insert(&mut self, record: Arc<Record>) {
        let key = AccountKey::from(&record.account);
        for name in &record.names {
            self.names.insert(name.clone(), Arc::clone(&record));
        }
        if record.fence.is_some() {
            Arc::make_mut(&mut self.fenced).insert(key, Arc::clone(&record));
        }
        self.accounts.insert(key, Exact::Record(record));
    }

    /// Says that the base's word about the account does not count.
    pub(super) fn mask(&mut self, key: AccountKey) {
        self.accounts.insert(key, Exact::Gone);
    }

    /// Takes out what is said about an account.
    pub(super) fn remove(&mut self, key: AccountKey) -> Option<Exact> {
        let exact = self.accounts.remove(&key)?;
        if let Exact::Record(record) = &exact {
            for name in &record.names {
                self.names.remove(name);
            }
            if record.fence.is_some() {
                Arc::make_mut(&mut self.fenced).remove(&key);
            }
        }
        Some(exact)
    }
}
