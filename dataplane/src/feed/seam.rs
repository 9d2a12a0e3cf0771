//! What the feed needs of the rest of the data plane.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use ferrypost_proto::{
    BootId, DestinationId, InstanceId, routing::v1::EndpointHealth, v1::DataPlaneLimits,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::backend::{self, Backends};

/// A future behind a pointer: what a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who this data plane is, as `Hello` says it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub instance: InstanceId,
    /// New at every start of the process.
    pub boot: BootId,
    /// Chooses endpoints in the routing configuration. May be empty.
    pub group: String,
    /// For people.
    pub version: String,
    /// For people: the address of the admin endpoint.
    pub admin_address: String,
    /// How long it holds logins and closes sessions: moves that do not fit wait.
    pub limits: DataPlaneLimits,
}

/// Opens a connection to some replica of the control plane. Called once an attempt; it chooses the
/// address and does TLS, and must end within a deadline of its own.
pub trait Connect: Send + Sync + 'static {
    /// Connects.
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ConnectError>>;
}

/// No connection: for the log and `/stats`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub String);

/// What the data plane knows about the servers' endpoints.
pub trait HealthSource: Send + Sync + 'static {
    /// The latest verdict of the probe on every endpoint. A change is sent to the control plane at once.
    fn verdicts(&self) -> watch::Receiver<Arc<[EndpointHealth]>>;
}

impl HealthSource for Backends {
    fn verdicts(&self) -> watch::Receiver<Arc<[EndpointHealth]>> {
        self.watch_endpoints()
    }
}

/// Probes on demand.
pub trait Prober: Send + Sync + 'static {
    /// Probes the endpoints of one destination, or of all, now. Must end within a deadline of its own.
    fn probe(&self, destination: Option<DestinationId>) -> BoxFuture<'static, Vec<EndpointHealth>>;
}

impl Prober for Arc<backend::health::Prober> {
    fn probe(&self, destination: Option<DestinationId>) -> BoxFuture<'static, Vec<EndpointHealth>> {
        let prober = Self::clone(self);
        Box::pin(async move { backend::health::Prober::probe(&prober, destination.as_ref()).await })
    }
}

/// Pauses and limits of the feed.
#[derive(Debug, Clone, Copy)]
pub struct FeedTiming {
    /// First pause between attempts; doubles, with jitter.
    pub first_pause: Duration,
    /// Longest pause between attempts.
    pub longest_pause: Duration,
    /// Pause after a refusal that only an operator can change, for as long as there is no table to serve
    /// from: an instance id in use, another installation, another contract.
    pub refused_pause: Duration,
    /// From the stream's opening to `Welcome`.
    pub welcome_within: Duration,
}

impl Default for FeedTiming {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            refused_pause: Duration::from_secs(10),
            welcome_within: Duration::from_secs(10),
        }
    }
}
