//! Reads TOML key by key, so that every mistake in a file is found in one go and named with its
//! line: a deserializer stops at the first.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

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

/// One table of a document. Keys that were not asked for by the end are mistakes.
pub(crate) struct Section<'d> {
    document: &'d Document<'d>,
    place: String,
    table: &'d DeTable<'d>,
    start: usize,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'d> Section<'d> {
    fn read<T>(
        document: &'d Document<'_>,
        place: String,
        table: &'d DeTable<'_>,
        start: usize,
        read: impl FnOnce(&Section<'_>) -> T,
    ) -> T {
        let section = Section {
            document,
            place,
            table,
            start,
            known: RefCell::default(),
        };
        let value = read(&section);
        section.report_unknown();
        value
    }

    fn report_unknown(&self) {
        let known = self.known.borrow();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(name) {
                let have: Vec<_> = known.iter().copied().collect();
                self.note(
                    name,
                    key.span().start,
                    format!("unknown key; known here: {}", have.join(", ")),
                );
            }
        }
    }

    fn note(&self, key: &str, offset: usize, message: impl Into<String>) {
        self.document.mistakes.borrow_mut().push(Mistake {
            place: self.place_of(key),
            line: Some(line_of(self.document.text, offset)),
            message: message.into(),
        });
    }

    fn place_of(&self, key: &str) -> String {
        match (self.place.as_str(), key) {
            ("", key) => key.to_owned(),
            (place, "") => place.to_owned(),
            (place, key) => format!("{place}.{key}"),
        }
    }

    /// Notes a mistake at a key, or at the table itself when the key is not there.
    pub(crate) fn wrong(&self, key: &str, message: impl Into<String>) {
        let offset = self
            .table
            .get_key_value(key)
            .map_or(self.start, |(key, _)| key.span().start);
        self.note(key, offset, message);
    }

    /// True when the file has the key.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Says that a key is missing, unless it was there and its value was at fault.
    pub(crate) fn required<T>(&self, key: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.has(key) {
            self.wrong(key, "missing");
        }
        value
    }

    fn value(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// A value of one kind; says what it should have been otherwise.
    fn of_kind<T>(
        &self,
        key: &'static str,
        wanted: &str,
        convert: impl FnOnce(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            self.wrong(
                key,
                format!("must be {wanted}, is {}", value.get_ref().type_str()),
            );
        }
        converted
    }

    /// A string.
    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        self.of_kind(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// True or false.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        self.of_kind(key, "true or false", DeValue::as_bool)
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let number = self.of_kind(key, "a whole number", |value| {
            let number = value.as_integer()?;
            Some(i64::from_str_radix(number.as_str(), number.radix()).ok())
        })?;
        let number = number
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| bounds.contains(n));
        if number.is_none() {
            self.wrong(
                key,
                format!("must be {} to {}", bounds.start(), bounds.end()),
            );
        }
        number
    }

    /// A string with a meaning of its own.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text)
            .map_err(|error| self.wrong(key, format!("{text:?}: {error}")))
            .ok()
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let have: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(key, format!("{text:?} is not one of {}", have.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A duration within bounds, as `"20s"`, `"500ms"`, `"2m"` or `"1h"`.
    pub(crate) fn duration(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = self.parsed(key, parse_duration)?;
        if bounds.contains(&duration) {
            return Some(duration);
        }
        self.wrong(
            key,
            format!("must be {:?} to {:?}", bounds.start(), bounds.end()),
        );
        None
    }

    /// A path; a relative one is relative to the file.
    pub(crate) fn path(&self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key)?;
        if text.is_empty() {
            self.wrong(key, "must be a path");
            return None;
        }
        Some(self.document.directory.join(text))
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.of_kind(key, "a list of strings", |value| {
            value
                .as_array()?
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect()
        })
    }

    /// A table.
    pub(crate) fn table<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Section<'_>) -> T,
    ) -> Option<T> {
        let start = self.value(key)?.span().start;
        let table = self.of_kind(key, "a table", DeValue::as_table)?;
        let place = self.place_of(key);
        Some(Self::read(self.document, place, table, start, read))
    }

    /// A list of tables; without the key an empty one.
    pub(crate) fn tables<T>(
        &self,
        key: &'static str,
        mut read: impl FnMut(&Section<'_>) -> T,
    ) -> Vec<T> {
        let Some(items) = self.of_kind(key, "a list of tables", DeValue::as_array) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let place = format!("{}[{n}]", self.place_of(key));
            match item.get_ref().as_table() {
                Some(table) => values.push(Self::read(
                    self.document,
                    place,
                    table,
                    item.span().start,
                    &mut read,
                )),
                None => self.note(
                    &format!("{key}[{n}]"),
                    item.span().start,
                    format!("must be a table, is {}", item.get_ref().type_str()),
                ),
            }
        }
        values
    }

    /// True when the value is a string: for keys that take a word or a table.
    pub(crate) fn is_text(&self, key: &'static str) -> bool {
        self.value(key)
            .is_some_and(|value| value.get_ref().is_str())
    }
}

/// Why a text is no duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number with a unit: \"500ms\", \"20s\", \"2m\" or \"1h\"")]
pub(crate) struct NotADuration;

/// Reads `500ms`, `20s`, `2m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| NotADuration)?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or(NotADuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_hours(1)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1d", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), Err(NotADuration), "{bad}");
        }
    }

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
