//! Reads TOML key by key, so that every mistake in a file is found in one go and named with its
//! line: a deserializer stops at the first.

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeTable};

use super::Section;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, as `operators.tokens[1].file`; empty when the whole file is meant.
    pub place: String,
    /// The line, counted from 1, where it is known.
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
    pub(crate) fn of_file(file: &Path, message: impl Into<String>) -> Self {
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

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.mistakes.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = mistake.line {
                write!(f, ":{line}")?;
            }
            if !mistake.place.is_empty() {
                write!(f, ": {}", mistake.place)?;
            }
            write!(f, ": {}", mistake.message)?;
        }
        Ok(())
    }
}

/// A parsed file that collects mistakes while it is read.
pub(crate) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    directory: PathBuf,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'t> Document<'t> {
    /// Parses `text`; `directory` is what relative paths in it are relative to.
    pub(crate) fn parse(text: &'t str, directory: &Path) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mistakes = errors
            .iter()
            .map(|error| Mistake {
                place: String::new(),
                line: error.span().map(|span| line_of(text, span.start)),
                message: error.message().to_owned(),
            })
            .collect();
        Self {
            text,
            root,
            directory: directory.to_owned(),
            mistakes: RefCell::new(mistakes),
        }
    }

    /// Reads the top level.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Section<'_>) -> T) -> T {
        Section::read(self, String::new(), self.root.get_ref(), 0, read)
    }

    /// What relative paths in the file are relative to.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Notes a mistake at a byte of the file.
    pub(super) fn wrong_at_byte(&self, place: String, offset: usize, message: String) {
        self.mistakes.borrow_mut().push(Mistake {
            place,
            line: Some(line_of(self.text, offset)),
            message,
        });
    }

    /// Notes a mistake at a place that is looked up in the file as far as it exists there.
    pub(crate) fn wrong_at(&self, place: &str, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake {
            place: place.to_owned(),
            line: self.line_of_place(place),
            message: message.into(),
        });
    }

    /// The mistakes so far, in order of lines; none if there were none.
    pub(crate) fn finish(self, file: &Path) -> Result<(), Mistakes> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Mistakes {
            file: file.to_owned(),
            mistakes,
        })
    }

    /// True when a mistake is noted at `place` already.
    pub(crate) fn is_wrong_at(&self, place: &str) -> bool {
        let mistakes = self.mistakes.borrow();
        mistakes.iter().any(|mistake| mistake.place == place)
    }

    /// The line of the deepest part of `place` that the file has.
    fn line_of_place(&self, place: &str) -> Option<usize> {
        let mut table = self.root.get_ref();
        let mut found = None;
        for part in place.split('.') {
            let (key, index) = match part.split_once('[') {
                Some((key, rest)) => (key, rest.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let Some((spelled, value)) = table.get_key_value(key) else {
                break;
            };
            let value = match index {
                None => {
                    found = Some(spelled.span().start);
                    value
                }
                Some(index) => match value.get_ref().as_array().and_then(|a| a.get(index)) {
                    Some(item) => {
                        found = Some(item.span().start);
                        item
                    }
                    None => break,
                },
            };
            match value.get_ref().as_table() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        found.map(|at| line_of(self.text, at))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.char_indices().take_while(|(at, _)| *at < offset);
    before.filter(|(_, c)| *c == '\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_its_line_and_unknown_keys_name_the_known_ones() {
        let text = "name = 3\n\n[inner]\nport = 70000\nprot = 1\n\n[[list]]\nword = \"no\"\n";
        let document = Document::parse(text, Path::new("/etc"));
        document.read(|root| {
            root.text("name");
            root.table("inner", |inner| inner.number("port", 1..=65_535));
            root.tables("list", |item| item.word("word", &[("yes", 1)]));
            root.required("gone", root.text("gone"));
        });
        document.wrong_at("list[0].deeper", "said later");
        let found: Vec<_> = document
            .finish(Path::new("x.toml"))
            .expect_err("mistakes")
            .mistakes
            .into_iter()
            .map(|m| (m.line, m.place))
            .collect();
        let at = |line, place: &str| (Some(line), place.to_owned());
        assert_eq!(
            found,
            [
                at(1, "name"),
                at(1, "gone"),
                at(4, "inner.port"),
                at(5, "inner.prot"),
                at(7, "list[0].deeper"),
                at(8, "list[0].word"),
            ]
        );
    }

    #[test]
    fn syntax_errors_do_not_hide_what_else_is_wrong() {
        let document = Document::parse("a = \nb = 5\n", Path::new("/"));
        document.read(|root| {
            root.text("b");
        });
        let mistakes = document.finish(Path::new("x")).expect_err("mistakes");
        assert!(mistakes.mistakes.iter().any(|m| m.line == Some(1)));
        assert!(mistakes.mistakes.iter().any(|m| m.place == "b"));
    }
}
