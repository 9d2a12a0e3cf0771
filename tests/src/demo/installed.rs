//! What `demo-up` has started, written down so that `demo-down` stops exactly that: the line
//! `folder <path>`, then a line `<name> <id>@<started>` for each process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::ProcessMark;

/// What was written down.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installed {
    /// Where it lies.
    pub(super) folder: PathBuf,
    /// Its processes in the order of their start.
    pub(super) processes: Vec<(String, ProcessMark)>,
}

impl Installed {
    /// What a file says; `None` when there is none.
    pub(super) fn read(file: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins a file; processes are added to it as they are started.
    pub(super) fn begin(file: &Path, folder: &Path) -> io::Result<()> {
        fs::write(file, format!("folder {}\n", folder.display()))
    }

    /// The names of the processes that have ended.
    pub(super) fn ended(&self) -> Vec<&str> {
        self.processes
            .iter()
            .filter(|(_, mark)| !mark.is_running())
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The file may end in the middle of a line, if the process that wrote it was killed.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let folder = lines.next()?.strip_prefix("folder ")?.into();
        let processes = lines
            .filter_map(|line| {
                let (name, mark) = line.split_once(' ')?;
                Some((name.to_owned(), mark.parse().ok()?))
            })
            .collect();
        Some(Self { folder, processes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_off_still_names_what_was_whole() {
        let text = "folder /tmp/x y\nsource 12@345\ntarget 13@";
        let installed = Installed::parse(text).unwrap();
        assert_eq!(installed.folder, Path::new("/tmp/x y"));
        assert_eq!(installed.processes.len(), 1);
        assert_eq!(installed.processes[0].0, "source");
        assert_eq!(Installed::parse(""), None);
    }
}
