//! The connections to servers of one client connection. None of them is ever used for another client, nor for another
//! account: whatever state a server attaches to a connection is that account's.

mod line;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_proto::{Announcement, DestinationId, Endpoint, v1::Protocol};
use ferrypost_wire::{ClientFacts, SessionReference};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

pub(super) use line::Line;

use super::{body::Upload, lent::lend, tasks::Spawner};
use crate::{
    backend::{Target, dialers::Dialers},
    limits::{Limits, WebLimits},
    net::{
        dial::{DialError, Fresh},
        leg::BackendLeg,
        proxy::{self, Announced},
    },
    registry::{
        Admission, AdmitRequest, Exchanged, OnFence, Registry, SessionGuard, SessionKind, Subject,
    },
};

/// Connections that are kept for a client at most while nothing goes on there: one for each of its accounts, and some.
const MOST_IDLE: usize = 16;

/// Octets of a response's head.
const MAX_HEAD: usize = 64 << 10;

/// Whose a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) destination: DestinationId,
    /// The account's name, or the destination where a rule sends what is nobody's.
    pub(super) subject: Subject,
}

/// A connection that is in use.
pub(super) struct Lease {
    pub(super) sender: SendRequest<Upload>,
    pub(super) line: Arc<Line>,
    pub(super) owner: Owner,
    pub(super) endpoint: Endpoint,
    /// The server's address.
    pub(super) address: SocketAddr,
    /// It has been of use before: that the server has closed it meanwhile is no news about the server.
    pub(super) is_old: bool,
}

/// The connections of one client connection.
pub(super) struct Upstreams {
    kept: Mutex<Kept>,
    limits: WebLimits,
    close: Duration,
    tasks: Spawner,
    registry: Arc<Registry>,
    /// As the client's exchanges are registered.
    client: SocketAddr,
    reference: String,
}

#[derive(Default)]
struct Kept {
    idle: Vec<Lease>,
    /// The client is gone: nothing is kept any more.
    over: bool,
}

/// What a connection is opened with.
pub(super) struct Opening<'a> {
    pub(super) dialers: &'a Dialers,
    pub(super) facts: &'a ClientFacts,
    pub(super) alpn: Option<&'a str>,
}

impl Upstreams {
    pub(super) fn new(
        limits: &Limits,
        tasks: Spawner,
        registry: Arc<Registry>,
        (client, reference): (SocketAddr, &SessionReference),
    ) -> Self {
        Self {
            kept: Mutex::default(),
            limits: limits.web,
            close: limits.relay.close,
            tasks,
            registry,
            client,
            reference: reference.to_string(),
        }
    }

    /// A connection that is kept for its owner, if the endpoint is still that.
    pub(super) async fn kept(&self, owner: &Owner, endpoint: &Endpoint) -> Option<Lease> {
        loop {
            let mut lease = {
                let idle = &mut self.lock().idle;
                let at = idle.iter().rposition(|lease| lease.owner == *owner)?;
                idle.remove(at)
            };
            let is_fit = lease.endpoint == *endpoint && lease.line.wake();
            if is_fit && lease.sender.ready().await.is_ok() {
                return Some(lease);
            }
            lease.line.end(self.close);
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`DialError`]: nothing of the request was sent.
    pub(super) async fn open(
        &self,
        owner: Owner,
        endpoint: Endpoint,
        opening: Opening<'_>,
    ) -> Result<Lease, DialError> {
        let target = Target {
            destination: owner.destination.clone(),
            protocol: Protocol::Http,
        };
        let dialer = opening.dialers.of(&target);
        let preface = match endpoint.announcement {
            Announcement::ProxyV2 => {
                let announced = Announced {
                    client: opening.facts,
                    alpn: opening.alpn,
                };
                proxy::announce(announced, &endpoint.tls)
            }
            _ => Vec::new(),
        };
        let addresses = dialer.resolve(&endpoint).await?;
        let dialled = dialer.dial(&endpoint, &addresses, &preface).await;
        let dialled = dialled.map_err(|failure| failure.error)?;
        let leg = match dialled.leg {
            Fresh::Tls(leg) => BackendLeg::Tls(leg),
            Fresh::Consented(leg) => BackendLeg::Consented(leg),
            Fresh::Clear(_) => return Err(DialError::Io(std::io::ErrorKind::Unsupported.into())),
        };
        let (transport, _) = leg.into_parts();
        let (lent, loan) = lend(transport, self.limits.stalled);
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .handshake(TokioIo::new(lent))
            .await
            .map_err(|error| DialError::Io(std::io::Error::other(error)))?;
        let line = Arc::new(Line::default());
        self.tasks.spawn(line::run(
            Arc::clone(&line),
            connection.with_upgrades(),
            loan,
            self.close,
        ));
        Ok(Lease {
            sender,
            line,
            owner,
            endpoint,
            address: dialled.address,
            is_old: false,
        })
    }

    /// Takes a connection back whose exchange was answered. It is registered while it is kept: where its owner is fenced
    /// or goes elsewhere now, it ends.
    pub(super) fn keep(&self, mut lease: Lease, last: Exchanged) {
        let Some(mut guard) = self.register(&lease.owner) else {
            lease.line.end(self.close);
            return;
        };
        guard.exposed();
        lease.is_old = true;
        let until = Instant::now() + self.limits.upstream_idle;
        if !lease.line.rest(guard, last, until) {
            return;
        }
        let mut kept = self.lock();
        kept.idle.push(lease);
        let is_surplus = kept.over || kept.idle.len() > MOST_IDLE;
        let surplus = is_surplus.then(|| kept.idle.remove(0));
        drop(kept);
        if let Some(surplus) = surplus {
            surplus.line.end(self.close);
        }
    }

    fn register(&self, owner: &Owner) -> Option<SessionGuard> {
        let admission = self.registry.admit(AdmitRequest {
            subject: owner.subject.clone(),
            kind: SessionKind::IdleUpstream,
            on_fence: OnFence::Defer,
            protocol: Protocol::Http,
            client: Some(self.client),
            reference: self.reference.clone(),
        });
        match admission {
            Admission::Routed(guard) if guard.route().destination == owner.destination => {
                Some(guard)
            }
            _ => None,
        }
    }

    /// Ends all that are kept: the client is gone.
    pub(super) fn end(&self) {
        let idle = {
            let mut kept = self.lock();
            kept.over = true;
            std::mem::take(&mut kept.idle)
        };
        for lease in idle {
            lease.line.end(self.close);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
