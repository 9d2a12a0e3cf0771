//! A mail system's connection to one server: kept from message to message, and never the business of a fence, which
//! waits for deliveries.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use ferrypost_proto::{DestinationId, Endpoint};
use ferrypost_wire::{
    Answered, BackendViolation,
    lmtp::{Answer, Delivery, Envelope, LmtpBack},
};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::{outcome::Fate, protocol::Verdicts};
use crate::{
    metrics::words::DeliveryOutcome,
    net::{
        CloseProof,
        leg::{BackendLeg, LegError},
    },
};

/// Time for our goodbye to a server that is done. Manners only.
const MANNERS: Duration = Duration::from_secs(1);

/// A server, and what it knows of the message that is on its way.
pub(super) struct Server {
    /// Which one.
    pub(super) destination: DestinationId,
    /// How it was reached.
    pub(super) endpoint: Endpoint,
    /// Where.
    pub(super) address: SocketAddr,
    /// `None`: nothing more can be said on the connection, and it is closed.
    link: Option<Link>,
    /// For how many its word is.
    verdicts: Verdicts,
    /// It has taken the sender.
    begun: bool,
    /// It knows something that must not be delivered: an older message's recipients, or one that has left. Nothing but a
    /// reset mends that.
    stale: bool,
    /// The recipients that it has accepted, by their numbers in the transaction, in the order of its words on them.
    accepted: VecDeque<usize>,
    /// It has been of use before: that it has closed meanwhile is no news about it.
    is_old: bool,
}

struct Link {
    leg: BackendLeg,
    back: LmtpBack,
    /// The server has spoken before it had the whole message.
    is_hasty: bool,
}

/// What a server says to a recipient.
pub(super) enum Said {
    /// Yes, in these words.
    Yes(Answer),
    /// No, or it cannot take the message.
    No(Fate),
}

/// What a server says before a message is sent.
#[derive(Default)]
pub(super) struct Ready {
    /// What became of recipients that it has said no to now.
    pub(super) refused: Vec<(usize, Fate)>,
}

/// Nothing more comes of a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// It failed, or was closed.
    #[error("the server: {0}")]
    Leg(#[from] LegError),
    /// The server broke the rules, or has said goodbye.
    #[error(transparent)]
    Violation(#[from] BackendViolation),
    /// It took too long.
    #[error("the server did not answer within the limit")]
    Timeout,
    /// It had been closed before.
    #[error("the connection is closed")]
    Closed,
    /// What it said would be taken for the answer to what it is asked next.
    #[error(
        "the server has said something that nobody had asked for, or has closed the connection"
    )]
    Unasked,
}

impl Server {
    /// A server that was just brought to where it takes messages.
    pub(super) fn new(
        destination: DestinationId,
        (endpoint, address): (Endpoint, SocketAddr),
        leg: BackendLeg,
        (back, verdicts): (LmtpBack, Verdicts),
    ) -> Self {
        Self {
            destination,
            endpoint,
            address,
            link: Some(Link {
                leg,
                back,
                is_hasty: false,
            }),
            verdicts,
            begun: false,
            stale: false,
            accepted: VecDeque::new(),
            is_old: false,
        }
    }

    /// Whether something can be said to it.
    pub(super) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it has been of use before.
    pub(super) fn is_old(&self) -> bool {
        self.is_old
    }

    /// Whether it waits for a message.
    pub(super) fn is_receiving(&self) -> bool {
        self.is_up() && !self.accepted.is_empty()
    }

    /// The recipients that it has accepted.
    pub(super) fn accepted(&self) -> impl Iterator<Item = usize> {
        self.accepted.iter().copied()
    }

    /// Closes the connection where it stands. What has not ended was never sent (RFC 5321 §4.1.1.4).
    pub(super) fn cut(&mut self) {
        self.link = None;
        self.accepted.clear();
    }

    /// The recipient that it accepted last must not be delivered to, and is none of the message's.
    pub(super) fn disown(&mut self) {
        self.accepted.pop_back();
        self.stale = true;
    }

    /// A recipient that it has accepted must not be delivered to.
    pub(super) fn taint(&mut self) {
        self.stale = true;
    }

    /// The message is over, or given up: the next one begins anew.
    pub(super) fn forget(&mut self) {
        self.stale |= self.begun;
        self.accepted.clear();
        self.is_old = true;
    }

    /// Offers it another recipient of the message.
    pub(super) async fn add(
        &mut self,
        from: &Envelope,
        (number, to): (usize, &Envelope),
        limit: Duration,
    ) -> Result<Said, Gone> {
        if self.stale && self.accepted.is_empty() {
            self.reset(limit).await?;
        }
        let begins = !self.begun;
        let mut out = Vec::new();
        let link = self.link_to_ask()?;
        if begins && link.back.mail(from, &mut out).is_err() {
            return Ok(Said::No(DeliveryOutcome::Unsupported.into()));
        }
        link.back.recipient(to, &mut out);
        self.say(&out, limit).await?;
        let mut no = None;
        if begins {
            match self.hear(limit).await? {
                Delivery::Mail(answer) if answer.is_yes() => self.begun = true,
                Delivery::Mail(answer) => no = Some(answer),
                _ => return Err(self.broken()),
            }
        }
        let Delivery::Recipient(answer) = self.hear(limit).await? else {
            return Err(self.broken());
        };
        match no {
            // Without a sender it has no recipients either.
            Some(no) => {
                self.stale = true;
                Ok(Said::No(Fate::by_server(no)))
            }
            None if answer.is_yes() => {
                self.accepted.push_back(number);
                Ok(Said::Yes(answer))
            }
            None => Ok(Said::No(Fate::by_server(answer))),
        }
    }

    /// Brings it to where the message can be sent to `live`, the recipients that it may still deliver to; there may be
    /// fewer afterwards, and none.
    pub(super) async fn prepare(
        &mut self,
        from: &Envelope,
        live: &[(usize, &Envelope)],
        limit: Duration,
    ) -> Result<Ready, Gone> {
        let mut ready = Ready::default();
        if self.stale {
            self.accepted.clear();
            for recipient in live {
                if let Said::No(fate) = self.add(from, *recipient, limit).await? {
                    ready.refused.push((recipient.0, fate));
                }
            }
        }
        if self.accepted.is_empty() {
            return Ok(ready);
        }
        match self.ask(LmtpBack::message, limit).await? {
            Delivery::GoAhead => {}
            Delivery::Refused(answer) => {
                let fate = Fate::by_server(answer);
                let refused = self.accepted.drain(..);
                ready.refused.extend(refused.map(|it| (it, fate.clone())));
                self.stale = true;
            }
            _ => return Err(self.broken()),
        }
        Ok(ready)
    }

    /// Passes on some octets of the message.
    pub(super) async fn pass(&mut self, octets: &[u8], limit: Duration) -> Result<(), Gone> {
        self.say(octets, limit).await
    }

    /// Says that the message is whole. From here on it may be delivered, whatever comes of the connection.
    pub(super) async fn end(&mut self, limit: Duration) -> Result<(), Gone> {
        let mut out = Vec::new();
        let link = self.link.as_mut().ok_or(Gone::Closed)?;
        link.is_hasty = !link.is_quiet();
        link.back.end(&mut out);
        let said = timeout(limit, link.leg.write_public(&out)).await;
        Ok(said.map_err(|_| Gone::Timeout)??)
    }

    /// Its next word on the message, and whom it is about. The connection stays as it is if none comes: how it ends may
    /// be the only evidence left.
    pub(super) async fn verdict(
        &mut self,
        limit: Duration,
    ) -> Result<(Vec<usize>, Answer, Answered), Gone> {
        let link = self.link.as_mut().ok_or(Gone::Closed)?;
        let heard = timeout(limit, link.hear()).await;
        let Delivery::Delivered(answer, last) = heard.map_err(|_| Gone::Timeout)?? else {
            return Err(BackendViolation::Malformed.into());
        };
        // It may refuse a message that it has not read. That it has stored it before is no word to rely on.
        if link.is_hasty && answer.is_yes() {
            return Err(BackendViolation::Malformed.into());
        }
        let about = match self.verdicts {
            Verdicts::PerRecipient => self.accepted.pop_front().into_iter().collect(),
            Verdicts::PerMessage => self.accepted.drain(..).collect(),
        };
        if self.accepted.is_empty() {
            self.begun = false;
        }
        Ok((about, answer, last))
    }

    /// Closes the connection and waits for the server's own close, behind which it does nothing any more.
    pub(super) async fn close(&mut self, limit: Duration) -> Option<CloseProof> {
        let mut link = self.link.take()?;
        let closed = async {
            // What fails here ends the writing and proves nothing.
            _ = link.leg.finish().await;
            link.leg.peer_closed().await
        };
        timeout(limit, closed).await.ok()?.ok()
    }

    /// Says goodbye, where nothing is open.
    pub(super) async fn leave(mut self) {
        let Some(mut link) = self.link.take().filter(|_| !self.begun) else {
            return;
        };
        let mut out = Vec::new();
        link.back.quit(&mut out);
        let leaving = async {
            if link.leg.write_public(&out).await.is_ok() {
                _ = link.leg.finish().await;
            }
        };
        _ = timeout(MANNERS, leaving).await;
    }

    async fn reset(&mut self, limit: Duration) -> Result<(), Gone> {
        match self.ask(LmtpBack::reset, limit).await? {
            Delivery::Reset => {
                self.begun = false;
                self.stale = false;
                Ok(())
            }
            _ => Err(self.broken()),
        }
    }

    async fn ask(
        &mut self,
        command: fn(&mut LmtpBack, &mut Vec<u8>),
        limit: Duration,
    ) -> Result<Delivery, Gone> {
        let mut out = Vec::new();
        let link = self.link_to_ask()?;
        command(&mut link.back, &mut out);
        self.say(&out, limit).await?;
        self.hear(limit).await
    }

    /// The connection, if the next that comes on it will be the answer to what is asked now: no answer is due.
    fn link_to_ask(&mut self) -> Result<&mut Link, Gone> {
        if self.link.as_mut().is_some_and(|link| !link.is_quiet()) {
            self.cut();
            return Err(Gone::Unasked);
        }
        self.link.as_mut().ok_or(Gone::Closed)
    }

    async fn say(&mut self, octets: &[u8], limit: Duration) -> Result<(), Gone> {
        let link = self.link.as_mut().ok_or(Gone::Closed)?;
        let said = timeout(limit, link.leg.write_public(octets)).await;
        let said = said.map_err(|_| Gone::Timeout);
        self.or_gone(said.and_then(|said| Ok(said?)))
    }

    async fn hear(&mut self, limit: Duration) -> Result<Delivery, Gone> {
        let link = self.link.as_mut().ok_or(Gone::Closed)?;
        let heard = timeout(limit, link.hear()).await;
        self.or_gone(heard.unwrap_or(Err(Gone::Timeout)))
    }

    /// It said what nobody had asked.
    fn broken(&mut self) -> Gone {
        self.cut();
        BackendViolation::Malformed.into()
    }

    fn or_gone<T>(&mut self, outcome: Result<T, Gone>) -> Result<T, Gone> {
        if outcome.is_err() {
            self.cut();
        }
        outcome
    }
}

impl Link {
    /// Whether nothing is there to be read, as far as our own machine knows.
    fn is_quiet(&mut self) -> bool {
        self.leg.buffer().is_empty() && self.leg.fill().now_or_never().is_none()
    }

    async fn hear(&mut self) -> Result<Delivery, Gone> {
        let mut out = Vec::new();
        loop {
            let heard = self.back.step(self.leg.buffer(), &mut out)?;
            self.leg.write_public(&out).await?;
            out.clear();
            match heard {
                Delivery::NeedMore => self.leg.fill().await?,
                heard => return Ok(heard),
            }
        }
    }
}
