//! What mail systems are offered, which ask once and send for every server: what all of them can do, as far as they have
//! been asked.

use std::sync::Arc;

use ferrypost_proto::v1::Protocol;
use ferrypost_wire::{Keywords, lmtp::Offer};
use tokio::sync::watch;

use crate::{
    backend::{Backends, offer::counted},
    tables::Tables,
};

/// What is offered. Cheap to clone; clones share one state.
#[derive(Debug, Clone)]
pub struct Offers(watch::Sender<Arc<Offer>>);

impl Default for Offers {
    fn default() -> Self {
        Self::new()
    }
}

impl Offers {
    /// What we do ourselves, until something is known.
    pub fn new() -> Self {
        Self(watch::Sender::new(Arc::new(Offer::new(&[]))))
    }

    /// What is offered now.
    pub fn current(&self) -> Arc<Offer> {
        Arc::clone(&self.0.borrow())
    }

    /// Makes the offer anew whenever what it rests on changes. Never returns.
    pub async fn keep_fresh(
        self,
        protocol: Protocol,
        group: String,
        backends: Backends,
        tables: Tables,
    ) {
        let mut verdicts = backends.watch();
        let mut table = tables.watch();
        loop {
            verdicts.mark_unchanged();
            table.mark_unchanged();
            if let Some(table) = tables.current() {
                let counted = counted(protocol, &group, (&backends, &table), Keywords::default);
                let lists: Vec<_> = counted.into_iter().map(|(_, list)| list).collect();
                self.publish(protocol, Offer::new(&lists));
            }
            // Neither sender is dropped while we hold its owner.
            tokio::select! {
                _ = verdicts.changed() => {}
                _ = table.changed() => {}
            }
        }
    }

    fn publish(&self, protocol: Protocol, offer: Offer) {
        self.0.send_if_modified(|current| {
            if **current == offer {
                return false;
            }
            let protocol = protocol.word();
            tracing::info!(protocol, offer = %offer.items().join(" "), "this is offered to mail systems");
            *current = Arc::new(offer);
            true
        });
    }
}
