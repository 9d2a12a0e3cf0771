//! One login, from the credentials to the backend's verdict.
//!
//! Everything after admission can be cut short by the registry. A connection whose backend has accepted the
//! login is closed with proof before the guard lets go of the session; one whose backend has not is no
//! session, and is left at once. Where it was a fence, the login begins again with its admission, in which it is
//! held, and the client is not asked: it was only early (decision 0024).

use std::pin::pin;

use ferrypost_proto::{DestinationId, Endpoint, LoginIdentity, Name, SecondName};
use ferrypost_wire::{Credentials, LineProtocol, Login, Negotiate, SessionReference};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument as _, Span, debug_span, field::Empty};

#[cfg(feature = "sabotage")]
use super::sabotage::{caller, reach};
use super::{
    context::{LoginRecord, Services},
    identity,
    login::{self, LoginVerdict},
    outcome::AttemptError,
    preauth::Preauth,
    rounds::{CameRound, OnItsWay},
};
#[cfg(not(feature = "sabotage"))]
use crate::backend::open::Caller;
use crate::{
    backend::{
        Target,
        breaker::Pass,
        on_the_wire,
        open::{Opened, open},
    },
    net::{leg::BackendLeg, proxy::Announced},
    registry::{
        Admission, AdmitRequest, CloseReason, HeldLogin, OnFence, SessionGuard, SessionKind,
        Subject,
    },
};

/// A login that the backend has accepted and that may be relayed.
pub(super) struct Accepted<W> {
    pub(super) backend: BackendLeg,
    pub(super) guard: SessionGuard,
    pub(super) welcome: W,
}

/// A login on its way.
pub(super) struct Attempt<'a, P: LineProtocol> {
    pub(super) services: &'a Services,
    pub(super) client: &'a mut Preauth<P>,
    pub(super) reference: &'a SessionReference,
    pub(super) trail: &'a mut LoginRecord,
    /// How long it may be held, whatever happens in between; not known before the first hold.
    pub(super) held_until: Option<Instant>,
    /// How many backends have been sent the credentials without a verdict of theirs.
    pub(super) undecided: u32,
    /// The breaker's, of the backend that was opened last.
    pub(super) pass: Option<Pass>,
}

/// How many backends may be sent credentials that none has judged: a guess is tried twice at most, however many
/// fences overtake it.
const MOST_UNDECIDED: u32 = 2;

/// What became of one connection to a backend.
enum Tried<W> {
    Accepted(Accepted<W>),
    /// A fence overtook it: to be admitted anew, with the credentials that it gave back.
    Overtaken(Credentials),
}

impl<P: LineProtocol> Attempt<'_, P> {
    /// Takes the login through all its stages.
    pub(super) async fn run(
        &mut self,
        mut credentials: Credentials,
    ) -> Result<Accepted<P::Welcome>, AttemptError> {
        let _on_its_way = self.set_out()?;
        self.first_table().await?;
        let identity = self.identify(&credentials).await?;
        loop {
            let (guard, opened) = reach(self, &identity).await?;
            match self.log_in(guard, opened, credentials).await? {
                Tried::Accepted(accepted) => return Ok(accepted),
                Tried::Overtaken(given_back) => credentials = given_back,
            }
            self.trail.overtaken += 1;
        }
    }

    /// Sets out, unless it has come round.
    fn set_out(&self) -> Result<Option<OnItsWay>, AttemptError> {
        let set_out = |ends| self.services.rounds.set_out(ends);
        let set_out = self.client.connection().map(set_out).transpose();
        set_out.map_err(|CameRound| AttemptError::CameRound)
    }

    /// Where this process has just started, waits for its first table: who is only early is not sent away.
    async fn first_table(&mut self) -> Result<(), AttemptError> {
        let (tables, limits) = (&self.services.tables, self.services.limits.hold);
        if tables.current().is_some() {
            return Ok(());
        }
        let began = Instant::now();
        let until = *self.held_until.insert(began + limits.timeout);
        loop {
            tokio::select! {
                biased;
                there = tables.first(until) => {
                    self.trail.held += began.elapsed();
                    return if there { Ok(()) } else { Err(AttemptError::NoTable) };
                }
                () = self.services.stopping.cancelled() => {
                    return Err(AttemptError::Told(CloseReason::Stopping));
                }
                () = sleep(limits.keep_alive) => {}
            }
            self.client
                .sign_of_life()
                .await
                .map_err(AttemptError::Client)?;
        }
    }

    /// Whose login the credentials make.
    async fn identify(&mut self, credentials: &Credentials) -> Result<LoginIdentity, AttemptError> {
        let services = self.services;
        let reading = identity::read(&*services.tokens, credentials);
        let reading = reading.instrument(debug_span!("identity"));
        let read = services.stopping.run_until_cancelled(reading).await;
        let read = read.ok_or(AttemptError::Told(CloseReason::Stopping))??;
        // Now, and not before an issuer was asked: what names mean may have changed meanwhile.
        let table = services.tables.current();
        let table = table.ok_or(AttemptError::NoTable)?;
        let identity = read.identify(table.config().names())?;
        self.trail.name = Some(identity.name().clone());
        self.trail.is_claim = read.is_claim();
        Ok(identity)
    }

    /// Admits the session and opens its backend. A fence that comes up before the credentials are used
    /// sends it back to admission, where it is held.
    pub(super) async fn reach(
        &mut self,
        identity: &LoginIdentity,
    ) -> Result<(SessionGuard, Opened<P::Back>), AttemptError> {
        loop {
            let guard = self
                .admit(identity.name())
                .instrument(debug_span!("admission"))
                .await?;
            self.trail.route = Some(guard.route().clone());
            let destination = &guard.route().destination;
            let dial = debug_span!("dial", otel.kind = "client", ferrypost.destination = %destination,
                server.address = Empty, server.port = Empty, error.type = Empty);
            let opened = tokio::select! {
                biased;
                reason = guard.closing() => Err(AttemptError::Told(reason)),
                opened = self.open(destination, identity.second_name()).instrument(dial) => opened,
            };
            match opened {
                Ok(opened) => return Ok((guard, opened)),
                // Whatever the server said: it is not the one to ask any more.
                Err(_) if guard.is_overtaken() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Registers the session; waits while its name is fenced.
    pub(super) async fn admit(&mut self, name: &Name) -> Result<SessionGuard, AttemptError> {
        let began = Instant::now();
        loop {
            let request = AdmitRequest {
                subject: Subject::from(name),
                kind: SessionKind::Session,
                on_fence: OnFence::Hold,
                protocol: on_the_wire(P::KIND),
                client: Some(self.client.peer()),
                reference: self.reference.to_string(),
            };
            match self.services.registry.admit(request) {
                Admission::Routed(guard) => {
                    self.trail.held += began.elapsed();
                    return Ok(guard);
                }
                Admission::Held(held) => self.hold(held).await?,
                // Said of who would not wait, which a login does.
                Admission::Deferred => return Err(AttemptError::HeldTooLong),
                Admission::Refused(refusal) => return Err(AttemptError::Refused(refusal)),
                Admission::NoTable => return Err(AttemptError::NoTable),
                Admission::TooManyHeld(limit) => return Err(AttemptError::TooManyHeld(limit)),
                Admission::Closed(reason) => return Err(AttemptError::Told(reason)),
            }
        }
    }

    /// Waits for the end of the fence.
    async fn hold(&mut self, held: HeldLogin) -> Result<(), AttemptError> {
        let limits = self.services.limits.hold;
        let until = self
            .held_until
            .get_or_insert_with(|| Instant::now() + limits.timeout);
        let until = *until;
        loop {
            tokio::select! {
                biased;
                reason = held.closing() => return Err(AttemptError::Told(reason)),
                () = held.released() => return Ok(()),
                () = sleep_until(until) => return Err(AttemptError::HeldTooLong),
                () = sleep(limits.keep_alive) => {}
            }
            self.client
                .sign_of_life()
                .await
                .map_err(AttemptError::Client)?;
        }
    }

    /// Opens the endpoint of the destination for a login that rests on `second`. Nothing is sent there where it
    /// is not known whose session that would be.
    pub(super) async fn open(
        &mut self,
        destination: &DestinationId,
        second: Option<SecondName>,
    ) -> Result<Opened<P::Back>, AttemptError> {
        let endpoint = self.endpoint(destination)?;
        if let Some(second) = second.filter(|second| !endpoint.is_known_to_heed(*second)) {
            return Err(unheeded(second, AttemptError::SecondName));
        }
        let facts = self
            .client
            .facts(self.reference.clone())
            .ok_or(AttemptError::GoneRound)?;
        let target = Target {
            destination: destination.clone(),
            protocol: on_the_wire(P::KIND),
        };
        let dialer = self.services.dialers.of(&target);
        let pass = self.pass(target, &endpoint)?;
        self.trail.announcement = Some(endpoint.announcement);
        let caller = caller(Announced {
            client: &facts,
            alpn: self.client.alpn(),
        });
        let opened = open(dialer, &endpoint, caller, P::back).await;
        match opened {
            Ok(opened) => {
                self.trail.opened::<P>(&opened);
                let span = Span::current();
                span.record(
                    "server.address",
                    tracing::field::display(opened.address.ip()),
                );
                span.record("server.port", opened.address.port());
                self.pass = Some(pass);
                match second.filter(|second| is_seen_to_ignore::<P>(&opened, *second)) {
                    Some(second) => Err(unheeded(second, AttemptError::Unheeded)),
                    None => Ok(opened),
                }
            }
            Err(failure) => {
                self.trail.failed_to_open(&failure);
                Span::current().record("error.type", "backend_unavailable");
                pass.could_not_open(&failure.error);
                Err(failure.into())
            }
        }
    }

    /// Asks the breaker.
    fn pass(&self, target: Target, endpoint: &Endpoint) -> Result<Pass, AttemptError> {
        let client = self.client.peer().ip();
        let pass = self.services.breakers.pass(target, endpoint, client);
        pass.map_err(|_| AttemptError::BreakerOpen)
    }

    fn endpoint(&self, destination: &DestinationId) -> Result<Endpoint, AttemptError> {
        let table = self.services.tables.current();
        let table = table.ok_or(AttemptError::NoTable)?;
        let destination = table.config().destination(destination);
        destination
            .and_then(|it| it.endpoint(on_the_wire(P::KIND), &self.services.group))
            .cloned()
            .ok_or(AttemptError::NoEndpoint)
    }

    /// Gives the backend the credentials, once, and reads its verdict. After a no, or without a verdict, its
    /// connection is closed: a client that is not logged in never talks to a backend.
    async fn log_in(
        &mut self,
        guard: SessionGuard,
        opened: Opened<P::Back>,
        credentials: Credentials,
    ) -> Result<Tried<P::Welcome>, AttemptError> {
        let Opened { mut leg, back, .. } = opened;
        if guard.is_overtaken() {
            self.leave(guard, leg).await;
            return Ok(Tried::Overtaken(credentials));
        }
        let began = Instant::now();
        let mut login = back.into_login(credentials);
        let verdict = self.verdict(&guard, &mut leg, &mut login).await;
        self.trail.replay = began.elapsed();
        match (self.pass.take(), &verdict) {
            (Some(pass), Ok(_)) => pass.answered(),
            (Some(pass), Err(AttemptError::Replay(_))) => pass.failed(),
            (_, Err(_)) | (None, _) => {}
        }
        let error = match verdict {
            Ok(LoginVerdict::Accepted(welcome)) => {
                return self.accepted(guard, leg, login, welcome).await;
            }
            Ok(LoginVerdict::Rejected(rejection)) => AttemptError::Rejected(rejection),
            Err(error) => error,
        };
        let overtaken = guard.is_overtaken();
        self.leave(guard, leg).await;
        self.undecided += 1;
        if overtaken && self.undecided < MOST_UNDECIDED {
            again(login, error)
        } else {
            Err(error)
        }
    }

    /// The backend's word on the credentials.
    async fn verdict(
        &mut self,
        guard: &SessionGuard,
        leg: &mut BackendLeg,
        login: &mut <P::Back as Negotiate>::Login,
    ) -> Result<LoginVerdict<P::Welcome>, AttemptError> {
        let limits = &self.services.limits;
        let replay = login::replay(leg, login, limits.backend.login);
        let mut replay = pin!(replay.instrument(debug_span!("replay")));
        let told = tokio::select! {
            biased;
            reason = guard.closing() => Err(reason),
            verdict = &mut replay => Ok(verdict),
        };
        match told {
            Ok(verdict) => verdict.map_err(AttemptError::from),
            Err(reason) => login::last_word(replay, reason, limits.relay.close).await,
        }
    }

    /// The backend has logged somebody in: relay it if the route is still the same (G2b), else close with proof.
    async fn accepted(
        &mut self,
        mut guard: SessionGuard,
        leg: BackendLeg,
        login: <P::Back as Negotiate>::Login,
        welcome: P::Welcome,
    ) -> Result<Tried<P::Welcome>, AttemptError> {
        guard.exposed();
        let Err(recheck) = guard.recheck() else {
            return Ok(Tried::Accepted(Accepted {
                backend: leg,
                guard,
                welcome,
            }));
        };
        let overtaken = guard.is_overtaken();
        if let Some(proof) = login::close(leg, self.services.limits.relay.close).await {
            guard.closed(proof);
        }
        if overtaken {
            again(login, recheck.into())
        } else {
            Err(recheck.into())
        }
    }

    /// Leaves a connection on which nobody has accepted a login. Out of the registry first: no fence waits for
    /// the end of such a one (decision 0005).
    async fn leave(&mut self, guard: SessionGuard, leg: BackendLeg) {
        drop(guard);
        login::abandon(leg, self.services.limits.relay.close).await;
    }
}

/// Takes the credentials back for another connection. Those that the backend has refused are used up, and its
/// answer is the client's.
fn again<L: Login, W>(login: L, error: AttemptError) -> Result<Tried<W>, AttemptError> {
    match login.into_credentials() {
        Some(credentials) => Ok(Tried::Overtaken(credentials)),
        None => Err(error),
    }
}

/// Why a login is not sent to a server that may let in somebody else. Nothing is wrong with a token that nobody but
/// the server can read.
fn unheeded(second: SecondName, otherwise: fn(SecondName) -> AttemptError) -> AttemptError {
    match second {
        SecondName::UnreadToken => AttemptError::TokenUnread,
        second => otherwise(second),
    }
}

/// Whether a server is seen to log in somebody else than its endpoint says.
fn is_seen_to_ignore<P: LineProtocol>(opened: &Opened<P::Back>, second: SecondName) -> bool {
    let rests_on_honour = matches!(
        second,
        SecondName::AuthorizationIdentity | SecondName::UnreadToken
    );
    rests_on_honour && P::ignores_authorization(&opened.back)
}

/// On whose behalf a server is asked: always the client's.
#[cfg(not(feature = "sabotage"))]
fn caller(client: Announced<'_>) -> Caller<'_> {
    Caller::Client(client)
}

/// Admission first, then the dial: the order that loses nobody.
#[cfg(not(feature = "sabotage"))]
async fn reach<P: LineProtocol>(
    attempt: &mut Attempt<'_, P>,
    identity: &LoginIdentity,
) -> Result<(SessionGuard, Opened<P::Back>), AttemptError> {
    attempt.reach(identity).await
}
