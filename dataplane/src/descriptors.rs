//! File descriptors of the process: every session needs two, and whoever asks for the way of a recipient one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are needed beside the sessions': listeners, the control connection, probes, the
/// admin endpoint, standard streams.
const OTHERS: u64 = 256;

/// Allows the process as many open files as the system lets it (the usual soft limit of 1024 is there for
/// programs that use `select`), and says what to configure if that is less than so many clients and connections of
/// look-ups need.
pub fn allow_for(connections: usize, lookups: usize) {
    let connections = connections as u64;
    let others = OTHERS + lookups as u64;
    let allowed = raise();
    let needed = needed_for(connections, others);
    // `None`: no limit.
    if let Some(allowed) = allowed.filter(|&allowed| allowed < needed) {
        let enough_for = allowed.saturating_sub(others) / 2;
        tracing::warn!(
            allowed,
            needed,
            enough_for,
            "fewer open files are allowed than limits.connections.total = {connections} needs, and {lookups} \
             connections of look-ups: let the system allow {needed} (systemd: LimitNOFILE={needed}), or set \
             total = {enough_for}"
        );
    }
}

/// Descriptors that so many clients need beside others.
const fn needed_for(connections: u64, others: u64) -> u64 {
    connections.saturating_mul(2).saturating_add(others)
}

/// Raises the soft limit to the hard limit and returns what is allowed then.
fn raise() -> Option<u64> {
    let allowed = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: allowed.maximum,
        maximum: allowed.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_or(allowed.current, |()| allowed.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_needs_what_the_manual_says() {
        let total = crate::limits::Limits::default().connections.total;
        assert_eq!(needed_for(total as u64, OTHERS), 40_256);
    }
}
