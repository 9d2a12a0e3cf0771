//! Where a state directory is: what a restart in place keeps, and a copy does not.
//!
//! The lock proves that the process before is dead only where that process would have met the same lock: under
//! the same kernel, on the same file. A container that restarts on its node finds both. So does a machine that
//! comes up again, under a new kernel, with the machine's own name; then nothing of the old one runs any more.
//! A copy has a file of its own, born when it was made. A volume that was attached elsewhere keeps the file, and
//! has neither the kernel nor the machine.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::UNIX_EPOCH,
};

use ferrypost_proto::routing::v1;
use rustix::fs::fstatfs;
use sha2::{Digest as _, Sha256};
use tracing::warn;

const KERNEL: &str = "/proc/sys/kernel/random/boot_id";
const MACHINE: &str = "/etc/machine-id";

/// File systems that other machines may have mounted too (statfs(2)): what a lock there says about them is up
/// to their server.
const SHARED: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB 2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
];

/// The place, as the control plane is told. Nothing of a machine's own names leaves it: what is told are
/// hashes.
pub(super) fn of(lock: &File, path: &Path) -> io::Result<v1::Place> {
    name_what_proves_nothing(lock, path)?;
    let file = born(lock)?;
    if file.is_empty() {
        warn!(path = %path.display(),
            "this file system does not say when a file was born, so a restart cannot be told from a copy: it \
             needs ExpelDataPlane each time");
    }
    Ok(v1::Place {
        kernel: identity(Path::new(KERNEL)),
        machine: identity(Path::new(MACHINE)),
        file,
    })
}

fn name_what_proves_nothing(lock: &File, path: &Path) -> io::Result<()> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the magic numbers have 32 bits, whatever the field's type"
    )]
    let kind = fstatfs(lock)?.f_type as u32;
    if let Some((_, name)) = SHARED.iter().find(|(magic, _)| *magic == kind) {
        warn!(path = %path.display(), file_system = name,
            "the state directory is on a file system that other machines may share: its lock proves nothing \
             about them; a successor on another machine needs ExpelDataPlane");
    }
    Ok(())
}

/// The lock file's number and its birth; empty where there is no birth.
fn born(lock: &File) -> io::Result<String> {
    let metadata = lock.metadata()?;
    let birth = metadata
        .created()
        .ok()
        .and_then(|birth| birth.duration_since(UNIX_EPOCH).ok())
        .filter(|birth| !birth.is_zero());
    Ok(birth.map_or_else(String::new, |birth| {
        hash(&format!("{} {}", metadata.ino(), birth.as_nanos()))
    }))
}

/// What a file says of the kernel or the machine; empty if it says nothing.
fn identity(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    // What systemd writes before a machine has its name.
    match text.trim() {
        "" | "uninitialized" => String::new(),
        text => hash(text),
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(format!("ferrypost state directory {text}"));
    let octets = digest.iter().take(16);
    let digits: Vec<_> = octets.map(|octet| format!("{octet:02x}")).collect();
    digits.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path) -> v1::Place {
        let path = directory.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        of(&lock, &path).unwrap()
    }

    #[test]
    fn a_restart_keeps_the_place_and_a_copy_has_another() {
        let original = tempfile::tempdir().unwrap();
        let first = place(original.path());
        assert!(!first.kernel.is_empty() && !first.file.is_empty());
        assert_eq!(place(original.path()), first);
        let copy = tempfile::tempdir().unwrap();
        let done = std::process::Command::new("cp")
            .args(["-a", "--"])
            .args([original.path().join("lock"), copy.path().to_owned()])
            .status()
            .unwrap();
        assert!(done.success());
        let copied = place(copy.path());
        assert_ne!(copied.file, first.file);
        assert_eq!(
            (copied.kernel, copied.machine),
            (first.kernel, first.machine)
        );
    }
}
