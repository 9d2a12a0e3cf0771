//! What operators see of the registry.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use ferrypost_proto::{DestinationId, Name, v1::Protocol};
use tokio::time::Instant;

use super::{Registry, SessionKind, Stage, Subject, UnlistedLogin, entry::Entry, step::Lock as _};

/// One session as it was when somebody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Its place in lists.
    pub serial: u64,
    /// The reference in logs and announcements.
    pub reference: String,
    /// What it is.
    pub kind: SessionKind,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Whom it is for.
    pub subject: Subject,
    /// `None` while held.
    pub destination: Option<DestinationId>,
    /// The client's address, if it has one.
    pub client: Option<SocketAddr>,
    /// Since admission.
    pub age: Duration,
    /// How far it has come.
    pub stage: Stage,
}

/// What sessions are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Where they go.
    pub destination: DestinationId,
    /// What their clients speak.
    pub protocol: Protocol,
    /// What they are.
    pub kind: SessionKind,
    /// How far they have come.
    pub stage: Stage,
}

/// Some of the sessions.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of their serials.
    pub sessions: Vec<SessionSnapshot>,
    /// Whether there are more behind them.
    pub more: bool,
    /// How many there are, beyond the limit too; held logins included.
    pub total: usize,
    /// Of them, held logins.
    pub held: usize,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Sessions with a route, from admission to close.
    pub sessions: usize,
    /// Logins without one, because their name is fenced.
    pub held: usize,
}

impl Registry {
    /// How many there are. Costs nothing.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.routed.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
        }
    }

    /// How many sessions with a route there are of each group. Walks over all of them, one shard at a
    /// time: for `/stats`.
    pub fn tally(&self) -> BTreeMap<Group, usize> {
        let mut tally = BTreeMap::new();
        for shard in &self.shards {
            shard.with(|shard| {
                for entry in shard.all() {
                    if let Some(route) = &entry.route {
                        let group = Group {
                            destination: route.destination.clone(),
                            protocol: entry.request.protocol,
                            kind: entry.request.kind,
                            stage: entry.stage(),
                        };
                        *tally.entry(group).or_default() += 1;
                    }
                }
            });
        }
        tally
    }

    /// Lists sessions and held logins: those under `names`, or all if there are none. At most `limit`,
    /// but all are counted.
    pub fn sessions(&self, names: &[Name], limit: usize) -> Listing {
        self.sessions_from(names, 0, limit)
    }

    /// The same of those whose serial is `from` or more.
    pub fn sessions_from(&self, names: &[Name], from: u64, limit: usize) -> Listing {
        let mut listing = Listing::default();
        let mut first = BTreeMap::new();
        let now = Instant::now();
        let mut add = |entry: &Entry| {
            listing.total += 1;
            listing.held += usize::from(entry.route.is_none());
            if entry.serial < from {
                return;
            }
            let last = first.last_key_value().map(|(serial, _)| *serial);
            if first.len() < limit || last.is_some_and(|last| entry.serial < last) {
                first.insert(entry.serial, snapshot(entry, now));
            } else {
                listing.more = true;
            }
            if first.len() > limit {
                first.pop_last();
                listing.more = true;
            }
        };
        if names.is_empty() {
            for shard in &self.shards {
                shard.with(|shard| shard.all().for_each(|entry| add(entry)));
            }
        } else {
            for subject in names.iter().map(Subject::from) {
                self.shard(&subject)
                    .with(|shard| shard.under(&subject).for_each(|entry| add(entry)));
            }
        }
        listing.sessions = first.into_values().collect();
        listing
    }

    /// Names without a record under which somebody was let in lately: those behind `after` that are `wanted`, in
    /// order and `limit` at most; and whether there are more.
    pub fn unlisted(
        &self,
        wanted: impl Fn(&Name) -> bool,
        after: &str,
        limit: usize,
    ) -> (Vec<UnlistedLogin>, bool) {
        self.unlisted.list(wanted, after, limit)
    }
}

fn snapshot(entry: &Entry, now: Instant) -> SessionSnapshot {
    SessionSnapshot {
        serial: entry.serial,
        reference: entry.request.reference.clone(),
        kind: entry.request.kind,
        protocol: entry.request.protocol,
        subject: entry.request.subject.clone(),
        destination: entry.route.as_ref().map(|route| route.destination.clone()),
        client: entry.request.client,
        age: now.saturating_duration_since(entry.since),
        stage: entry.stage(),
    }
}
