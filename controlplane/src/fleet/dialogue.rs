//! The sending side of a stream: a snapshot or deltas, in order, no faster than they are taken.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    CHUNK_BYTES, Head, Revision, TablePosition,
    routing::v1::{AccountEntry, Delta, SnapshotChunk, stream_response::Message as Told},
};
use prost::Message as _;
use tokio::sync::watch;

use super::{
    Fleet, View,
    join::Joined,
    stream::{Outgoing, told},
};
use crate::{
    domain::state::State,
    mirror::changelog::Entry,
    refusal::{Answer, Reason, Refusal},
};

/// How long the mirror may take to come to a registration that the store has acknowledged.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room in a chunk for what is not an entry, and for an entry's own framing.
const FRAMING: usize = 1024;

impl Fleet {
    /// Brings a data plane up to date and keeps it there. Ends only with an error.
    pub(super) async fn talk(
        &self,
        joined: &Joined,
        outgoing: &Outgoing,
        view: &watch::Sender<View>,
    ) -> Answer<()> {
        // Rule 9: never a table that is older than the registration.
        self.mirror()
            .at_least(joined.registered, PATIENCE)
            .await
            .map_err(|_| {
                Refusal::new(
                    Reason::Behind,
                    "this replica has not caught up with the registration",
                )
            })?;
        let mut changed = self.mirror().changed();
        let mut position = joined.position.clone();
        if joined.rewound {
            return self.compare(joined, outgoing).await;
        }
        loop {
            changed.borrow_and_update();
            let next = self.next(position.as_ref());
            match next {
                Next::Nothing => {}
                Next::Deltas(entries) => {
                    let held = position.as_ref().map_or(Revision::ZERO, |p| p.revision);
                    position = send_deltas(outgoing, held, &entries).await?.or(position);
                }
                Next::Snapshot(state) => {
                    send_snapshot(outgoing, &state, Use::InForce).await?;
                    position = Some(state.position());
                }
            }
            view.send_if_modified(|view| {
                let sent = position.as_ref().map(|position| position.revision);
                std::mem::replace(&mut view.sent, sent) != sent
            });
            changed
                .changed()
                .await
                .map_err(|_| Refusal::new(Reason::ShuttingDown, "the replica is stopping"))?;
        }
    }

    /// Under `rewound`: shows what the store holds to a data plane that can compare it with what it has
    /// acknowledged, once. It keeps what it has.
    async fn compare(&self, joined: &Joined, outgoing: &Outgoing) -> Answer<()> {
        let state = self.mirror().read();
        if joined.compares && state.config().is_some() {
            send_snapshot(outgoing, &state, Use::Comparison).await?;
        }
        // The listener ends the stream once that is resolved.
        std::future::pending().await
    }

    fn next(&self, position: Option<&TablePosition>) -> Next {
        let held = position.map_or(Revision::ZERO, |position| position.revision);
        let feed = self.mirror().feed(held.store());
        // Under `rewound` data planes keep what they have (G16); and without a routing configuration
        // there is no table yet.
        if feed.state.rewound().is_some() || feed.state.config().is_none() {
            return Next::Nothing;
        }
        match (position, feed.entries) {
            (Some(position), Some(entries)) if position.revision.base() == feed.state.base() => {
                if entries.is_empty() {
                    Next::Nothing
                } else {
                    Next::Deltas(entries)
                }
            }
            _ => Next::Snapshot(feed.state),
        }
    }
}

/// What a subscriber needs.
enum Next {
    Nothing,
    Deltas(Vec<Arc<Entry>>),
    Snapshot(Arc<State>),
}

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// To be put in force.
    InForce,
    /// To be compared with.
    Comparison,
}

/// Sends whole transactions, several in a delta where they are small. The position that the table then
/// has; `None` when there was nothing to send.
async fn send_deltas(
    outgoing: &Outgoing,
    mut from: Revision,
    entries: &[Arc<Entry>],
) -> Answer<Option<TablePosition>> {
    let base = from.base();
    let mut delta = Delta::default();
    let mut bytes = 0;
    let mut reached = None;
    for (n, entry) in entries.iter().enumerate() {
        for change in &entry.changes {
            let change = change.to_wire(base);
            bytes += change.encoded_len();
            delta.changes.push(change);
        }
        if bytes < CHUNK_BYTES / 2 && n + 1 < entries.len() {
            continue;
        }
        let to = TablePosition {
            revision: Revision::new(base, entry.revision),
            head: Head {
                store: entry.revision,
                nonce: entry.nonce.to_vec(),
            },
        };
        delta.from = Some(from.into());
        delta.to = Some(to.clone().into());
        send(outgoing, Told::Delta(std::mem::take(&mut delta))).await?;
        bytes = 0;
        from = to.revision;
        reached = Some(to);
    }
    Ok(reached)
}

/// Sends a state chunk by chunk. Only the chunk that is being sent is in memory: the state itself is
/// shared and does not change.
async fn send_snapshot(outgoing: &Outgoing, state: &State, used: Use) -> Answer<()> {
    let comparison = used == Use::Comparison;
    let mut chunk = SnapshotChunk {
        comparison,
        position: Some(state.position().into()),
        config: state.config().map(|config| config.raw.clone()),
        ..SnapshotChunk::default()
    };
    let mut room = CHUNK_BYTES.saturating_sub(chunk.encoded_len() + FRAMING);
    for account in state.accounts() {
        let entry: AccountEntry = account.entry(state.base());
        let size = entry.encoded_len() + 8;
        if size > room && !chunk.accounts.is_empty() {
            let next = SnapshotChunk {
                comparison,
                position: chunk.position.clone(),
                index: chunk.index + 1,
                ..SnapshotChunk::default()
            };
            send(
                outgoing,
                Told::SnapshotChunk(std::mem::replace(&mut chunk, next)),
            )
            .await?;
            room = CHUNK_BYTES - FRAMING;
        }
        room = room.saturating_sub(size);
        chunk.accounts.push(entry);
    }
    chunk.last = true;
    send(outgoing, Told::SnapshotChunk(chunk)).await
}

async fn send(outgoing: &Outgoing, message: Told) -> Answer<()> {
    outgoing
        .send(Ok(told(message)))
        .await
        .map_err(|_| Refusal::new(Reason::DeadlineExceeded, "the data plane has gone"))
}
