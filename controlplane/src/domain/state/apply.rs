//! Takes the store's events into a [`State`].

use std::{collections::BTreeMap, sync::Arc};

use ferrypost_proto::{
    AccountId, DestinationId, Head, InstallationId, MigrationId, ReplicaId, RoutingConfig,
    store::v1 as stored,
};

use super::{Account, Change, Config, ENDED_MIGRATIONS, Past, State, Values, Versioned, has_ended};
use crate::kv::{
    Event, KeyValue, Rev,
    keys::Key,
    value::{Stored, Value},
};

/// What one transaction changed.
#[derive(Debug, Default)]
pub struct Applied {
    /// In routing, in the store's order.
    pub changes: Vec<Change>,
    /// The head was written.
    pub moved_head: bool,
    /// Migrations that were written or removed.
    pub migrations: Vec<MigrationId>,
}

/// What one event changed.
enum Effect {
    /// Nothing.
    None,
    /// A migration was written or removed.
    Migration(MigrationId),
    /// The head moved.
    Head,
    /// A change that data planes are told of.
    Routing(Change),
}

impl State {
    /// Takes the events of one transaction in. The state's revision stays: see [`Self::reach`].
    pub fn apply(&mut self, events: &[Event]) -> Applied {
        let mut applied = Applied::default();
        for event in events {
            match self.apply_event(event) {
                Effect::None => {}
                Effect::Migration(id) => applied.migrations.push(id),
                Effect::Head => applied.moved_head = true,
                Effect::Routing(change) => applied.changes.push(change),
            }
        }
        applied
    }

    /// Says that everything up to `revision` is in it. It never goes back.
    pub fn reach(&mut self, revision: Rev) {
        self.revision = self.revision.max(revision);
    }

    /// Takes an event in. Keys of other versions are passed over. A value that cannot be read is said in
    /// the log and stays as one that says nothing: an unreadable registration still is one, and since its
    /// boot is not known, nothing that is said for it counts.
    fn apply_event(&mut self, event: &Event) -> Effect {
        let Some(key) = Key::parse(event.key()) else {
            tracing::debug!(key = %event.key().escape_ascii(), "a key that is not known here");
            return Effect::None;
        };
        match event {
            Event::Put(entry) => self.put(key, entry),
            Event::Delete { .. } => self.delete(&key),
        }
    }

    fn put(&mut self, key: Key, entry: &KeyValue) -> Effect {
        match key {
            Key::Account(id) => return self.put_account(id, entry),
            Key::Name(name) => self.put_name(&name, entry),
            Key::Config => return self.put_config(entry),
            Key::Head => {
                let nonce =
                    read::<stored::RoutingHead>(entry).map(|head| head.value.nonce.to_vec());
                self.head = Head {
                    store: entry.mod_revision,
                    nonce: nonce.unwrap_or_default(),
                };
                return Effect::Head;
            }
            Key::Fleet => self.fleet = entry.mod_revision,
            Key::Installation => {
                self.installation = read::<stored::Installation>(entry).and_then(|found| {
                    let id = InstallationId::parse(&found.value.id).ok()?;
                    Some((id, found.value.base))
                });
            }
            // What it says may be unreadable; that it is there is what counts.
            Key::Rewound => self.rewound = Some(Arc::new(read_or_empty(entry))),
            Key::CookieKeys => self.cookie_keys = Some(Arc::new(read_or_empty(entry))),
            Key::Leader => {
                self.leader = read::<stored::Leader>(entry).and_then(|found| {
                    let replica = ReplicaId::parse(&found.value.replica).ok()?;
                    Some((replica, found.revision))
                });
            }
            Key::Migration(id) => {
                self.put_migration(&id, entry);
                return Effect::Migration(id);
            }
            Key::Registration(id) => put(&mut self.registrations, id, entry),
            Key::Departed(id, boot) => put(&mut self.departed, (id, boot), entry),
            Key::Expelled(id, boot) => put(Arc::make_mut(&mut self.expelled), (id, boot), entry),
            Key::Live(id) => put(&mut self.live, id, entry),
            Key::Claim(id) => put(&mut self.claims, id, entry),
            Key::Drained(migration, id) => {
                put(self.drained.entry(migration).or_default(), id, entry);
            }
            Key::Command(replica, id) => put(&mut self.commands, (replica, id), entry),
            Key::CommandResult(id, instance) => put(&mut self.results, (id, instance), entry),
            Key::Request(_) => {}
        }
        Effect::None
    }

    fn delete(&mut self, key: &Key) -> Effect {
        match key {
            Key::Account(id) => {
                if let Some(account) = self.accounts.get(id).cloned() {
                    self.accounts.remove_mut(id);
                    self.awaited.remove(&account);
                    self.count_account(&account, -1);
                    return Effect::Routing(Change::Removed(id.clone()));
                }
            }
            Key::Name(name) => {
                self.names.remove_mut(&**name);
            }
            Key::Config => self.config = None,
            Key::Head => self.head = Head::default(),
            Key::Fleet => self.fleet = 0,
            Key::Installation => self.installation = None,
            Key::Rewound => self.rewound = None,
            Key::CookieKeys => self.cookie_keys = None,
            Key::Leader => self.leader = None,
            Key::Migration(id) => {
                self.remove_migration(id);
                return Effect::Migration(id.clone());
            }
            Key::Registration(id) => drop(self.registrations.remove(id)),
            Key::Departed(id, boot) => drop(self.departed.remove(&(id.clone(), boot.clone()))),
            Key::Expelled(id, boot) => {
                Arc::make_mut(&mut self.expelled).remove(&(id.clone(), boot.clone()));
            }
            Key::Live(id) => drop(self.live.remove(id)),
            Key::Claim(id) => drop(self.claims.remove(id)),
            Key::Drained(migration, id) => {
                if let Some(reports) = self.drained.get_mut(migration) {
                    reports.remove(id);
                    if reports.is_empty() {
                        self.drained.remove(migration);
                    }
                }
            }
            Key::Command(replica, id) => {
                self.commands.remove(&(replica.clone(), id.clone()));
            }
            Key::CommandResult(id, instance) => {
                self.results.remove(&(id.clone(), instance.clone()));
            }
            Key::Request(_) => {}
        }
        Effect::None
    }

    fn put_account(&mut self, id: AccountId, entry: &KeyValue) -> Effect {
        // One copy of every id: the one that is in the map, if there is one.
        let id = self
            .accounts
            .get_key_value(&id)
            .map_or(id, |(known, _)| known.clone());
        let mut account = Account::read(&id, &entry.value, entry.mod_revision);
        if let Account::Unreadable(account) = &account {
            tracing::error!(%id, field = account.why.field, "a record cannot be read; its account is held");
        }
        self.share_strings(&mut account);
        let account = Arc::new(account);
        self.count_account(&account, 1);
        if let Some(before) = self.accounts.get(&id).cloned() {
            self.awaited.remove(&before);
            self.count_account(&before, -1);
        }
        self.awaited.insert(&account);
        self.accounts.insert_mut(id, account.clone());
        Effect::Routing(Change::Account(account))
    }

    /// Replaces the strings of a record by equal ones that are in memory already.
    fn share_strings(&self, account: &mut Account) {
        let Account::Known(placement) = account else {
            return;
        };
        for name in &mut placement.names {
            if let Some((known, _)) = self.names.get_key_value(&**name) {
                *name = known.clone();
            }
        }
        placement.home = self.share_destination(&placement.home);
        let share = |id: &mut Option<DestinationId>| {
            *id = id.as_ref().map(|id| self.share_destination(id));
        };
        share(&mut placement.target);
        share(&mut placement.previous_home);
    }

    fn share_destination(&self, id: &DestinationId) -> DestinationId {
        let known = self
            .routing()
            .and_then(|routing| routing.destinations().get_key_value(id))
            .map(|(known, _)| known);
        known.unwrap_or(id).clone()
    }

    fn put_name(&mut self, name: &Arc<str>, entry: &KeyValue) {
        let id = read::<stored::NameEntry>(entry)
            .and_then(|found| AccountId::parse(&found.value.account_id).ok());
        let Some(id) = id else {
            tracing::error!("a name points to no account");
            return;
        };
        let account = self.accounts.get_key_value(&id);
        let shared = account
            .and_then(|(_, account)| account.names().iter().find(|known| *known == name).cloned());
        let id = account.map_or_else(|| id.clone(), |(known, _)| known.clone());
        let name = shared.unwrap_or_else(|| name.clone());
        self.names.insert_mut(name, id);
    }

    fn put_config(&mut self, entry: &KeyValue) -> Effect {
        let Some(raw) =
            read::<stored::StoredConfig>(entry).and_then(|found| found.value.config.clone())
        else {
            return Effect::None;
        };
        let checked = RoutingConfig::in_force(&raw);
        if let Err(problems) = &checked {
            tracing::error!(%problems, "the stored routing configuration is not valid here");
        }
        let config = Arc::new(Config {
            raw,
            version: entry.mod_revision,
            checked,
        });
        self.config = Some(config.clone());
        Effect::Routing(Change::Config(config))
    }

    fn put_migration(&mut self, id: &MigrationId, entry: &KeyValue) {
        let Some(migration) = read::<stored::MigrationRecord>(entry) else {
            return;
        };
        self.remove_migration(id);
        count(&mut self.counts.migrations, migration.value.state(), 1);
        self.moves.insert(id, &migration);
        if has_ended(&migration.value) {
            self.past.insert_mut(id.clone(), Past::of(&migration));
            self.ended.insert_mut((migration.revision, id.clone()));
        }
        self.migrations.insert_mut(id.clone(), Arc::new(migration));
        self.forget_ended();
    }

    fn remove_migration(&mut self, id: &MigrationId) {
        let past = self.past.get(id).map(|past| past.state);
        self.past.remove_mut(id);
        let Some(migration) = self.migrations.get(id).cloned() else {
            if let Some(state) = past {
                count(&mut self.counts.migrations, state, -1);
            }
            return;
        };
        count(&mut self.counts.migrations, migration.value.state(), -1);
        self.moves.remove(id, &migration);
        self.ended.remove_mut(&(migration.revision, id.clone()));
        self.migrations.remove_mut(id);
    }

    /// Of an ended migration beyond the last ones only its [`Past`] is kept, and it stays in the counts.
    fn forget_ended(&mut self) {
        while self.ended.size() > ENDED_MIGRATIONS {
            let Some(oldest) = self.ended.first().cloned() else {
                return;
            };
            self.migrations.remove_mut(&oldest.1);
            self.ended.remove_mut(&oldest);
        }
    }

    fn count_account(&mut self, account: &Account, by: i64) {
        let Account::Known(placement) = account else {
            return;
        };
        count(&mut self.counts.homes, placement.home.clone(), by);
        count(&mut self.counts.phases, placement.phase, by);
        let others = [&placement.target, &placement.previous_home];
        for other in others.into_iter().flatten() {
            count(&mut self.counts.references, other.clone(), by);
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, by: i64) {
    use std::collections::btree_map::Entry;
    match counts.entry(key) {
        Entry::Vacant(vacant) => {
            if let Ok(first) = u64::try_from(by) {
                vacant.insert(first);
            }
        }
        Entry::Occupied(mut occupied) => {
            let now = occupied.get().saturating_add_signed(by);
            if now == 0 {
                occupied.remove();
            } else {
                *occupied.get_mut() = now;
            }
        }
    }
}

fn put<K: Ord, T: Value>(map: &mut Values<K, T>, key: K, entry: &KeyValue) {
    map.insert(key, Arc::new(read_or_empty(entry)));
}

fn read_or_empty<T: Value>(entry: &KeyValue) -> Versioned<T> {
    read(entry).unwrap_or_else(|| Versioned {
        value: Stored::default(),
        revision: entry.mod_revision,
        created: entry.create_revision,
    })
}

fn read<T: Value>(entry: &KeyValue) -> Option<Versioned<T>> {
    let value = Stored::read(&entry.value);
    if value.is_err() {
        let key: &[u8] = &entry.key;
        tracing::error!(key = %key.escape_ascii(), "a value cannot be read");
    }
    Some(Versioned {
        value: value.ok()?,
        revision: entry.mod_revision,
        created: entry.create_revision,
    })
}
