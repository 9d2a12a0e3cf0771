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
    (0x6b41_4653, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// The place, as the control plane is told. Nothing of a machine's own names leaves it: what is told are
/// hashes. What proves less than an operator may think is named in the log.
pub(super) fn of(lock: &File, path: &Path) -> io::Result<v1::Place> {
    let shared = shared(kind(lock)?);
    let place = place(lock, shared)?;
    if let Some(file_system) = shared {
        warn!(path = %path.display(), file_system,
            "the state directory is on a file system that other machines may share: its lock proves nothing \
             about them, so a successor after a reboot or on another machine needs ExpelDataPlane");
    }
    if place.file.is_empty() {
        warn!(path = %path.display(),
            "this file system does not say when a file was born, so a restart cannot be told from a copy: it \
             needs ExpelDataPlane each time");
    }
    Ok(place)
}

fn place(lock: &File, shared: Option<&str>) -> io::Result<v1::Place> {
    // Two machines may have one name, as those do that were made from one image. Only where the disk is this
    // machine's own does the file tell them apart.
    let machine = match shared {
        None => identity(Path::new(MACHINE)),
        Some(_) => String::new(),
    };
    Ok(v1::Place {
        kernel: identity(Path::new(KERNEL)),
        machine,
        file: born(lock)?,
    })
}

/// The name of a file system that other machines may share.
fn shared(kind: u32) -> Option<&'static str> {
    let known = SHARED.iter().find(|(magic, _)| *magic == kind);
    known.map(|(_, name)| *name)
}

fn kind(lock: &File) -> io::Result<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the magic numbers have 32 bits, whatever the field's type"
    )]
    let kind = fstatfs(lock)?.f_type as u32;
    Ok(kind)
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
    use std::path::PathBuf;

    use super::*;

    fn open(directory: &Path) -> (File, PathBuf) {
        let path = directory.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        (lock, path)
    }

    fn place_of(directory: &Path) -> v1::Place {
        let (lock, path) = open(directory);
        of(&lock, &path).unwrap()
    }

    /// Whether a lock on them holds against another machine is up to their server, and two machines may have
    /// one name. The kernel is nobody else's.
    #[test]
    fn on_a_file_system_that_machines_share_the_machine_proves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (lock, _) = open(directory.path());
        let own = place(&lock, None).unwrap();
        for (kind, name) in [
            (0x6969, "NFS"),
            (0x6573_5546, "FUSE"),
            (0xff53_4d42, "CIFS"),
        ] {
            assert_eq!(shared(kind), Some(name));
            let there = place(&lock, shared(kind)).unwrap();
            assert_eq!(there.machine, "", "{name}");
            assert_eq!(
                (there.kernel, there.file),
                (own.kernel.clone(), own.file.clone())
            );
        }
        let (ext4, xfs, tmpfs) = (0xef53, 0x5846_5342, 0x0102_1994);
        for kind in [ext4, xfs, tmpfs] {
            assert_eq!(shared(kind), None, "{kind:#x}");
        }
    }

    #[test]
    fn a_restart_keeps_the_place_and_a_copy_has_another() {
        let original = tempfile::tempdir().unwrap();
        let first = place_of(original.path());
        assert!(!first.kernel.is_empty() && !first.file.is_empty());
        assert_eq!(place_of(original.path()), first);
        let copy = tempfile::tempdir().unwrap();
        let done = std::process::Command::new("cp")
            .args(["-a", "--"])
            .args([original.path().join("lock"), copy.path().to_owned()])
            .status()
            .unwrap();
        assert!(done.success());
        let copied = place_of(copy.path());
        assert_ne!(copied.file, first.file);
        assert_eq!(
            (copied.kernel, copied.machine),
            (first.kernel, first.machine)
        );
    }
}
