//! The README shows what works: its configuration blocks are the example files, which both programs
//! accept as they stand once the files that they name exist.

use std::{fs, path::Path, process::Command};

use ferrypost_tests::{
    certs::Authority,
    recipes::Entrances,
    tools::repository,
    world::{CONTROL_PLANE, DATA_PLANE, program},
};

const EXAMPLES: &[&str] = &[
    "two-servers/routing.toml",
    "two-servers/controlplane.toml",
    "two-servers/gateway.toml",
    "dovecot-source.conf",
    "dovecot-target.conf",
];

#[test]
fn the_readme_shows_the_examples_word_for_word() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("the README");
    for example in EXAMPLES {
        let text = fs::read_to_string(repository().join("docs/examples").join(example))
            .expect("an example");
        assert!(
            readme.contains(text.trim_end()),
            "the README shows another {example}"
        );
    }
}

#[test]
fn the_readme_shows_the_commands_that_the_demo_types() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("the README");
    let at = |port: u16| format!("mail.example.org:{port}");
    let entrances = Entrances {
        imaps: at(993),
        pop3s: at(995),
        sieve: at(4190),
        submission: Some(at(587)),
        submissions: Some(at(465)),
        web: None,
    };
    for recipe in entrances.recipes("alice@example.org", "password") {
        assert!(
            readme.contains(&recipe.script),
            "the README shows another command for {}:\n{}",
            recipe.name,
            recipe.script
        );
    }
}

#[test]
fn both_programs_accept_the_examples() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    for file in ["routing.toml", "controlplane.toml", "gateway.toml"] {
        let example = repository().join("docs/examples/two-servers").join(file);
        fs::copy(example, here.join(file)).expect("copied");
    }
    write_named_files(here);
    for (name, file) in [
        (CONTROL_PLANE, "controlplane.toml"),
        (DATA_PLANE, "gateway.toml"),
    ] {
        let checked = Command::new(program(name).expect("it is built"))
            .args(["check", "--config"])
            .arg(here.join(file))
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{file}: {said}");
    }
}

/// What the examples name: certificates of one authority, and tokens.
pub(super) fn write_named_files(here: &Path) {
    let authority = Authority::new("readme").expect("an authority");
    let tls = here.join("tls");
    fs::create_dir(&tls).expect("a folder");
    fs::write(tls.join("ca.pem"), authority.pem()).expect("written");
    for name in ["mail", "controlplane", "gateway-1"] {
        let identity = authority.server().expect("an identity");
        identity.write(&tls, name).expect("written");
    }
    for token in ["operator.token", "admin.token"] {
        fs::write(here.join(token), "0123456789abcdef0123456789abcdef\n").expect("written");
    }
}
