//! The program itself, where no control plane is needed. That it is a test of this package has it built for the tests
//! that drive it against real ones.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::process::{Command, Output};

fn ferrypost(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrypost"));
    command.args(arguments).env_remove("FERRYPOST_ENDPOINT");
    command.output().unwrap()
}

#[test]
fn help_and_the_version_are_answers_and_mistakes_are_not() {
    for asked in ["--help", "--version"] {
        let said = ferrypost(&[asked]);
        assert_eq!(said.status.code(), Some(0), "{asked}");
        assert!(!said.stdout.is_empty() && said.stderr.is_empty(), "{asked}");
    }
    for mistaken in [&["stat"][..], &["migrate", "alice"], &[]] {
        let said = ferrypost(mistaken);
        assert_eq!(said.status.code(), Some(64), "{mistaken:?}");
        assert!(
            said.stdout.is_empty() && !said.stderr.is_empty(),
            "{mistaken:?}"
        );
    }
}

#[test]
fn what_completes_a_command_line_names_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let said = ferrypost(&["completion", shell]);
        assert_eq!(said.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(said.stdout).unwrap();
        for command in ["migrate", "rollback", "check", "rewound"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
