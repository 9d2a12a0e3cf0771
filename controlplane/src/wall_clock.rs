//! The one place that reads the wall clock: for timestamps that people look at. It decides nothing.

use std::time::SystemTime;

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "the seam itself; see decision 0009"
)]
pub fn now() -> prost_types::Timestamp {
    SystemTime::now().into()
}
