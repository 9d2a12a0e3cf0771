//! One message: who is to get it, and what has become of that.

use std::{pin::pin, sync::Arc};

use ferrypost_proto::DestinationId;
use ferrypost_wire::lmtp::Envelope;
use futures_util::{StreamExt as _, future::pending, stream::FuturesUnordered};

use super::{outcome::Fate, record::Trail};
use crate::{
    metrics::words::DeliveryOutcome,
    registry::{CloseReason, Ending, Proof, SessionGuard},
};

/// A message from its sender to the last answer.
pub(super) struct Transaction {
    /// Who sends it.
    pub(super) from: Arc<Envelope>,
    /// Those whom we have said yes to, in the order in which they were named.
    recipients: Vec<Recipient>,
    /// Servers that could not be reached: none is tried twice for one message.
    unreachable: Vec<(DestinationId, Fate)>,
}

/// A recipient that a server has accepted.
pub(super) struct Recipient {
    /// As named.
    pub(super) to: Envelope,
    /// Which server.
    pub(super) server: usize,
    /// What the log says of it.
    pub(super) trail: Trail,
    stage: Stage,
}

enum Stage {
    /// The server knows it; nothing may have been delivered.
    Admitted(SessionGuard),
    /// The message is whole, and the server has not given its word.
    Exposed(SessionGuard),
    /// It is known what became of it.
    Settled(Fate),
}

impl Recipient {
    /// One that its server has just accepted.
    pub(super) fn new(to: Envelope, server: usize, guard: SessionGuard, trail: Trail) -> Self {
        Self {
            to,
            server,
            trail,
            stage: Stage::Admitted(guard),
        }
    }

    /// What became of it, if that is known.
    pub(super) fn fate(&self) -> Option<&Fate> {
        match &self.stage {
            Stage::Settled(fate) => Some(fate),
            Stage::Admitted(_) | Stage::Exposed(_) => None,
        }
    }

    fn admitted(&self) -> Option<&SessionGuard> {
        match &self.stage {
            Stage::Admitted(guard) => Some(guard),
            Stage::Exposed(_) | Stage::Settled(_) => None,
        }
    }
}

impl Transaction {
    /// A message from this sender.
    pub(super) fn new(from: Envelope) -> Self {
        Self {
            from: Arc::new(from),
            recipients: Vec::new(),
            unreachable: Vec::new(),
        }
    }

    /// Those whom we have said yes to.
    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Another one.
    pub(super) fn push(&mut self, recipient: Recipient) {
        self.recipients.push(recipient);
    }

    /// What came of trying to reach a server for this message.
    pub(super) fn unreachable(&self, destination: &DestinationId) -> Option<Fate> {
        let mut all = self.unreachable.iter();
        let (_, fate) = all.find(|(unreachable, _)| unreachable == destination)?;
        Some(fate.clone())
    }

    /// Takes note that a server could not be reached.
    pub(super) fn note_unreachable(&mut self, destination: DestinationId, why: Fate) {
        self.unreachable.push((destination, why));
    }

    /// Whether a server has said yes to somebody.
    pub(super) fn knows(&self, server: usize) -> bool {
        self.recipients.iter().any(|it| it.server == server)
    }

    /// Those of a server's of whom it is not known what became.
    pub(super) fn unsettled(&self, server: usize) -> Vec<usize> {
        let numbered = self.recipients.iter().enumerate();
        let unsettled = numbered.filter(|(_, it)| it.server == server && it.fate().is_none());
        unsettled.map(|(number, _)| number).collect()
    }

    /// The fate to tell of all at once, if there is one: for later, where time may mend one of them, or where somebody could
    /// have the message but for the others.
    pub(super) fn mildest(&self) -> Option<Fate> {
        let fates = self.recipients.iter().filter_map(Recipient::fate);
        let mildest = fates.min_by_key(|fate| fate.is_final())?;
        let is_spared = |recipient: &Recipient| recipient.fate().is_none();
        if mildest.is_final() && self.recipients.iter().any(is_spared) {
            return Some(DeliveryOutcome::ServerDeferred.into());
        }
        Some(mildest.clone())
    }

    /// Those of a server's recipients that it may still deliver to.
    pub(super) fn live(&self, server: usize) -> impl Iterator<Item = (usize, &Envelope)> {
        let numbered = self.recipients.iter().enumerate();
        let live = numbered.filter(move |(_, it)| it.server == server && it.admitted().is_some());
        live.map(|(number, recipient)| (number, &recipient.to))
    }

    /// How those who may still be delivered to hear that they must end, with their servers.
    pub(super) fn endings(&self) -> impl Iterator<Item = (usize, Ending)> {
        let live = self.recipients.iter();
        live.filter_map(|it| Some((it.server, it.admitted()?.ending())))
    }

    /// Waits until somebody who may still be delivered to is told to end. Cancel-safe.
    pub(super) async fn told(&self) -> (usize, CloseReason) {
        let numbered = self.recipients.iter().enumerate();
        let guards = numbered.filter_map(|(number, it)| Some((number, it.admitted()?)));
        let telling = guards.map(|(number, guard)| async move { (number, guard.closing().await) });
        let mut telling: FuturesUnordered<_> = telling.collect();
        match telling.next().await {
            Some(told) => told,
            None => pending().await,
        }
    }

    /// Waits for `work`, and lets go meanwhile of those who are told to end. The servers that know one of them are
    /// returned: what they know must not be delivered as it is.
    pub(super) async fn letting_go<T>(&mut self, work: impl Future<Output = T>) -> (T, Vec<usize>) {
        let mut work = pin!(work);
        let mut tainted = Vec::new();
        loop {
            let (number, reason) = tokio::select! {
                biased;
                done = &mut work => return (done, tainted),
                told = self.told() => told,
            };
            tainted.push(self.let_go(number, reason));
        }
    }

    /// Lets go of one who is told to end. Returns the server that knows it.
    pub(super) fn let_go(&mut self, number: usize, reason: CloseReason) -> usize {
        self.settle(number, DeliveryOutcome::from(reason).into());
        self.recipients[number].server
    }

    /// Those who have been told to end.
    pub(super) fn already_told(&self) -> Vec<(usize, CloseReason)> {
        let numbered = self.recipients.iter().enumerate();
        let told = numbered.filter_map(|(number, it)| {
            let reason = it.admitted()?.close_reason()?;
            Some((number, reason))
        });
        told.collect()
    }

    /// It is known what becomes of a recipient to whom nothing can have been delivered, nor will be: it leaves the
    /// registry. Its server must not be sent the end of the message with it any more.
    pub(super) fn settle(&mut self, number: usize, fate: Fate) {
        let recipient = &mut self.recipients[number];
        if recipient.fate().is_none() {
            recipient.stage = Stage::Settled(fate);
        }
    }

    /// The same for all of a server's.
    pub(super) fn settle_all(&mut self, server: usize, outcome: DeliveryOutcome) {
        for recipient in &mut self.recipients {
            if recipient.server == server && recipient.fate().is_none() {
                recipient.stage = Stage::Settled(outcome.into());
            }
        }
    }

    /// The same for those of servers that were lost.
    pub(super) fn lose(&mut self, servers: Vec<usize>) {
        for server in servers {
            self.settle_all(server, DeliveryOutcome::Lost);
        }
    }

    /// The same for all of whom it is not known.
    pub(super) fn settle_rest(&mut self, fate: &Fate) {
        for recipient in &mut self.recipients {
            if recipient.fate().is_none() {
                recipient.stage = Stage::Settled(fate.clone());
            }
        }
    }

    /// The mail system has taken the message back, or is gone.
    pub(super) fn withdraw(&mut self) {
        self.settle_rest(&DeliveryOutcome::Withdrawn.into());
    }

    /// The message is on its way.
    pub(super) fn relaying(&self) {
        for guard in self.recipients.iter().filter_map(Recipient::admitted) {
            guard.relaying();
        }
    }

    /// The end of the message is about to be sent to these.
    pub(super) fn expose(&mut self, numbers: impl Iterator<Item = usize>) {
        for number in numbers {
            let recipient = &mut self.recipients[number];
            let stage = std::mem::replace(&mut recipient.stage, Stage::Settled(unknown()));
            recipient.stage = match stage {
                Stage::Admitted(mut guard) => {
                    guard.exposed();
                    Stage::Exposed(guard)
                }
                stage => stage,
            };
        }
    }

    /// What became of one whose server may have delivered to it, and what shows that nothing more comes; without that
    /// its end is one that nobody saw.
    pub(super) fn conclude(&mut self, number: usize, fate: Fate, proof: Option<Proof>) {
        let recipient = &mut self.recipients[number];
        let stage = std::mem::replace(&mut recipient.stage, Stage::Settled(fate));
        match (stage, proof) {
            (Stage::Exposed(guard), Some(proof)) => guard.closed(proof),
            (Stage::Exposed(_) | Stage::Admitted(_), _) => {}
            (settled @ Stage::Settled(_), _) => recipient.stage = settled,
        }
    }
}

/// Never seen: it stands in while another takes its place.
fn unknown() -> Fate {
    DeliveryOutcome::Unanswered.into()
}
