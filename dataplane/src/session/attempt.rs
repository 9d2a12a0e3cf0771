//! One login, from the credentials to the backend's verdict.
//!
//! Everything after admission can be cut short by the registry. A connection whose backend has accepted the
//! login is closed with proof before the guard lets go of the session; one whose backend has not is no
//! session, and is left at once.

use std::pin::pin;

use ferrypost_proto::{DestinationId, Endpoint, LoginIdentity, Name, SecondName};
use ferrypost_wire::{Credentials, LineProtocol, Negotiate as _, SessionReference};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument as _, debug_span};

#[cfg(feature = "sabotage")]
use super::sabotage::reach;
use super::{
    context::{LoginRecord, Services},
    identity::identify,
    login::{self, LoginVerdict},
    outcome::AttemptError,
    preauth::Preauth,
};
use crate::{
    backend::{
        on_the_wire,
        open::{Caller, Opened, open},
    },
    net::{leg::BackendLeg, proxy::Announced},
    registry::{Admission, AdmitRequest, CloseReason, HeldLogin, SessionGuard},
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
    /// How long it may be held, whatever happens in between.
    pub(super) held_until: Instant,
}

impl<P: LineProtocol> Attempt<'_, P> {
    /// Takes the login through all its stages.
    pub(super) async fn run(
        &mut self,
        credentials: Credentials,
    ) -> Result<Accepted<P::Welcome>, AttemptError> {
        let identity = self.identify(&credentials)?;
        let (guard, opened) = reach(self, &identity).await?;
        self.log_in(guard, opened, credentials).await
    }

    /// Whose login the credentials make.
    fn identify(&mut self, credentials: &Credentials) -> Result<LoginIdentity, AttemptError> {
        let table = self.services.tables.current();
        let table = table.ok_or(AttemptError::NoTable)?;
        let names = table.config().names();
        let identity = identify(names, &*self.services.tokens, credentials)?;
        self.trail.name = Some(identity.name().clone());
        Ok(identity)
    }

    /// Admits the session and opens its backend. A fence that comes up before the credentials are used
    /// sends it back to admission, where it is held.
    pub(super) async fn reach(
        &mut self,
        identity: &LoginIdentity,
    ) -> Result<(SessionGuard, Opened<P>), AttemptError> {
        loop {
            let guard = self
                .admit(identity.name())
                .instrument(debug_span!("admission"))
                .await?;
            self.trail.route = Some(guard.route().clone());
            let destination = &guard.route().destination;
            let opened = tokio::select! {
                biased;
                reason = guard.closing() => Err(AttemptError::Told(reason)),
                opened = self.open(destination, identity.second_name()).instrument(debug_span!("dial")) => opened,
            };
            match opened {
                Ok(opened) => return Ok((guard, opened)),
                Err(AttemptError::Told(CloseReason::Moved)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Registers the session; waits while its name is fenced.
    pub(super) async fn admit(&mut self, name: &Name) -> Result<SessionGuard, AttemptError> {
        let began = Instant::now();
        loop {
            let request = AdmitRequest {
                name: name.clone(),
                protocol: on_the_wire(P::KIND),
                client: self.client.peer(),
                reference: self.reference.to_string(),
            };
            match self.services.registry.admit(request) {
                Admission::Routed(guard) => {
                    self.trail.held += began.elapsed();
                    return Ok(guard);
                }
                Admission::Held(held) => self.hold(held).await?,
                Admission::Refused(refusal) => return Err(AttemptError::Refused(refusal)),
                Admission::NoTable => return Err(AttemptError::NoTable),
                Admission::TooManyHeld(limit) => return Err(AttemptError::TooManyHeld(limit)),
                Admission::Closed(reason) => return Err(AttemptError::Told(reason)),
            }
        }
    }

    /// Waits for the end of the fence.
    async fn hold(&mut self, held: HeldLogin) -> Result<(), AttemptError> {
        let keep_alive = self.services.limits.hold.keep_alive;
        loop {
            tokio::select! {
                biased;
                reason = held.closing() => return Err(AttemptError::Told(reason)),
                () = held.released() => return Ok(()),
                () = sleep_until(self.held_until) => return Err(AttemptError::HeldTooLong),
                () = sleep(keep_alive) => {}
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
    ) -> Result<Opened<P>, AttemptError> {
        let endpoint = self.endpoint(destination)?;
        if let Some(second) = second.filter(|second| !endpoint.is_known_to_heed(*second)) {
            return Err(AttemptError::SecondName(second));
        }
        self.trail.announcement = Some(endpoint.announcement);
        let facts = self.client.facts(self.reference.clone());
        let caller = Caller::Client(Announced {
            client: &facts,
            alpn: self.client.alpn(),
        });
        let opened = open::<P>(&self.services.dialer, &endpoint, caller).await;
        match opened {
            Ok(opened) => {
                self.trail.opened(&opened);
                match second.filter(|second| is_seen_to_ignore::<P>(&opened, *second)) {
                    Some(second) => Err(AttemptError::Unheeded(second)),
                    None => Ok(opened),
                }
            }
            Err(failure) => {
                self.trail.failed_to_open(&failure);
                Err(AttemptError::Open(Box::new(failure)))
            }
        }
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
        mut guard: SessionGuard,
        opened: Opened<P>,
        credentials: Credentials,
    ) -> Result<Accepted<P::Welcome>, AttemptError> {
        let Opened { mut leg, back, .. } = opened;
        let limits = self.services.limits;
        let began = Instant::now();
        let replay = login::replay(&mut leg, back.into_login(credentials), limits.backend.login);
        let verdict = {
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
        };
        self.trail.replay = began.elapsed();
        let refused = match verdict {
            Ok(LoginVerdict::Accepted(welcome)) => {
                guard.backend_accepted();
                return match guard.recheck() {
                    Ok(()) => Ok(Accepted {
                        backend: leg,
                        guard,
                        welcome,
                    }),
                    Err(recheck) => {
                        if let Some(proof) = login::close(leg, limits.relay.close).await {
                            guard.closed(proof);
                        }
                        Err(recheck.into())
                    }
                };
            }
            Ok(LoginVerdict::Rejected(rejection)) => AttemptError::Rejected(rejection),
            Err(error) => error,
        };
        // Out of the registry first: no fence waits for the end of a connection on which nobody has accepted a
        // login (decision 0005).
        drop(guard);
        login::abandon(leg, limits.relay.close).await;
        Err(refused)
    }
}

/// Whether a server is seen to log in somebody else than its endpoint says.
fn is_seen_to_ignore<P: LineProtocol>(opened: &Opened<P>, second: SecondName) -> bool {
    second == SecondName::AuthorizationIdentity && P::ignores_authorization(&opened.back)
}

/// Admission first, then the dial: the order that loses nobody.
#[cfg(not(feature = "sabotage"))]
async fn reach<P: LineProtocol>(
    attempt: &mut Attempt<'_, P>,
    identity: &LoginIdentity,
) -> Result<(SessionGuard, Opened<P>), AttemptError> {
    attempt.reach(identity).await
}
