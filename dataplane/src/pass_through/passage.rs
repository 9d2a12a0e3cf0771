//! One connection from its acceptance to its close.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_proto::{DestinationId, Endpoint, v1::Protocol};
use ferrypost_runtime::telemetry::Origin;
use ferrypost_wire::{ClientFacts, Introduction, SessionReference, smtp::PassedThrough};
use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    time::{Instant, timeout},
};
use tracing::{Span, debug_span};

use super::Refusal;
use crate::{
    backend::{Backends, Problem, Target, stranger::fit},
    listener::Arrival,
    metrics::{
        RelayIo, SESSIONS, SMTP,
        words::{Blame, EndStage, SessionEnd},
    },
    net::{
        CloseProof, TcpStream,
        dial::{DialError, Dialer, Dialled, Fresh},
        proxy::{self, Announced, Ends},
    },
    registry::{Admission, AdmitRequest, OnFence, SessionGuard, SessionKind, Subject},
    session::{
        Newcomer,
        context::{Services, failed},
        outcome,
        relay::{LINGER, Parties, Party, Relay, RelayEnd},
    },
};

/// What the connections to one destination share.
pub(super) struct Passage {
    target: Target,
    services: Arc<Services>,
    backends: Backends,
    relay_io: RelayIo,
}

/// What is written down about a connection. Nothing in it is ever consulted for a decision.
struct Record {
    reference: SessionReference,
    listener: Arc<str>,
    client: SocketAddr,
    begun: Instant,
    /// The server's, once there is a connection to it.
    address: Option<SocketAddr>,
}

/// A connection with somebody at either end.
struct Passed {
    relay: Relay<PassedThrough>,
    guard: SessionGuard,
    record: Record,
}

impl Passage {
    pub(super) fn new(
        destination: DestinationId,
        services: Arc<Services>,
        backends: Backends,
    ) -> Self {
        Self {
            relay_io: RelayIo::of(&services.metrics, SMTP),
            target: Target {
                destination,
                protocol: Protocol::Smtp,
            },
            services,
            backends,
        }
    }

    pub(super) fn services(&self) -> &Services {
        &self.services
    }

    /// Passes one connection through.
    pub(super) async fn pass(self: Arc<Self>, listener: Arc<str>, arrival: Arrival) {
        // A future is as large as the largest thing that it ever holds: what the way to the server needs lies in a box
        // that is gone when both ends are there.
        if let Some(mut passed) = Box::pin(self.open(listener, arrival)).await {
            let end = passed.relay.run(passed.guard).await;
            self.ended(&passed.record, &end);
        }
    }

    /// Brings a connection to its server. `None`: it was refused, and that is in the log.
    async fn open(&self, listener: Arc<str>, arrival: Arrival) -> Option<Box<Passed>> {
        let Arrival {
            stream,
            ends,
            newcomer,
        } = arrival;
        let mut record = Record {
            reference: self.services.reference(),
            listener,
            client: ends.peer,
            begun: Instant::now(),
            address: None,
        };
        match self.reach(&record, ends).await {
            Ok((guard, dialled)) => {
                record.address = Some(dialled.address);
                Some(Box::new(Passed {
                    relay: self.join(stream, dialled.leg, newcomer),
                    guard,
                    record,
                }))
            }
            Err(refusal) => {
                self.refused(&record, &refusal);
                turn_away(stream, &refusal).await;
                None
            }
        }
    }

    /// Registered first, then dialled: so that whatever ends it finds it.
    async fn reach(&self, record: &Record, ends: Ends) -> Result<(SessionGuard, Dialled), Refusal> {
        let guard = self.admit(record).await?;
        let endpoint = self.endpoint()?;
        let facts = ClientFacts {
            peer: ends.peer,
            local: ends.local,
            // If it has any, that is between the two ends.
            tls: None,
            session: record.reference.clone(),
            hops: ends.hops.ok_or(Refusal::GoneRound)?,
            introduction: Introduction::default(),
        };
        let breakers = &self.services.breakers;
        let pass = breakers
            .pass(self.target.clone(), &endpoint, ends.peer.ip())
            .map_err(|_| Refusal::BreakerOpen)?;
        let dialled = tokio::select! {
            biased;
            reason = guard.closing() => return Err(Refusal::Told(reason)),
            dialled = dial(self.services.dialers.of(&self.target), &endpoint, &facts) => dialled,
        };
        match &dialled {
            Ok(_) => pass.answered(),
            Err(DialError::Ourselves | DialError::Source { .. }) => {}
            Err(_) => pass.failed(),
        }
        Ok((guard, dialled?))
    }

    async fn admit(&self, record: &Record) -> Result<SessionGuard, Refusal> {
        let services = &self.services;
        let wait = services.limits.preauth.handshake;
        // Mail that came just behind a restart would else come again in half an hour.
        services.tables.first(Instant::now() + wait).await;
        let request = AdmitRequest {
            subject: Subject::Destination(self.target.destination.clone()),
            kind: SessionKind::Session,
            on_fence: OnFence::Defer,
            protocol: self.target.protocol,
            client: Some(record.client),
            reference: record.reference.to_string(),
        };
        match services.registry.admit(request) {
            Admission::Routed(guard) => Ok(guard),
            Admission::Refused(no_route) => Err(Refusal::NoRoute(no_route)),
            Admission::Closed(reason) => Err(Refusal::Told(reason)),
            Admission::NoTable => Err(Refusal::NoTable),
            // No fence reaches a destination.
            Admission::Deferred | Admission::Held(_) | Admission::TooManyHeld(_) => {
                Err(Refusal::NoTable)
            }
        }
    }

    /// The endpoint, if anybody may be passed through to it.
    fn endpoint(&self) -> Result<Endpoint, Refusal> {
        let table = self.services.tables.current().ok_or(Refusal::NoTable)?;
        let destination = table.config().destination(&self.target.destination);
        let endpoint = destination
            .and_then(|it| it.endpoint(self.target.protocol, &self.services.group))
            .ok_or(Refusal::NoEndpoint)?;
        fit(endpoint)?;
        let verdict = self.backends.verdict(&self.target);
        let problem = verdict.and_then(|verdict| verdict.report.problem);
        if problem == Some(Problem::BelievesStrangers) {
            return Err(Refusal::BelievesStrangers);
        }
        Ok(endpoint.clone())
    }

    /// Makes one connection of two. Nobody has said anything on either.
    fn join(&self, client: TcpStream, server: Fresh, newcomer: Newcomer) -> Relay<PassedThrough> {
        drop(newcomer);
        let parties = Parties {
            client: Party::fresh(client),
            backend: match server {
                Fresh::Clear(leg) => leg.into(),
                Fresh::Consented(leg) => leg.into(),
                Fresh::Tls(leg) => leg.into(),
            },
            welcome: Vec::new(),
            follower: PassedThrough,
        };
        let services = &self.services;
        let limits = services.limits.relay_passed_through();
        Relay::new(parties, limits, &services.budget, self.relay_io.clone())
    }

    fn count(&self, record: &Record, stage: EndStage, end: SessionEnd, blame: Blame) {
        let values = [SMTP, stage.into_str(), end.into_str(), blame.into_str()];
        let series = self.services.metrics.histogram(&SESSIONS, &values);
        series.record(record.begun.elapsed());
    }

    fn refused(&self, record: &Record, refusal: &Refusal) {
        let (end, blame) = (refusal.end(), refusal.blame());
        self.count(record, EndStage::Preauth, end, blame);
        tracing::info!(
            reference = %record.reference,
            client = %record.client,
            listener = &*record.listener,
            protocol = SMTP,
            destination = %self.target.destination,
            end = end.into_str(),
            blame = blame.into_str(),
            reason = %refusal,
            "not passed through",
        );
    }

    fn span(&self, record: &Record, relayed: &RelayEnd, (end, blame): (&str, &str)) -> Span {
        Origin::after(None).begun(record.begun.elapsed()).make(|| {
            debug_span!(
                parent: None,
                "passage",
                otel.kind = "server",
                ferrypost.session.id = %record.reference,
                ferrypost.listener = &*record.listener,
                network.protocol.name = SMTP,
                network.transport = "tcp",
                client.address = %record.client.ip(),
                client.port = record.client.port(),
                ferrypost.destination = %self.target.destination,
                ferrypost.session.end = end,
                ferrypost.blame = blame,
                error.type = failed(end, blame),
                ferrypost.relay.up = relayed.up,
                ferrypost.relay.down = relayed.down,
            )
        })
    }

    fn ended(&self, record: &Record, relayed: &RelayEnd) {
        let (end, blame) = outcome::of_relay(relayed);
        self.count(record, EndStage::Relay, end, blame);
        let _within = self
            .span(record, relayed, (end.into_str(), blame.into_str()))
            .entered();
        tracing::info!(
            reference = %record.reference,
            client = %record.client,
            listener = &*record.listener,
            protocol = SMTP,
            destination = %self.target.destination,
            address = record.address.map(tracing::field::display),
            end = end.into_str(),
            blame = blame.into_str(),
            cut = relayed.is_cut(),
            backend_closed = relayed.proof.map_or("unconfirmed", CloseProof::word),
            up = relayed.up,
            down = relayed.down,
            session_ms = millis(record.begun.elapsed()),
            "passed through",
        );
    }
}

/// Connects to the server and says whose the connection is.
async fn dial(
    dialer: &Dialer,
    endpoint: &Endpoint,
    facts: &ClientFacts,
) -> Result<Dialled, DialError> {
    let announced = Announced {
        client: facts,
        alpn: None,
    };
    let header = proxy::announce(announced, &endpoint.tls);
    let addresses = dialer.resolve(endpoint).await?;
    let dialled = dialer.dial(endpoint, &addresses, &header).await;
    dialled.map_err(|failure| failure.error)
}

/// Greets a mail system with why it is not served, and lets it close first: our close would else be a reset if it has
/// said something, and might overtake the words.
async fn turn_away(mut stream: TcpStream, refusal: &Refusal) {
    let said = async {
        stream.write_all(refusal.words().as_bytes()).await?;
        stream.shutdown().await?;
        copy(&mut stream, &mut sink()).await
    };
    _ = timeout(LINGER, said).await;
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
