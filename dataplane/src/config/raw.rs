//! A TOML document that is taken apart key by key.
//!
//! A deserialiser stops at the first mistake. This one goes on: every key that is asked for is
//! known, what is left over in a section is unknown (with the key that may have been meant), and
//! each mistake is written down with its place and line.

use std::{
    cell::RefCell, collections::BTreeMap, net::SocketAddr, ops::Range, path::PathBuf,
    time::Duration,
};

use ferrypost_proto::{Problem, Problems};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A document under examination and the mistakes found in it so far.
pub(super) struct Document<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
        }
    }

    /// The whole document as a section. `None` if it is no TOML, which is then its only mistake.
    pub(super) fn root(&self) -> Option<Section<'_, 't>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(Section::new(
                self,
                String::new(),
                table.span(),
                table.into_inner(),
            )),
            Err(error) => {
                let line = error.span().map_or(1, |span| self.line(span.start));
                self.wrong(format!("line {line}"), error.message());
                None
            }
        }
    }

    /// The mistakes, if there were any.
    pub(super) fn problems(self) -> Result<(), Problems> {
        let mut problems = self.problems.into_inner();
        problems.dedup();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(problems))
        }
    }

    fn wrong(&self, place: String, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            place,
            message: message.into(),
        });
    }

    fn line(&self, offset: usize) -> usize {
        1 + self
            .text
            .bytes()
            .take(offset)
            .filter(|&byte| byte == b'\n')
            .count()
    }
}

/// A table of the document.
pub(super) struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// Empty for the document itself.
    place: String,
    span: Range<usize>,
    left: BTreeMap<String, (Range<usize>, Spanned<DeValue<'t>>)>,
    known: Vec<&'static str>,
}

impl<'d, 't> Section<'d, 't> {
    fn new(
        document: &'d Document<'t>,
        place: String,
        span: Range<usize>,
        table: DeTable<'t>,
    ) -> Self {
        let left = table
            .into_iter()
            .map(|(key, value)| (key.get_ref().to_string(), (key.span(), value)))
            .collect();
        Self {
            document,
            place,
            span,
            left,
            known: Vec::new(),
        }
    }

    /// The value of a key that need not be there.
    pub(super) fn optional<T: Read>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        match T::read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(message) => {
                self.wrong_at(key, &value.span(), message);
                None
            }
        }
    }

    /// The value of a key that must be there; `what` says what it is for. `None` when the mistake has
    /// been noted.
    pub(super) fn required<T: Read>(&mut self, key: &'static str, what: &str) -> Option<T> {
        if !self.left.contains_key(key) {
            self.known.push(key);
            let span = self.span.clone();
            self.wrong_at(key, &span, format!("missing: {what}"));
            return None;
        }
        self.optional(key)
    }

    /// Replaces `value` if the key is there.
    pub(super) fn set<T: Read>(&mut self, key: &'static str, value: &mut T) {
        if let Some(read) = self.optional(key) {
            *value = read;
        }
    }

    /// The value of a key that names one of a few things.
    pub(super) fn choice<T: Clone>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let (span, word) = self.located::<String>(key)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(choice.clone());
        }
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        self.wrong_at(
            key,
            &span,
            format!("\"{word}\" must be one of {}", names.join(", ")),
        );
        None
    }

    /// As [`optional`](Self::optional), by `parse` and with its mistakes.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (span, text) = self.located::<String>(key)?;
        parse(&text)
            .map_err(|error| self.wrong_at(key, &span, format!("\"{text}\": {error}")))
            .ok()
    }

    /// A list of texts, each read by `parse`. Empty if the key is not there; `None` when a mistake has
    /// been noted.
    pub(super) fn texts<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let Some(value) = self.take(key) else {
            return Some(Vec::new());
        };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.wrong_at(key, &span, "must be a list of texts");
            return None;
        };
        let read = |item: &DeValue<'_>| {
            let text = String::read(item)?;
            parse(&text).map_err(|error| format!("\"{text}\": {error}"))
        };
        let count = items.len();
        let mut texts = Vec::with_capacity(count);
        for (n, item) in items.into_iter().enumerate() {
            match read(item.get_ref()) {
                Ok(text) => texts.push(text),
                Err(message) => self.wrong_at(&format!("{key}[{n}]"), &item.span(), message),
            }
        }
        (texts.len() == count).then_some(texts)
    }

    /// A section within this one; an empty one if it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'d, 't> {
        let place = self.place_of(key);
        let span = self.span.clone();
        let Some(value) = self.take(key) else {
            return Section::new(self.document, place, span, DeTable::new());
        };
        let span = value.span();
        if let DeValue::Table(table) = value.into_inner() {
            return Section::new(self.document, place, span, table);
        }
        self.wrong_at(key, &span, format!("must be a section, [{place}]"));
        Section::new(self.document, place, span, DeTable::new())
    }

    /// Whether a key is there that has not been asked for yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// A list of sections. Empty if the key is not there.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            self.wrong_at(key, &span, "must be a list of sections");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (n, item) in items.into_iter().enumerate() {
            let place = self.place_of(&format!("{key}[{n}]"));
            let span = item.span();
            if let DeValue::Table(table) = item.into_inner() {
                sections.push(Section::new(self.document, place, span, table));
            } else {
                self.wrong_at(&format!("{key}[{n}]"), &span, "must be a section");
            }
        }
        sections
    }

    /// Notes a mistake at a key of this section.
    pub(super) fn wrong(&self, key: &str, message: impl Into<String>) {
        self.wrong_at(key, &self.span, message);
    }

    /// Notes every key that nobody asked for. To be called once all have been.
    pub(super) fn finish(self) {
        for (key, (span, _)) in &self.left {
            let message = match nearest(key, &self.known) {
                Some(meant) => format!("unknown key; is \"{meant}\" meant?"),
                None => format!("unknown key; there are: {}", self.known.join(", ")),
            };
            self.wrong_at(key, span, message);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.left.remove(key).map(|(_, value)| value)
    }

    fn located<T: Read>(&mut self, key: &'static str) -> Option<(Range<usize>, T)> {
        let span = self.left.get(key).map(|(_, value)| value.span());
        let value = self.optional(key)?;
        Some((span.unwrap_or_else(|| self.span.clone()), value))
    }

    fn place_of(&self, key: &str) -> String {
        match (self.place.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.place.clone(),
            (false, false) => format!("{}.{key}", self.place),
        }
    }

    fn wrong_at(&self, key: &str, span: &Range<usize>, message: impl Into<String>) {
        let line = self.document.line(span.start);
        self.document
            .wrong(format!("{} (line {line})", self.place_of(key)), message);
    }
}

/// A value that a key may have.
pub(super) trait Read: Sized {
    /// Reads it, or says what it must be.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

impl Read for String {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err("must be a text in quotes".to_owned()),
        }
    }
}

impl Read for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.into()),
            _ => Err("must be a path in quotes".to_owned()),
        }
    }
}

impl Read for SocketAddr {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let address = value.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| {
            "must be an address with a port, as \"0.0.0.0:993\" or \"[::]:993\"".to_owned()
        })
    }
}

impl Read for usize {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let number = value
            .as_integer()
            .and_then(|number| Self::from_str_radix(number.as_str(), number.radix()).ok());
        number
            .filter(|&n| n > 0)
            .ok_or_else(|| "must be a whole number above 0".to_owned())
    }
}

impl Read for u32 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        Self::try_from(usize::read(value)?).map_err(|_| "is too large".to_owned())
    }
}

impl Read for Duration {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let duration = value.as_str().and_then(duration);
        duration
            .filter(|duration| !duration.is_zero())
            .ok_or_else(|| {
                "must be a time above 0, as \"500ms\", \"10s\", \"5m\" or \"1h\"".to_owned()
            })
    }
}

fn duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The known key that a mistyped one is most like, if it is like any.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let (distance, nearest) = known.iter().map(|k| (distance(key, k), *k)).min()?;
    let tolerated = 1 + key.len() / 4;
    (distance <= tolerated).then_some(nearest)
}

/// How many letters have to be changed, added or removed (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("2h"), Some(Duration::from_hours(2)));
        for bad in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "10 s",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_mistyped_key_is_recognised_and_a_foreign_one_is_not() {
        let known = ["listen", "token_file", "health_listen"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("tokenfile", &known), Some("token_file"));
        assert_eq!(nearest("colour", &known), None);
    }
}
