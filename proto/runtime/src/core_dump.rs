//! No core dumps: what a process holds of passwords and keys must not end up in a file.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Set to `allow`, this environment variable leaves core dumps, and debuggers of the same user, allowed.
pub const VARIABLE: &str = "FERRYPOST_CORE_DUMPS";

/// Forbids core dumps of this process, and that other processes of the same user read its memory
/// (`PR_SET_DUMPABLE`), unless its environment allows them. Children begin anew.
///
/// # Errors
/// When the system does not take it.
pub fn forbid() -> std::io::Result<()> {
    if std::env::var_os(VARIABLE).is_some_and(|word| word == "allow") {
        return Ok(());
    }
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
