//! A parsed file that collects mistakes while it is read.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Asked, Environment, Mistake, Mistakes, Section, keys::pattern};

/// A file under examination, and the mistakes found in it so far.
pub struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    file: &'t Path,
    /// It is no TOML as a whole: what is not found may be behind the mistake.
    broken: bool,
    /// Places that the environment has said, and the variables that did.
    set: Vec<(String, &'t str)>,
    mistakes: RefCell<Vec<Mistake>>,
    /// `None`: it is read for what it says, and not for what could be said.
    asked: Option<RefCell<Vec<Asked>>>,
}

impl<'t> Document<'t> {
    /// Parses `text`. `file` names it in messages, and relative paths in it are relative to the file's
    /// directory. What is no TOML is a mistake and does not hide the others.
    pub fn parse(text: &'t str, file: &'t Path) -> Self {
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
            file,
            broken: !errors.is_empty(),
            set: Vec::new(),
            mistakes: RefCell::new(mistakes),
            asked: None,
        }
    }

    /// What `read` asks for, in its order: keys that no text has, too, but for those that are only asked for with a
    /// certain value of another one, which a text must have then. Mistakes are none here.
    pub fn asked<T>(
        texts: &[&'t str],
        file: &'t Path,
        read: impl Fn(&Section<'_>) -> T,
    ) -> Vec<Asked> {
        let mut asked = Vec::new();
        for text in texts {
            let document = Self {
                asked: Some(RefCell::new(asked)),
                ..Self::parse(text, file)
            };
            document.read(&read);
            asked = document.asked.map(RefCell::into_inner).unwrap_or_default();
        }
        asked
    }

    /// What the environment says in place of the file.
    #[must_use]
    pub fn with(mut self, environment: &'t Environment) -> Self {
        for variable in environment.variables() {
            self.set.push((variable.place(), variable.name()));
            if let Err(message) = variable.put_into(self.root.get_mut()) {
                self.note(variable.place(), None, message);
            }
        }
        self
    }

    /// Reads the top level, then notes the keys that `read` did not ask for.
    pub fn read<T>(&self, read: impl FnOnce(&Section<'_>) -> T) -> T {
        Section::read(self, String::new(), Some(self.root.get_ref()), 0, read)
    }

    /// Every value that is said, as text by its place. What is in an inline table has the same place as in another one.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        put_table("", self.root.get_ref(), &mut values);
        values
    }

    /// What relative paths in the file are relative to.
    pub fn directory(&self) -> &'t Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// Notes a mistake at a place that is looked up in the file as far as it exists there.
    pub fn wrong_at(&self, place: &str, message: impl Into<String>) {
        let offset = self.find(place);
        self.note(place.to_owned(), offset, message.into());
    }

    /// True when a mistake is noted at `place` already.
    pub fn is_wrong_at(&self, place: &str) -> bool {
        let mistakes = self.mistakes.borrow();
        mistakes.iter().any(|mistake| mistake.place == place)
    }

    /// Whether a mistake has been noted there or at anything that is part of it.
    pub fn is_wrong_within(&self, place: &str) -> bool {
        let mistakes = self.mistakes.borrow();
        let mut places = mistakes.iter().map(|mistake| &mistake.place);
        places.any(|it| is_within(it, place))
    }

    /// The end of reading.
    ///
    /// # Errors
    /// Every mistake, in the order of lines.
    pub fn finish(self) -> Result<(), Mistakes> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes.dedup();
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Mistakes {
            file: self.file.to_owned(),
            mistakes,
        })
    }

    /// True when what is not found may be there all the same.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether it is read for what could be said.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Adds to what has been asked for at a place.
    pub(super) fn ask(&self, place: impl FnOnce() -> String, add: impl FnOnce(&mut Asked)) {
        let Some(asked) = &self.asked else { return };
        let place = pattern(&place());
        let mut asked = asked.borrow_mut();
        if let Some(known) = asked.iter_mut().find(|it| it.place == place) {
            add(known);
        } else {
            let mut fresh = Asked::at(place);
            add(&mut fresh);
            asked.push(fresh);
        }
    }

    pub(super) fn note(&self, place: String, offset: Option<usize>, message: String) {
        let mut set = self.set.iter();
        let mistake = match set.find(|(set, _)| is_within(&place, set)) {
            Some((_, variable)) => Mistake {
                place,
                line: None,
                message: format!("{message} (set by {variable})"),
            },
            None => Mistake {
                place,
                line: offset.map(|offset| line_of(self.text, offset)),
                message,
            },
        };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Where the deepest part of `place` that the file has begins: the key, or the item of a list.
    pub(super) fn find(&self, place: &str) -> Option<usize> {
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
        found
    }
}

fn put_table(place: &str, table: &DeTable<'_>, values: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let inner = match place {
            "" => key.get_ref().to_string(),
            place => format!("{place}.{}", key.get_ref()),
        };
        put(inner, value.get_ref(), values);
    }
}

fn put(place: String, value: &DeValue<'_>, values: &mut BTreeMap<String, String>) {
    let text = match value {
        DeValue::Table(table) => return put_table(&place, table, values),
        DeValue::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                put(format!("{place}[{n}]"), item.get_ref(), values);
            }
            items.len().to_string()
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(word) => word.to_string(),
        DeValue::Datetime(time) => time.to_string(),
    };
    values.insert(place, text);
}

/// Whether a place is another one or part of it.
fn is_within(place: &str, other: &str) -> bool {
    let rest = place.strip_prefix(other);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before.filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_the_line_of_its_key() {
        let text = "name = 3\n\n[inner]\nport = 70000\nprot = 1\n\n[[list]]\nword = \"no\"\n";
        let document = Document::parse(text, Path::new("/etc/x.toml"));
        document.read(|root| {
            root.text("name");
            root.table("inner", |inner| inner.number("port", 1..=65_535_u32));
            root.tables("list", |item| item.word("word", &[("yes", 1)]));
            root.required("gone", "what it is for", root.text("gone"));
        });
        document.wrong_at("list[0].deeper", "said later");
        let found: Vec<_> = document
            .finish()
            .expect_err("mistakes")
            .mistakes
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                ":1: name: must be a text in quotes, is integer",
                ":1: gone: missing: what it is for",
                ":4: inner.port: must be a whole number, 1 to 65535",
                ":5: inner.prot: unknown key; is \"port\" meant?",
                ":7: list[0].deeper: said later",
                ":8: list[0].word: \"no\" must be \"yes\"",
            ]
        );
    }

    #[test]
    fn syntax_errors_do_not_hide_what_else_is_wrong() {
        let document = Document::parse("a = \nb = 5\n", Path::new("/x"));
        document.read(|root| {
            root.text("b");
            root.required("c", "what may be behind the mistake", root.text("c"));
        });
        let mistakes = document.finish().expect_err("mistakes");
        assert!(mistakes.mistakes.iter().any(|m| m.line == Some(1)));
        assert!(mistakes.mistakes.iter().any(|m| m.place == "b"));
        assert!(
            mistakes.mistakes.iter().all(|m| m.place != "c"),
            "{mistakes}"
        );
        assert!(mistakes.to_string().starts_with("/x:1: "), "{mistakes}");
    }

    #[test]
    fn what_is_missing_from_a_table_has_the_line_of_the_table_or_of_what_it_would_be_in() {
        let text = "\n[there]\nkey = 1\n";
        let document = Document::parse(text, Path::new("/x"));
        document.read(|root| {
            let needs = |section: &Section<'_>| {
                section.required("file", "for this", section.text("file"));
                section.has("key")
            };
            assert!(root.section("there", needs));
            assert!(!root.section("gone", needs));
        });
        let mistakes = document.finish().expect_err("mistakes").to_string();
        assert_eq!(
            mistakes,
            "/x:1: gone.file: missing: for this\n/x:2: there.file: missing: for this"
        );
    }
}
