//! What goes wrong on a disk, and what it means for the caller.

use std::io;

use redb::{DatabaseError, StorageError};

use super::OpenError;
use crate::store::{Outage, StoreError};

/// What redb reports, as far as anybody decides on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk refuses, has no room, or refused before.
    Outage(Outage),
    /// The file does not hold what it must.
    Corrupt,
}

impl Fault {
    /// The fault as a reason why a write may not have happened.
    pub(crate) fn outage(self) -> Outage {
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

pub(super) fn fault(error: impl Into<redb::Error>) -> StoreError {
    Fault::from(error).into()
}

pub(super) fn open_fault(error: impl Into<Fault>) -> OpenError {
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
