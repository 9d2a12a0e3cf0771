//! The feed: the data plane's end of the stream. Connects, syncs, stays live, resyncs; publishes every
//! table and reports what became of it. Its rules are the documentation of [`ferrypost_proto`].

mod seam;
mod status;

pub use seam::{BoxFuture, Connect, ConnectError, FeedTiming, HealthSource, Identity, Prober};
pub use status::{Connection, FeedEnd, FeedStatus, Refused};
