//! What a process has in memory.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::path::PathBuf;

/// What a process has, and the most that it has had since its peak was forgotten.
pub(super) struct Memory(PathBuf);

impl Memory {
    pub(super) fn of(id: u32) -> Self {
        Self(format!("/proc/{id}").into())
    }

    pub(super) fn forget_peak(&self) {
        // proc_pid_clear_refs(5)
        fs::write(self.0.join("clear_refs"), "5").unwrap();
    }

    fn octets(&self, field: &str) -> u64 {
        let status = fs::read_to_string(self.0.join("status")).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(field)).unwrap();
        let kib = line.trim_start_matches(':').trim().strip_suffix(" kB");
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(super) fn now(&self) -> u64 {
        self.octets("VmRSS")
    }

    pub(super) fn peak(&self) -> u64 {
        self.octets("VmHWM")
    }
}
