//! Holds the order of the rooms: nothing imports upwards.
//!
//! A *room* is a top-level module of one of the planes. The tables below are the whole rule. What is read is
//! every path that begins with `crate::` or leaves its room by `super::`; tests may look anywhere and are left
//! out. Only the standard library is used, so that `tests/tools/lint` compiles this file alone.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// From the top down. A room may import from the lines below its own, and from nothing else: rooms on one
/// line do not know each other.
const CONTROL_PLANE: &str = "
    lib main
    app
    grpc admin
    service
    orchestrator
    fleet leader hook
    refusal
    mirror installation
    net routing_file
    tls
    config
    domain store
    kv
    failpoint metrics wall_clock
";

/// The same of the data plane.
const DATA_PLANE: &str = "
    lib main
    app
    admin control_plane
    delivery http pass_through
    listener feed
    session
    backend fence
    sabotage
    registry
    config
    certificates lookup tokens
    net
    cookie_keys descriptors limits metrics ready redact state_dir tables
    network
";

fn main() -> ExitCode {
    let planes = [
        ("controlplane/src", CONTROL_PLANE),
        ("dataplane/src", DATA_PLANE),
    ];
    let mut complaints = Vec::new();
    for (root, table) in planes {
        match sources(Path::new(root)) {
            Ok(sources) => complaints.extend(check(root, &Order::of(table), &sources)),
            Err(error) => complaints.push(format!("{root} cannot be read: {error}")),
        }
    }
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A source file: where it lies below the plane's `src`, and its text.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The modules that lead to it, without `mod`.
    fn modules(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
        parts.filter(|part| part != "mod").collect()
    }
}

/// The rooms with the lines that they stand on; 0 is the top.
struct Order(Vec<(String, usize)>);

impl Order {
    fn of(table: &str) -> Self {
        let lines = table.lines().filter(|line| !line.trim().is_empty());
        let rooms = lines.enumerate().flat_map(|(level, line)| {
            line.split_whitespace()
                .map(move |room| (room.to_owned(), level))
        });
        Self(rooms.collect())
    }

    fn level(&self, room: &str) -> Option<usize> {
        let found = self.0.iter().find(|(known, _)| known == room);
        found.map(|(_, level)| *level)
    }
}

/// Everything that is wrong with a plane.
fn check(plane: &str, order: &Order, sources: &[Source]) -> Vec<String> {
    let tests = test_modules(sources);
    let mut complaints = Vec::new();
    let mut rooms = BTreeSet::new();
    for source in sources {
        let modules = source.modules();
        let Some(room) = modules.first() else {
            continue;
        };
        rooms.insert(room.clone());
        if (1..=modules.len()).any(|depth| tests.contains(&modules[..depth])) {
            continue;
        }
        for (line, path) in paths(&modules, &code(&source.text)) {
            let at = format!("{plane}/{}:{line}", source.path.display());
            complaints.extend(judge(order, room, &path).map(|wrong| format!("{at}: {wrong}")));
        }
    }
    let unknown = rooms.iter().filter(|room| order.level(room).is_none());
    complaints.extend(
        unknown.map(|room| {
            format!("{plane}: {room} is in no line of the table in tests/tools/rooms.rs")
        }),
    );
    let gone = order.0.iter().filter(|(room, _)| !rooms.contains(room));
    complaints.extend(gone.map(|(room, _)| {
        format!("{plane}: there is no {room}, which the table in tests/tools/rooms.rs names")
    }));
    complaints
}

/// What is wrong with an import of `path`, whose first part is a room, from `room`.
fn judge(order: &Order, room: &str, path: &str) -> Option<String> {
    let to = path.split("::").next().unwrap_or(path);
    let (from_level, to_level) = (order.level(room)?, order.level(to)?);
    if room == to || from_level < to_level {
        return None;
    }
    let stands = if from_level == to_level {
        "beside"
    } else {
        "above"
    };
    Some(format!("{room} imports {path}; {to} stands {stands} it"))
}

/// The modules that exist in tests only, as their parents declare them.
fn test_modules(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let mut tests = BTreeSet::new();
    for source in sources {
        let mut lines = source.text.lines().map(str::trim).peekable();
        while let Some(line) = lines.next() {
            let declared = lines.peek().and_then(|next| {
                let (visibility, name) = next.strip_suffix(';')?.split_once("mod ")?;
                (visibility.is_empty() || visibility.starts_with("pub")).then_some(name)
            });
            if let (true, Some(name)) = (is_test_only(line), declared) {
                let mut module = source.modules();
                if matches!(module.last().map(String::as_str), Some("lib" | "main")) {
                    module.pop();
                }
                module.push(name.to_owned());
                tests.insert(module);
            }
        }
    }
    tests
}

fn is_test_only(attribute: &str) -> bool {
    attribute == "#[cfg(test)]" || attribute.starts_with("#[cfg(all(test")
}

/// The text without comments and without the tests at its end. Nothing changes its line.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens_tests = is_test_only(line.trim())
            && lines
                .peek()
                .is_some_and(|next| next.trim().starts_with("mod ") && next.ends_with('{'));
        if opens_tests {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Every path of `code` that begins in another module of the crate's root, with its line.
fn paths(modules: &[String], code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        found.extend(expand(rest).into_iter().map(|path| (at, path)));
    }
    for (at, _) in code.match_indices("super::") {
        let before = &code[..at];
        if before.ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut ups = 0;
        while let Some(further) = rest.strip_prefix("super::") {
            rest = further;
            ups += 1;
        }
        // A file's own module is the last of them: as many steps up lead to the crate's root.
        if ups == modules.len() {
            found.extend(expand(rest).into_iter().map(|path| (at, path)));
        }
    }
    found.sort();
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    found
        .into_iter()
        .map(|(at, path)| (line(at), path))
        .collect()
}

/// The paths that a use tree stands for: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let end = tree.find(|c| !is_path(c)).unwrap_or(tree.len());
    let (path, rest) = tree.split_at(end);
    let Some(inner) = rest
        .strip_prefix('{')
        .filter(|_| path.is_empty() || path.ends_with("::"))
    else {
        let path = path.trim_end_matches("::");
        return (!path.is_empty())
            .then(|| path.to_owned())
            .into_iter()
            .collect();
    };
    branches(inner)
        .iter()
        .flat_map(|branch| expand(branch.trim()))
        .map(|below| format!("{path}{below}"))
        .collect()
}

/// What stands between the commas of a brace that was opened before `inner`.
fn branches(inner: &str) -> Vec<&str> {
    let (mut branches, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                branches.push(&inner[start..at]);
                start = at + 1;
                if c == '}' {
                    return branches;
                }
            }
            _ => {}
        }
    }
    branches
}

/// Every Rust file below `root`, in the order of their paths.
fn sources(root: &Path) -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
        top
        left right
        bottom
    ";

    /// Complaints about a plane whose rooms are there; `text` is the source of `path`.
    fn complaints(path: &str, text: &str) -> Vec<String> {
        let planted = Path::new(path);
        let mut sources: Vec<_> = ["top.rs", "left/mod.rs", "right.rs", "bottom.rs"]
            .into_iter()
            .map(Path::new)
            .filter(|room| *room != planted)
            .map(|room| (room, ""))
            .chain([(planted, text)])
            .map(|(path, text)| Source {
                path: path.to_owned(),
                text: text.to_owned(),
            })
            .collect();
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        check("src", &Order::of(TABLE), &sources)
    }

    #[test]
    fn an_upward_import_is_found_however_it_is_written() {
        for text in [
            "use crate::top::Thing;",
            "use crate::top;",
            "use crate::{\n    bottom::{A, B},\n    top::{c::D},\n};",
            "fn f() { crate::top::f() }",
            "pub use super::top::Thing;",
            "pub use super::{bottom::A, top};",
        ] {
            let found = complaints("right.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains("top stands above it"), "{found:?}");
        }
        let found = complaints("left/deep/below.rs", "\nuse super::super::super::top::T;");
        assert_eq!(
            found,
            ["src/left/deep/below.rs:2: left imports top::T; top stands above it"]
        );
    }

    #[test]
    fn rooms_on_one_line_do_not_know_each_other() {
        let found = complaints("left/mod.rs", "use crate::right::R;");
        assert_eq!(
            found,
            ["src/left/mod.rs:1: left imports right::R; right stands beside it"]
        );
    }

    #[test]
    fn imports_downwards_and_at_home_are_fine() {
        for (path, text) in [
            ("top.rs", "use crate::{bottom::{self, B}, left, right::R};"),
            ("left/mod.rs", "use crate::left::part; use crate::bottom;"),
            (
                "left/part.rs",
                "use super::top_of_the_room; use super::super::bottom;",
            ),
            ("bottom.rs", "use std::fmt; // crate::top is up there\n"),
        ] {
            assert_eq!(complaints(path, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn tests_may_look_anywhere() {
        let inline = "use std::fmt;\n#[cfg(test)]\nmod tests {\n    use crate::top::T;\n}\n";
        assert_eq!(complaints("bottom.rs", inline), Vec::<String>::new());
        let of = |path: &str, text: &str| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let sources = [
            of(
                "bottom/mod.rs",
                "#[cfg(test)]\npub(crate) mod model;\nmod real;",
            ),
            of("bottom/model/world.rs", "use crate::top::T;"),
            of("bottom/real.rs", "use crate::top::T;"),
            of("top.rs", ""),
        ];
        let found = check("src", &Order::of("top\nbottom"), &sources);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("src/bottom/real.rs:1:"), "{found:?}");
    }

    #[test]
    fn a_room_that_nobody_has_given_a_place_is_found() {
        let found = complaints("attic.rs", "use crate::top::T;");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("attic is in no line"), "{found:?}");
        let found = check("src", &Order::of("top\ncellar"), &[]);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
