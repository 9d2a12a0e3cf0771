//! How real logins have fared at each server, for `/stats`. Nothing is decided by it: a client could make any number of
//! logins fail ([`breaker`](super::breaker) counts clients).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ferrypost_proto::DestinationId;
use ferrypost_wire::ProtocolKind;
use tokio::time::Instant;

use super::{Target, on_the_wire};

/// The latest logins at every destination, for each protocol. Cheap to clone; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Logins(Arc<Mutex<BTreeMap<Target, Latest>>>);

/// The latest logins at one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latest {
    /// When it last accepted one.
    pub accepted: Option<Instant>,
    /// When one last failed by its fault: it was not reached, gave no verdict, or refused for a reason of its
    /// own. A wrong password is not its fault.
    pub failed: Option<Instant>,
}

impl Logins {
    /// The destination has accepted a login now.
    pub(crate) fn accepted(&self, destination: &DestinationId, protocol: ProtocolKind) {
        self.note(destination, protocol, |latest, now| {
            latest.accepted = Some(now);
        });
    }

    /// A login has failed by its fault now.
    pub(crate) fn failed(&self, destination: &DestinationId, protocol: ProtocolKind) {
        self.note(destination, protocol, |latest, now| {
            latest.failed = Some(now);
        });
    }

    /// The latest logins at a destination.
    pub fn latest(&self, target: &Target) -> Latest {
        self.lock().get(target).copied().unwrap_or_default()
    }

    fn note(
        &self,
        destination: &DestinationId,
        protocol: ProtocolKind,
        note: impl FnOnce(&mut Latest, Instant),
    ) {
        let target = Target {
            destination: destination.clone(),
            protocol: on_the_wire(protocol),
        };
        note(self.lock().entry(target).or_default(), Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Target, Latest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
