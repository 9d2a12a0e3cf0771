//! The one place that reads the wall clock: for timestamps that people look at, and for how long what has
//! ended is kept. It decides nothing else.

use std::{fmt, sync::Arc, time::SystemTime};

use prost_types::Timestamp;

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "the seam itself; see decision 0009"
)]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Where the time of day comes from, for those who decide by it. Clones share it.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl WallClock {
    /// A clock that shows what `now` says.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time of day, as it says.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// The system's.
impl Default for WallClock {
    fn default() -> Self {
        Self::new(now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").finish_non_exhaustive()
    }
}
