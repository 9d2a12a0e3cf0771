//! The file itself: alone on it, and whole from its first moment.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Builder, Database};

use super::OpenError;

/// The right to use the file, held by one process at a time: a lock of the operating system on a
/// file beside it, which ends with the process however that ends.
///
/// redb locks its file too. This lock is older than the file, so that it covers its creation.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let beside = beside(path, "lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => Err(OpenError::Io(error)),
        }
    }
}

/// Opens the file, or creates it.
///
/// redb makes a new file in steps, and one that was left half made is no store to it. So a new one
/// is made under another name, and gets its own when it is whole.
pub(super) fn open(_lock: &Lock, path: &Path, cache_bytes: usize) -> Result<Database, OpenError> {
    if is_missing(path)? {
        let unfinished = beside(path, "new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        Builder::new().create(&unfinished)?.close()?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_directory(path)?;
    }
    Ok(Builder::new().set_cache_size(cache_bytes).open(path)?)
}

/// An empty file has nothing to lose, and is what some put in place beforehand.
fn is_missing(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The name of a new file must survive a power cut as well as what is in it.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}
