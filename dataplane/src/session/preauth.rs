//! A client that is not logged in: we are its server.

use std::{io, net::SocketAddr};

use ferrypost_wire::{
    Channel, ClientFacts, ClientReply, ClientViolation, Credentials, Front, FrontStep,
    InvalidCredentials, LineProtocol, SessionReference, TlsFacts,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    line::LineServices,
    newcomer::Newcomer,
    outcome::{AttemptError, SessionError},
    relay::LINGER,
    rounds::Connection,
};
use crate::{
    config::ListenerTls,
    limits::PreauthLimits,
    net::{
        TcpStream,
        leg::{Encrypted, InjectedInput, Leg, LegError, LegState, Plaintext},
        proxy::Ends,
        tls_server::{HandshakeError, Secured, ServerTls},
    },
    registry::CloseReason,
};

/// A line end and a little more, on top of the longest line.
const LINE_SLACK: usize = 16;

/// A connection as its listener hands it over.
pub struct ClientConnection {
    /// The socket.
    pub stream: TcpStream,
    /// Whose it is, whoever passed it on.
    pub ends: Ends,
    /// When TLS begins.
    pub mode: ListenerTls,
    /// What we show in the handshake.
    pub tls: ServerTls,
    /// Counts it among those that are not logged in.
    pub newcomer: Newcomer,
}

/// A client under TLS that is not logged in.
pub(super) struct Preauth<P: LineProtocol> {
    leg: Leg<Encrypted>,
    front: P::Front,
    tls: TlsFacts,
    named_protocol: bool,
    ends: Ends,
    limits: PreauthLimits,
    stopping: CancellationToken,
    /// When the client must be logged in.
    deadline: Instant,
    failures: u32,
    _newcomer: Newcomer,
}

impl<P: LineProtocol> Preauth<P> {
    /// Greets a client and brings it under TLS. Nothing that could be a secret is taken before.
    pub(super) async fn open(
        line: &LineServices<P>,
        connection: ClientConnection,
    ) -> Result<Self, SessionError> {
        let services = &line.services;
        let limits = services.limits.preauth_of(P::KIND);
        let deadline = Instant::now() + limits.login;
        let leg = Leg::new(connection.stream, limits.front.max_line + LINE_SLACK);
        let channel = match connection.mode {
            ListenerTls::Implicit => Channel::Secure,
            ListenerTls::StartTls => Channel::Clear,
        };
        let mut front = if connection.ends.is_check {
            line.front_for_a_check(channel)
        } else {
            line.front(channel)
        };
        let mut greeting = Vec::new();
        front.greet(&mut greeting);
        let (leg, greeting) = match connection.mode {
            ListenerTls::Implicit => (leg, greeting),
            ListenerTls::StartTls => {
                let clear = Clear {
                    leg,
                    front: &mut front,
                    stopping: &services.stopping,
                    deadline,
                };
                (clear.until_starttls(&greeting).await?, Vec::new())
            }
        };
        let handshake = connection.tls.accept(leg, &greeting);
        let Secured {
            leg,
            facts,
            protocol,
        } = tokio::select! {
            biased;
            done = timeout(limits.handshake, handshake) => {
                done.map_err(|_| SessionError::HandshakeTimeout)??
            }
            () = stopped(&services.stopping) => {
                return Err(SessionError::Told(CloseReason::Stopping));
            }
        };
        let mut unasked = Vec::new();
        if connection.mode == ListenerTls::StartTls {
            front.secured(&mut unasked);
        }
        let mut client = Self {
            leg,
            front,
            tls: facts,
            named_protocol: protocol.is_some(),
            ends: connection.ends,
            limits,
            stopping: services.stopping.clone(),
            deadline,
            failures: 0,
            _newcomer: connection.newcomer,
        };
        if !unasked.is_empty() {
            client.say(&unasked).await?;
        }
        Ok(client)
    }

    /// Answers the client until it logs in, or tries to with what cannot be credentials.
    pub(super) async fn next_login(
        &mut self,
    ) -> Result<Result<Credentials, InvalidCredentials>, SessionError> {
        let step = pump(
            &mut self.leg,
            &mut self.front,
            &self.stopping,
            self.deadline,
        )
        .await?;
        match step {
            FrontStep::Login(credentials) => Ok(Ok(credentials)),
            FrontStep::Unfit(invalid) => Ok(Err(invalid)),
            FrontStep::Close => Err(SessionError::Left),
            FrontStep::NeedMore | FrontStep::StartTls => Err(SessionError::Machine),
        }
    }

    /// Gives a held client a sign of life.
    pub(super) async fn sign_of_life(&mut self) -> Result<(), LegError> {
        let mut out = Vec::new();
        self.front.held(&mut out);
        self.say(&out).await
    }

    /// Sends a few words, for which a client has to make room in time.
    async fn say(&mut self, words: &[u8]) -> Result<(), LegError> {
        let said = timeout(self.limits.handshake, self.leg.write_public(words)).await;
        said.unwrap_or(Err(LegError::Io(io::ErrorKind::TimedOut.into())))
    }

    /// The client's address.
    pub(super) fn peer(&self) -> SocketAddr {
        self.ends.peer
    }

    /// Its connection, by both its ends; `None` where whoever told it left out the port that tells its connections apart.
    pub(super) fn connection(&self) -> Option<Connection> {
        let Ends { peer, local, .. } = self.ends;
        (peer.port() != 0).then_some((peer, local))
    }

    /// What may be announced about the client; `None` when it must not be passed on.
    pub(super) fn facts(&self, session: SessionReference) -> Option<ClientFacts> {
        let Ends {
            peer, local, hops, ..
        } = self.ends;
        let introduction = self.front.introduction();
        let hops = hops?.and_by_its_own_word(introduction.hops())?;
        Some(ClientFacts {
            peer,
            local,
            tls: Some(self.tls.clone()),
            session,
            hops,
            introduction,
        })
    }

    /// The protocol that it named in its handshake.
    pub(super) fn alpn(&self) -> Option<&'static str> {
        P::ALPN.filter(|_| self.named_protocol)
    }

    /// Answers a login that did not succeed. `Ok` if the client may try again.
    ///
    /// A failed login is answered no sooner than it is `due`, wherever it failed, so that nobody learns from the
    /// clock where an account lives or that there is none. It came when it was `received`.
    pub(super) async fn refuse(
        &mut self,
        error: AttemptError,
        received: Instant,
        due: Instant,
    ) -> Result<(), SessionError> {
        if error.is_failed_login() {
            self.failures += 1;
            let floor = tokio::time::sleep_until(due);
            // A process that stops does not wait for politeness towards guessers.
            _ = self.stopping.run_until_cancelled(floor).await;
        }
        // Our time is not the client's.
        self.deadline += received.elapsed();
        let end = match error {
            AttemptError::Client(error) => Some(SessionError::Client(error)),
            AttemptError::Told(reason) => Some(SessionError::Told(reason)),
            AttemptError::RouteChanged => Some(SessionError::Told(CloseReason::Moved)),
            error => {
                let mut out = Vec::new();
                let reply = error.client_reply();
                let closes = reply.closes();
                self.front.reply(reply, &mut out);
                self.say(&out).await?;
                if closes {
                    Some(SessionError::Violation(ClientViolation::LineTooLong))
                } else {
                    (self.failures >= self.limits.failures).then_some(SessionError::TooManyFailures)
                }
            }
        };
        end.map_or(Ok(()), Err)
    }

    /// Ends pre-authentication: yields the leg, the words in which the client is to learn that it is logged
    /// in, and what watches the relay.
    pub(super) fn accept(self, welcome: P::Welcome) -> (Leg<Encrypted>, Vec<u8>, P::Follow) {
        let mut out = Vec::new();
        let follower = self.front.accept(welcome, &mut out);
        (self.leg, out, follower)
    }

    /// Ends a session that did not come to be relayed.
    pub(super) async fn leave(&mut self, error: &SessionError) {
        leave(&mut self.leg, &mut self.front, error).await;
    }
}

/// A client in clear, of whom nothing is taken but STARTTLS.
struct Clear<'a, F> {
    leg: Leg<Plaintext>,
    front: &'a mut F,
    stopping: &'a CancellationToken,
    deadline: Instant,
}

impl<F: Front> Clear<'_, F> {
    async fn until_starttls(mut self, greeting: &[u8]) -> Result<Leg<Plaintext>, SessionError> {
        self.leg.write_public(greeting).await?;
        let step = pump(&mut self.leg, self.front, self.stopping, self.deadline).await;
        let error = match step {
            Ok(FrontStep::StartTls) => return Ok(self.leg),
            Ok(FrontStep::Close) => SessionError::Left,
            // A login in clear is not even looked at.
            Ok(FrontStep::NeedMore | FrontStep::Login(_) | FrontStep::Unfit(_)) => {
                SessionError::Machine
            }
            Err(error) => error,
        };
        leave(&mut self.leg, self.front, &error).await;
        Err(error)
    }
}

/// Says goodbye, if there is something to say and somebody to hear it, and closes in good manners: a close
/// with something of the client's unread would be a reset, which could overtake the goodbye.
async fn leave<S: LegState, F: Front>(leg: &mut Leg<S>, front: &mut F, error: &SessionError) {
    if matches!(
        error,
        SessionError::Client(LegError::Io(_)) | SessionError::Handshake(_)
    ) {
        return;
    }
    let mut out = Vec::new();
    if let Some(farewell) = error.farewell().filter(|_| !leg.is_mid_write()) {
        front.reply(ClientReply::Closing(farewell), &mut out);
    }
    let left = async {
        leg.write_public(&out).await?;
        leg.finish().await?;
        leg.peer_closed().await
    };
    _ = timeout(LINGER, left).await;
}

/// The end of the patience with who is shaking hands when the process stops: whoever is at it hears its goodbye
/// under TLS, and a stranger that is silent keeps nobody waiting.
async fn stopped(stopping: &CancellationToken) {
    stopping.cancelled().await;
    sleep(LINGER).await;
}

/// Feeds the machine and sends its answers until it wants something else than more input.
async fn pump<S: LegState, F: Front>(
    leg: &mut Leg<S>,
    front: &mut F,
    stopping: &CancellationToken,
    deadline: Instant,
) -> Result<FrontStep, SessionError> {
    let pumping = async {
        let mut out = Vec::new();
        loop {
            let step = front.step(leg.buffer(), &mut out);
            if matches!(step, Ok(FrontStep::StartTls)) && !leg.buffer().is_empty() {
                // Not even answered: whoever put that there must not learn that it was read.
                return Err(HandshakeError::Injected(InjectedInput).into());
            }
            leg.write_public(&out).await?;
            out.clear();
            match step? {
                FrontStep::NeedMore => leg.fill().await?,
                step => return Ok(step),
            }
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => Err(SessionError::Told(CloseReason::Stopping)),
        step = timeout_at(deadline, pumping) => step.unwrap_or(Err(SessionError::LoginTimeout)),
    }
}
