//! The connections to servers of one client connection. None of them is ever used for another client, nor for another
//! account: whatever state a server attaches to a connection is that account's.

mod line;
mod sender;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_proto::{Announcement, DestinationId, Endpoint, HttpVersions, v1::Protocol};
use ferrypost_wire::{ClientFacts, SessionReference};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use line::{Left, Line};
pub(super) use sender::{Sending, Unsent};

use self::{
    line::{Awake, Begin, Driven},
    sender::Sender,
};
use super::lent::lend;
use crate::{
    backend::{Target, dialers::Dialers},
    limits::{Limits, WebLimits},
    net::{
        dial::{DialError, Dialled, Fresh},
        h2,
        leg::BackendLeg,
        proxy::{self, Announced},
        tasks::Spawner,
        transport::AnyTransport,
    },
    registry::{
        Admission, AdmitRequest, OnFence, Proof, Registry, SessionGuard, SessionKind, Subject,
    },
};

/// Connections that are kept for a client at most while nothing goes on there: one for each of its accounts, and some.
const MOST_IDLE: usize = 16;

/// Octets of a response's head.
const MAX_HEAD: u16 = u16::MAX;

/// Octets that are read or written at once, which is what a client has to take within its time.
const MAX_PIECE: usize = 128 << 10;

/// Whose a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) destination: DestinationId,
    /// The account's name, or the destination where a rule sends what is nobody's.
    pub(super) subject: Subject,
}

/// A connection that is in use.
pub(super) struct Lease {
    /// There while it is in use: of HTTP/1 it is the line's meanwhile.
    sender: Option<Sender>,
    /// HTTP/2 is spoken there.
    is_h2: bool,
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
    /// Where nothing goes on, and those of HTTP/2 that have room.
    leases: Vec<Lease>,
    /// Whose are being opened.
    turns: Vec<(Owner, CancellationToken)>,
    /// The client is gone: nothing is kept any more.
    over: bool,
}

/// Whose turn it is to open a connection that others may share.
pub(super) enum Turn {
    /// Until this is dropped.
    Ours(#[expect(dead_code, reason = "held for its end")] DropGuard),
    /// Somebody else is at it, until then.
    Others(CancellationToken),
}

/// What a connection is opened with.
pub(super) struct Opening<'a> {
    pub(super) dialers: &'a Dialers,
    pub(super) facts: &'a ClientFacts,
    pub(super) for_web_socket: bool,
}

impl Lease {
    /// Asks.
    pub(super) fn ask(&mut self, request: http::Request<super::body::Upload>) -> Sending {
        let sender = self.sender.as_mut();
        sender.expect("it is in use").ask(request)
    }

    /// Whether HTTP/2 is spoken there, so that its exchange is one stream of several.
    pub(super) const fn is_h2(&self) -> bool {
        self.is_h2
    }

    /// Waits until it can be asked, which it was woken for. False: it is over.
    async fn is_ready(&mut self, awake: Awake) -> bool {
        match awake {
            Awake::Shared => {}
            Awake::By(sender) => self.sender = Some(sender),
            Awake::Resting => self.sender = self.line.recall().await,
        }
        match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        }
    }

    /// The same for another exchange, where there may be several.
    fn share(&self) -> Option<Self> {
        Some(Self {
            sender: Some(self.sender.as_ref()?.share()?),
            is_h2: self.is_h2,
            line: Arc::clone(&self.line),
            owner: self.owner.clone(),
            endpoint: self.endpoint.clone(),
            address: self.address,
            is_old: true,
        })
    }
}

impl Kept {
    /// Keeps one where nothing goes on any more. What comes back is to end: there are too many, or there is no client.
    fn with_idle(&mut self, lease: Lease) -> Option<Lease> {
        if self.over {
            return Some(lease);
        }
        if !lease.is_h2() {
            // Most clients have one account, and so one connection.
            self.leases.reserve_exact(1);
            self.leases.push(lease);
        }
        let mut idle = self.leases.iter().enumerate();
        let is_idle = |(_, lease): &(usize, &Lease)| lease.line.is_idle();
        let (oldest, _) = idle.by_ref().find(is_idle)?;
        let others = idle.filter(is_idle).count();
        (others >= MOST_IDLE).then(|| self.leases.remove(oldest))
    }
}

/// What a PROXY header says is spoken behind it: some servers go by that. It is not what the client speaks with us.
fn spoken_alone(endpoint: &Endpoint) -> Option<&'static str> {
    match endpoint.http.versions {
        HttpVersions::Http1 => Some("http/1.1"),
        HttpVersions::H2 => Some("h2"),
        HttpVersions::Either => None,
    }
}

/// Has hyper speak HTTP/1.
async fn speak(transport: AnyTransport, stalled: Duration) -> hyper::Result<(Sender, Driven)> {
    let (lent, loan) = lend(transport, stalled);
    let (sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD.into())
        .max_buf_size(MAX_PIECE)
        .handshake(TokioIo::new(lent))
        .await?;
    let connection = connection.with_upgrades();
    let driven = Driven {
        connection: Box::pin(async { _ = connection.await }),
        loan,
    };
    Ok((Sender::Http1(sender), driven))
}

/// What is spoken on.
fn transport(dialled: Dialled) -> Result<AnyTransport, DialError> {
    let leg = match dialled.leg {
        Fresh::Tls(leg) => BackendLeg::Tls(leg),
        Fresh::Consented(leg) => BackendLeg::Consented(leg),
        // There is no STARTTLS in HTTP.
        Fresh::Clear(_) => return Err(DialError::Io(std::io::ErrorKind::Unsupported.into())),
    };
    Ok(leg.into_parts().0)
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
    pub(super) async fn kept(
        &self,
        owner: &Owner,
        endpoint: &Endpoint,
        for_web_socket: bool,
    ) -> Option<Lease> {
        while let Some(mut lease) = self.take(owner, for_web_socket) {
            let is_fit = lease.endpoint == *endpoint;
            if let Some(awake) = is_fit.then(|| lease.line.wake()).flatten()
                && lease.is_ready(awake).await
            {
                return Some(lease);
            }
            lease.line.end(self.close);
        }
        None
    }

    /// One that is kept for its owner, or its share of one.
    fn take(&self, owner: &Owner, for_web_socket: bool) -> Option<Lease> {
        let mut kept = self.lock();
        kept.leases.retain(|lease| !lease.line.is_ending());
        let at = kept.leases.iter().rposition(|lease| {
            lease.owner == *owner
                && lease.line.has_room()
                && (!for_web_socket || lease.line.opens_web_sockets())
        })?;
        let share = kept.leases[at].share();
        Some(share.unwrap_or_else(|| kept.leases.remove(at)))
    }

    /// Whether an owner's server is known to take no WebSocket in any way.
    pub(super) fn refuses_web_sockets(&self, owner: &Owner, endpoint: &Endpoint) -> bool {
        let kept = self.lock();
        let mut its = kept.leases.iter().filter(|lease| lease.owner == *owner);
        endpoint.http.versions == HttpVersions::H2
            && its.any(|it| !it.line.is_ending() && !it.line.opens_web_sockets())
    }

    /// Whose turn it is to open a connection for its owner. Where only HTTP/1.1 is spoken everybody opens his own.
    pub(super) fn turn(&self, owner: &Owner, endpoint: &Endpoint) -> Option<Turn> {
        if endpoint.http.versions == HttpVersions::Http1 {
            return None;
        }
        let mut kept = self.lock();
        kept.turns.retain(|(_, over)| !over.is_cancelled());
        if let Some((_, over)) = kept.turns.iter().find(|(whose, _)| whose == owner) {
            return Some(Turn::Others(over.clone()));
        }
        let over = CancellationToken::new();
        kept.turns.push((owner.clone(), over.clone()));
        Some(Turn::Ours(over.drop_guard()))
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
        let mut spoken = endpoint.clone();
        if opening.for_web_socket && endpoint.http.versions == HttpVersions::Either {
            // Whatever an HTTP/2 server allows will be known when it is too late.
            spoken.http.versions = HttpVersions::Http1;
        }
        let preface = match endpoint.announcement {
            Announcement::ProxyV2 => {
                let announced = Announced {
                    client: opening.facts,
                    alpn: spoken_alone(&spoken),
                };
                proxy::announce(announced, &endpoint.tls)
            }
            _ => Vec::new(),
        };
        let addresses = dialer.resolve(&endpoint).await?;
        let dialled = dialer.dial(&spoken, &addresses, &preface).await;
        let dialled = dialled.map_err(|failure| failure.error)?;
        let (address, is_h2) = (dialled.address, dialled.is_h2);
        let transport = transport(dialled)?;
        let (sender, line) = if is_h2 {
            self.begin_h2(transport, dialer.limits().handshake).await?
        } else {
            self.begin(transport).await?
        };
        let lease = Lease {
            sender: Some(sender),
            is_h2,
            line,
            owner,
            endpoint,
            address,
            is_old: false,
        };
        if let Some(share) = lease.share() {
            self.lock().leases.push(share);
        }
        Ok(lease)
    }

    async fn begin(&self, transport: AnyTransport) -> Result<(Sender, Arc<Line>), DialError> {
        let stalled = self.limits.stalled;
        let (sender, driven) = speak(transport, stalled)
            .await
            .map_err(|error| DialError::Io(std::io::Error::other(error)))?;
        let line = Line::new(self.close, Some(self.limits.rest));
        let again: Begin = Box::new(move |transport| {
            Box::pin(async move { speak(transport, stalled).await.ok() })
        });
        let run = line::run(Arc::clone(&line), driven, Some(again));
        self.tasks.spawn(run);
        Ok((sender, line))
    }

    async fn begin_h2(
        &self,
        transport: AnyTransport,
        limit: Duration,
    ) -> Result<(Sender, Arc<Line>), DialError> {
        let (lent, loan) = lend(transport, self.limits.stalled);
        let begun = h2::begin(lent, &self.tasks, MAX_HEAD.into(), limit).await;
        let (sender, mut connection) = begun?;
        let line = Line::new(self.close, None);
        let learning = Arc::clone(&line);
        let learn = move |connection: &h2::Connection<_, _>| {
            let opens_web_sockets = connection.is_extended_connect_protocol_enabled();
            learning.learn(connection.current_max_send_streams(), opens_web_sockets);
        };
        learn(&connection);
        let connection = poll_fn(move |cx| {
            let polled = Pin::new(&mut connection).poll(cx).map(drop);
            learn(&connection);
            polled
        });
        let driven = Driven {
            connection: Box::pin(connection),
            loan,
        };
        let run = line::run(Arc::clone(&line), driven, None);
        self.tasks.spawn(run);
        Ok((Sender::Http2(sender), line))
    }

    /// Takes a connection back whose exchange is over, by this proof. It is registered while it is kept: where its owner
    /// is fenced or goes elsewhere now, it ends.
    pub(super) fn keep(&self, mut lease: Lease, last: impl Into<Proof>) {
        if lease.line.is_left_by_one() {
            return;
        }
        let Some(mut guard) = self.register(&lease.owner) else {
            lease.line.end(self.close);
            return;
        };
        guard.exposed();
        lease.is_old = true;
        let limit = self.limits.upstream_idle;
        let sender = lease.sender.take_if(|_| !lease.is_h2);
        if !lease.line.keep(guard, last.into(), sender, limit) {
            return;
        }
        if let Some(surplus) = self.lock().with_idle(lease) {
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
        let leases = {
            let mut kept = self.lock();
            kept.over = true;
            std::mem::take(&mut kept.leases)
        };
        for lease in leases {
            lease.line.end(self.close);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
