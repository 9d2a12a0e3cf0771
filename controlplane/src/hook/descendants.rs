//! Ends whatever is left below a guard.
//!
//! A guard is a *subreaper*: what loses its parent anywhere below becomes its own child. So there is no need to
//! know the tree, and no process id is killed that could be another process by now: a child that is not waited
//! for keeps its id.

use std::{ffi::OsStr, fs, io, path::Path, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid},
};
use tokio::time;

/// Between two looks: the orphans of those that were killed come to us meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// Kills the children of this process, and theirs as they become its own, until there is none. However long the
/// kernel takes to end one.
///
/// # Errors
/// What is left are processes that this one may not kill, or cannot see.
pub(super) async fn end_all() -> io::Result<()> {
    while any_left()? {
        let left = children()?;
        let may_end = |child: &Pid| kill_process(*child, Signal::KILL).is_ok();
        if left.iter().filter(|child| may_end(child)).count() == 0 {
            let left: Vec<_> = left.iter().map(|child| child.as_raw_pid()).collect();
            return Err(io::Error::other(format!(
                "what the hook has started is not ours to end, processes {left:?}"
            )));
        }
        time::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether this process has a child that still runs; those that have ended are read.
fn any_left() -> io::Result<bool> {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(true),
            Err(Errno::CHILD) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The children of this process. Not every kernel keeps a list of them, so every process is asked for its parent.
fn children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = read_pid(&entry?.file_name());
        children.extend(process.filter(|pid| parent_of(*pid) == Some(getpid())));
    }
    Ok(children)
}

fn read_pid(text: &OsStr) -> Option<Pid> {
    Pid::from_raw(text.to_str()?.parse().ok()?)
}

/// The second field after the name, which is in brackets and may hold any byte.
fn parent_of(pid: Pid) -> Option<Pid> {
    let file = Path::new("/proc").join(pid.as_raw_pid().to_string());
    let stat = fs::read(file.join("stat")).ok()?;
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&stat[name_ends..]).ok()?;
    read_pid(OsStr::new(rest.split(' ').nth(2)?))
}
