//! What clients are offered before login: what *every* destination that they may be sent to can do
//! since which one it will be is not known yet.
//!
//! | destination | what counts |
//! |---|---|
//! | its endpoint overrides the list | that list |
//! | it answers, or has answered | what it said last |
//! | it never answered, and somebody may be sent there | the least that a login needs |
//! | it never answered, and nobody can be sent there yet | nothing: it takes nothing away |
//!
//! Another data plane that looks what we offer is told of the servers beside us alone, those on loopback: its own are
//! behind the other destinations, and two sidecars that told each other what the other one tells would never again offer
//! what one of them has once not offered.

use std::{net::IpAddr, sync::Arc};

use ferrypost_proto::{DestinationId, Endpoint, Unlisted, v1::Protocol};
use ferrypost_routing::RoutingTable;
use ferrypost_wire::{Capabilities, LineProtocol, Offer as _, Tokens};
use tokio::sync::watch;

use super::{Backends, Offered, Target, on_the_wire};
use crate::{tables::Tables, tokens::TokenOwner};

/// What is offered on the listeners of one protocol. Cheap to clone; clones share one state.
pub struct Offers<P: LineProtocol> {
    /// To clients.
    everywhere: watch::Sender<Arc<P::Offer>>,
    /// To other data planes that look.
    beside_us: watch::Sender<Arc<P::Offer>>,
}

impl<P: LineProtocol> Clone for Offers<P> {
    fn clone(&self) -> Self {
        Self {
            everywhere: self.everywhere.clone(),
            beside_us: self.beside_us.clone(),
        }
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
        let offer = Arc::new(P::offer(&[], Tokens::Unreadable));
        Self {
            everywhere: watch::Sender::new(Arc::clone(&offer)),
            beside_us: watch::Sender::new(offer),
        }
    }

    /// What is offered now.
    pub fn current(&self) -> Arc<P::Offer> {
        Arc::clone(&self.everywhere.borrow())
    }

    /// What is to be had of the servers beside us; where there are none, the same.
    pub fn beside_us(&self) -> Arc<P::Offer> {
        Arc::clone(&self.beside_us.borrow())
    }

    /// Follows it.
    pub fn watch(&self) -> watch::Receiver<Arc<P::Offer>> {
        self.everywhere.subscribe()
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
        let counted = counted(on_the_wire(P::KIND), group, (backends, table), P::least);
        self.publish(offer::<P>(&counted, tokens), first);
        let (beside_us, elsewhere): (Vec<_>, Vec<_>) = counted
            .into_iter()
            .partition(|(endpoint, _)| is_beside_us(endpoint));
        let counted = if beside_us.is_empty() {
            elsewhere
        } else {
            beside_us
        };
        self.beside_us
            .send_replace(Arc::new(offer::<P>(&counted, tokens)));
    }

    /// The first offer replaces a guess; only what shrinks after it is drift.
    fn publish(&self, offer: P::Offer, first: bool) {
        self.everywhere.send_if_modified(|current| {
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

/// What all of these endpoints can do.
fn offer<P: LineProtocol>(
    counted: &[(&Endpoint, P::Capabilities)],
    tokens: &dyn TokenOwner,
) -> P::Offer {
    let readable = if counted
        .iter()
        .all(|(endpoint, _)| tokens.tells_at(endpoint))
    {
        Tokens::Readable
    } else {
        Tokens::Unreadable
    };
    let lists: Vec<_> = counted.iter().map(|(_, list)| list.clone()).collect();
    P::offer(&lists, readable)
}

/// Whether an endpoint is on this machine.
fn is_beside_us(endpoint: &Endpoint) -> bool {
    let address = endpoint.host.parse::<IpAddr>();
    endpoint.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback())
}

/// The endpoints of a protocol that count, each with its list: `least` of one that never answered.
pub(crate) fn counted<'t, C: Capabilities>(
    protocol: Protocol,
    group: &str,
    (backends, table): (&Backends, &'t RoutingTable),
    least: fn() -> C,
) -> Vec<(&'t Endpoint, C)> {
    let config = table.config();
    let mut counted = Vec::new();
    for (id, destination) in config.destinations() {
        // Without an endpoint nobody is relayed there, whatever it offers.
        let Some(endpoint) = destination.endpoint(protocol, group) else {
            continue;
        };
        if let Some(words) = &endpoint.capabilities {
            let list = C::from_items(words.iter().map(String::as_str));
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
            counted.push((endpoint, least()));
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
