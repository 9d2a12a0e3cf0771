//! A process of its own: what is forbidden stays forbidden.

use ferrypost_runtime::core_dump;
use rustix::process::{DumpableBehavior, dumpable_behavior};

#[test]
fn a_process_that_forbids_core_dumps_leaves_none() {
    assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
    core_dump::forbid().expect("forbidden");
    assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
}
