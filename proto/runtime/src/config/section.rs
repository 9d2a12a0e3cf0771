//! One table of a [`Document`], read key by key.

use std::{
    cell::RefCell, collections::BTreeSet, fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Document, Limit,
    nearest::nearest,
    value::{A_TIME, a_time_within, number_within, time, time_within},
};

const A_TEXT: &str = "a text";
const TEXTS: &str = "a list of texts";
/// What is no value of its own.
pub(super) const TABLE: &str = "a table";
pub(super) const TABLES: &str = "a list of tables";

/// One table. Keys that were not asked for by the end are mistakes. What is read comes back as `None`
/// when the key is not there and when its value is at fault, which has been noted then.
pub struct Section<'d> {
    document: &'d Document<'d>,
    place: String,
    /// `None`: the file does not have it, and it is read for what is missing from it.
    table: Option<&'d DeTable<'d>>,
    start: usize,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'d> Section<'d> {
    pub(super) fn read<T>(
        document: &'d Document<'_>,
        place: String,
        table: Option<&'d DeTable<'_>>,
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
        section.note_unknown();
        value
    }

    /// Notes a mistake at a key, or a path of keys from here; where it is not there, at the table itself.
    pub fn wrong(&self, key: &str, message: impl Into<String>) {
        let place = self.place_of(key);
        let offset = self.document.find(&place).unwrap_or(self.start);
        self.document.note(place, Some(offset), message.into());
    }

    /// Notes what is wrong, and hands on what is not.
    pub fn checked<T, E: fmt::Display>(&self, key: &str, outcome: Result<T, E>) -> Option<T> {
        outcome
            .map_err(|error| self.wrong(key, error.to_string()))
            .ok()
    }

    /// True when the file has the key.
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// True when the value is a string: for keys that take a word or a table.
    pub fn is_text(&self, key: &'static str) -> bool {
        self.value(key)
            .is_some_and(|value| value.get_ref().is_str())
    }

    /// Says that a key is missing and what it is for, unless it was there and its value was at fault.
    pub fn required<T>(&self, key: &'static str, what: &str, value: Option<T>) -> Option<T> {
        self.document
            .ask(|| self.place_of(key), |asked| asked.required = true);
        if value.is_none() && !self.has(key) && !self.document.is_broken() {
            self.wrong(key, format!("missing: {what}"));
        }
        value
    }

    /// A string.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.ask(key, || A_TEXT.to_owned());
        self.text_of(key)
    }

    fn text_of(&self, key: &'static str) -> Option<String> {
        self.of_kind(key, "a text in quotes", |value| {
            value.as_str().map(str::to_owned)
        })
    }

    /// True or false.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.ask(key, || "true or false".to_owned());
        self.of_kind(key, "true or false", DeValue::as_bool)
    }

    /// A whole number within bounds.
    pub fn number<N>(&self, key: &'static str, bounds: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<u64> + PartialOrd + fmt::Display + Bounded,
    {
        self.ask(key, || number_within(&bounds, &N::GREATEST));
        let number = self.of_kind(key, "a whole number", whole_number)?;
        let number = within(number, &bounds);
        if number.is_none() {
            let wanted = number_within(&bounds, &N::GREATEST);
            self.wrong(key, format!("must be {wanted}"));
        }
        number
    }

    /// A list of whole numbers within bounds; every item at fault is noted.
    pub fn numbers<N>(&self, key: &'static str, bounds: RangeInclusive<N>) -> Option<Vec<N>>
    where
        N: TryFrom<u64> + PartialOrd + fmt::Display + Bounded,
    {
        let wanted = || number_within(&bounds, &N::GREATEST);
        self.ask(key, || format!("a list: {}", wanted()));
        let items = self.of_kind(key, "a list of whole numbers", DeValue::as_array)?;
        let mut values = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            let number = whole_number(item.get_ref()).and_then(|number| within(number, &bounds));
            match number {
                Some(number) => values.push(number),
                None => self.wrong(&format!("{key}[{n}]"), format!("must be {}", wanted())),
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    /// A string with a meaning of its own.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.ask(key, || A_TEXT.to_owned());
        self.parsed_of(key, parse)
    }

    fn parsed_of<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text_of(key)?;
        parse(&text)
            .map_err(|error| self.wrong(key, format!("\"{text}\": {error}")))
            .ok()
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        self.ask(key, || any_of(words));
        let text = self.text_of(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.wrong(key, format!("\"{text}\" must be {}", any_of(words)));
        }
        found.map(|(_, value)| *value)
    }

    /// One of a few words, which must be there.
    pub fn required_word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        self.required(key, &any_of(words), self.word(key, words))
    }

    /// A time within bounds, as `"20s"`, `"500ms"`, `"2m"` or `"1h"`.
    pub fn duration(
        &self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.ask(key, || a_time_within(&bounds));
        let text = self.of_kind(key, A_TIME, DeValue::as_str)?;
        let read = time(text).ok_or_else(|| format!("\"{text}\": must be {A_TIME}"));
        let duration = self.checked(key, read)?;
        if bounds.contains(&duration) {
            return Some(duration);
        }
        self.wrong(key, time_within(&bounds));
        None
    }

    /// Replaces a limit if the key is there.
    pub fn set<L: Limit>(&self, key: &'static str, limit: &mut L) {
        self.ask_for_limit(key, limit);
        if let Some(read) = L::read(self, key) {
            *limit = read;
        }
    }

    /// The same for a limit that must not be above another: its default gives way to that one.
    pub fn set_up_to<L: Limit + Ord>(&self, key: &'static str, limit: &mut L, most: L) {
        self.ask_for_limit(key, limit);
        match L::read(self, key) {
            Some(read) => *limit = read,
            None if *limit > most => *limit = most,
            None => {}
        }
    }

    fn ask_for_limit<L: Limit>(&self, key: &str, limit: &L) {
        self.document.ask(
            || self.place_of(key),
            |asked| asked.limit = Some(limit.shown()),
        );
    }

    /// An address to listen on.
    pub fn address(&self, key: &'static str) -> Option<SocketAddr> {
        self.ask(key, || "an address with its port".to_owned());
        self.parsed_of(key, |text| {
            text.parse()
                .map_err(|_| "must be an address with a port, as \"0.0.0.0:993\" or \"[::]:993\"")
        })
    }

    /// A path; a relative one is relative to the file.
    pub fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.ask(key, || "a path".to_owned());
        let text = self.text_of(key)?;
        if text.is_empty() {
            self.wrong(key, "must be a path");
            return None;
        }
        Some(self.document.directory().join(text))
    }

    /// A list of strings.
    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.parsed_texts(key, |text| Ok::<_, fmt::Error>(text.to_owned()))
    }

    /// A list of strings with a meaning of their own; every item at fault is noted.
    pub fn parsed_texts<T, E: fmt::Display>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        self.ask(key, || TEXTS.to_owned());
        let items = self.of_kind(key, TEXTS, DeValue::as_array)?;
        let read = |item: &DeValue<'_>| {
            let text = item
                .as_str()
                .ok_or_else(|| wants("a text in quotes", item))?;
            parse(text).map_err(|error| format!("\"{text}\": {error}"))
        };
        let mut values = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            match read(item.get_ref()) {
                Ok(value) => values.push(value),
                Err(message) => self.wrong(&format!("{key}[{n}]"), message),
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    /// A table.
    pub fn table<T>(&self, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> Option<T> {
        self.ask(key, || TABLE.to_owned());
        let value = self.value(key);
        if value.is_none() && self.document.is_asked() {
            // For the keys that it would ask for.
            Self::read(self.document, self.place_of(key), None, self.start, read);
            return None;
        }
        let start = value?.span().start;
        let table = self.of_kind(key, TABLE, DeValue::as_table)?;
        let place = self.place_of(key);
        Some(Self::read(self.document, place, Some(table), start, read))
    }

    /// A table that is read for what is missing from it even if it is not there.
    pub fn section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> T {
        self.ask(key, || TABLE.to_owned());
        let value = self.value(key);
        let start = value.map_or(self.start, |value| value.span().start);
        let table = self.of_kind(key, TABLE, DeValue::as_table);
        Self::read(self.document, self.place_of(key), table, start, read)
    }

    /// A list of tables; without the key an empty one.
    pub fn tables<T>(&self, key: &'static str, mut read: impl FnMut(&Section<'_>) -> T) -> Vec<T> {
        self.ask(key, || TABLES.to_owned());
        if self.document.is_asked() {
            let place = self.place_of(&format!("{key}[0]"));
            Self::read(self.document, place, None, self.start, &mut read);
        }
        let Some(items) = self.of_kind(key, TABLES, DeValue::as_array) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let key = format!("{key}[{n}]");
            let (start, value) = (item.span().start, item.get_ref());
            match value.as_table() {
                Some(table) => {
                    let place = self.place_of(&key);
                    let value = Self::read(self.document, place, Some(table), start, &mut read);
                    values.push(value);
                }
                None => self.wrong(&key, wants(TABLE, value)),
            }
        }
        values
    }

    /// Writes down what a key is, where the reader is asked for that.
    fn ask(&self, key: &str, kind: impl FnOnce() -> String) {
        self.document
            .ask(|| self.place_of(key), |asked| asked.is_also(kind()));
    }

    fn value(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().insert(key);
        self.table?.get(key)
    }

    /// A value of one kind; says what it should have been otherwise.
    fn of_kind<T>(
        &self,
        key: &'static str,
        wanted: &str,
        convert: impl FnOnce(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?.get_ref();
        let converted = convert(value);
        if converted.is_none() {
            self.wrong(key, wants(wanted, value));
        }
        converted
    }

    fn note_unknown(&self) {
        let known: Vec<_> = self.known.borrow().iter().copied().collect();
        let keys = self.table.into_iter().flat_map(DeTable::keys);
        for key in keys.map(|key| key.get_ref().as_ref()) {
            if known.contains(&key) {
                continue;
            }
            let message = match nearest(key, &known) {
                Some(meant) => format!("unknown key; is \"{meant}\" meant?"),
                None => format!("unknown key; there are: {}", known.join(", ")),
            };
            self.wrong(key, message);
        }
    }

    fn place_of(&self, key: &str) -> String {
        match (self.place.as_str(), key) {
            ("", key) => key.to_owned(),
            (place, "") => place.to_owned(),
            (place, key) => format!("{place}.{key}"),
        }
    }
}

/// A kind of number, for [`Section::number`].
pub trait Bounded {
    /// The greatest there is.
    const GREATEST: Self;
}

impl Bounded for u32 {
    const GREATEST: Self = Self::MAX;
}

impl Bounded for usize {
    const GREATEST: Self = Self::MAX;
}

/// `None`: it is none; `Some(None)`: there is none that large.
#[expect(clippy::option_option, reason = "two mistakes with two messages")]
fn whole_number(value: &DeValue<'_>) -> Option<Option<u64>> {
    let number = value.as_integer()?;
    Some(u64::from_str_radix(number.as_str(), number.radix()).ok())
}

fn within<N: TryFrom<u64> + PartialOrd>(
    number: Option<u64>,
    bounds: &RangeInclusive<N>,
) -> Option<N> {
    number
        .and_then(|number| N::try_from(number).ok())
        .filter(|number| bounds.contains(number))
}

fn wants(wanted: &str, value: &DeValue<'_>) -> String {
    format!("must be {wanted}, is {}", value.type_str())
}

fn any_of<T>(words: &[(&'static str, T)]) -> String {
    let words: Vec<_> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    match words.as_slice() {
        [one] => one.clone(),
        words => format!("one of {}", words.join(", ")),
    }
}
