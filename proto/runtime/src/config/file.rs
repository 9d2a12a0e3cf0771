//! A configuration file as it was read, with what the environment says in its place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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
