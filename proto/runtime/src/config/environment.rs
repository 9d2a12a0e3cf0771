//! Variables of the environment that say a key in place of the file: `FERRYPOST__LOG__LEVEL=debug` is
//! `level = "debug"` under `[log]`.
//!
//! For what differs between the replicas that share a file, such as their names. Two underscores part the tables of a key
//! from each other and stand behind the prefix, so that no variable that an orchestrator makes out of the name of a
//! service is taken for one.

use std::ffi::OsString;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What all of them begin with.
const PREFIX: &str = "FERRYPOST__";
/// What parts the tables of a key.
const SEPARATOR: &str = "__";

/// The variables of an environment that say a key. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Environment(Vec<Variable>);

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    name: String,
    key: Vec<String>,
    /// `None`: it is not UTF-8.
    value: Option<String>,
}

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self::of(std::env::vars_os())
    }

    /// Those among these.
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let read = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            Some(Variable {
                key: key.split(SEPARATOR).map(str::to_owned).collect(),
                name,
                value: value.into_string().ok(),
            })
        };
        let mut variables: Vec<_> = variables.into_iter().filter_map(read).collect();
        // Whatever the order of an environment: a table's variable before those of its keys.
        variables.sort_by(|a, b| a.key.cmp(&b.key));
        Self(variables)
    }

    pub(super) fn variables(&self) -> &[Variable] {
        &self.0
    }
}

impl Variable {
    /// The variable's own name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The key, as messages write it.
    pub(super) fn place(&self) -> String {
        self.key.join(".")
    }

    /// Puts it in the place of what the file says.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn put_into<'t>(&'t self, root: &mut DeTable<'t>) -> Result<(), String> {
        let value = self.value.as_deref().ok_or("is not UTF-8")?;
        let value = if is_toml(value) {
            let value = DeValue::parse(value);
            value.map_err(|error| error.message().to_owned())?
        } else {
            nowhere(DeValue::String(value.into()))
        };
        put(root, &self.key, value)
    }
}

/// A text need not be in quotes; everything else is as in a file.
fn is_toml(value: &str) -> bool {
    let is_number = value.parse::<i64>().is_ok();
    is_number || matches!(value, "true" | "false") || value.starts_with(['"', '\'', '[', '{'])
}

fn put<'t>(
    table: &mut DeTable<'t>,
    key: &'t [String],
    value: Spanned<DeValue<'t>>,
) -> Result<(), String> {
    let Some((first, rest)) = key.split_first().filter(|(first, _)| !first.is_empty()) else {
        return Err("a part of the key is empty".to_owned());
    };
    if rest.is_empty() {
        table.insert(nowhere(first.as_str().into()), value);
        return Ok(());
    }
    if !table.contains_key(first.as_str()) {
        let inner = DeValue::Table(DeTable::new());
        table.insert(nowhere(first.as_str().into()), nowhere(inner));
    }
    match table.get_mut(first.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) => put(inner, rest, value),
        _ => Err(format!("{first} is no table")),
    }
}

/// It has no place in the file.
fn nowhere<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Document, *};

    const FILE: &str = "name = \"of the file\"\n\n[log]\nlevel = \"info\"\n";

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter();
        Environment::of(variables.map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_variable_stands_in_for_its_key_and_others_are_no_business_of_ours() {
        let environment = environment(&[
            ("FERRYPOST__NAME", "gateway-7"),
            ("FERRYPOST__LIMITS__CONNECTIONS__TOTAL", "300"),
            ("FERRYPOST__LOG__FORMAT", "json"),
            ("FERRYPOST__LIST", "[\"a\", \"b\"]"),
            ("FERRYPOST__QUOTED", "\"5\""),
            ("FERRYPOST_PORT", "tcp://10.0.0.1:993"),
            ("HOME", "/"),
        ]);
        let document = Document::parse(FILE, Path::new("/x")).with(&environment);
        document.read(|root| {
            assert_eq!(root.text("name").as_deref(), Some("gateway-7"));
            assert_eq!(root.text("quoted").as_deref(), Some("5"));
            assert_eq!(root.texts("list").unwrap(), ["a", "b"]);
            root.section("log", |log| {
                assert_eq!(log.text("level").as_deref(), Some("info"));
                assert_eq!(log.text("format").as_deref(), Some("json"));
            });
            let total = root.section("limits", |limits| {
                limits.section("connections", |group| group.number("total", 1..=500_u32))
            });
            assert_eq!(total, Some(300));
        });
        document.finish().expect("no mistake");
    }

    #[test]
    fn a_mistake_in_a_variable_names_it_and_no_line() {
        let environment = environment(&[
            ("FERRYPOST__NAME", "7"),
            ("FERRYPOST__LOG__LEVEL", "loud"),
            ("FERRYPOST__LOG__COLOUR", "red"),
            ("FERRYPOST__NAME__X", "1"),
            ("FERRYPOST__LOG____X", "1"),
            ("FERRYPOST__LIST", "[\"a\""),
        ]);
        let document = Document::parse(FILE, Path::new("/x")).with(&environment);
        document.read(|root| {
            root.text("name");
            root.texts("list");
            root.section("log", |log| log.word("level", &[("info", 1)]));
        });
        let mistakes = document.finish().expect_err("mistakes").to_string();
        for expected in [
            "/x: name: must be a text in quotes, is integer (set by FERRYPOST__NAME)",
            "/x: log.level: \"loud\" must be \"info\" (set by FERRYPOST__LOG__LEVEL)",
            "/x: log.colour: unknown key; there are: level (set by FERRYPOST__LOG__COLOUR)",
            "/x: name.x: name is no table (set by FERRYPOST__NAME)",
            "/x: log..x: a part of the key is empty (set by FERRYPOST__LOG____X)",
            "(set by FERRYPOST__LIST)",
        ] {
            assert!(mistakes.contains(expected), "{expected}\n{mistakes}");
        }
        assert_eq!(mistakes.lines().count(), 6, "{mistakes}");
    }
}
