//! Admission: registered and routed in one step, and held while fenced. Nothing of the request's body is read meanwhile,
//! and no client is told to go on with one.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{super::failure::Failure, Exchange, asked::Asked, whose::Whose};
use crate::registry::{Admission, AdmitRequest, HeldLogin, OnFence, SessionGuard, SessionKind};
use ferrypost_proto::v1::Protocol;

impl Exchange<'_> {
    /// Registers the exchange; waits while its name is fenced.
    pub(super) async fn admit(
        &mut self,
        asked: &Asked,
        whose: &Whose,
    ) -> Result<SessionGuard, Failure> {
        let began = Instant::now();
        loop {
            let request = AdmitRequest {
                subject: whose.subject.clone(),
                kind: SessionKind::Exchange,
                on_fence: OnFence::Hold,
                protocol: Protocol::Http,
                client: Some(self.client.ends.peer),
                reference: self.client.reference.to_string(),
            };
            match self.client.web.services.registry.admit(request) {
                Admission::Routed(guard) => {
                    self.was_held(began.elapsed());
                    return Ok(guard);
                }
                Admission::Held(held) => self.hold(held).await?,
                // Said of who would not wait, which this does.
                Admission::Deferred => return Err(Failure::HeldTooLong),
                Admission::Refused(no_route) => {
                    return Err(Failure::NoRoute(no_route, asked.challenge()));
                }
                Admission::NoTable => return Err(Failure::NoTable),
                Admission::TooManyHeld(limit) => return Err(Failure::TooManyHeld(limit)),
                Admission::Closed(reason) => return Err(Failure::Told(reason)),
            }
        }
    }

    /// Waits for the end of the fence.
    async fn hold(&mut self, held: HeldLogin) -> Result<(), Failure> {
        let limit = self.client.web.services.limits.hold.timeout;
        let until = *self
            .held_until
            .get_or_insert_with(|| Instant::now() + limit);
        tokio::select! {
            biased;
            reason = held.closing() => Err(Failure::Told(reason)),
            () = held.released() => Ok(()),
            () = sleep_until(until) => Err(Failure::HeldTooLong),
        }
    }

    fn was_held(&mut self, time: Duration) {
        if self.held_until.is_some() {
            self.record().held += time;
        }
    }
}
