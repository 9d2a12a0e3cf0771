//! Where `tests/tools/install` puts what Debian does not have.

use std::io;
use std::path::{Path, PathBuf};

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies inside the repository")
}

/// A program from `target/tools/bin`, or from `TOOLS_DIR` when that is set.
///
/// # Errors
/// `NotFound`, naming the script that installs it.
pub fn tool(name: &str) -> io::Result<PathBuf> {
    let tools = std::env::var_os("TOOLS_DIR")
        .map_or_else(|| repository().join("target/tools"), PathBuf::from);
    let program = tools.join("bin").join(name);
    if program.is_file() {
        Ok(program)
    } else {
        let message = format!(
            "{} is not there; run tests/tools/install test",
            program.display()
        );
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }
}
