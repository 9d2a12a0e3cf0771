//! The gRPC side: adapters from messages to use cases and back, and what stands before them.
//!
//! ```text
//!   connection ─▶ gate (who calls, may they) ─▶ adapter ─▶ service
//!                                                  └─▶ status (refusal ─▶ code and details)
//! ```

pub(crate) mod auth;
pub(crate) mod gate;
pub(crate) mod health;
pub(crate) mod migration;
mod page;
pub(crate) mod placement;
pub(crate) mod routing;
pub(crate) mod routing_config;
pub(crate) mod server;
pub(crate) mod stats;
mod status;

use std::time::Duration;

use ferrypost_proto::TraceParent;
use opentelemetry::propagation::Extractor;
use tonic::Request;
use tonic::metadata::{KeyRef, MetadataMap};

use self::auth::Caller;
use crate::refusal::{Answer, Refusal};
use crate::service::migration::Patience;

/// Who calls, for the record. The gate has put it there.
fn caller<T>(request: &Request<T>) -> String {
    request
        .extensions()
        .get::<Caller>()
        .map_or_else(String::new, |caller| (*caller.name).to_owned())
}

/// The trace that the caller says its call belongs to.
fn trace_of<T>(request: &Request<T>) -> Option<TraceParent> {
    TraceParent::extract(&Metadata(request.metadata()))
}

/// A call's metadata, as whoever reads a trace's context looks at them. What is no text brings nothing.
struct Metadata<'a>(&'a MetadataMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        let texts = self.0.keys().filter_map(|key| match key {
            KeyRef::Ascii(key) => Some(key.as_str()),
            KeyRef::Binary(_) => None,
        });
        texts.collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let all = self.0.get_all(key).iter();
        all.map(|value| value.to_str().ok()).collect()
    }
}

/// How long a caller waits: unset means until the outcome is known.
fn patience(wait: Option<prost_types::Duration>) -> Answer<Patience> {
    let Some(wait) = wait else {
        return Ok(Patience::Unlimited);
    };
    Duration::try_from(wait)
        .map(Patience::Limited)
        .map_err(|_| Refusal::invalid("wait", "must be a duration of zero or more"))
}
