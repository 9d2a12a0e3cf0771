//! The message: from DATA to the last answer about it.
//!
//! ```text
//!   prepare    who was told to end is taken out; DATA to every server that has somebody left
//!   send       octet by octet to all of them, as fast as the slowest takes it; nothing is kept
//!   verdicts   the end of the message, and every server's word on it
//! ```
//!
//! Before its end a message may be given up at any time, since a server that has not read the end forgets it (RFC 5321
//! §4.1.1.4): for a fence and for a stop that is after the time that all sessions have to come to an end, at a kick at
//! once. From the end to the server's word nothing of ours cuts it but `limits.deliveries.verdict`.

use std::{pin::pin, time::Duration};

use ferrypost_wire::{
    Answered,
    lmtp::{Answer, Hops, LmtpFront, Piece},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    client::{Client, End, say},
    courier::Courier,
    cuts::Cuts,
    outcome::Fate,
    protocol::Verdicts,
    server::{Gone, Server},
    trace::{Hop, MOST_HOPS},
    transaction::Transaction,
};
use crate::{
    metrics::words::DeliveryOutcome,
    net::{
        CloseProof,
        leg::{Leg, LegState},
    },
    registry::Proof,
};

/// How much came of a message.
enum Sent {
    /// All of it.
    Whole,
    /// No more can be read.
    BareLineEnd,
    /// None: the mail system has taken it back, and waits for no answer.
    Withdrawn,
}

/// A server's next word, or what the end of its connection shows.
struct Word<'a> {
    number: usize,
    server: &'a mut Server,
    said: Result<(Vec<usize>, Answer, Answered), Option<CloseProof>>,
}

/// How long a server may take for its word.
#[derive(Clone, Copy)]
struct Patience {
    answer: Duration,
    until: Instant,
    close: Duration,
}

impl<S: LegState> Courier<S> {
    /// Takes a message to those of its recipients that can have it, and answers about all.
    pub(super) async fn deliver(&mut self, transaction: &mut Transaction) -> Result<(), End> {
        for (number, reason) in transaction.already_told() {
            let server = transaction.let_go(number, reason);
            self.servers[server].taint();
        }
        let grace = self.post.services.limits.relay.drain;
        let mut cuts = Cuts::new(self.servers.len(), transaction.endings(), grace);
        // One word is for all: who cannot have the message any more spoils it for the others.
        let verdicts = self.post.protocol.verdicts();
        let is_spoiled =
            |of: &Transaction| verdicts == Verdicts::PerMessage && of.mildest().is_some();
        let asks = !is_spoiled(transaction);
        if asks {
            self.prepare(transaction, &mut cuts).await;
        }
        let nobody = !self.servers.iter().any(Server::is_receiving);
        if nobody || is_spoiled(transaction) {
            let fate = transaction.mildest();
            let fate = fate.unwrap_or_else(|| DeliveryOutcome::Lost.into());
            for server in &mut self.servers {
                // It waits for the message already.
                if asks && server.is_receiving() {
                    server.cut();
                }
                server.forget();
            }
            transaction.settle_rest(&fate);
            self.client.front.refuse(&fate.answer, &mut self.client.out);
            if self.client.front.is_idle() {
                return self.client.nothing_behind();
            }
            // Chunks need no leave to come.
            return Ok(());
        }
        self.client.front.go_ahead(&mut self.client.out);
        let sent = self.send(transaction, &mut cuts).await;
        if !matches!(sent, Ok(Sent::Whole)) {
            for server in self.servers.iter_mut().filter(|it| it.is_receiving()) {
                server.cut();
            }
        }
        if matches!(sent, Ok(Sent::BareLineEnd)) {
            transaction.settle_rest(&DeliveryOutcome::BareLineEnd.into());
        }
        match sent? {
            Sent::Whole => self.verdicts(transaction).await,
            Sent::BareLineEnd => {
                self.verdicts(transaction).await?;
                Err(End::Smuggled)
            }
            // Whoever is left is let go of with the transaction.
            Sent::Withdrawn => Ok(()),
        }
    }

    async fn prepare(&mut self, transaction: &mut Transaction, cuts: &mut Cuts) {
        transaction.relaying();
        let limit = self.limits().answer;
        let outcomes = {
            let (from, of) = (&transaction.from, &*transaction);
            let concerned = self.servers.iter_mut().enumerate();
            let concerned =
                concerned.filter(|(number, server)| of.knows(*number) && server.is_up());
            let preparing = concerned.map(|(number, server)| {
                let (cut, live) = (cuts.token(number), of.live(number).collect::<Vec<_>>());
                async move {
                    let preparing = server.prepare(from, &live, limit);
                    (number, cut.run_until_cancelled(preparing).await)
                }
            });
            all(preparing.collect(), cuts).await
        };
        for (number, outcome) in outcomes {
            match outcome {
                Some(Ok(ready)) => {
                    for (recipient, fate) in ready.refused {
                        transaction.settle(recipient, fate);
                    }
                }
                Some(Err(_)) => transaction.settle_all(number, DeliveryOutcome::Lost),
                // Cut: that is seen to below.
                None => {}
            }
        }
        cut_due(&mut self.servers, transaction, cuts);
    }

    /// Passes the message on as it comes.
    async fn send(&mut self, transaction: &mut Transaction, cuts: &mut Cuts) -> Result<Sent, End> {
        let limits = self.limits();
        self.flush_in_message(transaction, cuts).await?;
        let mut hops = Hops::default();
        let header = self.header();
        let lost = pass(header.as_bytes(), &mut self.servers, cuts, limits.stalled).await;
        transaction.lose(lost);
        loop {
            cut_due(&mut self.servers, transaction, cuts);
            let Client { leg, front, out } = &mut self.client;
            match front.content(leg.buffer(), out) {
                Err(_) => return Ok(Sent::BareLineEnd),
                Ok(Piece::End) => return Ok(Sent::Whole),
                Ok(Piece::Withdrawn) => return Ok(Sent::Withdrawn),
                // What is said between chunks.
                Ok(Piece::Octets(0)) if !out.is_empty() => {
                    self.flush_in_message(transaction, cuts).await?;
                }
                Ok(Piece::Added(octets)) => {
                    let lost = pass(octets, &mut self.servers, cuts, limits.stalled).await;
                    transaction.lose(lost);
                }
                Ok(Piece::Octets(0)) => tokio::select! {
                    biased;
                    _ = cuts.next() => {}
                    filled = timeout(limits.idle, leg.fill()) => filled.map_err(|_| End::Idle)??,
                },
                Ok(Piece::Octets(count)) => {
                    let octets = &leg.buffer().filled()[..count];
                    hops.read(octets);
                    let lost = pass(octets, &mut self.servers, cuts, limits.stalled).await;
                    leg.buffer().consume(count);
                    transaction.lose(lost);
                    if hops.seen() >= MOST_HOPS {
                        self.refuse_all(transaction, DeliveryOutcome::Loop);
                    }
                }
            }
        }
    }

    /// Ends the message at every server that has all of it, and passes their words on. The mail system may be gone by
    /// then, or take nothing: the servers are heard out all the same.
    async fn verdicts(&mut self, transaction: &mut Transaction) -> Result<(), End> {
        let limits = self.limits();
        let patience = Patience {
            answer: limits.answer,
            until: Instant::now() + limits.verdict,
            close: self.post.services.limits.relay.close,
        };
        let Client { leg, front, out } = &mut self.client;
        // Never full: there is one answer for each recipient at most, and what is left to be said before the first.
        let (line, answers) = mpsc::channel(transaction.recipients().len() + 1);
        let answering = Answering {
            front,
            verdicts: self.post.protocol.verdicts(),
            next: 0,
            out: std::mem::take(out),
            line,
        };
        let hearing = hear_out(&mut self.servers, transaction, patience, answering);
        let ((), told) = tokio::join!(hearing, tell(leg, answers, limits.answer));
        told
    }

    /// Sends the mail system what is to be sent, and gives up servers that are due meanwhile: it may take it when it
    /// likes.
    async fn flush_in_message(
        &mut self,
        transaction: &mut Transaction,
        cuts: &mut Cuts,
    ) -> Result<(), End> {
        let limit = self.limits().answer;
        let mut flushing = pin!(self.client.flush(limit));
        loop {
            tokio::select! {
                biased;
                flushed = &mut flushing => return Ok(flushed?),
                _ = cuts.next() => cut_due(&mut self.servers, transaction, cuts),
            }
        }
    }

    fn refuse_all(&mut self, transaction: &mut Transaction, outcome: DeliveryOutcome) {
        for server in self.servers.iter_mut().filter(|it| it.is_receiving()) {
            server.cut();
        }
        transaction.settle_rest(&outcome.into());
    }

    fn header(&self) -> String {
        let introduction = self.client.front.introduction();
        let hop = Hop {
            instance: &self.post.instance,
            protocol: self.post.protocol.in_trace(self.tls.is_some()),
            reference: &self.record.reference,
            name: introduction.helo.as_deref(),
            whence: self.record.whence,
        };
        hop.header()
    }
}

/// Gives up the servers that are due to be cut.
fn cut_due(servers: &mut [Server], transaction: &mut Transaction, cuts: &Cuts) {
    for (number, server) in servers.iter_mut().enumerate() {
        if let Some(reason) = cuts.reason(number) {
            server.cut();
            transaction.settle_all(number, reason.into());
        }
    }
}

/// Passes octets on to every server that takes the message. Returns those that were lost at it.
async fn pass(
    octets: &[u8],
    servers: &mut [Server],
    cuts: &mut Cuts,
    limit: Duration,
) -> Vec<usize> {
    let receiving = servers.iter_mut().enumerate();
    let receiving = receiving.filter(|(_, server)| server.is_receiving());
    let passing = receiving.map(|(number, server)| {
        let cut = cuts.token(number);
        async move {
            let passed = cut.run_until_cancelled(server.pass(octets, limit)).await;
            matches!(passed, Some(Err(_))).then_some(number)
        }
    });
    let passed = all(passing.collect(), cuts).await;
    passed.into_iter().flatten().collect()
}

/// Waits for all of them. What is done with a server that is cut meanwhile ends by itself.
async fn all<F: Future>(mut running: FuturesUnordered<F>, cuts: &mut Cuts) -> Vec<F::Output> {
    let mut done = Vec::with_capacity(running.len());
    loop {
        tokio::select! {
            biased;
            next = running.next() => match next {
                Some(outcome) => done.push(outcome),
                None => return done,
            },
            _ = cuts.next() => {}
        }
    }
}

/// Hears a server's next word, first telling it that the message is whole.
async fn word(number: usize, server: &mut Server, patience: Patience, is_first: bool) -> Word<'_> {
    let said: Result<_, Gone> = async {
        if is_first {
            server.end(patience.answer).await?;
        }
        server.verdict(patience.until - Instant::now()).await
    }
    .await;
    let said = match said {
        Ok(said) => Ok(said),
        Err(_) => Err(server.close(patience.close).await),
    };
    Word {
        number,
        server,
        said,
    }
}

/// Has every server say what became of the message.
async fn hear_out(
    servers: &mut [Server],
    transaction: &mut Transaction,
    patience: Patience,
    mut answering: Answering<'_>,
) {
    answering.pass_on(transaction);
    let mut words = FuturesUnordered::new();
    for (number, server) in servers.iter_mut().enumerate() {
        if server.is_receiving() {
            transaction.expose(server.accepted());
            words.push(word(number, server, patience, true));
        }
    }
    while let Some(Word {
        number,
        server,
        said,
    }) = words.next().await
    {
        match said {
            Ok((about, answer, last)) => {
                for recipient in about {
                    let fate = Fate::by_server(answer.clone());
                    transaction.conclude(recipient, fate, Some(Proof::Answered(last)));
                }
                if server.is_receiving() {
                    words.push(word(number, server, patience, false));
                }
            }
            Err(closed) => {
                for recipient in transaction.unsettled(number) {
                    let fate = DeliveryOutcome::Unanswered.into();
                    transaction.conclude(recipient, fate, closed.map(Proof::Closed));
                }
            }
        }
        answering.pass_on(transaction);
    }
}

/// The answers to a mail system about a message, in the order of its recipients.
struct Answering<'a> {
    front: &'a mut LmtpFront,
    verdicts: Verdicts,
    /// The recipient whose answer is due next.
    next: usize,
    /// What is to be said with the next answer.
    out: Vec<u8>,
    /// To whoever tells it.
    line: mpsc::Sender<Vec<u8>>,
}

impl Answering<'_> {
    /// Passes on what has come to be known.
    fn pass_on(&mut self, transaction: &Transaction) {
        let waiting = &transaction.recipients()[self.next..];
        let known = waiting.iter().map_while(|recipient| recipient.fate());
        for fate in known {
            if self.next == 0 || self.verdicts == Verdicts::PerRecipient {
                self.front.answer(&fate.answer, &mut self.out);
            }
            self.next += 1;
        }
        if !self.out.is_empty() {
            // It fails once the mail system does not hear any more.
            _ = self.line.try_send(std::mem::take(&mut self.out));
        }
    }
}

/// Tells a mail system the answers as they come, until there are no more.
async fn tell<S: LegState>(
    leg: &mut Leg<S>,
    mut answers: mpsc::Receiver<Vec<u8>>,
    limit: Duration,
) -> Result<(), End> {
    while let Some(answer) = answers.recv().await {
        say(leg, &answer, limit).await?;
    }
    Ok(())
}
