//! One mail system's connection, command by command. The message itself is in [`message`](super::message).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
};

use ferrypost_proto::{DestinationId, Endpoint, NoRoute, RoutingConfig};
use ferrypost_wire::{
    ClientFacts, HopLimit, TlsFacts,
    lmtp::{Answer, Envelope, LmtpStep},
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    Post, Whence,
    client::{Client, End},
    outcome::{Fate, not_admitted},
    protocol::Verdicts,
    record::{Record, Trail},
    server::{Gone, Said, Server},
    transaction::{Recipient, Transaction},
};
use crate::{
    backend::{
        Target,
        open::{Caller, OpenError, OpenFailure, Opened, open},
    },
    limits::DeliveryLimits,
    metrics::words::DeliveryOutcome,
    net::{leg::LegState, proxy::Announced},
    registry::{Admission, AdmitRequest, CloseReason, OnFence, SessionGuard, SessionKind, Subject},
};

/// What is done for one mail system.
pub(super) struct Courier<S: LegState> {
    pub(super) post: Arc<Post>,
    pub(super) client: Client<S>,
    pub(super) tls: Option<TlsFacts>,
    /// Those that it has sent to, kept for the next message. Their numbers hold for the length of one.
    pub(super) servers: Vec<Server>,
    pub(super) transaction: Option<Transaction>,
    pub(super) record: Record,
}

/// What the log says of a server that was not tried.
const BREAKER_OPEN: &str =
    "the server fails one client after the other, and was not tried (limits.breaker)";

/// A server that could not be opened, and why.
struct Unopened {
    fate: Fate,
    reason: String,
}

impl Unopened {
    fn new(fate: impl Into<Fate>, reason: impl fmt::Display) -> Self {
        Self {
            fate: fate.into(),
            reason: reason.to_string(),
        }
    }
}

impl From<OpenFailure> for Unopened {
    fn from(failure: OpenFailure) -> Self {
        let fate = match &failure.error {
            OpenError::Refused(rejection) => Fate::turned_away(rejection),
            error if error.is_ourselves() => DeliveryOutcome::GoneRound.into(),
            _ => DeliveryOutcome::BackendUnavailable.into(),
        };
        Self::new(fate, failure)
    }
}

/// What a server said to a recipient, and whether that one may still have the message.
type Offered = (Result<Said, Gone>, Result<SessionGuard, CloseReason>);

impl<S: LegState> Courier<S> {
    /// Does what the mail system says until it wants TLS.
    pub(super) async fn until_starttls(&mut self) -> Result<(), End> {
        loop {
            match self.next_step().await? {
                LmtpStep::StartTls => return Ok(()),
                step => self.obey(step).await?,
            }
        }
    }

    /// Lets go of everything: what was open was never sent to its end.
    pub(super) async fn leave(mut self, end: &End) {
        self.give_up();
        let goodbyes = self.servers.drain(..).map(Server::leave);
        let goodbyes: Vec<_> = goodbyes.collect();
        tokio::join!(self.client.leave(end), join_all(goodbyes));
        self.record.ended(&self.post.services, end);
    }

    pub(super) fn limits(&self) -> DeliveryLimits {
        self.post.services.limits.deliveries
    }

    async fn obey(&mut self, step: LmtpStep) -> Result<(), End> {
        match step {
            LmtpStep::NeedMore | LmtpStep::StartTls => {}
            LmtpStep::Mail(from) => self.begin(from),
            LmtpStep::Recipient(to) => {
                let answer = self.recipient(to).await;
                self.client.front.recipient(&answer, &mut self.client.out);
            }
            LmtpStep::Message => {
                if let Some(mut transaction) = self.transaction.take() {
                    let delivered = self.deliver(&mut transaction).await;
                    self.conclude(transaction);
                    delivered?;
                }
            }
            LmtpStep::NoMessage => self.client.nothing_behind()?,
            LmtpStep::Reset => self.give_up(),
            LmtpStep::Close => {
                self.flush().await?;
                return Err(End::Left);
            }
        }
        Ok(())
    }

    async fn next_step(&mut self) -> Result<LmtpStep, End> {
        loop {
            match self.client.step() {
                Ok(Some(step)) => return Ok(step),
                Ok(None) => self.flush().await?,
                Err(violation) => {
                    self.flush().await?;
                    return Err(violation.into());
                }
            }
            self.client.release();
            self.wait().await?;
        }
    }

    /// Sends what is to be sent. Recipients that are told to end meanwhile are let go of: the mail system may take it when
    /// it likes.
    async fn flush(&mut self) -> Result<(), End> {
        let limit = self.limits().answer;
        let flushing = self.client.flush(limit);
        let Some(transaction) = &mut self.transaction else {
            return Ok(flushing.await?);
        };
        let (flushed, tainted) = transaction.letting_go(flushing).await;
        self.taint(tainted);
        Ok(flushed?)
    }

    /// Waits for more of the mail system. Recipients that are told to end meanwhile are let go of: it may say nothing
    /// for as long as it likes.
    async fn wait(&mut self) -> Result<(), End> {
        let stopping = self.post.services.stopping.clone();
        let mut idle = pin!(sleep(self.limits().idle));
        loop {
            let (number, reason) = tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(End::Stopping),
                filled = self.client.leg.fill() => return Ok(filled?),
                told = told(self.transaction.as_ref()) => told,
                () = &mut idle => return Err(End::Idle),
            };
            if let Some(transaction) = &mut self.transaction {
                let server = transaction.let_go(number, reason);
                self.servers[server].taint();
            }
        }
    }

    fn begin(&mut self, from: Envelope) {
        self.servers.retain(Server::is_up);
        self.transaction = Some(Transaction::new(from));
    }

    /// Gives up the message that is open, if one is.
    pub(super) fn give_up(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.conclude(transaction);
        }
    }

    /// Ends a message, whatever has become of it.
    fn conclude(&mut self, mut transaction: Transaction) {
        // Servers first: nothing may go on for who is not registered any more.
        for server in &mut self.servers {
            server.forget();
        }
        transaction.withdraw();
        for recipient in transaction.recipients() {
            if let Some(fate) = recipient.fate() {
                self.record
                    .delivery(&self.post.services, &recipient.trail, fate);
            }
        }
    }

    /// What the mail system hears about a recipient.
    async fn recipient(&mut self, to: Envelope) -> Answer {
        let Some(mut transaction) = self.transaction.take() else {
            return DeliveryOutcome::Withdrawn.into_answer();
        };
        let mut trail = Trail {
            begun: Some(Instant::now()),
            ..Trail::default()
        };
        let accepted = self.accept(&mut transaction, &to, &mut trail).await;
        let answer = match accepted {
            Ok((server, guard, answer)) => {
                transaction.push(Recipient::new(to, server, guard, trail));
                answer
            }
            Err(fate) => {
                self.record.delivery(&self.post.services, &trail, &fate);
                fate.answer
            }
        };
        self.transaction = Some(transaction);
        answer
    }

    /// Finds out whether a recipient can have the message: it is registered, and its server has said yes.
    async fn accept(
        &mut self,
        transaction: &mut Transaction,
        to: &Envelope,
        trail: &mut Trail,
    ) -> Result<(usize, SessionGuard, Answer), Fate> {
        let mut guard = self.admit(to, trail)?;
        trail.route = Some(guard.route().clone());
        self.is_with_the_others(transaction, &guard.route().destination)?;
        let number = transaction.recipients().len();
        loop {
            let server = self.reach(transaction, &guard, trail).await?;
            let (said, still) = {
                let limit = self.limits().answer;
                let from = Arc::clone(&transaction.from);
                let offering = offer(&mut self.servers[server], (&from, number, to), guard, limit);
                let (offered, tainted) = transaction.letting_go(offering).await;
                self.taint(tainted);
                offered
            };
            let at = &mut self.servers[server];
            match (said, still) {
                (Ok(Said::Yes(answer)), Ok(guard)) => return Ok((server, guard, answer)),
                (Ok(Said::Yes(_)), Err(reason)) => {
                    at.disown();
                    return Err(DeliveryOutcome::from(reason).into());
                }
                (Ok(Said::No(fate)), _) => return Err(fate),
                // Kept from an earlier message, and closed by the server since.
                (Err(_), Ok(same)) if at.is_old() && !transaction.knows(server) => guard = same,
                (Err(gone), _) => {
                    trail.reason = Some(gone.to_string());
                    transaction.settle_all(server, DeliveryOutcome::Lost);
                    return Err(DeliveryOutcome::Lost.into());
                }
            }
        }
    }

    /// Where a server's word is for all recipients, all of them must be that server's: the first one chooses it. Another
    /// one comes again in a message of its own, since it is told that there were too many (RFC 5321 §4.5.3.1.10).
    fn is_with_the_others(
        &self,
        transaction: &Transaction,
        destination: &DestinationId,
    ) -> Result<(), DeliveryOutcome> {
        let mut others = transaction.recipients().iter();
        let is_elsewhere = |server: usize| self.servers[server].destination != *destination;
        if self.post.protocol.verdicts() == Verdicts::PerMessage
            && others.any(|it| is_elsewhere(it.server))
        {
            return Err(DeliveryOutcome::Elsewhere);
        }
        Ok(())
    }

    /// Registers a delivery.
    fn admit(&self, to: &Envelope, trail: &mut Trail) -> Result<SessionGuard, DeliveryOutcome> {
        let services = &self.post.services;
        let table = services.tables.current().ok_or(DeliveryOutcome::NoTable)?;
        let subject = whom(table.config(), to)?;
        trail.subject = Some(subject.clone());
        let admission = services.registry.admit(AdmitRequest {
            subject,
            kind: SessionKind::Delivery,
            on_fence: OnFence::Defer,
            protocol: self.post.protocol.in_contract(),
            client: self.record.whence.peer(),
            reference: self.record.reference.to_string(),
        });
        match admission {
            Admission::Routed(guard) => Ok(guard),
            other => Err(not_admitted(&other)),
        }
    }

    /// The number of the server that holds the recipient's account, which is opened if need be.
    async fn reach(
        &mut self,
        transaction: &mut Transaction,
        guard: &SessionGuard,
        trail: &mut Trail,
    ) -> Result<usize, Fate> {
        let destination = &guard.route().destination;
        if let Some(why) = transaction.unreachable(destination) {
            return Err(why);
        }
        let endpoint = self.endpoint(destination)?;
        let is_it = |server: &Server| server.is_up() && server.destination == *destination;
        if let Some(number) = self.servers.iter().position(is_it) {
            let server = &mut self.servers[number];
            if server.endpoint == endpoint || transaction.knows(number) {
                trail.address = Some(server.address);
                return Ok(number);
            }
            // It is elsewhere now.
            server.cut();
        }
        let opening = self.open(destination, &endpoint);
        let opening = async {
            tokio::select! {
                biased;
                reason = guard.closing() => Err(reason),
                opened = opening => Ok(opened),
            }
        };
        let (opened, tainted) = transaction.letting_go(opening).await;
        self.taint(tainted);
        match opened {
            Ok(Ok(server)) => {
                trail.address = Some(server.address);
                self.servers.push(server);
                Ok(self.servers.len() - 1)
            }
            Ok(Err(Unopened { fate, reason })) => {
                transaction.note_unreachable(destination.clone(), fate.clone());
                trail.reason = Some(reason);
                Err(fate)
            }
            Err(told) => Err(DeliveryOutcome::from(told).into()),
        }
    }

    async fn open(
        &self,
        destination: &DestinationId,
        endpoint: &Endpoint,
    ) -> Result<Server, Unopened> {
        let target = Target {
            destination: destination.clone(),
            protocol: self.post.protocol.in_contract(),
        };
        let services = &self.post.services;
        // A mail system on this machine has no address.
        let client = self.record.whence.peer().map(|peer| peer.ip());
        let client = client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let Ok(pass) = services.breakers.pass(target.clone(), endpoint, client) else {
            return Err(Unopened::new(
                DeliveryOutcome::BackendUnavailable,
                BREAKER_OPEN,
            ));
        };
        let dialer = services.dialers.of(&target);
        let facts = self.facts();
        let caller = facts.as_ref().map_or(Caller::Probe, |client| {
            Caller::Client(Announced { client, alpn: None })
        });
        let protocol = self.post.protocol;
        let opened = open(dialer, endpoint, caller, protocol.opening()).await;
        let Opened {
            leg, back, address, ..
        } = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                pass.could_not_open(&failure.error);
                return Err(failure.into());
            }
        };
        pass.answered();
        let back = back
            .into_back()
            .map_err(|error| Unopened::new(DeliveryOutcome::BackendUnavailable, error))?;
        let (destination, endpoint) = (destination.clone(), endpoint.clone());
        Ok(Server::new(
            destination,
            (endpoint, address),
            leg,
            (back, protocol.verdicts()),
        ))
    }

    /// What servers are told of the mail system. `None`: it is on this machine, and has no address.
    fn facts(&self) -> Option<ClientFacts> {
        let Whence::Address { peer, local } = self.record.whence else {
            return None;
        };
        Some(ClientFacts {
            peer,
            local,
            tls: self.tls.clone(),
            session: self.record.reference.clone(),
            hops: HopLimit::FIRST,
            introduction: self.client.front.introduction(),
        })
    }

    fn endpoint(&self, destination: &DestinationId) -> Result<Endpoint, DeliveryOutcome> {
        let services = &self.post.services;
        let table = services.tables.current().ok_or(DeliveryOutcome::NoTable)?;
        let destination = table.config().destination(destination);
        destination
            .and_then(|it| it.endpoint(self.post.protocol.in_contract(), &services.group))
            .cloned()
            .ok_or(DeliveryOutcome::NoEndpoint)
    }

    pub(super) fn taint(&mut self, servers: Vec<usize>) {
        for server in servers {
            self.servers[server].taint();
        }
    }
}

/// Offers a recipient to its server. Who is told to end meanwhile leaves the registry at once, however long the server
/// takes: what it says is then for nobody.
async fn offer(
    server: &mut Server,
    (from, number, to): (&Envelope, usize, &Envelope),
    guard: SessionGuard,
    limit: std::time::Duration,
) -> Offered {
    let mut adding = pin!(server.add(from, (number, to), limit));
    let reason = tokio::select! {
        biased;
        reason = guard.closing() => reason,
        said = &mut adding => {
            let still = match guard.close_reason() {
                None => Ok(guard),
                Some(reason) => Err(reason),
            };
            return (said, still);
        }
    };
    drop(guard);
    (adding.await, Err(reason))
}

/// Whom a recipient is for.
fn whom(config: &RoutingConfig, to: &Envelope) -> Result<Subject, NoRoute> {
    match config.names().recipient(to.address.as_str()) {
        // He needs no domain, and is there wherever mail is taken (RFC 5321 §4.5.1). Whose mailbox that is a server knows.
        Err(NoRoute::BareName) if to.address.is_postmaster() => {
            Ok(Subject::Destination(config.default_destination().clone()))
        }
        addressee => addressee.map(Subject::from),
    }
}

/// The next recipient that is told to end; never, where there is none.
async fn told(transaction: Option<&Transaction>) -> (usize, CloseReason) {
    match transaction {
        Some(transaction) => transaction.told().await,
        None => std::future::pending().await,
    }
}

impl Whence {
    fn peer(self) -> Option<SocketAddr> {
        match self {
            Self::Address { peer, .. } => Some(peer),
            Self::Here => None,
        }
    }
}
