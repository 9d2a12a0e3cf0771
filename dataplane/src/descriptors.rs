//! File descriptors of the process: every session needs two.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are needed beside the sessions': listeners, the control connection, probes, the
/// admin endpoint, standard streams.
const OTHERS: u64 = 256;

/// Allows the process as many open files as the system lets it, and says if that is less than
/// `connections` clients need. (The usual soft limit of 1024 is there for programs that use `select`.)
pub fn allow_for(connections: usize) {
    let needed = (connections as u64)
        .saturating_mul(2)
        .saturating_add(OTHERS);
    let allowed = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: allowed.maximum,
        maximum: allowed.maximum,
    };
    let raised = setrlimit(Resource::Nofile, raised).map_or(allowed.current, |()| allowed.maximum);
    // `None`: no limit.
    if let Some(raised) = raised.filter(|&raised| raised < needed) {
        tracing::warn!(
            allowed = raised,
            needed,
            "fewer open files are allowed than limits.connections.total clients need"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_allows_is_taken() {
        allow_for(10);
        let allowed = getrlimit(Resource::Nofile);
        assert_eq!(allowed.current, allowed.maximum);
    }
}
