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

mod fault;
mod file;
mod writer;

use std::io;
use std::path::Path;

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

pub(super) use fault::Fault;
use fault::{fault, open_fault};
use file::Lock;
pub(super) use writer::Writer;

use crate::store::{Event, KeyValue, Range, Rev, StoreError, WatchBatch};

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
    /// Let go of after the database, as fields are dropped in their order.
    _lock: Lock,
}

/// Where a freshly opened file stands.
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) revision: Rev,
    /// How many times the file has been opened: makes the leases of one process unlike another's.
    pub(super) boot: u64,
}

impl Disk {
    /// Opens or creates the file, for this process alone as long as the value lives, and deletes
    /// the keys whose leases died with the process before.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Opened, OpenError> {
        let lock = Lock::take(path)?;
        let database = file::open(&lock, path, cache_bytes)?;
        let disk = Self {
            database,
            _lock: lock,
        };
        let (revision, boot) = disk.begin_life()?;
        Ok(Opened {
            disk,
            revision,
            boot,
        })
    }

    /// A store on something else than a file. The lock is on `beside`.
    #[cfg(test)]
    pub(super) fn on(backend: impl redb::StorageBackend, beside: &Path) -> Opened {
        let database = redb::Builder::new().create_with_backend(backend).unwrap();
        let disk = Self {
            database,
            _lock: Lock::take(beside).unwrap(),
        };
        let (revision, boot) = disk.begin_life().unwrap();
        Opened {
            disk,
            revision,
            boot,
        }
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
            entries: self.state(prefix, revision, usize::MAX)?,
            revision,
        })
    }

    pub(super) fn whole(&self, most: usize) -> Result<Option<Range>, StoreError> {
        let entries = self.state(b"", self.revision, most)?;
        Ok((entries.len() <= most).then_some(Range {
            entries,
            revision: self.revision,
        }))
    }

    /// What is there at a revision, or more than `most` of it.
    fn state(&self, prefix: &[u8], at: Rev, most: usize) -> Result<Vec<KeyValue>, Fault> {
        let mut entries: Vec<KeyValue> = Vec::new();
        for row in self.versions.range((prefix, 0)..)? {
            let (row_key, row_version) = row?;
            let (key, mod_revision) = row_key.value();
            let is_another = entries.last().is_some_and(|last| last.key != key);
            if !key.starts_with(prefix) || entries.len() > most && is_another {
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

/// Makes a store look as if another version had written it.
#[cfg(test)]
pub(super) fn set_format(path: &Path, format: u64) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert(FORMAT, format)
        .unwrap();
    transaction.commit().unwrap();
}

/// How many rows the tables of a closed store have.
#[cfg(test)]
pub(super) fn rows(path: &Path) -> [(&'static str, u64); 3] {
    use redb::ReadableTableMetadata as _;
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    [
        (
            "versions",
            transaction.open_table(VERSIONS).unwrap().len().unwrap(),
        ),
        (
            "changes",
            transaction.open_table(CHANGES).unwrap().len().unwrap(),
        ),
        (
            "leased",
            transaction.open_table(LEASED).unwrap().len().unwrap(),
        ),
    ]
}
