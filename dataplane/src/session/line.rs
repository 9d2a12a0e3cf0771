//! A protocol that is spoken here: what its listeners share, and the one place where it is chosen by its
//! kind.

use std::sync::Arc;

use ferrypost_wire::{
    Channel, ClientReply, Farewell, Front as _, FrontSettings, LineProtocol, Offer as _,
    ProtocolKind, dispatch,
};
use futures_util::future::BoxFuture;

use super::{ClientConnection, context::Services, run};
use crate::{
    backend::{Backends, offer::Offers},
    metrics::RelayIo,
};

/// A protocol, whichever it is.
pub trait Line: Send + Sync {
    /// What the whole process has.
    fn services(&self) -> &Arc<Services>;

    /// What is offered before login, for the operator's eyes.
    fn offered(&self) -> Vec<String>;

    /// Makes the offer anew whenever what it rests on changes. Never returns.
    fn keep_fresh(&self, backends: Backends) -> BoxFuture<'static, ()>;

    /// The words for a client in clear for whom there is no room.
    fn no_room(&self) -> Vec<u8>;

    /// Serves one connection.
    fn serve(
        self: Arc<Self>,
        listener: Arc<str>,
        connection: ClientConnection,
    ) -> BoxFuture<'static, ()>;
}

/// The protocol of this kind.
pub fn line(kind: ProtocolKind, services: Arc<Services>) -> Arc<dyn Line> {
    dispatch!(kind, P => Arc::new(LineServices::<P>::new(services)))
}

/// What the listeners of one protocol share.
pub struct LineServices<P: LineProtocol> {
    /// What the whole process has.
    pub services: Arc<Services>,
    /// What is offered before login.
    pub offers: Offers<P>,
    /// Counts what is relayed.
    pub relay_io: RelayIo,
}

impl<P: LineProtocol> LineServices<P> {
    /// With our own minimum on offer.
    pub fn new(services: Arc<Services>) -> Self {
        Self {
            relay_io: RelayIo::of(&services.metrics, P::KIND.as_str()),
            services,
            offers: Offers::new(),
        }
    }

    /// The machine for a client that has just connected.
    pub(super) fn front(&self, channel: Channel) -> P::Front {
        self.front_offering(self.offers.current(), channel)
    }

    /// The machine for another data plane that looks what is to be had behind us.
    pub(super) fn front_for_a_check(&self, channel: Channel) -> P::Front {
        self.front_offering(self.offers.beside_us(), channel)
    }

    fn front_offering(&self, offer: Arc<P::Offer>, channel: Channel) -> P::Front {
        P::front(FrontSettings {
            channel,
            offer,
            limits: self.services.limits.preauth_of(P::KIND).front,
        })
    }
}

impl<P: LineProtocol> Line for LineServices<P> {
    fn services(&self) -> &Arc<Services> {
        &self.services
    }

    fn offered(&self) -> Vec<String> {
        self.offers.current().items()
    }

    fn keep_fresh(&self, backends: Backends) -> BoxFuture<'static, ()> {
        let (group, tables) = (self.services.group.clone(), self.services.tables.clone());
        let tokens = Arc::clone(&self.services.tokens);
        let offers = self.offers.clone();
        Box::pin(offers.keep_fresh(group, backends, tables, tokens))
    }

    fn no_room(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let farewell = ClientReply::Closing(Farewell::TooMany);
        self.front(Channel::Clear).reply(farewell, &mut out);
        out
    }

    fn serve(
        self: Arc<Self>,
        listener: Arc<str>,
        connection: ClientConnection,
    ) -> BoxFuture<'static, ()> {
        Box::pin(run::<P>(self, listener, connection))
    }
}
