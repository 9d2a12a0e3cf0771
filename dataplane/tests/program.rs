//! The program as an operator starts and stops it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// A directory with a configuration whose control plane is not there.
fn directory(instance: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path.join("cert.pem"), signed.cert.pem()).unwrap();
    fs::write(path.join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    fs::write(path.join("token"), "0123456789abcdef0123456789abcdef").unwrap();
    let text = format!(
        r#"
        instance = "{instance}"
        state_directory = "state"
        [control_plane]
        endpoints = ["http://127.0.0.1:1"]
        [[listeners]]
        name = "imaps"
        protocol = "imap"
        address = "127.0.0.1:0"
        tls = "implicit"
        certificates = [{{ cert_file = "cert.pem", key_file = "key.pem" }}]
        [admin]
        listen = "127.0.0.1:0"
        cert_file = "cert.pem"
        key_file = "key.pem"
        token_file = "token"
        [log]
        format = "json"
        "#
    );
    fs::write(path.join("dataplane.toml"), text).unwrap();
    directory
}

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrypost-dataplane"));
    command.current_dir(directory);
    command
}

fn output(directory: &Path, arguments: &[&str]) -> Output {
    program(directory).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running program that is killed if a test fails.
struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    /// What was read of the log.
    said: String,
}

impl Running {
    fn start(directory: &Path) -> Self {
        Self::spawn(program(directory).args(["--config", "dataplane.toml"]))
    }

    /// Starts it where the system allows so many open files, softly and hard.
    fn start_within(directory: &Path, soft: u64, hard: u64) -> Self {
        let limited = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
        let program = env!("CARGO_BIN_EXE_ferrypost-dataplane");
        Self::spawn(Command::new("sh").current_dir(directory).args([
            "-c",
            &limited,
            "sh",
            program,
            "--config",
            "dataplane.toml",
        ]))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self {
            child,
            log,
            said: String::new(),
        };
        running.until("\"started\"");
        running
    }

    /// Reads the log up to a line that contains `what`.
    fn until(&mut self, what: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            self.said.push_str(&line);
            if line.contains(what) {
                return line;
            }
            line.clear();
        }
        panic!("the log ended without {what}");
    }

    /// The soft and the hard limit of open files.
    fn open_files(&self) -> (String, String) {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words: Vec<_> = line.unwrap().split_whitespace().collect();
        (words[3].to_owned(), words[4].to_owned())
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless the test has failed.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn check_says_that_a_configuration_is_valid_and_starts_nothing() {
    let directory = directory("dp-1");
    let checked = output(directory.path(), &["check", "--config", "dataplane.toml"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let said = text(&checked.stdout);
    assert!(said.starts_with("dataplane.toml is valid\n"), "{said}");
    // And what of TLS is not spoken.
    for absent in ["CBC", "RSA key exchange", "finite-field"] {
        assert!(said.contains(absent), "{said}");
    }
    assert!(!directory.path().join("state").exists());
}

#[test]
fn check_says_everything_that_is_wrong_and_fails() {
    let directory = directory("dp 1");
    fs::remove_file(directory.path().join("token")).unwrap();
    let checked = output(directory.path(), &["check", "--config", "dataplane.toml"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(
        said.starts_with("dataplane.toml:2: instance: \"dp 1\": not a valid instance id\n"),
        "{said}"
    );
    assert!(
        said.contains("\ndataplane.toml:16: admin.token_file: cannot read "),
        "{said}"
    );
    let same = output(directory.path(), &["--config", "dataplane.toml"]);
    assert_eq!((same.status.code(), text(&same.stderr)), (Some(1), said));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let directory = directory("dp-1");
    let checked = output(directory.path(), &["check", "--config", "none.toml"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stderr).contains("none.toml: cannot be read: "));
}

#[test]
fn sigterm_ends_it_in_good_order() {
    let directory = directory("dp-1");
    let running = Running::start(directory.path());
    running.signal("-TERM");
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"stopped\""), "{log}");
}

#[test]
fn a_second_process_in_the_same_state_directory_is_refused() {
    let directory = directory("dp-1");
    let running = Running::start(directory.path());
    let second = output(directory.path(), &["--config", "dataplane.toml"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("state"),
        "{}",
        text(&second.stderr)
    );
    running.signal("-INT");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn it_takes_as_many_open_files_as_it_may_and_says_how_many_it_needs() {
    let directory = directory("dp-1");
    let running = Running::start_within(directory.path(), 256, 2256);
    assert_eq!(running.open_files(), ("2256".to_owned(), "2256".to_owned()));
    let said = &running.said;
    assert!(said.contains("\"level\":\"WARN\""), "{said}");
    assert!(
        said.contains("LimitNOFILE=40256") && said.contains("total = 1000"),
        "{said}"
    );
}

#[test]
fn nothing_is_said_of_open_files_when_there_are_enough() {
    let directory = directory("dp-1");
    let file = directory.path().join("dataplane.toml");
    let text = fs::read_to_string(&file).unwrap() + "\n[limits.connections]\ntotal = 1000\n";
    fs::write(&file, text).unwrap();
    let running = Running::start_within(directory.path(), 256, 2256);
    assert!(!running.said.contains("open files"), "{}", running.said);
}
