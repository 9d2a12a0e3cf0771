//! What a store holds and is told, as plain values: revisions, keys, values, events and transactions.
//!
//! Nothing here does any I/O. The domain decides in these words; [`crate::store`] carries them out.
//! [`keys`] is the key layout, [`value`] how what stands under a key is encoded.

pub mod keys;
pub mod value;

use std::{collections::HashSet, fmt};

use bytes::Bytes;

/// A revision of the whole store.
///
/// It rises by at least one with every committed transaction that changes something, and never
/// falls. A new store is at 1; 0 is below every revision and stands for *absent* in a guard. With etcd it may also
/// rise for reasons of others who share the cluster, so two revisions say *before* or *after* and
/// nothing about how many transactions lie between them.
pub type Rev = u64;

/// Longest key in bytes. Both stores could take more; a key is a name, not a document.
pub const MAX_KEY_BYTES: usize = 1024;

/// Most guards, and most writes, in one transaction: etcd's default `--max-txn-ops`.
pub const MAX_TXN_OPS: usize = 128;

/// Most bytes of keys and values in one transaction. etcd refuses a request of 1.5 MiB by default
/// (`--max-request-bytes`); the rest is left for the key prefix and framing.
pub const MAX_TXN_BYTES: usize = 1280 * 1024;

/// A key with its value, as of some revision.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, without the installation's prefix.
    pub key: Vec<u8>,
    /// The value, as written.
    pub value: Bytes,
    /// The revision of the transaction that wrote this value.
    pub mod_revision: Rev,
    /// The revision of the transaction that created the key; a key that was deleted and written
    /// again was created again.
    pub create_revision: Rev,
}

/// Values may hold what does not belong in a log, so only their length is shown.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &self.key.escape_ascii().to_string())
            .field("value_bytes", &self.value.len())
            .field("mod_revision", &self.mod_revision)
            .field("create_revision", &self.create_revision)
            .finish()
    }
}

/// A lease, by the number that its store gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub(crate) i64);

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key was last written at exactly this revision; `is: 0` means that it does not exist.
    Revision {
        /// The key that is looked at.
        key: Vec<u8>,
        /// Its expected `mod_revision`.
        is: Rev,
    },
    /// The key exists, whatever its value.
    Exists {
        /// The key that is looked at.
        key: Vec<u8>,
    },
}

/// An effect of a transaction.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Bytes,
        /// The key ends with this lease. `None` frees it from a lease that it had.
        lease: Option<LeaseId>,
    },
    /// Removes a key; an absent one is no error.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Values are not shown; see [`KeyValue`].
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value, lease } => f
                .debug_struct("Put")
                .field("key", &key.escape_ascii().to_string())
                .field("value_bytes", &value.len())
                .field("lease", lease)
                .finish(),
            Self::Delete { key } => f
                .debug_struct("Delete")
                .field("key", &key.escape_ascii().to_string())
                .finish(),
        }
    }
}

/// A transaction: guards, and the writes that happen if all of them hold.
///
/// ```
/// use ferrypost_controlplane::kv::Txn;
///
/// let create = Txn::new().absent("accounts/1").put("accounts/1", "record").put("names/a", "1");
/// let change = Txn::new().at("accounts/1", 7).put("accounts/1", "changed").delete("names/a");
/// # assert!(create.check().is_ok() && change.check().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// All are applied, at one revision; no key twice.
    pub writes: Vec<Write>,
}

impl Txn {
    /// A transaction without guards or writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that `key` was last written at exactly `revision`.
    #[must_use]
    pub fn at(mut self, key: impl Into<Vec<u8>>, revision: Rev) -> Self {
        self.guards.push(Guard::Revision {
            key: key.into(),
            is: revision,
        });
        self
    }

    /// Demands that `key` does not exist.
    #[must_use]
    pub fn absent(self, key: impl Into<Vec<u8>>) -> Self {
        self.at(key, 0)
    }

    /// Demands that `key` exists.
    #[must_use]
    pub fn exists(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.guards.push(Guard::Exists { key: key.into() });
        self
    }

    /// Sets `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Sets `key` for as long as `lease` lives.
    #[must_use]
    pub fn put_leased(
        mut self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Bytes>,
        lease: LeaseId,
    ) -> Self {
        self.writes.push(Write::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Whether every store takes this transaction. They all ask this first, so that what works on
    /// one store works on the other.
    ///
    /// # Errors
    ///
    /// [`InvalidTxn::TooLarge`] past [`MAX_TXN_OPS`], [`MAX_TXN_BYTES`] or [`MAX_KEY_BYTES`];
    /// [`InvalidTxn::Malformed`] for an empty key or one that is written twice.
    pub fn check(&self) -> Result<(), InvalidTxn> {
        if self.guards.len() > MAX_TXN_OPS || self.writes.len() > MAX_TXN_OPS {
            return Err(InvalidTxn::TooLarge);
        }
        let mut bytes = 0;
        for guard in &self.guards {
            let (Guard::Revision { key, .. } | Guard::Exists { key }) = guard;
            check_key(key)?;
            bytes += key.len();
        }
        let mut written = HashSet::with_capacity(self.writes.len());
        for write in &self.writes {
            check_key(write.key())?;
            if !written.insert(write.key()) {
                return Err(InvalidTxn::Malformed);
            }
            bytes += write.key().len();
            if let Write::Put { value, .. } = write {
                bytes += value.len();
            }
        }
        if bytes > MAX_TXN_BYTES {
            Err(InvalidTxn::TooLarge)
        } else {
            Ok(())
        }
    }
}

/// Why no store takes a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTxn {
    /// It exceeds a limit.
    #[error("the transaction is too large for the store")]
    TooLarge,
    /// A key is empty or written twice: a mistake of ours.
    #[error("the transaction is malformed")]
    Malformed,
}

/// Whether every store takes this key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), InvalidTxn> {
    match key.len() {
        0 => Err(InvalidTxn::Malformed),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => Err(InvalidTxn::TooLarge),
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put(KeyValue),
    /// The key is gone: deleted, or its lease ended.
    Delete {
        /// The key, without the installation's prefix.
        key: Vec<u8>,
        /// The revision of the deletion.
        mod_revision: Rev,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision at which it changed.
    pub fn mod_revision(&self) -> Rev {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}
