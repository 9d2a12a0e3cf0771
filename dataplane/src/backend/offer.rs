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

use ferrypost_proto::{DestinationId, Endpoint, Unlisted};
use ferrypost_routing::RoutingTable;
use ferrypost_wire::{Capabilities as _, LineProtocol, Offer as _, Tokens};
use tokio::sync::watch;

use super::{Backends, Offered, Target, on_the_wire};
use crate::{tables::Tables, tokens::TokenOwner};

/// What is offered on the listeners of one protocol. Cheap to clone; clones share one state.
pub struct Offers<P: LineProtocol>(watch::Sender<Arc<P::Offer>>);

impl<P: LineProtocol> Clone for Offers<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: LineProtocol> Default for Offers<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: LineProtocol> Offers<P> {
    /// Our own minimum, until something is known.
    pub fn new() -> Self {
        let offer = P::offer(&[], Tokens::Unreadable);
        Self(watch::Sender::new(Arc::new(offer)))
    }

    /// What is offered now.
    pub fn current(&self) -> Arc<P::Offer> {
        Arc::clone(&self.0.borrow())
    }

    /// Follows it.
    pub fn watch(&self) -> watch::Receiver<Arc<P::Offer>> {
        self.0.subscribe()
    }

    /// Makes the offer anew whenever what it rests on changes; `tokens`: who tells whose they are.
    /// Never returns.
    pub async fn keep_fresh(
        self,
        group: String,
        backends: Backends,
        tables: Tables,
        tokens: Arc<dyn TokenOwner>,
    ) {
        let mut first = true;
        let mut verdicts = backends.watch();
        let mut table = tables.watch();
        loop {
            verdicts.mark_unchanged();
            table.mark_unchanged();
            if let Some(table) = tables.current() {
                self.renew(&group, &backends, &table, &*tokens, first);
                first = false;
            }
            // Neither sender is dropped while we hold its owner.
            tokio::select! {
                _ = verdicts.changed() => {}
                _ = table.changed() => {}
            }
        }
    }

    /// Makes the offer from what is known now.
    pub(crate) fn renew(
        &self,
        group: &str,
        backends: &Backends,
        table: &RoutingTable,
        tokens: &dyn TokenOwner,
        first: bool,
    ) {
        let counted = counted::<P>(group, backends, table);
        let tells = |(endpoint, _): &(&Endpoint, _)| tokens.tells_at(endpoint);
        let readable = if counted.iter().all(tells) {
            Tokens::Readable
        } else {
            Tokens::Unreadable
        };
        let lists: Vec<_> = counted.into_iter().map(|(_, list)| list).collect();
        self.publish(P::offer(&lists, readable), first);
    }

    /// The first offer replaces a guess; only what shrinks after it is drift.
    fn publish(&self, offer: P::Offer, first: bool) {
        self.0.send_if_modified(|current| {
            if **current == offer {
                return false;
            }
            let now = offer.items();
            let gone: Vec<_> = current
                .items()
                .into_iter()
                .filter(|item| !now.iter().any(|other| other.eq_ignore_ascii_case(item)))
                .collect();
            let (now, gone) = (now.join(" "), gone.join(" "));
            let protocol = P::KIND.as_str();
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

/// The endpoints that count, each with its list.
fn counted<'t, P: LineProtocol>(
    group: &str,
    backends: &Backends,
    table: &'t RoutingTable,
) -> Vec<(&'t Endpoint, P::Capabilities)> {
    let protocol = on_the_wire(P::KIND);
    let config = table.config();
    let mut counted = Vec::new();
    for (id, destination) in config.destinations() {
        // Without an endpoint nobody is relayed there, whatever it offers.
        let Some(endpoint) = destination.endpoint(protocol, group) else {
            continue;
        };
        if let Some(words) = &endpoint.capabilities {
            let list = P::Capabilities::from_items(words.iter().map(String::as_str));
            counted.push((endpoint, list));
            continue;
        }
        let target = Target {
            destination: id.clone(),
            protocol,
        };
        let said = backends
            .verdict(&target)
            .and_then(|verdict| verdict.capabilities);
        if let Some(said) = said.as_ref().map(Offered::read) {
            counted.push((endpoint, said));
        } else if may_be_sent_to(id, table) {
            counted.push((endpoint, P::least()));
        }
    }
    counted
}

/// Whether somebody may be sent to a destination: by a rule, or by a record.
fn may_be_sent_to(id: &DestinationId, table: &RoutingTable) -> bool {
    let config = table.config();
    let by_domain = |unlisted: &Unlisted| *unlisted == Unlisted::Destination(id.clone());
    config.default_destination() == id
        || config.domains().values().any(by_domain)
        || table.has_accounts_at(id)
}
