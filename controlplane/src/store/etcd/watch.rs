//! A watch on etcd that survives its connection and never claims to know more than it does.
//!
//! **Resuming.** A new connection asks again from the last revision that was delivered, not from
//! the one after it, and drops what it knows. If that revision is compacted the watch ends. This is
//! one revision stricter than etcd demands, because of its servers before 3.4.34 and 3.5.16: a
//! watch that starts exactly at the compacted revision silently misses a deletion made there.
//!
//! **Whole revisions.** Fragments are not asked for, so a response holds whole revisions.
//!
//! **Progress.** An idle watch asks the server where it stands. Servers before 3.4.25 and 3.5.8
//! answer with their present revision even while older events are still on their way to us, and
//! which member serves us, of what version, we cannot know. So the answer is believed only when it
//! names the very revision that was delivered last, after which nothing can be missing. When it
//! names a later one (somebody else writes to this cluster) the watch writes its *barrier*, a
//! key of ours that nobody else sees: events arrive in the order of their revisions, so when the
//! barrier's own event comes, everything before it has come.

use std::time::Duration;

use etcd_client::{
    EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    EtcdConnection,
    failure::{Failure, of_text},
    from_etcd, to_etcd,
};
use crate::store::{Event, Outage, PROGRESS_INTERVAL, Rev, StoreError, WatchBatch, WatchError};

/// How long a server may leave a question about progress unanswered before the connection is given
/// up. Long enough for a leader election, which takes about a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The pause before the second attempt to connect; each further one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two attempts. There are only a few control planes, so a cluster that
/// comes back is not overrun.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One watch, across as many connections as it takes.
pub(super) struct Watcher {
    connection: EtcdConnection,
    live: Option<Live>,
    pause: Duration,
    /// Everything up to here was delivered, or was not asked for.
    delivered: Rev,
    /// The revision of the last batch.
    told: Rev,
    /// Whether the credentials were renewed since the server last let us in.
    renewed: bool,
    /// Whether the connection was lost, and said to be, since the server last talked.
    lost: bool,
    ended: bool,
}

/// What a response has to say.
enum WatchMessage {
    Batch(WatchBatch),
    /// The server's word on its present revision.
    Standing(Rev),
    Nothing,
}

impl Watcher {
    pub(super) fn new(connection: EtcdConnection, from: Rev) -> Self {
        Self {
            connection,
            live: None,
            pause: FIRST_PAUSE,
            delivered: from.max(2) - 1,
            told: 0,
            renewed: false,
            lost: false,
            ended: false,
        }
    }

    pub(super) async fn step(mut self) -> Option<(Result<WatchBatch, WatchError>, Self)> {
        if self.ended {
            return None;
        }
        let batch = self.next_batch().await;
        match &batch {
            Ok(batch) => self.told = batch.revision,
            Err(_) => self.ended = true,
        }
        Some((batch, self))
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, WatchError> {
        loop {
            match self.hear().await {
                Ok(WatchMessage::Batch(batch)) => {
                    self.delivered = batch.revision;
                    return Ok(batch);
                }
                Ok(WatchMessage::Standing(revision)) => {
                    if let Some(progress) = self.progress(revision).await {
                        return Ok(progress);
                    }
                }
                Ok(WatchMessage::Nothing) => {}
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    async fn hear(&mut self) -> Result<WatchMessage, Failure> {
        if self.live.is_none() {
            self.live = Some(Live::open(&self.connection, self.delivered).await?);
        }
        let live = self.live.as_mut().expect("a connection was just made");
        let response = live.message().await?;
        let heard = self.understand(&response)?;
        if !matches!(heard, WatchMessage::Nothing) {
            self.is_well();
        }
        Ok(heard)
    }

    /// The server lets us in and talks: the next trouble is a new one.
    fn is_well(&mut self) {
        if self.lost {
            tracing::info!(delivered = self.delivered, "the watch on etcd goes on");
        }
        (self.pause, self.renewed, self.lost) = (FIRST_PAUSE, false, false);
    }

    fn understand(&self, response: &WatchResponse) -> Result<WatchMessage, Failure> {
        if response.compact_revision() > 0 {
            let floor = Some(from_etcd(response.compact_revision()));
            return Err(Failure::Refused(StoreError::Compacted { floor }));
        }
        if response.canceled() {
            let known = of_text(response.cancel_reason());
            return Err(known.unwrap_or(Failure::NotDone(Outage::Unexpected)));
        }
        if response.created() {
            return Ok(WatchMessage::Nothing);
        }
        if response.events().is_empty() {
            let standing = response
                .header()
                .map_or(0, |header| from_etcd(header.revision()));
            return Ok(WatchMessage::Standing(standing));
        }
        Ok(self
            .batch(response)
            .map_or(WatchMessage::Nothing, WatchMessage::Batch))
    }

    /// What is new in a response with events. Only the barrier in it makes a batch of progress.
    fn batch(&self, response: &WatchResponse) -> Option<WatchBatch> {
        let mut batch = WatchBatch {
            revision: 0,
            events: Vec::new(),
        };
        for event in response.events() {
            let entry = event.kv()?;
            let mod_revision = from_etcd(entry.mod_revision());
            if mod_revision <= self.delivered {
                continue;
            }
            batch.revision = mod_revision;
            let Some(key) = self.connection.own_key(entry.key()) else {
                continue;
            };
            batch.events.push(match event.event_type() {
                EventType::Put => Event::Put(super::own_entry(key, entry)),
                EventType::Delete => Event::Delete {
                    key: key.to_vec(),
                    mod_revision,
                },
            });
        }
        (batch.revision > 0).then_some(batch)
    }

    /// What may be told of an idle watch whose server stands at `revision`.
    async fn progress(&mut self, revision: Rev) -> Option<WatchBatch> {
        if revision <= self.delivered {
            let revision = revision.max(self.told);
            return Some(WatchBatch {
                revision,
                events: Vec::new(),
            });
        }
        if let Err(failure) = self.connection.write_barrier().await {
            // No progress without it, and nothing worse; the next question tries again.
            tracing::debug!(error = %failure.of_write(), "could not write the watch barrier");
        }
        None
    }

    /// Prepares for another attempt, unless the failure is for good.
    async fn recover(&mut self, failure: Failure) -> Result<(), WatchError> {
        self.live = None;
        match failure {
            Failure::Refused(StoreError::Compacted { floor }) => {
                return Err(WatchError::Compacted { floor });
            }
            // An expired token looks like a lack of rights, and a new one may be had.
            Failure::Refused(StoreError::Denied) if !self.renewed => {
                self.renewed = true;
                self.connection.renew_token().await;
            }
            Failure::Refused(error) => return Err(WatchError::Store(error)),
            Failure::NotDone(outage) | Failure::Unknown(outage) => {
                if !self.lost {
                    tracing::warn!(%outage, delivered = self.delivered, "lost the watch on etcd");
                }
                self.lost = true;
            }
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// One connection of a watch.
struct Live {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    heard: Instant,
    asked: Option<Instant>,
}

impl Live {
    async fn open(connection: &EtcdConnection, from: Rev) -> Result<Self, Failure> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(to_etcd(from));
        let mut client = connection.watch_client();
        let opening = client.watch(connection.prefix(), Some(options));
        let stream = timeout(ANSWER_LIMIT, opening)
            .await
            .map_err(|_| Failure::NotDone(Outage::Timeout))??;
        let (requests, responses) = stream.split();
        // The creation of the watch is a question too.
        let now = Instant::now();
        Ok(Self {
            requests,
            responses,
            heard: now,
            asked: Some(now),
        })
    }

    /// The next message. Asks for one when there has been none for a while.
    async fn message(&mut self) -> Result<WatchResponse, Failure> {
        loop {
            let until = self
                .asked
                .map_or(self.heard + PROGRESS_INTERVAL, |at| at + ANSWER_LIMIT);
            match timeout_at(until, self.responses.message()).await {
                Ok(message) => {
                    (self.heard, self.asked) = (Instant::now(), None);
                    return message?.ok_or(Failure::NotDone(Outage::Connection));
                }
                Err(_) if self.asked.is_some() => return Err(Failure::NotDone(Outage::Timeout)),
                Err(_) => {
                    self.requests.request_progress().await?;
                    self.asked = Some(Instant::now());
                }
            }
        }
    }
}
