//! The table that was acknowledged, put together again.

use std::collections::BTreeMap;

use ferrypost_proto::{
    CHUNK_BYTES, TablePosition,
    routing::v1::{AccountEntry, Delta, SnapshotChunk, change::Change as Kind},
    v1::RoutingConfig,
};
use prost::Message as _;

use super::Frame;

/// Everything that was acknowledged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Acknowledged {
    /// How far it reaches.
    pub position: TablePosition,
    /// The routing configuration.
    pub config: Option<RoutingConfig>,
    /// By account id.
    pub accounts: BTreeMap<String, AccountEntry>,
}

impl Acknowledged {
    /// Takes a chunk of a snapshot in.
    pub fn chunk(&mut self, chunk: &SnapshotChunk) {
        if let Some(position) = &chunk.position {
            self.position = position.clone().into();
        }
        if chunk.config.is_some() {
            self.config.clone_from(&chunk.config);
        }
        self.put(chunk.accounts.clone());
    }

    pub(super) fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Chunk(chunk) => self.chunk(&chunk),
            Frame::Delta(delta) => self.delta(delta),
        }
    }

    fn delta(&mut self, delta: Delta) {
        if let Some(to) = delta.to {
            self.position = to.into();
        }
        for change in delta.changes {
            match change.change {
                Some(Kind::Account(entry)) => self.put([entry]),
                Some(Kind::AccountRemoved(account)) => drop(self.accounts.remove(&account)),
                Some(Kind::Config(config)) => self.config = Some(config),
                None => {}
            }
        }
    }

    fn put(&mut self, entries: impl IntoIterator<Item = AccountEntry>) {
        let entries = entries.into_iter();
        self.accounts
            .extend(entries.map(|entry| (entry.account_id.clone(), entry)));
    }

    pub(super) fn into_chunks(self) -> Vec<SnapshotChunk> {
        let position = Some(self.position.into());
        let mut chunk = SnapshotChunk {
            position: position.clone(),
            config: self.config,
            ..SnapshotChunk::default()
        };
        let (mut chunks, mut octets) = (Vec::new(), 0);
        for entry in self.accounts.into_values() {
            octets += entry.encoded_len();
            chunk.accounts.push(entry);
            if octets >= CHUNK_BYTES {
                let next = SnapshotChunk {
                    position: position.clone(),
                    index: chunk.index + 1,
                    ..SnapshotChunk::default()
                };
                chunks.push(std::mem::replace(&mut chunk, next));
                octets = 0;
            }
        }
        chunk.last = true;
        chunks.push(chunk);
        chunks
    }
}
