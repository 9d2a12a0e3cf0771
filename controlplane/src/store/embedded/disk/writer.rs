//! Writes to the file: judging, applying, forgetting.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::fault::open_fault;
use super::{
    BOOT, CHANGES, FIRST_REVISION, FLOOR, FORMAT, FORMAT_NOW, Fault, LEASED, META, OpenError,
    REVISION, VERSIONS, Version, VersionKey, newest,
};
use crate::store::{Guard, LeaseId, Rev, StoreError, Txn, TxnOutcome, Write};

/// The tables of one write, which may hold several transactions of the store.
pub(crate) struct Writer<'txn> {
    versions: Table<'txn, VersionKey, Version>,
    changes: Table<'txn, (Rev, &'static [u8]), ()>,
    leased: Table<'txn, &'static [u8], i64>,
    meta: Table<'txn, &'static str, u64>,
    /// As it was before the write; `None` in a new file.
    was: Option<Standing>,
    now: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    revision: Rev,
    floor: Rev,
}

impl<'txn> Writer<'txn> {
    pub(crate) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Fault> {
        let meta = transaction.open_table(META)?;
        let revision = meta.get(REVISION)?.map(|number| number.value());
        let floor = meta.get(FLOOR)?.map(|number| number.value());
        let was = revision
            .zip(floor)
            .map(|(revision, floor)| Standing { revision, floor });
        let new = Standing {
            revision: FIRST_REVISION,
            floor: FIRST_REVISION,
        };
        Ok(Self {
            versions: transaction.open_table(VERSIONS)?,
            changes: transaction.open_table(CHANGES)?,
            leased: transaction.open_table(LEASED)?,
            meta,
            was,
            now: was.unwrap_or(new),
        })
    }

    /// The revision up to which transactions were applied, in this write too.
    pub(crate) fn revision(&self) -> Rev {
        self.now.revision
    }

    pub(super) fn check_format(&mut self) -> Result<(), OpenError> {
        let found = self
            .meta
            .get(FORMAT)
            .map_err(open_fault)?
            .map(|number| number.value());
        match found {
            Some(FORMAT_NOW) => Ok(()),
            Some(found) => Err(OpenError::Format { found }),
            None => self
                .meta
                .insert(FORMAT, FORMAT_NOW)
                .map(drop)
                .map_err(open_fault),
        }
    }

    pub(super) fn next_boot(&mut self) -> Result<u64, Fault> {
        let boot = self.meta.get(BOOT)?.map_or(0, |number| number.value()) + 1;
        self.meta.insert(BOOT, boot)?;
        Ok(boot)
    }

    /// Judges and applies one transaction. `is_alive` says whether a lease has not ended yet.
    ///
    /// The outer error means that nothing of the whole write may be committed, the inner one that
    /// this transaction was refused and left no trace.
    pub(crate) fn transact(
        &mut self,
        txn: &Txn,
        is_alive: impl Fn(LeaseId) -> bool,
    ) -> Result<Result<TxnOutcome, StoreError>, Fault> {
        for guard in &txn.guards {
            if !self.holds(guard)? {
                return Ok(Ok(TxnOutcome::Conflict {
                    revision: self.now.revision,
                }));
            }
        }
        let mut leases = txn.writes.iter().filter_map(|write| match write {
            Write::Put { lease, .. } => *lease,
            Write::Delete { .. } => None,
        });
        if !leases.all(is_alive) {
            return Ok(Err(StoreError::LeaseLost));
        }
        let revision = self.now.revision + 1;
        let mut changed = false;
        for write in &txn.writes {
            changed |= self.apply(write, revision)?;
        }
        if changed {
            self.now.revision = revision;
        }
        Ok(Ok(TxnOutcome::Committed(self.now.revision)))
    }

    fn holds(&self, guard: &Guard) -> Result<bool, Fault> {
        Ok(match guard {
            Guard::Revision { key, is } => {
                let entry = newest(&self.versions, key)?;
                entry.map_or(0, |entry| entry.mod_revision) == *is
            }
            Guard::Exists { key } => newest(&self.versions, key)?.is_some(),
        })
    }

    /// Whether the write changed anything.
    fn apply(&mut self, write: &Write, revision: Rev) -> Result<bool, Fault> {
        let key = write.key();
        let elder = newest(&self.versions, key)?;
        match write {
            Write::Put { value, lease, .. } => {
                let created = elder.map_or(revision, |elder| elder.create_revision);
                self.versions
                    .insert((key, revision), (created, Some(value.as_ref())))?;
                match lease {
                    Some(LeaseId(lease)) => self.leased.insert(key, lease)?,
                    None => self.leased.remove(key)?,
                };
            }
            Write::Delete { .. } => {
                if elder.is_none() {
                    return Ok(false);
                }
                self.versions.insert((key, revision), (0, None))?;
                self.leased.remove(key)?;
            }
        }
        self.changes.insert((revision, key), ())?;
        Ok(true)
    }

    /// Deletes, at one revision, every key whose lease is chosen.
    pub(crate) fn delete_leased(&mut self, chosen: impl Fn(LeaseId) -> bool) -> Result<(), Fault> {
        let mut keys = Vec::new();
        for row in self.leased.iter()? {
            let (key, lease) = row?;
            if chosen(LeaseId(lease.value())) {
                keys.push(key.value().to_vec());
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.now.revision += 1;
        for key in keys {
            self.apply(&Write::Delete { key }, self.now.revision)?;
        }
        Ok(())
    }

    /// Forgets the history before `to`, or before the present revision if that is lower.
    pub(crate) fn forget_before(&mut self, to: Rev) -> Result<(), Fault> {
        let to = to.min(self.now.revision);
        while let Some((revision, key)) = self.oldest_change()?
            && revision <= to
        {
            self.forget(revision, &key)?;
        }
        self.now.floor = self.now.floor.max(to);
        Ok(())
    }

    /// Forgets the oldest whole revisions until at most `limit` changes are kept.
    pub(crate) fn bound_history(&mut self, limit: u64) -> Result<(), Fault> {
        while self.changes.len()? > limit {
            let Some((revision, _)) = self.oldest_change()? else {
                break;
            };
            self.forget_before(revision)?;
        }
        Ok(())
    }

    fn oldest_change(&self) -> Result<Option<(Rev, Vec<u8>)>, Fault> {
        Ok(self.changes.first()?.map(|(row_key, _)| {
            let (revision, key) = row_key.value();
            (revision, key.to_vec())
        }))
    }

    fn forget(&mut self, revision: Rev, key: &[u8]) -> Result<(), Fault> {
        let superseded = self
            .versions
            .range((key, 0)..(key, revision))?
            .next_back()
            .transpose()?
            .map(|(row_key, _)| row_key.value().1);
        if let Some(superseded) = superseded {
            self.versions.remove((key, superseded))?;
        }
        let version = self.versions.get((key, revision))?;
        let deleted = version.is_some_and(|version| version.value().1.is_none());
        if deleted {
            self.versions.remove((key, revision))?;
        }
        self.changes.remove((revision, key))?;
        Ok(())
    }

    /// Writes down where the store stands after the write, and says at which revision; `None` if
    /// nothing has changed, so that there is nothing to commit.
    pub(crate) fn finish(mut self) -> Result<Option<Rev>, Fault> {
        if self.was == Some(self.now) {
            return Ok(None);
        }
        self.meta.insert(REVISION, self.now.revision)?;
        self.meta.insert(FLOOR, self.now.floor)?;
        Ok(Some(self.now.revision))
    }
}
