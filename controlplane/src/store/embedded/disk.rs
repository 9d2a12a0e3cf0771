//! What the embedded store keeps on disk, and the only code that touches it.
//!
//! ```text
//! versions   (key, revision) -> (create revision, value | none)    none: deleted at that revision
//! changes    (revision, key)                                       the change log, above the floor
//! leased     key -> lease                                          keys that end with a lease
//! meta       name -> number                                        revision, floor, boot, format
//! ```
//!
//! Every value is stored once, under the revision that wrote it. The state at a revision is the
//! newest version of each key at or below it, so a pinned read and a present one are the same
//! code, and the change log need only say which keys to look at.
//!
//! The **floor** is the oldest revision whose state can still be read. Forgetting the changes up to
//! it removes, for each, the version that it superseded, and the change's own version if that is
//! a deletion; what is left at or below the floor is exactly the state at the floor.
//!
//! Everything here blocks and belongs on a blocking thread.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, ReadableTableMetadata, StorageError, Table, TableDefinition, WriteTransaction,
};

use crate::store::{
    Event, Guard, KeyValue, LeaseId, Outage, Range, Rev, StoreError, Txn, TxnOutcome, WatchBatch,
    Write,
};

type VersionKey = (&'static [u8], Rev);
type Version = (Rev, Option<&'static [u8]>);

const VERSIONS: TableDefinition<'_, VersionKey, Version> = TableDefinition::new("versions");
const CHANGES: TableDefinition<'_, (Rev, &[u8]), ()> = TableDefinition::new("changes");
const LEASED: TableDefinition<'_, &[u8], i64> = TableDefinition::new("leased");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const REVISION: &str = "revision";
const FLOOR: &str = "floor";
const BOOT: &str = "boot";
const FORMAT: &str = "format";

/// The layout above. A file with another one is refused, never guessed at.
const FORMAT_NOW: u64 = 1;

/// The revision of a store that was never written to, as in etcd, so that 0 stays below them all.
pub(super) const FIRST_REVISION: Rev = 1;

/// About how many changes a watch reads at once; it always gets whole revisions.
const CHANGES_PER_BATCH: usize = 1000;

/// Why the embedded store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has the file open.
    #[error("the store is in use by another process")]
    InUse,
    /// The file was written by a version that lays it out differently.
    #[error("the store's format is {found}, and this version reads only {FORMAT_NOW}")]
    Format {
        /// The number in the file.
        found: u64,
    },
    /// The file or its directory cannot be read or written.
    #[error("the store's file cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The file is not a store, or is damaged.
    #[error("the store's file is damaged or is not a store")]
    Corrupt,
}

/// The open file.
pub(super) struct Disk {
    database: Database,
}

/// Where a freshly opened file stands.
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) revision: Rev,
    /// How many times the file has been opened: makes the leases of one process unlike another's.
    pub(super) boot: u64,
}

impl Disk {
    /// Opens or creates the file, under an exclusive lock of the operating system that lasts as
    /// long as the value, and deletes the keys whose leases died with the process before.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Opened, OpenError> {
        let database = Builder::new().set_cache_size(cache_bytes).create(path)?;
        // The name of a new file must survive a power cut as well as what is in it.
        if let Some(directory) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
            File::open(directory)?.sync_all()?;
        }
        let disk = Self { database };
        let (revision, boot) = disk.begin_life()?;
        Ok(Opened {
            disk,
            revision,
            boot,
        })
    }

    fn begin_life(&self) -> Result<(Rev, u64), OpenError> {
        let transaction = self.database.begin_write().map_err(open_fault)?;
        let mut writer = Writer::open(&transaction).map_err(open_fault)?;
        writer.check_format()?;
        let boot = writer.next_boot().map_err(open_fault)?;
        writer.delete_leased(|_| true).map_err(open_fault)?;
        let revision = writer.revision();
        writer.finish().map_err(open_fault)?;
        transaction.commit().map_err(open_fault)?;
        Ok((revision, boot))
    }

    /// A consistent picture of the file as of the last commit.
    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::open(&self.database.begin_read().map_err(fault)?)?)
    }

    /// Begins a write; nothing of it is visible or durable before its commit.
    pub(super) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.database.begin_write().map_err(fault)
    }
}

/// One consistent picture.
pub(super) struct Snapshot {
    versions: ReadOnlyTable<VersionKey, Version>,
    changes: ReadOnlyTable<(Rev, &'static [u8]), ()>,
    revision: Rev,
    floor: Rev,
}

impl Snapshot {
    fn open(transaction: &ReadTransaction) -> Result<Self, Fault> {
        let meta = transaction.open_table(META)?;
        Ok(Self {
            versions: transaction.open_table(VERSIONS)?,
            changes: transaction.open_table(CHANGES)?,
            revision: number(&meta, REVISION)?,
            floor: number(&meta, FLOOR)?,
        })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        Ok((newest(&self.versions, key)?, self.revision))
    }

    pub(super) fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        let revision = at.unwrap_or(self.revision);
        if revision < self.floor {
            return Err(StoreError::Compacted {
                floor: Some(self.floor),
            });
        }
        if revision > self.revision {
            return Err(StoreError::Future);
        }
        Ok(Range {
            entries: self.state(prefix, revision)?,
            revision,
        })
    }

    fn state(&self, prefix: &[u8], at: Rev) -> Result<Vec<KeyValue>, Fault> {
        let mut entries: Vec<KeyValue> = Vec::new();
        for row in self.versions.range((prefix, 0)..)? {
            let (row_key, row_version) = row?;
            let (key, mod_revision) = row_key.value();
            if !key.starts_with(prefix) {
                break;
            }
            if mod_revision > at {
                continue;
            }
            // Versions of a key are neighbours, oldest first: a newer one replaces its elder.
            entries.pop_if(|elder| elder.key == key);
            let (create_revision, value) = row_version.value();
            if let Some(value) = value {
                let value = Bytes::copy_from_slice(value);
                entries.push(KeyValue {
                    key: key.to_vec(),
                    value,
                    mod_revision,
                    create_revision,
                });
            }
        }
        Ok(entries)
    }

    /// The changes of whole revisions from `from` on: a moderate number, or none if there are
    /// none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Compacted`] when some of them are forgotten.
    pub(super) fn changes_from(&self, from: Rev) -> Result<WatchBatch, StoreError> {
        if from <= self.floor {
            return Err(StoreError::Compacted {
                floor: Some(self.floor),
            });
        }
        Ok(self.batch(from)?)
    }

    fn batch(&self, from: Rev) -> Result<WatchBatch, Fault> {
        let none: &[u8] = &[];
        let mut batch = WatchBatch {
            revision: self.revision,
            events: Vec::new(),
        };
        for row in self.changes.range((from, none)..)? {
            let (row_key, _) = row?;
            let (revision, key) = row_key.value();
            let last = batch.events.last().map(Event::mod_revision);
            if batch.events.len() >= CHANGES_PER_BATCH && last != Some(revision) {
                batch.revision = last.expect("the batch holds events");
                break;
            }
            batch.events.push(self.event(key, revision)?);
        }
        Ok(batch)
    }

    fn event(&self, key: &[u8], mod_revision: Rev) -> Result<Event, Fault> {
        let version = self
            .versions
            .get((key, mod_revision))?
            .ok_or(Fault::Corrupt)?;
        let (create_revision, value) = version.value();
        Ok(match value {
            Some(value) => Event::Put(KeyValue {
                key: key.to_vec(),
                value: Bytes::copy_from_slice(value),
                mod_revision,
                create_revision,
            }),
            None => Event::Delete {
                key: key.to_vec(),
                mod_revision,
            },
        })
    }
}

/// The tables of one write, which may hold several transactions of the store.
pub(super) struct Writer<'txn> {
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
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Fault> {
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
    pub(super) fn revision(&self) -> Rev {
        self.now.revision
    }

    fn check_format(&mut self) -> Result<(), OpenError> {
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

    fn next_boot(&mut self) -> Result<u64, Fault> {
        let boot = self.meta.get(BOOT)?.map_or(0, |number| number.value()) + 1;
        self.meta.insert(BOOT, boot)?;
        Ok(boot)
    }

    /// Judges and applies one transaction. `is_alive` says whether a lease has not ended yet.
    ///
    /// The outer error means that nothing of the whole write may be committed, the inner one that
    /// this transaction was refused and left no trace.
    pub(super) fn transact(
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
    pub(super) fn delete_leased(&mut self, chosen: impl Fn(LeaseId) -> bool) -> Result<(), Fault> {
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
    pub(super) fn forget_before(&mut self, to: Rev) -> Result<(), Fault> {
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
    pub(super) fn bound_history(&mut self, limit: u64) -> Result<(), Fault> {
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
    pub(super) fn finish(mut self) -> Result<Option<Rev>, Fault> {
        if self.was == Some(self.now) {
            return Ok(None);
        }
        self.meta.insert(REVISION, self.now.revision)?;
        self.meta.insert(FLOOR, self.now.floor)?;
        Ok(Some(self.now.revision))
    }
}

/// The key as it is now, or as of the write under way.
fn newest(
    versions: &impl ReadableTable<VersionKey, Version>,
    key: &[u8],
) -> Result<Option<KeyValue>, Fault> {
    let Some((row_key, row_version)) = versions
        .range((key, 0)..=(key, Rev::MAX))?
        .next_back()
        .transpose()?
    else {
        return Ok(None);
    };
    let (create_revision, value) = row_version.value();
    Ok(value.map(|value| KeyValue {
        key: key.to_vec(),
        value: Bytes::copy_from_slice(value),
        mod_revision: row_key.value().1,
        create_revision,
    }))
}

fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, Fault> {
    Ok(meta.get(name)?.ok_or(Fault::Corrupt)?.value())
}

/// What redb reports, as far as anybody decides on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The disk refuses, has no room, or refused before.
    Outage(Outage),
    /// The file does not hold what it must.
    Corrupt,
}

impl Fault {
    /// The fault as a reason why a write may not have happened.
    pub(super) fn outage(self) -> Outage {
        match self {
            Self::Outage(outage) => outage,
            Self::Corrupt => Outage::Unexpected,
        }
    }
}

/// The fault as that of an operation that left no trace.
impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Outage(outage) => Self::Unavailable(outage),
            Fault::Corrupt => Self::Corrupt,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                Self::Outage(Outage::NoSpace)
            }
            redb::Error::Io(_) | redb::Error::PreviousIo => Self::Outage(Outage::Io),
            _ => Self::Corrupt,
        }
    }
}

fn fault(error: impl Into<redb::Error>) -> StoreError {
    Fault::from(error).into()
}

fn open_fault(error: impl Into<Fault>) -> OpenError {
    match error.into() {
        Fault::Outage(Outage::NoSpace) => OpenError::Io(io::ErrorKind::StorageFull.into()),
        Fault::Outage(_) => OpenError::Io(io::ErrorKind::Other.into()),
        Fault::Corrupt => OpenError::Corrupt,
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(StorageError::Io(error)) => Self::Io(error),
            _ => Self::Corrupt,
        }
    }
}

/// Makes a store look as if another version had written it.
#[cfg(test)]
pub(super) fn set_format(path: &Path, format: u64) {
    let transaction = Database::open(path).unwrap().begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert(FORMAT, format)
        .unwrap();
    transaction.commit().unwrap();
}
