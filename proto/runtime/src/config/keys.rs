//! What the keys of a configuration mean, in words: tables that a running program and the operators' reference share.

use std::fmt::Write as _;

use super::section::{TABLE, TABLES};

/// The keys of one table of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Where it is: `limits.relay`, or `listeners[]` for each of a list. A part `*` is any word; empty: the top.
    pub place: &'static str,
    /// What it is for.
    pub says: &'static str,
    /// Its keys that are no tables.
    pub keys: &'static [Key],
}

/// A key of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    name: &'static str,
    says: &'static str,
    absent: Absent,
    change: Change,
}

/// What holds without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// It must be there.
    Required,
    /// The same as with this value.
    Default(&'static str),
    /// The limit that the reader has already.
    Limit,
    /// In words.
    Otherwise(&'static str),
}

/// What becomes of a change while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is taken over.
    AtOnce,
    /// What the file holds that it names is taken over; another file wants a restart.
    Content,
    /// It wants a restart.
    Restart,
}

impl Key {
    /// One that must be there.
    pub const fn required(name: &'static str, says: &'static str) -> Self {
        Self::new(name, says, Absent::Required)
    }

    /// One without which the same holds as with this value, written as in a file.
    pub const fn default(name: &'static str, value: &'static str, says: &'static str) -> Self {
        Self::new(name, says, Absent::Default(value))
    }

    /// A limit, whose default the reader knows.
    pub const fn limit(name: &'static str, says: &'static str) -> Self {
        Self::new(name, says, Absent::Limit)
    }

    /// One without which holds what these words say.
    pub const fn otherwise(name: &'static str, words: &'static str, says: &'static str) -> Self {
        Self::new(name, says, Absent::Otherwise(words))
    }

    /// It is taken over while the program runs.
    #[must_use]
    pub const fn at_once(self) -> Self {
        Self {
            change: Change::AtOnce,
            ..self
        }
    }

    /// It names a file, and what that holds is taken over while the program runs.
    #[must_use]
    pub const fn content(self) -> Self {
        Self {
            change: Change::Content,
            ..self
        }
    }

    const fn new(name: &'static str, says: &'static str, absent: Absent) -> Self {
        Self {
            name,
            says,
            absent,
            change: Change::Restart,
        }
    }

    /// Whether a change of its value wants a restart.
    pub(super) fn wants_restart(&self) -> bool {
        self.change != Change::AtOnce
    }
}

impl Change {
    const fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::Content => "restart; what the file holds: at once",
            Self::Restart => "restart",
        }
    }
}

/// What a reader has asked a configuration for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `listeners[].name`.
    pub place: String,
    /// What it may be.
    pub(super) kinds: Vec<String>,
    /// It was missed.
    pub(super) required: bool,
    /// What a limit is without it, as a file has it.
    pub(super) limit: Option<String>,
}

impl Asked {
    pub(super) fn at(place: String) -> Self {
        Self {
            place,
            kinds: Vec::new(),
            required: false,
            limit: None,
        }
    }

    pub(super) fn is_also(&mut self, kind: String) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }

    /// Where its keys are, if it is a table or a list of them.
    fn table(&self) -> Option<String> {
        let kind = self.kinds.iter().find(|kind| is_table(kind))?;
        let items = if kind == TABLES { "[]" } else { "" };
        Some(format!("{}{items}", self.place))
    }

    fn is_key(&self) -> bool {
        self.kinds.iter().any(|kind| !is_table(kind))
    }

    /// What it may be, beside a table.
    fn kind(&self) -> String {
        let kinds = self.kinds.iter();
        let kinds: Vec<_> = kinds.map(String::as_str).collect();
        kinds.join("; or ")
    }
}

fn is_table(kind: &str) -> bool {
    matches!(kind, TABLE | TABLES)
}

/// A place without the numbers of list items.
pub(super) fn pattern(place: &str) -> String {
    let mut pattern = String::with_capacity(place.len());
    let mut inside = false;
    for character in place.chars() {
        inside = match character {
            '[' => true,
            ']' => false,
            _ => inside,
        };
        if !inside || character == '[' {
            pattern.push(character);
        }
    }
    pattern
}

/// The key that a place belongs to: itself, or an item of its list.
pub(super) fn find(tables: &'static [Table], place: &str) -> Option<&'static Key> {
    let place = pattern(place);
    let place = place.strip_suffix("[]").unwrap_or(&place);
    let (table, name) = place.rsplit_once('.').unwrap_or(("", place));
    let table = table_at(tables, table)?;
    table.keys.iter().find(|key| key.name == name)
}

fn table_at(tables: &'static [Table], place: &str) -> Option<&'static Table> {
    let mut all = tables.iter();
    let exact = all.find(|table| table.place == place);
    exact.or_else(|| tables.iter().find(|table| is_like(table.place, place)))
}

fn is_like(pattern: &str, place: &str) -> bool {
    let (mut pattern, mut place) = (pattern.split('.'), place.split('.'));
    loop {
        match (pattern.next(), place.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" => {}
            _ => return false,
        }
    }
}

/// The reference for a configuration, in Markdown.
///
/// # Errors
/// In which way the tables and what the reader asks for are not the same.
pub fn page(tables: &'static [Table], asked: &[Asked]) -> Result<String, String> {
    let differences = differences(tables, asked);
    if !differences.is_empty() {
        return Err(differences.join("\n"));
    }
    let mut keys = tables.iter().flat_map(|table| table.keys);
    let same = keys.all(|key| key.change == Change::AtOnce);
    let mut page = String::new();
    for table in tables {
        put_table(&mut page, table, asked, !same);
    }
    Ok(page)
}

fn differences(tables: &'static [Table], asked: &[Asked]) -> Vec<String> {
    let mut differences = Vec::new();
    for it in asked {
        let place = &it.place;
        if let Some(table) = it.table().filter(|it| table_at(tables, it).is_none()) {
            differences.push(format!("no table tells of [{table}]"));
        }
        if !it.is_key() {
            continue;
        }
        let Some(key) = find(tables, place) else {
            differences.push(format!("no table tells of {place}"));
            continue;
        };
        let is_limit = key.absent == Absent::Limit;
        if is_limit && it.limit.is_none() {
            differences.push(format!("{place} has no limit to begin with"));
        }
        if it.required && (is_limit || matches!(key.absent, Absent::Default(_))) {
            differences.push(format!("{place} must be there"));
        }
    }
    for table in tables {
        for key in table.keys {
            if asked_for(asked, table, key.name).is_none() {
                differences.push(format!("nobody asks for {}.{}", table.place, key.name));
            }
        }
    }
    differences
}

fn asked_for<'a>(asked: &'a [Asked], table: &Table, name: &str) -> Option<&'a Asked> {
    asked.iter().find(|it| {
        let (place, key) = it.place.rsplit_once('.').unwrap_or(("", &it.place));
        key == name && is_like(table.place, place)
    })
}

fn put_table(page: &mut String, table: &Table, asked: &[Asked], with_change: bool) {
    let heading = match table.place {
        "" => "At the top".to_owned(),
        place => format!("`{}`", place.replace('*', "PROTOCOL")),
    };
    put(page, &format!("\n## {heading}\n\n{}\n", table.says));
    if table.keys.is_empty() {
        return;
    }
    let (head, rule) = if with_change {
        ("| a change takes ", "|---")
    } else {
        ("", "")
    };
    let head =
        format!("\n| key | value | without it {head}| what it is |\n|---|---|---{rule}|---|\n");
    put(page, &head);
    for key in table.keys {
        let asked = asked_for(asked, table, key.name);
        let kind = asked.map(Asked::kind).unwrap_or_default();
        let absent = absent(key, asked.and_then(|it| it.limit.as_deref()));
        let change = if with_change {
            format!("| {} ", key.change.words())
        } else {
            String::new()
        };
        let row = format!(
            "| `{}` | {kind} | {absent} {change}| {} |\n",
            key.name, key.says
        );
        put(page, &row);
    }
}

fn put(page: &mut String, text: &str) {
    write!(page, "{text}").expect("a String takes everything");
}

fn absent(key: &Key, limit: Option<&str>) -> String {
    match key.absent {
        Absent::Required => "**required**".to_owned(),
        Absent::Default(value) => format!("`{value}`"),
        Absent::Limit => format!("`{}`", limit.unwrap_or_default()),
        Absent::Otherwise(words) => words.to_owned(),
    }
}

/// The keys whose default is not what a reader takes for them: with `text`, which has every table that the keys are in
/// and says none of them, `is_same` says whether it means the same with a default written into it.
pub fn untold_defaults(
    tables: &'static [Table],
    text: &str,
    is_same: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for table in tables {
        for key in table.keys {
            let Absent::Default(value) = key.absent else {
                continue;
            };
            let line = format!("{} = {value}", key.name);
            if !is_same(&written_into(text, table.place, &line)) {
                wrong.push(format!("{}.{}", table.place, key.name));
            }
        }
    }
    wrong
}

/// The text with a line more at the beginning of a table, which is there or is added.
fn written_into(text: &str, place: &str, line: &str) -> String {
    let name = place.replace("[]", "");
    let header = if place.ends_with("[]") {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    };
    if place.is_empty() {
        return format!("{line}\n{text}");
    }
    match text.split_once(&format!("{header}\n")) {
        Some((before, after)) => format!("{before}{header}\n{line}\n{after}"),
        None => format!("{text}\n{header}\n{line}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Document, *};

    const TABLES: &[Table] = &[
        Table {
            place: "",
            says: "A program.",
            keys: &[Key::required("name", "What it is called.")],
        },
        Table {
            place: "doors[]",
            says: "Where people come in.",
            keys: &[
                Key::default("lock", "\"none\"", "How it is locked."),
                Key::otherwise("key_file", "the one of the house", "Its key.").content(),
                Key::otherwise("signs", "none", "What is written on it.").at_once(),
            ],
        },
        Table {
            place: "limits",
            says: "How many.",
            keys: &[Key::limit("guests", "At once.")],
        },
    ];

    fn asked() -> Vec<Asked> {
        Document::asked(&[""], Path::new("/x"), |root| {
            root.required("name", "its name", root.text("name"));
            root.tables("doors", |door| {
                door.word("lock", &[("none", 0), ("bolt", 1)]);
                door.path("key_file");
                door.texts("signs");
            });
            let mut guests = 12_usize;
            root.section("limits", |limits| limits.set("guests", &mut guests));
        })
    }

    #[test]
    fn the_page_says_what_the_reader_asks_for_and_what_holds_without_it() {
        let page = page(TABLES, &asked()).unwrap();
        for row in [
            "| `name` | a text | **required** | restart | What it is called. |",
            "| `lock` | one of \"none\", \"bolt\" | `\"none\"` | restart | How it is locked. |",
            "| `key_file` | a path | the one of the house | restart; what the file holds: at once | Its key. |",
            "| `signs` | a list of texts | none | at once | What is written on it. |",
            "| `guests` | a whole number from 1 on | `12` | restart | At once. |",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
    }

    #[test]
    fn a_key_that_only_one_of_both_knows_is_found() {
        let mut more = asked();
        more.retain(|it| it.place != "limits.guests");
        let mut colour = Asked::at("doors[].colour".to_owned());
        colour.is_also("a text".to_owned());
        more.push(colour);
        let found = page(TABLES, &more).unwrap_err();
        assert!(found.contains("nobody asks for limits.guests"), "{found}");
        assert!(
            found.contains("no table tells of doors[].colour"),
            "{found}"
        );
    }

    #[test]
    fn a_place_is_found_whichever_item_it_is_of() {
        let key = |place| find(TABLES, place).map(|key| key.name);
        assert_eq!(key("doors[3].lock"), Some("lock"));
        assert_eq!(key("doors[3].signs[1]"), Some("signs"));
        assert_eq!(key("doors[3].colour"), None);
        assert!(is_like("limits.*.relay", "limits.imap.relay"));
        assert!(!is_like("limits.*.relay", "limits.imap.relay.x"));
    }

    #[test]
    fn a_default_that_means_something_else_is_found() {
        let text = "name = \"x\"\n\n[[doors]]\n";
        let untold = |means: &str| {
            let means = means.to_owned();
            untold_defaults(TABLES, text, |with| with.contains(&means))
        };
        assert_eq!(untold("[[doors]]\nlock = \"none\"\n"), [] as [&str; 0]);
        assert_eq!(untold("bolt"), ["doors[].lock"]);
    }
}
