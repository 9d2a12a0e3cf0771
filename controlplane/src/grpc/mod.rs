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
use tonic::Request;

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

/// The trace that the caller says its call belongs to, as it says it. Two say nothing (W3C Trace Context
/// §4.3).
fn traceparent<T>(request: &Request<T>) -> Option<&str> {
    let mut all = request.metadata().get_all(TraceParent::HEADER).iter();
    match (all.next(), all.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
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
