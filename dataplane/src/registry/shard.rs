//! The entries whose names fall into one shard.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use ferrypost_proto::Name;
use ferrypost_routing::{KeyedState, Resolution};
use tokio::time::Instant;

use super::{
    entry::{CloseReason, Entry},
    ledger::Ledger,
};
use crate::network::Network;

/// Entries by name, and the names whose backend may still be at work.
#[derive(Debug)]
pub(super) struct Shard {
    entries: HashMap<Name, Vec<Slot>, KeyedState>,
    /// When and under which name a session ended whose backend's close nobody saw, oldest first.
    /// Forgotten after the settle time, so it is bounded by how many sessions can end in that time.
    unconfirmed: VecDeque<(Instant, Name)>,
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
            .entry(entry.request.name.clone())
            .or_default()
            .push(Slot {
                entry,
                ledger: None,
            });
    }

    /// Takes an entry out and counts its end on the ledger of its fence. `unconfirmed`: the time, if
    /// its backend's close was not seen.
    pub(super) fn remove(&mut self, entry: &Arc<Entry>, unconfirmed: Option<Instant>) {
        let name = &entry.request.name;
        let slots = self
            .entries
            .get_mut(name)
            .expect("an entry is removed once, by its guard");
        let at = slots
            .iter()
            .position(|slot| Arc::ptr_eq(&slot.entry, entry))
            .expect("an entry is removed once, by its guard");
        if let Some(ledger) = slots.swap_remove(at).ledger {
            ledger.session_ended(unconfirmed.is_some());
        }
        if slots.is_empty() {
            self.entries.remove(name);
        }
        if let Some(now) = unconfirmed {
            self.unconfirmed.push_back((now, name.clone()));
        }
    }

    /// Puts every session under the name, and every doubtful end since then, on a fence's ledger.
    pub(super) fn count_on(&mut self, name: &Name, ledger: &Arc<Ledger>, since: Option<Instant>) {
        for slot in self.entries.get_mut(name).into_iter().flatten() {
            if slot.entry.route.is_some() {
                slot.ledger = Some(Arc::clone(ledger));
            }
        }
        self.forget_before(since);
        let doubtful = self.unconfirmed.iter().filter(|(_, of)| of == name).count();
        ledger.ended_before(u32::try_from(doubtful).unwrap_or(u32::MAX));
    }

    /// Closes the sessions under the name that no longer go where it resolves to.
    pub(super) fn close_changed(&self, name: &Name, now: &Resolution) {
        for entry in self.under(name) {
            if let Some(route) = &entry.route
                && !matches!(now, Resolution::Route(now) if now.destination == route.destination)
            {
                entry.close(CloseReason::Moved);
            }
        }
    }

    /// The same for every name.
    pub(super) fn sweep(&self, resolve: impl Fn(&Name) -> Resolution) {
        for name in self.entries.keys() {
            self.close_changed(name, &resolve(name));
        }
    }

    /// Closes everything under the name. Returns how many entries were told first by this.
    pub(super) fn close(&self, name: &Name, reason: CloseReason) -> usize {
        self.under(name).filter(|entry| entry.close(reason)).count()
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

    /// Entries under the name that have a route.
    pub(super) fn routed(&self, name: &Name) -> usize {
        self.under(name)
            .filter(|entry| entry.route.is_some())
            .count()
    }

    /// Held logins under the name, and those of them from where `client` is.
    pub(super) fn held(&self, name: &Name, client: IpAddr) -> Held {
        let customer = Network::of_customer(client);
        let mut held = Held::default();
        for entry in self.under(name).filter(|entry| entry.route.is_none()) {
            held.all += 1;
            held.from_customer += usize::from(customer.contains(entry.request.client.ip()));
        }
        held
    }

    /// The names of ends since then whose backend's close was not seen.
    pub(super) fn unconfirmed(&self, since: Option<Instant>) -> impl Iterator<Item = &Name> {
        let recent = self.unconfirmed.iter();
        recent
            .filter(move |(at, _)| since.is_none_or(|since| *at >= since))
            .map(|(_, name)| name)
    }

    pub(super) fn under(&self, name: &Name) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries
            .get(name)
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
