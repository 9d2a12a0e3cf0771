//! Files, for each user his own: in a folder, so that whoever moves an account can copy them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use tempfile::TempDir;

use crate::dovecot::scratch;

/// They are gone with the value.
pub(super) struct Files(TempDir);

impl Files {
    /// None yet.
    pub(super) fn new() -> io::Result<Self> {
        scratch().map(Self)
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, all of it at once. True: there was none of that name.
    pub(super) fn put(&self, user: &str, name: &str, content: &[u8]) -> io::Result<bool> {
        let path = self.path(user, name)?;
        let is_new = !path.exists();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Beside the users, where nobody copies it.
        let unique = format!("new-{:016x}", rand::rng().random::<u64>());
        let new = self.folder().join(unique);
        fs::write(&new, content)?;
        fs::rename(new, path)?;
        Ok(is_new)
    }

    /// What is in a file.
    pub(super) fn get(&self, user: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(user, name)?) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All files of a user.
    pub(super) fn of(&self, user: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
        let folder = match fs::read_dir(self.folder().join(user)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        folder
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, fs::read(entry.path())?))
            })
            .collect()
    }

    fn path(&self, user: &str, name: &str) -> io::Result<PathBuf> {
        let is_plain =
            |word: &str| !word.is_empty() && !word.starts_with('.') && !word.contains('/');
        if is_plain(user) && is_plain(name) {
            Ok(self.folder().join(user).join(name))
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
}
