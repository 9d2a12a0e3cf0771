//! What was released is not taken back: the protos against those of the last release.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use ferrypost_tests::shell::shell;
use ferrypost_tests::tools::{repository, tool};

/// What is compared with the last release: of the tree, or of a copy of it with something changed.
fn compare(protos: &Path) -> (bool, String) {
    let mut buf = Command::new(tool("buf").unwrap());
    let released = repository().join("proto/released.binpb");
    let compared = buf.arg("breaking").arg(protos).arg("--against");
    let compared = compared.arg(released).output().unwrap();
    let said = [compared.stdout, compared.stderr].concat();
    (compared.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn this_tree_keeps_what_was_released() {
    let (kept, said) = compare(&repository().join("proto"));
    assert!(kept, "{said}");
}

#[tokio::test]
async fn what_takes_something_back_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let protos = repository().join("proto");
    for (file, released, changed, said) in [
        (
            "v1/migration.proto",
            "  string account = 1;",
            "",
            "Previously present field \"1\" with name \"account\"",
        ),
        (
            "v1/migration.proto",
            "  string destination = 3;",
            "  string destination = 103;",
            "Previously present field \"3\" with name \"destination\"",
        ),
        (
            "v1/migration.proto",
            "  bool validate_only =",
            "  string validate_only =",
            "changed type from \"bool\" to \"string\"",
        ),
        (
            "v1/migration.proto",
            "  rpc AbortMigration(AbortMigrationRequest) returns (AbortMigrationResponse);",
            "",
            "Previously present RPC \"AbortMigration\"",
        ),
        (
            "store/v1/store.proto",
            "message AccountRecord {",
            "message Renamed {",
            "Previously present message \"AccountRecord\"",
        ),
    ] {
        let copy = folder.path().join("proto");
        let clean = format!(
            "rm -rf '{0}'; cp -r '{1}' '{0}'",
            copy.display(),
            protos.display()
        );
        shell(&clean).await.unwrap();
        let path = copy.join("ferrypost").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(released), "{file} has no {released:?}");
        fs::write(&path, text.replacen(released, changed, 1)).unwrap();
        let (kept, found) = compare(&copy);
        assert!(!kept && found.contains(said), "{changed:?}: {found}");
    }
}
