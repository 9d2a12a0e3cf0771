//! One table of a [`Document`], read key by key.

use std::{cell::RefCell, collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{document::Document, duration::parse_duration};

/// One table of a document. Keys that were not asked for by the end are mistakes.
pub(crate) struct Section<'d> {
    document: &'d Document<'d>,
    place: String,
    table: &'d DeTable<'d>,
    start: usize,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'d> Section<'d> {
    /// Reads a table with `read`, then reports the keys that it did not ask for.
    pub(super) fn read<T>(
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
        self.document
            .wrong_at_byte(self.place_of(key), offset, message.into());
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
        Some(self.document.directory().join(text))
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
