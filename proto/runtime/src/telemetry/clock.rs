//! Times as OTLP writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, for whoever looks at it.
#[expect(
    clippy::disallowed_methods,
    reason = "a timestamp for people; nothing is decided by it"
)]
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, nanos)
}

/// As they are written.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
