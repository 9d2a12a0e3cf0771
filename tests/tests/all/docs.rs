//! What the documentation names is there: other pages, the programs' own words, metrics, errors and commands.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferrypost_tests::tools::repository;

/// Every file below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&repository().join("docs"), "md");
    pages.push(repository().join("README.md"));
    pages.push(repository().join("helm/README.md"));
    pages
}

#[test]
fn every_link_between_pages_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|it| it.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            let outside = file.contains("://") || file.is_empty();
            if !outside && !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, [] as [&str; 0]);
}

#[test]
fn the_readme_knows_every_page_of_the_documentation() {
    let readme = read("README.md");
    let docs = fs::read_dir(repository().join("docs")).unwrap();
    for page in docs.map(|it| it.unwrap().path()) {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        let is_page = Path::new(&name).extension().is_some_and(|it| it == "md")
            || name == "guide"
            || name == "decisions";
        assert!(
            !is_page || readme.contains(&format!("docs/{name}")),
            "README.md does not name docs/{name}"
        );
    }
}

#[test]
fn every_block_of_toml_is_toml() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("\n```toml").skip(1) {
            let (_, block) = block.split_once('\n').unwrap();
            let block = block.split("\n```").next().unwrap();
            let parsed = toml::from_str::<toml::Table>(block);
            assert!(parsed.is_ok(), "{}: {parsed:?}", page.display());
        }
    }
}

/// What programs of other people are told.
const OTHERS: [&str; 8] = [
    "FILE:LINE: KEY: MESSAGE",
    "LimitNOFILE",
    "CAP_NET_BIND_SERVICE",
    "doveadm sync",
    "postqueue -f",
    "ss -ltnp",
    "this type",
    "end=\"tls_too_old\"",
];

/// What stands between two marks on one line, one after the other.
fn between(text: &str, mark: char) -> Vec<&str> {
    let lines = text.lines();
    lines
        .flat_map(|line| line.split(mark).skip(1).step_by(2))
        .collect()
}

#[test]
fn what_the_page_on_troubles_quotes_is_said_by_the_programs_like_that() {
    let page = read("docs/troubleshooting.md");
    let without_code = |line: &str| line.split('`').step_by(2).collect::<String>();
    let plain: Vec<_> = page.lines().map(without_code).collect();
    let said = spoken();
    let missing: Vec<_> = between(&plain.join("\n"), '"')
        .into_iter()
        .filter(|quote| !said.contains(*quote))
        .map(str::to_owned)
        .collect();
    assert_eq!(missing, [] as [&str; 0]);
}

/// All text of the programs, and the headings of other pages.
fn spoken() -> String {
    let mut said = String::new();
    for folder in [
        "dataplane/src",
        "dataplane/wire/src",
        "controlplane",
        "proto",
    ] {
        for file in files(&repository().join(folder), "rs") {
            said += &fs::read_to_string(file).unwrap();
        }
    }
    for page in pages() {
        let text = fs::read_to_string(page).unwrap();
        let headings = text
            .lines()
            .filter(|it| it.starts_with('#') || it.starts_with("**"));
        said.extend(headings.map(|it| format!("{it}\n")));
    }
    said
}

#[test]
fn what_the_page_on_troubles_names_is_a_metric_an_outcome_an_error_a_key_or_a_command() {
    let page = read("docs/troubleshooting.md");
    let words: String = [
        "docs/metrics.md",
        "docs/probe.md",
        "docs/errors.md",
        "docs/cli.md",
        "docs/configuration/dataplane.md",
        "docs/configuration/controlplane.md",
        "docs/configuration/routing.md",
        "docs/inbound-mail.md",
        "docs/runbook.md",
        "proto/ferrypost/v1/migration.proto",
        "proto/ferrypost/v1/routing_config.proto",
    ]
    .iter()
    .map(|file| read(file))
    .collect();
    let known: BTreeSet<&str> = words
        .split(|it: char| !it.is_ascii_alphanumeric() && !"_".contains(it))
        .collect();
    let reasons: BTreeSet<&str> = known
        .iter()
        .filter_map(|it| it.strip_prefix("BLOCKER_REASON_"))
        .collect();
    let mut strange = Vec::new();
    for code in between(&page, '`') {
        let is_known = OTHERS.contains(&code)
            || code
                .split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
                .filter(|it| it.len() > 1)
                .all(|it| known.contains(it) || reasons.contains(it));
        if !is_known {
            strange.push(code);
        }
    }
    assert_eq!(strange, [] as [&str; 0]);
}
