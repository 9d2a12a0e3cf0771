//! A table in the making: accounts are let go of and claim their names.

use std::{collections::BTreeMap, sync::Arc};

use ferrypost_proto::{
    Epoch, Name, Record, Rejected, RoutingConfig, TablePosition,
    routing::v1::{AccountEntry, RejectReason},
};

use super::{
    RoutingTable,
    account_key::AccountKey,
    base::NameCount,
    overlay::Exact,
    rejections::{MOST_REJECTED, Rejection, Rejections},
};

/// Which names may resolve otherwise after a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These.
    pub names: Vec<Name>,
    /// And names that a settled account no longer has, whose text is not known. Where such a name goes
    /// does not change (G0), so closing what it should not have left open is not urgent.
    pub dropped: bool,
    /// And any other: a snapshot, or another routing configuration.
    pub all: bool,
}

/// More entries are wrong than can be entries' fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MOST_REJECTED} entries cannot be taken over")]
pub struct TooManyRejected;

/// A copy of a table that may be changed.
pub(super) struct Draft {
    table: RoutingTable,
    rejections: BTreeMap<String, Rejection>,
    touched: Touched,
}

/// What is left of an account when its state was taken out.
#[derive(Default)]
pub(super) struct TakenOut {
    /// The epoch at which it was held.
    floor: Option<Epoch>,
    /// It lay in the base, with so many names.
    packed: Option<NameCount>,
}

impl TakenOut {
    /// An account of a new table, which one before it held at `floor`.
    pub(super) const fn at(floor: Option<Epoch>) -> Self {
        Self {
            floor,
            packed: None,
        }
    }
}

impl Draft {
    pub(super) fn new(
        table: &RoutingTable,
        position: TablePosition,
        config: Arc<RoutingConfig>,
    ) -> Self {
        Self {
            rejections: table.rejections.entries().clone(),
            table: RoutingTable {
                position,
                config,
                base: Arc::clone(&table.base),
                overlay: table.overlay.clone(),
                rejections: Arc::clone(&table.rejections),
                hash: table.hash.clone(),
            },
            touched: Touched::default(),
        }
    }

    pub(super) fn touch_all(&mut self) {
        self.touched.all = true;
    }

    /// Takes out what is held about an account, so that its names are free.
    pub(super) fn release(&mut self, account: &str) -> TakenOut {
        let mut former = TakenOut::default();
        if let Some(rejection) = self.rejections.remove(account) {
            former.floor = rejection.floor;
            self.touched.names.extend(rejection.names);
        }
        let Some(key) = AccountKey::parse(account) else {
            return former;
        };
        let packed = self.table.base.find(key);
        match self.table.overlay.remove(key) {
            Some(Exact::Record(record)) => {
                former.floor = Some(record.epoch);
                self.touched.names.extend(record.names.iter().cloned());
            }
            Some(Exact::Gone) => {}
            None => {
                if let Some(packed) = &packed {
                    former.floor = Some(packed.epoch);
                    former.packed = Some(packed.names);
                }
            }
        }
        if packed.is_some() {
            self.table.overlay.mask(key);
        }
        former
    }

    /// An account that was released stays without a record.
    pub(super) fn removed(&mut self, former: &TakenOut) {
        self.touched.dropped |= former.packed.is_some();
    }

    /// Gives an account that was released its new entry, or rejects that.
    pub(super) fn claim(&mut self, entry: AccountEntry, former: &TakenOut) {
        match self.check(&entry, former.floor) {
            Ok(record) => {
                let key = AccountKey::from(&record.account);
                self.note_dropped(key, &record.names, former);
                self.touched.names.extend(record.names.iter().cloned());
                self.table.overlay.insert(Arc::new(record));
            }
            Err(rejected) => {
                let policy = self.table.config.names();
                let rejection = Rejection::new(entry, &rejected, former.floor, policy);
                if let Some(key) = AccountKey::parse(&rejected.account) {
                    self.note_dropped(key, &rejection.names, former);
                }
                self.touched.names.extend(rejection.names.iter().cloned());
                self.rejections.insert(rejected.account, rejection);
            }
        }
    }

    /// Notes a rejection of an account that lies in the base.
    pub(super) fn reject_packed(&mut self, key: AccountKey, reason: RejectReason) {
        if let Some(packed) = self.table.base.find(key) {
            let rejection = Rejection::packed(reason, packed.epoch);
            self.rejections
                .insert(packed.key.account().into(), rejection);
        }
    }

    /// Tries the rejected entries again that `again` picks by their reason.
    pub(super) fn retry(&mut self, again: impl Fn(RejectReason) -> bool) {
        let entries: Vec<_> = self
            .rejections
            .values()
            .filter(|rejection| again(rejection.reason))
            .filter_map(|rejection| rejection.entry.clone())
            .collect();
        for entry in entries {
            let former = self.release(&entry.account_id);
            self.claim(entry, &former);
        }
    }

    pub(super) fn finish(mut self) -> Result<(RoutingTable, Touched), TooManyRejected> {
        if self.rejections.len() > MOST_REJECTED {
            return Err(TooManyRejected);
        }
        if !(self.rejections.is_empty() && self.table.rejections.entries().is_empty()) {
            self.table.rejections =
                Arc::new(Rejections::new(self.rejections, self.table.hash.clone()));
        }
        Ok((self.table, self.touched))
    }

    fn check(&self, entry: &AccountEntry, floor: Option<Epoch>) -> Result<Record, Rejected> {
        let record = check_alone(entry, &self.table.config)?;
        let reject = |reason, field| Rejected {
            account: entry.account_id.clone(),
            reason,
            field,
        };
        if floor.is_some_and(|floor| record.epoch < floor) {
            return Err(reject(RejectReason::BadEpoch, "epoch"));
        }
        if record.names.iter().any(|name| self.is_taken(name)) {
            return Err(reject(RejectReason::NameTaken, "names"));
        }
        Ok(record)
    }

    /// Whether another account has the name: the claimant itself was released, and a rejected entry has
    /// nothing.
    fn is_taken(&self, name: &Name) -> bool {
        self.table.overlay.by_name(name).is_some()
            || self.table.claims(name).any(|packed| !packed.fenced)
    }

    /// Names of a settled account are known by hash alone: it has dropped some if it had more than are
    /// still found there.
    fn note_dropped(&mut self, key: AccountKey, names: &[Name], former: &TakenOut) {
        let Some(had) = former.packed else { return };
        let base = &self.table.base;
        let kept = names
            .iter()
            .filter(|name| {
                base.claims(base.key().hash(name))
                    .any(|packed| packed.key == key)
            })
            .count();
        self.touched.dropped |= !had.is(kept);
    }
}

/// Checks an entry as far as that needs no other entry.
pub(super) fn check_alone(
    entry: &AccountEntry,
    config: &RoutingConfig,
) -> Result<Record, Rejected> {
    let mut record = Record::from_wire(entry, config.names())?;
    let known = |id| config.destination(id).is_some();
    let field = if !known(&record.home) {
        Some("home")
    } else if record.target.as_ref().is_some_and(|id| !known(id)) {
        Some("target")
    } else {
        None
    };
    if let Some(field) = field {
        return Err(Rejected {
            account: entry.account_id.clone(),
            reason: RejectReason::UnknownDestination,
            field,
        });
    }
    // Counting names must not be fooled by one that is there twice.
    record.names.sort_unstable();
    record.names.dedup();
    Ok(record)
}
