//! Entries that could not be taken over.

use std::collections::{BTreeMap, HashMap};

use ferrypost_proto::{
    AccountId, Epoch, Name, NamePolicy, Rejected,
    routing::v1::{AccountEntry, RejectReason, RejectedEntry},
};

use super::{KeyedState, account_key::AccountKey};

/// Beyond this many the trouble is not with entries: the snapshot or delta as a whole is refused, and the
/// table before it stays. The list travels in one message.
pub(super) const MOST_REJECTED: usize = 4096;

/// Every rejected entry of a table, and the names that it fences.
#[derive(Debug, Clone)]
pub(super) struct Rejections {
    /// By account id as it came, valid or not.
    entries: BTreeMap<String, Rejection>,
    /// Every name that a rejected entry carries, with the account that it names, if that can be read.
    names: HashMap<Name, Option<AccountId>, KeyedState>,
    any_packed: bool,
}

/// One rejected entry.
#[derive(Debug, Clone)]
pub(super) struct Rejection {
    /// As it came. `None` for an account of the base that was found wrong when a snapshot was complete.
    pub(super) entry: Option<AccountEntry>,
    pub(super) reason: RejectReason,
    pub(super) field: &'static str,
    /// The epoch that the account was held at before.
    pub(super) floor: Option<Epoch>,
    /// The names that it carries, as far as they can be read.
    pub(super) names: Vec<Name>,
}

impl Rejection {
    /// Reads the names of a rejected entry. They need not be canonical: it is exactly when the planes
    /// disagree about that, that the login which would reach the account must not be guessed at. A name
    /// that no login can have needs no fence.
    pub(super) fn new(
        entry: AccountEntry,
        rejected: &Rejected,
        floor: Option<Epoch>,
        policy: &NamePolicy,
    ) -> Self {
        let mut names: Vec<_> = entry
            .names
            .iter()
            .filter_map(|text| policy.canonicalise(text).ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        Self {
            entry: Some(entry),
            reason: rejected.reason,
            field: rejected.field,
            floor,
            names,
        }
    }

    /// For an account that lies in the base.
    pub(super) fn packed(reason: RejectReason, floor: Epoch) -> Self {
        Self {
            entry: None,
            reason,
            field: match reason {
                RejectReason::NameTaken => "names",
                _ => "epoch",
            },
            floor: Some(floor),
            names: Vec::new(),
        }
    }
}

impl Rejections {
    pub(super) fn new(entries: BTreeMap<String, Rejection>, hash: KeyedState) -> Self {
        let mut names = HashMap::with_hasher(hash);
        for (account, rejection) in &entries {
            for name in &rejection.names {
                names
                    .entry(name.clone())
                    .or_insert_with(|| AccountId::parse(account).ok());
            }
        }
        Self {
            any_packed: entries.values().any(|rejection| rejection.entry.is_none()),
            entries,
            names,
        }
    }

    pub(super) fn entries(&self) -> &BTreeMap<String, Rejection> {
        &self.entries
    }

    /// Whether a rejected entry carries the name; the account that it names, if that can be read.
    pub(super) fn carries(&self, name: &Name) -> Option<&Option<AccountId>> {
        if self.names.is_empty() {
            return None;
        }
        self.names.get(name)
    }

    /// True if an account of the base was rejected, whose names are known by hash alone.
    pub(super) const fn any_packed(&self) -> bool {
        self.any_packed
    }

    /// The epoch below which nothing is taken over for an account that was rejected.
    pub(super) fn floor(&self, key: AccountKey) -> Option<Epoch> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.get(key.account().as_str())?.floor
    }

    /// As the control plane is told.
    pub(super) fn report(&self) -> Vec<RejectedEntry> {
        self.entries
            .iter()
            .map(|(account, rejection)| RejectedEntry {
                account_id: account.clone(),
                reason: rejection.reason.into(),
                field: rejection.field.to_owned(),
            })
            .collect()
    }
}
