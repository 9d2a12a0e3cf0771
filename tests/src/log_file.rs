//! A log that a process writes and a test reads.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::{Late, eventually};

/// A log file, read from a place in it onwards. A file that does not exist yet reads as empty.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: PathBuf,
    from: u64,
}

impl LogFile {
    /// The whole log at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            from: 0,
        }
    }

    /// Where the log lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same log, but only what is written from now on.
    #[must_use]
    pub fn from_now(&self) -> Self {
        let from = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        Self {
            path: self.path.clone(),
            from,
        }
    }

    /// What was written since this view began; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The whole lines that were written since this view began. It begins behind them from now on.
    pub fn read_on(&mut self) -> String {
        let mut bytes = self.bytes();
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(end.map_or(0, |end| end + 1));
        self.from += bytes.len() as u64;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = || -> io::Result<()> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.from))?;
            file.read_to_end(&mut bytes)?;
            Ok(())
        };
        // A file that cannot be read has nothing in it yet.
        _ = { read }();
        bytes
    }

    /// The lines that contain every one of `parts`.
    pub fn lines_with(&self, parts: &[&str]) -> Vec<String> {
        self.text()
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line that contains every one of `parts` and gives it back.
    ///
    /// # Errors
    /// [`Late`] after `limit`, with the end of the log.
    pub async fn wait_for(&self, parts: &[&str], limit: Duration) -> Result<String, Late> {
        let what = format!("a line with {parts:?} in {}", self.path.display());
        eventually(&what, limit, || {
            let found = self.lines_with(parts).into_iter().next();
            std::future::ready(found.ok_or_else(|| format!("\n{}", self.tail())))
        })
        .await
    }

    /// The last twenty lines, for an error message.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_on_gives_each_line_once_and_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::new(&path);
        assert_eq!(log.read_on(), "");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        assert_eq!(log.read_on(), "one\ntwo\n");
        assert_eq!(log.read_on(), "");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(log.read_on(), "three\n");
    }
}
