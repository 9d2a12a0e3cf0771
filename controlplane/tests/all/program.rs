//! The program as an operator starts, asks and stops it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const ROUTING: &str = r#"
default_destination = "source"
names = { bare_names = "refuse" }
domains = [{ name = "example.org" }]
[[destinations]]
id = "source"
endpoints = [{ protocol = "imap", host = "h", port = 993, tls = "implicit", announcement = "none" }]
"#;

const LISTEN: &str =
    "[operators]\nlisten = \"127.0.0.1:0\"\n[data_planes]\nlisten = \"127.0.0.1:0\"\n";

fn program(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrypost-controlplane"));
    command.current_dir(directory).args(arguments);
    command.stdin(Stdio::null());
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    program(directory, arguments).output().expect("started")
}

fn folder(config: &str, routing: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("cp.toml"), config).expect("written");
    std::fs::write(directory.path().join("routing.toml"), routing).expect("written");
    directory
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_says_valid_or_everything_that_is_not() {
    let directory = folder(LISTEN, ROUTING);
    let good = run(directory.path(), &["check", "--config", "cp.toml"]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    let said = text(&good.stdout);
    let [config, routing, not_checked] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}");
    };
    assert_eq!((config, routing), ("cp.toml: valid", "routing.toml: valid"));
    assert!(not_checked.starts_with("not checked: "), "{said}");
    // Nothing was started.
    assert!(!directory.path().join("ferrypost.redb").exists());

    let directory = folder("oops = 1\n[log]\nformat = \"xml\"\n", ROUTING);
    let bad = run(directory.path(), &["check", "--config", "cp.toml"]);
    assert_eq!(bad.status.code(), Some(1));
    let said = text(&bad.stderr);
    assert!(said.contains("cp.toml:1: oops: unknown key"), "{said}");
    assert!(said.contains("cp.toml:3: log.format"), "{said}");

    let directory = folder(LISTEN, "default = 1\n");
    let bad = run(directory.path(), &["check", "--config", "cp.toml"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("routing.toml:1: default"));
}

#[test]
fn what_check_refuses_does_not_start() {
    let directory = folder(LISTEN, "default = 1\n");
    let refused = run(directory.path(), &["--config", "cp.toml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("routing.toml:1: default"));
    let missing = run(directory.path(), &["--config", "no.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("no.toml: cannot be read"));
    assert_eq!(run(directory.path(), &[]).status.code(), Some(2));
}

/// Starts the program and reads its log up to the line that has `words`.
fn started(directory: &Path, words: &str) -> (Child, Vec<String>) {
    let mut command = program(directory, &["--config", "cp.toml"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
    let log = BufReader::new(child.stderr.take().expect("a log"));
    let mut lines = Vec::new();
    for line in log.lines() {
        lines.push(line.expect("a line"));
        if lines.last().is_some_and(|line| line.contains(words)) {
            break;
        }
    }
    (child, lines)
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
}

#[test]
fn it_starts_stops_on_sigterm_and_starts_again_on_the_same_store() {
    let directory = folder(LISTEN, ROUTING);
    let mut installation = None;
    for _ in 0..2 {
        let (mut child, lines) = started(directory.path(), "the routing file is in force");
        installation = installation.or_else(|| {
            let line = lines.iter().find(|line| line.contains("installation="))?;
            let (_, id) = line.split_once("installation=")?;
            Some(id[..26].to_owned())
        });
        terminate(&child);
        assert_eq!(child.wait().expect("ended").code(), Some(0));
    }
    let installation = installation.expect("the first start says its installation");

    // A pin holds it to its store.
    let pinned = |id: &str| format!("installation = \"{id}\"\n{LISTEN}");
    std::fs::write(directory.path().join("cp.toml"), pinned(&installation)).expect("written");
    let (mut child, _) = started(directory.path(), "the routing file is in force");
    terminate(&child);
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    std::fs::write(directory.path().join("cp.toml"), pinned(&"0".repeat(26))).expect("written");
    let refused = run(directory.path(), &["--config", "cp.toml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains(&installation));
}

#[test]
fn a_second_process_on_the_same_store_is_refused() {
    let directory = folder(LISTEN, ROUTING);
    let (mut child, _) = started(directory.path(), "the routing file is in force");
    let refused = run(directory.path(), &["--config", "cp.toml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("in use by another process"));
    terminate(&child);
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}
