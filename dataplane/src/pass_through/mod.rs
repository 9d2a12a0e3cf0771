//! Mail systems that connect to the port of a destination's own (25), and are passed through to it as a whole.
//!
//! ```text
//!   mail system ── accept, permits, PROXY header in ── registered ── dial ── PROXY header out ──▶ server
//!       ◀═══════════════════════ every octet both ways, none of them read ════════════════════════▶
//! ```
//!
//! Greeting, STARTTLS, certificate, judgement of the client, queue: all of that is the server's. Ours is where the
//! connection goes, and whose it is. So only an endpoint is fit for it that expects a PROXY header: any other would take
//! our address for everybody's, and what somebody types (XCLIENT) for our word
//! ([`stranger`](crate::backend::stranger)).
//!
//! It is registered under its destination, not under a name: no move ever touches one. It ends with its destination's
//! place in the configuration, and with this process; each is then given `limits.relay.drain` to come to its own end,
//! since there is no point in it of which we could know that it is a safe one.

mod passage;
mod refusal;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ferrypost_proto::DestinationId;
use ferrypost_runtime::shutdown::Shutdown;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backends,
    config::PassThrough,
    listener::{Arrival, Door, DoorSettings, Host, ListenError, Permits},
    session::context::Services,
};
use passage::Passage;
use refusal::Refusal;

/// A listener for what is passed through, that is bound.
pub struct PassingThrough {
    door: Door,
    destination: DestinationId,
}

impl PassingThrough {
    /// Binds the socket. Who connects now waits until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub fn bind(config: PassThrough, permits: Permits) -> Result<Self, ListenError> {
        let settings = DoorSettings {
            name: config.name,
            address: config.address,
            proxy_protocol_from: config.proxy_protocol_from,
            connections: config.connections,
        };
        Ok(Self {
            door: Door::bind(settings, permits)?,
            destination: config.destination,
        })
    }

    /// The socket and who is connected there.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Where everybody goes.
    pub fn destination(&self) -> &DestinationId {
        &self.destination
    }

    /// Serves clients until the process begins to stop; then the socket is closed, and what is open goes on.
    pub async fn serve(self, services: Arc<Services>, backends: Backends, shutdown: Shutdown) {
        let passage = Passage::new(self.destination, services, backends);
        self.door.serve(Arc::new(passage), shutdown).await;
    }
}

impl Host for Passage {
    fn header_within(&self) -> Duration {
        self.services().limits.preauth.handshake
    }

    fn stopping(&self) -> &CancellationToken {
        &self.services().stopping
    }

    fn no_room(&self) -> Vec<u8> {
        Refusal::NoRoom.words().as_bytes().to_vec()
    }

    fn serve(self: Arc<Self>, listener: Arc<str>, arrival: Arrival) -> BoxFuture<'static, ()> {
        Box::pin(self.pass(listener, arrival))
    }
}
