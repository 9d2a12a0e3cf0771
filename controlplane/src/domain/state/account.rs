//! An account, whether or not its record can be read.

use std::sync::Arc;

use ferrypost_proto::{AccountId, Phase, Revision, routing::v1 as wire, store::v1::AccountRecord};

use crate::{
    domain::placement::{Placement, UnreadableRecord},
    kv::{Rev, value::Stored},
};

/// An account's record, readable or not.
#[derive(Debug, Clone, PartialEq)]
pub enum Account {
    /// A record of this version.
    Known(Placement),
    /// A record that this version cannot act on. Nothing moves it, and data planes, which are sent it as
    /// it is, hold it fenced.
    Unreadable(Box<Unreadable>),
}

/// What is known of an unreadable record.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Whose.
    pub id: AccountId,
    /// The store revision of the record.
    pub epoch: Rev,
    /// Its names, as far as they could be read.
    pub names: Box<[Arc<str>]>,
    /// As it is in the store, as far as it could be decoded.
    pub record: AccountRecord,
    /// What is wrong.
    pub why: UnreadableRecord,
}

impl Account {
    /// Reads a record.
    pub(super) fn read(id: &AccountId, bytes: &[u8], epoch: Rev) -> Self {
        let unreadable = |record: AccountRecord, why| {
            Self::Unreadable(Box::new(Unreadable {
                id: id.clone(),
                epoch,
                names: record
                    .names
                    .iter()
                    .map(|name| name.as_str().into())
                    .collect(),
                record,
                why,
            }))
        };
        let Ok(stored) = Stored::<AccountRecord>::read(bytes) else {
            return unreadable(
                AccountRecord::default(),
                UnreadableRecord { field: "record" },
            );
        };
        match Placement::from_stored(id.clone(), stored.clone(), epoch) {
            Ok(placement) => Self::Known(placement),
            Err(why) => unreadable(stored.into_parts().0, why),
        }
    }

    /// Whose.
    pub fn id(&self) -> &AccountId {
        match self {
            Self::Known(placement) => &placement.account,
            Self::Unreadable(account) => &account.id,
        }
    }

    /// The store revision of the record.
    pub fn epoch(&self) -> Rev {
        match self {
            Self::Known(placement) => placement.epoch,
            Self::Unreadable(account) => account.epoch,
        }
    }

    /// Its names.
    pub fn names(&self) -> &[Arc<str>] {
        match self {
            Self::Known(placement) => &placement.names,
            Self::Unreadable(account) => &account.names,
        }
    }

    /// The record, if this version can act on it.
    pub fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Known(placement) => Some(placement),
            Self::Unreadable(_) => None,
        }
    }

    /// True in the held window.
    pub fn is_fenced(&self) -> bool {
        self.phase().is_some_and(Phase::is_fenced)
    }

    /// Where its move stands, if that can be read.
    pub fn phase(&self) -> Option<Phase> {
        self.placement().map(|placement| placement.phase)
    }

    /// What data planes are told.
    pub fn entry(&self, base: u64) -> wire::AccountEntry {
        match self {
            Self::Known(placement) => placement.entry(base),
            Self::Unreadable(account) => account.entry(base),
        }
    }
}

impl Unreadable {
    /// A phase of zero is one that no data plane knows: whatever is wrong here, they reject the entry and
    /// hold its account.
    fn entry(&self, base: u64) -> wire::AccountEntry {
        wire::AccountEntry {
            account_id: self.id.as_str().to_owned(),
            names: self.names.iter().map(|name| (**name).to_owned()).collect(),
            home: self.record.home.clone(),
            target: self.record.target.clone(),
            phase: 0,
            epoch: Some(Revision::new(base, self.epoch).into()),
            fence_epoch: None,
            migration_id: self.record.migration_id.clone(),
            traceparent: String::new(),
        }
    }
}
