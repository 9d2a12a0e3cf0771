//! Holds `docs/cli.md` to what the program says of itself.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _, Parser as _};

use crate::{Arguments, Exit};

/// What stands above is written by people.
const MARK: &str =
    "<!-- From here on it is generated: UPDATE_DOCS=1 with the test of this page. -->\n";

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");

#[test]
fn the_page_says_what_the_program_says() {
    let page = std::fs::read_to_string(PAGE).expect("docs/cli.md");
    let (head, _) = page.split_once(MARK).expect("the mark");
    let current = format!("{head}{MARK}{}", generated());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, current).expect("writable");
    } else {
        assert!(
            page == current,
            "docs/cli.md is stale: run this test with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn the_help_names_every_exit_code() {
    let help = Arguments::command().render_long_help().to_string();
    for exit in Exit::ALL {
        assert!(help.contains(&format!("{} ", exit.code())), "{exit:?}");
    }
}

/// What each call of the README is on the command line.
const CALLS: [(&str, &str); 4] = [
    ("MigrationService/Migrate", "migrate"),
    ("MigrationService/Rollback", "rollback"),
    ("StatsService/GetRewound", "rewound"),
    ("StatsService/ResolveRewound", "rewound"),
];

#[test]
fn the_readme_shows_both_ways_of_asking() {
    let readme = include_str!("../../../README.md");
    let (_, guide) = readme
        .split_once("## Point it at your own two servers")
        .expect("the guide");
    for (after, _) in guide.match_indices("ferrypost.v1.") {
        let called = &guide[after + "ferrypost.v1.".len()..];
        let called = called.split_whitespace().next().unwrap_or_default();
        let found = CALLS.iter().find(|(method, _)| *method == called);
        let (_, command) = found.unwrap_or_else(|| panic!("{called} has no command here"));
        let typed = format!("\n    ferrypost {command}");
        let mut found = guide.match_indices(&typed);
        let is_whole = |at: usize| guide[at + typed.len()..].starts_with([' ', '\n']);
        assert!(found.any(|(at, _)| is_whole(at)), "{command}");
    }
}

#[test]
fn every_command_in_the_documents_is_one() {
    let documents = [
        include_str!("../../../README.md"),
        include_str!("../../../docs/cli.md"),
    ];
    let mut read = 0;
    for line in documents.iter().flat_map(|it| it.lines()) {
        let Some(typed) = line.strip_prefix("    ferrypost ") else {
            continue;
        };
        let words = std::iter::once("ferrypost".to_owned()).chain(words(typed));
        let parsed = Arguments::try_parse_from(words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        read += 1;
    }
    assert!(read > 8, "{read}");
}

/// As a shell takes a line apart that has nothing but double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, part) in line.split('"').enumerate() {
        if n % 2 == 0 {
            words.extend(part.split_whitespace().map(str::to_owned));
        } else {
            words.push(part.to_owned());
        }
    }
    words
}

fn generated() -> String {
    let mut text = "\n## Exit codes\n\n| code | in a word | meaning |\n|---|---|---|\n".to_owned();
    for exit in Exit::ALL {
        _ = writeln!(
            text,
            "| {} | {} | {} |",
            exit.code(),
            exit.word(),
            exit.meaning()
        );
    }
    let mut command = Arguments::command();
    command.build();
    text.push_str("\n## Everywhere\n\n");
    text.push_str(&arguments(command.get_arguments()));
    text.push_str("\n## Commands\n");
    for subcommand in command.get_subcommands() {
        text.push_str(&described(subcommand));
    }
    text
}

fn described(command: &Command) -> String {
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let own = arguments(command.get_arguments().filter(|it| !it.is_global_set()));
    let own = if own.is_empty() {
        own
    } else {
        format!("\n{own}")
    };
    format!("\n### `{usage}`\n\n{about}\n{own}")
}

fn arguments<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = String::new();
    for argument in arguments {
        if matches!(argument.get_id().as_str(), "help" | "version") {
            continue;
        }
        let help = argument.get_help();
        let help = help.map(ToString::to_string).unwrap_or_default();
        _ = writeln!(text, "- `{argument}`: {help}{}", values(argument));
    }
    text
}

/// What an option may be, where it is one of a few words.
fn values(argument: &Arg) -> String {
    let values = argument.get_possible_values();
    let words: Vec<_> = values
        .iter()
        .map(|it| format!("`{}`", it.get_name()))
        .collect();
    if words.is_empty() || !argument.get_action().takes_values() {
        return String::new();
    }
    format!(" ({})", words.join(", "))
}
