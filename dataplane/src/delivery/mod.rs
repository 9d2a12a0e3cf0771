//! Where mail systems deliver: we are their server, and a client of those that hold the accounts.
//!
//! ```text
//!   dock          where mail systems connect, and who may
//!   protocol      what is other in LMTP than in SMTP
//!   offers        what mail systems are offered: what every server can do
//!   client        the mail system's side
//!   courier       its commands, until there is a message
//!   message       the message, to every server that holds one of its recipients
//!   server        one server's side
//!   transaction   who is to get it, and what has become of that
//!   cuts          when a message must not become whole any more
//!   trace         the header that is written in front
//!   outcome       what became of it, whose doing it was, what the mail system hears
//!   record        the lines in the log
//! ```
//!
//! A delivery is one recipient of one message. It is registered at RCPT, in one step with its route, and leaves with the
//! word on it: its server's last one, or ours where nothing can have been delivered (`docs/decisions/0030`,
//! `docs/decisions/0031`). There is no queue: what cannot be delivered now stays with the mail system.

mod client;
mod courier;
mod cuts;
pub mod dock;
mod message;
pub mod offers;
mod outcome;
mod protocol;
mod record;
mod server;
#[cfg(test)]
mod tests;
mod trace;
mod transaction;

use std::{fmt, net::SocketAddr, sync::Arc};

use ferrypost_wire::{
    Channel, Farewell, TlsFacts,
    lmtp::{LmtpFront, LmtpSettings},
};
use tokio::time::{Instant, timeout};

use self::{
    client::{Client, End},
    courier::Courier,
    offers::Offers,
    record::Record,
};
use crate::{
    config::DeliveryProtocol,
    net::{
        leg::{Encrypted, InjectedInput, Leg, LegState, Plaintext},
        local::LocalStream,
        tls_server::{HandshakeError, Secured, ServerTls},
    },
    session::context::Services,
};

/// Octets of a message that are read at once, and all of it that is ever kept: a large message costs few system calls,
/// and two thousand mail systems that send one cost 128 MiB.
const BUFFER: usize = 64 << 10;

/// What the mail systems of one protocol share.
pub struct Post {
    /// Which.
    pub protocol: DeliveryProtocol,
    /// What everybody needs.
    pub services: Arc<Services>,
    /// What is offered.
    pub offers: Offers,
    /// This data plane, as trace headers name it.
    pub instance: String,
}

/// A mail system's connection as its dock hands it over.
pub struct Connection {
    /// The socket.
    pub stream: LocalStream,
    /// Where it comes from.
    pub whence: Whence,
    /// The listener's name.
    pub listener: Arc<str>,
    /// What we show in the handshake. `None`: it is served in clear.
    pub tls: Option<ServerTls>,
}

/// Where a mail system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// At an address.
    Address {
        /// Its own.
        peer: SocketAddr,
        /// The one that it connected to.
        local: SocketAddr,
    },
    /// On this machine, over a socket in the file system.
    Here,
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { peer, .. } => peer.fmt(f),
            Self::Here => f.write_str("local"),
        }
    }
}

/// Serves one mail system.
pub async fn run(post: Arc<Post>, connection: Connection) {
    let Connection {
        stream,
        whence,
        listener,
        tls,
    } = connection;
    let channel = match tls {
        Some(_) => Channel::Clear,
        None => Channel::Secure,
    };
    let front = post.front(channel);
    let record = Record {
        reference: post.services.reference(),
        whence,
        listener,
        protocol: post.protocol.in_contract(),
        begun: Instant::now(),
        named: 0,
        delivered: 0,
    };
    let mut courier = Courier::<Plaintext> {
        client: Client {
            leg: Leg::local(stream, BUFFER),
            front,
            out: Vec::new(),
        },
        post,
        tls: None,
        servers: Vec::new(),
        transaction: None,
        record,
    };
    courier.client.front.greet(&mut courier.client.out);
    match (courier.until_starttls().await, tls) {
        (Ok(()), Some(tls)) => match secure(courier, &tls).await {
            Ok(courier) => serve(courier).await,
            Err((record, post, error)) => record.ended(&post.services, &error),
        },
        (Ok(()), None) => courier.leave(&End::Left).await,
        (Err(end), _) => courier.leave(&end).await,
    }
}

async fn serve<S: LegState>(mut courier: Courier<S>) {
    let end = match courier.until_starttls().await {
        // The machine offers it once.
        Ok(()) => End::Left,
        Err(end) => end,
    };
    courier.leave(&end).await;
}

/// Shakes hands with a mail system that has asked for it. What is said about it if that fails is in its record.
///
/// Nothing of what was done for it in clear goes on (RFC 3207 §4.2): no message, and no server that was told of a mail
/// system in clear.
async fn secure(
    mut courier: Courier<Plaintext>,
    tls: &ServerTls,
) -> Result<Courier<Encrypted>, (Record, Arc<Post>, End)> {
    courier.give_up();
    let Courier {
        post,
        client,
        record,
        ..
    } = courier;
    let limit = post.services.limits.preauth.handshake;
    match timeout(limit, shake_hands(client, tls)).await {
        Ok(Ok((client, facts))) => Ok(Courier {
            post,
            client,
            tls: Some(facts),
            servers: Vec::new(),
            transaction: None,
            record,
        }),
        Ok(Err(error)) => Err((record, post, error)),
        Err(_) => Err((record, post, End::HandshakeTimeout)),
    }
}

async fn shake_hands(
    client: Client<Plaintext>,
    tls: &ServerTls,
) -> Result<(Client<Encrypted>, TlsFacts), End> {
    let Client {
        mut leg,
        mut front,
        mut out,
    } = client;
    if !leg.buffer().is_empty() {
        // Not even answered: whoever put that there must not learn that it was read.
        return Err(HandshakeError::Injected(InjectedInput).into());
    }
    leg.write_public(&out).await?;
    out.clear();
    let Secured { leg, facts, .. } = tls.accept(leg, &[]).await?;
    front.secured();
    Ok((Client { leg, front, out }, facts))
}

impl Post {
    /// The machine for a mail system that has just connected.
    fn front(&self, channel: Channel) -> LmtpFront {
        self.protocol.front(LmtpSettings {
            channel,
            offer: self.offers.current(),
            limits: self.services.limits.deliveries.front,
        })
    }

    /// What a mail system is told for which there is no room.
    fn no_room(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.front(Channel::Secure)
            .farewell(Farewell::TooMany, &mut out);
        out
    }
}
