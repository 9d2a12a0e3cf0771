//! The admin endpoint: what an operator's monitoring sees of this replica. How it is served is
//! [`ferrypost_runtime::admin`]'s; what it says are the facts of `GetStats`.
//!
//! ```text
//!   door     its sockets and its TLS
//!   levels   the gauges of `/metrics`
//!   (here)   readiness and the document of `/stats`
//! ```

mod door;
pub(crate) mod levels;

use std::sync::Arc;

use ferrypost_proto::ReplicaId;
use ferrypost_runtime::{
    admin::Source,
    metrics::{Metrics, Reading},
};
use serde_json::json;

pub(crate) use door::AdminDoor;

use crate::{
    mirror::{Mirror, Standing},
    service::stats::StatsUseCases,
};

/// Where the facts come from.
pub(crate) struct Facts {
    /// This replica.
    pub(crate) replica: ReplicaId,
    /// What the store holds.
    pub(crate) mirror: Mirror,
    /// What data planes say.
    pub(crate) stats: StatsUseCases,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

impl Source for Facts {
    fn ready(&self) -> bool {
        *self.mirror.standing().borrow() == Standing::Following
    }

    /// Names of fields are part of the interface: they are only ever added.
    fn stats(&self) -> serde_json::Value {
        let state = self.mirror.read();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "replica": self.replica.as_str(),
            "installation": state.installation().map(ToString::to_string),
            "ready": self.ready(),
            "leader": state.leader().map(|(replica, _)| replica.as_str()),
            "revision": { "base": state.base(), "store": state.revision() },
            "rewound": state.rewound().is_some(),
            "accounts": state.account_count(),
            "migrations": { "unfinished": state.moves().len() },
            "data_planes": { "registered": state.registrations().len() },
        })
    }

    fn metrics(&self) -> Vec<Reading> {
        self.metrics.read(&self.levels())
    }
}
