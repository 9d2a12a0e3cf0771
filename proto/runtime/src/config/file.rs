//! A configuration file as it was read, with what the environment says in its place.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{Document, Environment, Mistakes, Section, read_text};
use crate::reload::Stamps;

/// The text of a file, and the process's environment.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    environment: Environment,
    stamps: Stamps,
}

impl ConfigFile {
    /// Reads it, and what this process's environment says in its place.
    ///
    /// # Errors
    /// That it cannot be read, as the one mistake.
    pub fn read(path: &Path) -> Result<Self, Mistakes> {
        // First: a file that changes while it is read is read again.
        let stamps = Self::stamps_of(path);
        Ok(Self {
            path: path.to_owned(),
            text: read_text(path)?,
            environment: Environment::of_process(),
            stamps,
        })
    }

    /// The same of a file that is read while the program runs: it must be one. To open a pipe is to wait for whoever
    /// writes into it, perhaps for ever.
    ///
    /// # Errors
    /// That it cannot be read, as the one mistake.
    pub(super) fn read_again(&self) -> Result<Self, Mistakes> {
        let path = &self.path;
        let stamps = Self::stamps_of(path);
        let read = || {
            let nonblocking = OFlags::NONBLOCK.bits();
            let mut options = OpenOptions::new();
            let mut file = options
                .read(true)
                .custom_flags(nonblocking.cast_signed())
                .open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        };
        Ok(Self {
            path: path.clone(),
            text: read()
                .map_err(|error| Mistakes::of_file(path, format!("cannot be read: {error}")))?,
            environment: Environment::of_process(),
            stamps,
        })
    }

    /// A text that no file has and no environment changes; `path` names it in messages.
    pub fn of_text(text: &str, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            environment: Environment::default(),
            stamps: Stamps::of(&[]),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it key by key.
    ///
    /// # Errors
    /// Every mistake that was noted.
    pub fn parse<T>(
        &self,
        read: impl FnOnce(&Document<'_>, &Section<'_>) -> T,
    ) -> Result<T, Mistakes> {
        let document = self.document();
        let value = document.read(|root| read(&document, root));
        document.finish()?;
        Ok(value)
    }

    /// Reads a part of it alone. Mistakes elsewhere are nobody's concern here, as of files that are not there any more.
    ///
    /// # Errors
    /// Every mistake that was noted, where `read` has nothing for one.
    pub fn part<T>(
        &self,
        read: impl FnOnce(&Section<'_>) -> Option<T>,
    ) -> Result<Option<T>, Mistakes> {
        let document = self.document();
        let part = document.read(read);
        if part.is_none() {
            document.finish()?;
        }
        Ok(part)
    }

    /// Every value that it says, by its place.
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        self.document().values()
    }

    /// Whether it is no more what was read.
    pub(super) fn has_changed(&self) -> bool {
        Self::stamps_of(&self.path) != self.stamps
    }

    fn document(&self) -> Document<'_> {
        Document::parse(&self.text, &self.path).with(&self.environment)
    }

    fn stamps_of(path: &Path) -> Stamps {
        Stamps::of(&[path.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_file_that_has_become_a_pipe_is_unreadable_and_waited_for_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        fs::write(&path, "a = 1").unwrap();
        let file = ConfigFile::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mistakes = file.read_again().unwrap_err();
        assert!(
            mistakes.to_string().contains("no regular file"),
            "{mistakes}"
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a = 2").unwrap();
        assert_eq!(file.read_again().unwrap().text, "a = 2");
    }
}
