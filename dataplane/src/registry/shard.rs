//! The entries whose subjects fall into one shard.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use ferrypost_routing::{KeyedState, Resolution};
use tokio::time::Instant;

use super::{
    Subject,
    entry::{CloseReason, Entry},
    ledger::Ledger,
};
use crate::network::Network;

/// Entries by subject, and the subjects for whom a backend may still be at work.
#[derive(Debug)]
pub(super) struct Shard {
    entries: HashMap<Subject, Vec<Slot>, KeyedState>,
    /// When and for whom a session ended whose backend's close nobody saw, oldest first.
    /// Forgotten after the settle time, so it is bounded by how many sessions can end in that time.
    unconfirmed: VecDeque<(Instant, Subject)>,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    /// The latest fence that counts on this session's end.
    ledger: Option<Arc<Ledger>>,
}

/// How many logins are held.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) all: usize,
    /// From one address, or one /64.
    pub(super) from_customer: usize,
}

impl Shard {
    pub(super) fn new(hash: KeyedState) -> Self {
        Self {
            entries: HashMap::with_hasher(hash),
            unconfirmed: VecDeque::new(),
        }
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        self.entries
            .entry(entry.request.subject.clone())
            .or_default()
            .push(Slot {
                entry,
                ledger: None,
            });
    }

    /// Takes an entry out and counts its end on the ledger of its fence. `unconfirmed`: the time, if
    /// its backend's close was not seen.
    pub(super) fn remove(&mut self, entry: &Arc<Entry>, unconfirmed: Option<Instant>) {
        let subject = &entry.request.subject;
        let slots = self
            .entries
            .get_mut(subject)
            .expect("an entry is removed once, by its guard");
        let at = slots
            .iter()
            .position(|slot| Arc::ptr_eq(&slot.entry, entry))
            .expect("an entry is removed once, by its guard");
        if let Some(ledger) = slots.swap_remove(at).ledger {
            ledger.session_ended(unconfirmed.is_some());
        }
        if slots.is_empty() {
            self.entries.remove(subject);
        }
        if let Some(now) = unconfirmed {
            self.unconfirmed.push_back((now, subject.clone()));
        }
    }

    /// Puts every session of the subject, and every doubtful end since then, on a fence's ledger.
    pub(super) fn count_on(
        &mut self,
        subject: &Subject,
        ledger: &Arc<Ledger>,
        since: Option<Instant>,
    ) {
        for slot in self.entries.get_mut(subject).into_iter().flatten() {
            if slot.entry.route.is_some() {
                slot.ledger = Some(Arc::clone(ledger));
            }
        }
        self.forget_before(since);
        let doubtful = self.unconfirmed.iter().filter(|(_, of)| of == subject);
        let doubtful = doubtful.count();
        ledger.ended_before(u32::try_from(doubtful).unwrap_or(u32::MAX));
    }

    /// Closes the sessions of the subject that no longer go where it resolves to.
    pub(super) fn close_changed(&self, subject: &Subject, now: &Resolution) {
        for entry in self.under(subject) {
            if let Some(route) = &entry.route
                && !matches!(now, Resolution::Route(now) if now.destination == route.destination)
            {
                entry.close(CloseReason::Moved);
            }
        }
    }

    /// The same for every subject.
    pub(super) fn sweep(&self, resolve: impl Fn(&Subject) -> Resolution) {
        for subject in self.entries.keys() {
            self.close_changed(subject, &resolve(subject));
        }
    }

    /// Closes everything of the subject. Returns how many entries were told first by this.
    pub(super) fn close(&self, subject: &Subject, reason: CloseReason) -> usize {
        let entries = self.under(subject);
        entries.filter(|entry| entry.close(reason)).count()
    }

    /// Closes everything.
    pub(super) fn close_all(&self, reason: CloseReason) {
        for entry in self.all() {
            entry.close(reason);
        }
    }

    /// Closes the held logins.
    pub(super) fn close_held(&self, reason: CloseReason) {
        for entry in self.all().filter(|entry| entry.route.is_none()) {
            entry.close(reason);
        }
    }

    /// Entries of the subject that have a route.
    pub(super) fn routed(&self, subject: &Subject) -> usize {
        self.under(subject)
            .filter(|entry| entry.route.is_some())
            .count()
    }

    /// Held logins of the subject, and those of them from where `client` is.
    pub(super) fn held(&self, subject: &Subject, client: Option<IpAddr>) -> Held {
        let customer = client.map(Network::of_customer);
        let is_from_there = |entry: &Entry| match (customer, entry.request.client) {
            (Some(customer), Some(client)) => customer.contains(client.ip()),
            (customer, client) => customer.is_none() && client.is_none(),
        };
        let mut held = Held::default();
        let entries = self.under(subject);
        for entry in entries.filter(|entry| entry.route.is_none()) {
            held.all += 1;
            held.from_customer += usize::from(is_from_there(entry));
        }
        held
    }

    /// For whom sessions ended since then whose backend's close was not seen.
    pub(super) fn unconfirmed(&self, since: Option<Instant>) -> impl Iterator<Item = &Subject> {
        let recent = self.unconfirmed.iter();
        recent
            .filter(move |(at, _)| since.is_none_or(|since| *at >= since))
            .map(|(_, subject)| subject)
    }

    pub(super) fn under(&self, subject: &Subject) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries
            .get(subject)
            .into_iter()
            .flatten()
            .map(|slot| &slot.entry)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().flatten().map(|slot| &slot.entry)
    }

    pub(super) fn forget_before(&mut self, since: Option<Instant>) {
        let Some(since) = since else { return };
        while self.unconfirmed.front().is_some_and(|(at, _)| *at < since) {
            self.unconfirmed.pop_front();
        }
    }
}
