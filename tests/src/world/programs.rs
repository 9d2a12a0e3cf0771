//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

use super::WorldError;

/// The data plane's program.
pub const DATA_PLANE: &str = "ferrypost-dataplane";

/// The control plane's program.
pub const CONTROL_PLANE: &str = "ferrypost-controlplane";

/// The command line's program.
pub const COMMAND_LINE: &str = "ferrypost";

/// Finds a program of ours: in `FERRYPOST_BIN_DIR`, else beside the running executable, which is where
/// cargo puts what was built with the same profile.
///
/// # Errors
/// [`WorldError::NotBuilt`] when it is not there.
pub fn program(name: &str) -> Result<PathBuf, WorldError> {
    let folder = match env::var_os("FERRYPOST_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => profile_folder(&env::current_exe()?),
    };
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(WorldError::NotBuilt {
        command: build_command(&folder, name),
        path,
    })
}

/// Test programs lie one level deeper than others, in `deps`.
fn profile_folder(executable: &Path) -> PathBuf {
    let folder = executable.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_owned()
    } else {
        folder.to_owned()
    }
}

/// The demo and the benchmark run what is released; tests need the failpoints and the defects as well.
fn build_command(folder: &Path, program: &str) -> String {
    let package = match program {
        COMMAND_LINE => "ferrypost-cli",
        program => program,
    };
    if folder.ends_with("release") {
        format!("cargo build --release -p {package}")
    } else if folder.ends_with("quick") {
        format!("cargo build --profile quick -p {package}")
    } else {
        "cargo test --workspace --all-features --no-run".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_looks_beside_the_other_programs() {
        let of_test = profile_folder(Path::new("/x/target/debug/deps/all-0123"));
        let of_demo = profile_folder(Path::new("/x/target/quick/demo"));
        let of_bench = profile_folder(Path::new("/x/target/release/bench"));
        assert_eq!(of_test, Path::new("/x/target/debug"));
        assert_eq!(of_demo, Path::new("/x/target/quick"));
        assert!(build_command(&of_test, DATA_PLANE).contains("--all-features"));
        assert!(build_command(&of_demo, DATA_PLANE).contains("--profile quick"));
        assert!(build_command(&of_bench, DATA_PLANE).contains("--release"));
    }
}
