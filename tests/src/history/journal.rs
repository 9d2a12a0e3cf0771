//! The delta hook's journal: when it ran, and so when an account was certainly held.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Moment, Side};

/// A run of the delta hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRun {
    /// The migration that it ran for.
    pub migration: String,
    /// The side that it copied from.
    pub from: Side,
    /// When it began.
    pub begun: Moment,
    /// When it ended well; `None` when it failed or was killed.
    pub ended: Option<Moment>,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file.
    #[error("the delta hook's journal: {0}")]
    Io(#[from] io::Error),
    /// A line that the hook does not write.
    #[error("the delta hook's journal: not an entry: {0:?}")]
    Line(String),
}

/// Reads the journal of `tests/tools/delta-hook`. One that is not there is empty; a line without its end
/// is still being written, and left out.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn read_journal(path: &Path) -> Result<Vec<HookRun>, JournalError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text[..text.rfind('\n').map_or(0, |end| end + 1)]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn parse(text: &str) -> Result<Vec<HookRun>, JournalError> {
    let mut open: BTreeMap<String, HookRun> = BTreeMap::new();
    let mut runs = Vec::new();
    for line in text.lines() {
        let entry = Entry::parse(line).ok_or_else(|| JournalError::Line(line.to_owned()))?;
        if entry.begins {
            let run = HookRun {
                migration: entry.migration.to_owned(),
                from: entry.from,
                begun: entry.at,
                ended: None,
            };
            // A run of the same migration that never ended was killed.
            runs.extend(open.insert(entry.migration.to_owned(), run));
        } else if let Some(mut run) = open.remove(entry.migration) {
            run.ended = Some(entry.at);
            runs.push(run);
        }
    }
    runs.extend(open.into_values());
    runs.sort_by_key(|run| run.begun);
    Ok(runs)
}

/// `begin|end <migration> <source> <target> <nanoseconds>`
struct Entry<'t> {
    begins: bool,
    migration: &'t str,
    from: Side,
    at: Moment,
}

impl<'t> Entry<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut words = line.split(' ');
        let begins = match words.next()? {
            "begin" => true,
            "end" => false,
            _ => return None,
        };
        let migration = words.next()?;
        let from = Side::named(words.next()?)?;
        let to = Side::named(words.next()?)?;
        let nanoseconds = words.next()?.parse().ok()?;
        (to == from.other()).then_some(Self {
            begins,
            migration,
            from,
            at: Moment(Duration::from_nanos(nanoseconds)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: u64) -> Moment {
        Moment(Duration::from_nanos(nanoseconds))
    }

    #[test]
    fn a_run_without_an_end_was_killed() {
        let text = "begin m1 source target 10\nbegin m2 target source 11\nend m1 source target 20\n\
                    begin m2 target source 30\nend m2 target source 40\n";
        let runs = parse(text).unwrap();
        let run = |migration: &str, from, begun, ended: Option<u64>| HookRun {
            migration: migration.to_owned(),
            from,
            begun: at(begun),
            ended: ended.map(at),
        };
        assert_eq!(
            runs,
            [
                run("m1", Side::Source, 10, Some(20)),
                run("m2", Side::Target, 11, None),
                run("m2", Side::Target, 30, Some(40)),
            ]
        );
    }

    #[test]
    fn a_line_that_is_no_entry_is_an_error() {
        for line in [
            "begin",
            "start m source target 1",
            "begin m source source 1",
            "begin m a b 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_still_being_written_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::fs::write(&path, "begin m source target 1\nend m source tar").unwrap();
        let runs = read_journal(&path).unwrap();
        assert_eq!(runs.iter().map(|run| run.ended).collect::<Vec<_>>(), [None]);
        std::fs::write(&path, "begin m source target 1").unwrap();
        assert_eq!(read_journal(&path).unwrap(), []);
    }

    #[test]
    fn a_journal_that_was_never_written_is_empty() {
        assert_eq!(read_journal(Path::new("/nonexistent/journal")).unwrap(), []);
    }
}
