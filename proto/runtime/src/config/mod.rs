//! Reads a configuration in TOML key by key, so that every mistake in a file is found in one go and
//! named with its line: a deserialiser stops at the first.
//!
//! ```text
//!   file ── text ──▶ Document ── Section, key by key ──▶ the program's own Config
//!   Environment ────────┘└── Mistakes: file, line, key, what is wrong and what would be right
//! ```
//!
//! Every key that is asked for is known; what is left over in a table is unknown, and said with the key
//! that may have been meant.
//!
//! A [`Table`] of keys says in words what each means, and whether a change of it is taken over while the program runs.
//! The reference that operators read is made of it and of what the reader itself says of its keys; the [`Follower`] of
//! a running program goes by the same table.

mod document;
mod environment;
mod file;
mod files;
mod follow;
mod keys;
mod nearest;
mod section;
mod value;

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub use document::Document;
pub use environment::Environment;
pub use file::ConfigFile;
pub use follow::Follower;
pub use keys::{Asked, Key, Table, page, untold_defaults};
pub use section::Section;
pub use value::{Limit, time};

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, as `operators.tokens[1].file`; empty when the whole file is meant.
    pub place: String,
    /// The line of the key, or of what it is missing from, counted from 1; where it is known.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Every mistake in a file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// The file, for messages.
    pub file: PathBuf,
    /// In the order of the file's lines.
    pub mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// One that concerns the file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            mistakes: vec![Mistake {
                place: String::new(),
                line: None,
                message: message.into(),
            }],
        }
    }
}

/// A line a mistake: `FILE:LINE: KEY: MESSAGE`.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.mistakes.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}{mistake}", self.file.display())?;
        }
        Ok(())
    }
}

/// What stands behind the file's name: `:LINE: KEY: MESSAGE`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Whether a URL's port is none that there is: `http` then says that it has none, and whoever takes the scheme's usual
/// one would ask somebody else.
pub fn has_impossible_port(uri: &http::Uri) -> bool {
    let authority = uri.authority().map_or("", |it| it.as_str());
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    host_and_port.len() > uri.host().unwrap_or_default().len() && uri.port_u16().is_none()
}

/// The text of a file.
///
/// # Errors
/// That it cannot be read, as the one mistake.
pub fn read_text(file: &Path) -> Result<String, Mistakes> {
    std::fs::read_to_string(file)
        .map_err(|error| Mistakes::of_file(file, format!("cannot be read: {error}")))
}
