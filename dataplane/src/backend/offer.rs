//! What clients are offered before login: what *every* destination that they may be sent to can do
//! since which one it will be is not known yet.
//!
//! | destination | what counts |
//! |---|---|
//! | its endpoint overrides the list | that list |
//! | it answers, or has answered | what it said last |
//! | it never answered, and somebody may be sent there | the least that a login needs |
//! | it never answered, and nobody can be sent there yet | nothing: it takes nothing away |

use std::sync::Arc;

use ferrypost_proto::{DestinationId, Unlisted};
use ferrypost_routing::RoutingTable;
use ferrypost_wire::{Capabilities, LineProtocol, Offer, ProtocolKind, imap::Imap};
use tokio::sync::watch;

use super::{Backends, Target, on_the_wire};
use crate::tables::Tables;

/// What a destination is taken to offer that somebody may be sent to and that never answered: what a
/// login needs, and not a word more.
const LEAST: &[u8] = b"IMAP4rev1 AUTH=PLAIN";

/// What is offered on the listeners of one protocol. Cheap to clone; clones share one state.
#[derive(Debug, Clone)]
pub struct Offers {
    protocol: ProtocolKind,
    current: watch::Sender<Arc<Offer>>,
}

impl Offers {
    /// Our own minimum, until something is known.
    pub fn new(protocol: ProtocolKind) -> Self {
        Self {
            protocol,
            current: watch::Sender::new(Arc::new(offer(protocol, &[]))),
        }
    }

    /// What is offered now.
    pub fn current(&self) -> Arc<Offer> {
        Arc::clone(&self.current.borrow())
    }

    /// Follows it.
    pub fn watch(&self) -> watch::Receiver<Arc<Offer>> {
        self.current.subscribe()
    }

    /// Makes the offer anew whenever what it rests on changes. Never returns.
    pub async fn keep_fresh(self, group: String, backends: Backends, tables: Tables) {
        let mut first = true;
        let mut verdicts = backends.watch();
        let mut table = tables.watch();
        loop {
            verdicts.mark_unchanged();
            table.mark_unchanged();
            if let Some(table) = tables.current() {
                let lists = lists(self.protocol, &group, &backends, &table);
                self.publish(offer(self.protocol, &lists), first);
                first = false;
            }
            // Neither sender is dropped while we hold its owner.
            tokio::select! {
                _ = verdicts.changed() => {}
                _ = table.changed() => {}
            }
        }
    }

    /// The first offer replaces a guess; only what shrinks after it is drift.
    fn publish(&self, offer: Offer, first: bool) {
        self.current.send_if_modified(|current| {
            if **current == offer {
                return false;
            }
            let now = offer.capabilities();
            let gone = current.capabilities().filtered(|word| !now.has(word));
            let protocol = self.protocol.as_str();
            if first {
                tracing::info!(protocol, offer = %now, "this is offered before login");
            } else if gone.is_empty() {
                tracing::info!(protocol, offer = %now, "what is offered before login has grown");
            } else {
                tracing::warn!(protocol, offer = %now, %gone, "what is offered before login has shrunk");
            }
            *current = Arc::new(offer);
            true
        });
    }
}

fn offer(protocol: ProtocolKind, destinations: &[Capabilities]) -> Offer {
    match protocol {
        ProtocolKind::Imap => Imap::offer(destinations),
    }
}

/// The lists that count.
fn lists(
    protocol: ProtocolKind,
    group: &str,
    backends: &Backends,
    table: &RoutingTable,
) -> Vec<Capabilities> {
    let protocol = on_the_wire(protocol);
    let config = table.config();
    let mut lists = Vec::new();
    for (id, destination) in config.destinations() {
        // Without an endpoint nobody is relayed there, whatever it offers.
        let Some(endpoint) = destination.endpoint(protocol, group) else {
            continue;
        };
        if let Some(words) = &endpoint.capabilities {
            lists.push(Capabilities::parse(words.join(" ").as_bytes()));
            continue;
        }
        let target = Target {
            destination: id.clone(),
            protocol,
        };
        let said = backends
            .verdict(&target)
            .and_then(|verdict| verdict.capabilities);
        if let Some(said) = said {
            lists.push(said);
        } else if may_be_sent_to(id, table) {
            lists.push(Capabilities::parse(LEAST));
        }
    }
    lists
}

/// Whether somebody may be sent to a destination: by a rule, or by a record.
fn may_be_sent_to(id: &DestinationId, table: &RoutingTable) -> bool {
    let config = table.config();
    let by_domain = |unlisted: &Unlisted| *unlisted == Unlisted::Destination(id.clone());
    config.default_destination() == id
        || config.domains().values().any(by_domain)
        || table.has_accounts_at(id)
}
