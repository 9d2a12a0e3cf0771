//! The whole installation at one revision, as an immutable value.

mod account;
mod apply;
mod awaited;
mod change;
mod moves;
mod past;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use ferrypost_proto::{
    AccountId, BootId, DestinationId, Head, InstallationId, InstanceId, MigrationId, Phase,
    Problems, ReplicaId, Revision, RoutingConfig, TablePosition, store::v1 as stored, v1,
};

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::kv::{Rev, value::Stored};

pub use account::{Account, Unreadable};
pub use apply::Applied;
use awaited::Awaited;
pub use change::Change;
pub use moves::{Lane, Moves, Waiting};
pub use past::Past;

/// Ended migrations that are kept in memory. Older ones are read from the store when somebody asks.
pub const ENDED_MIGRATIONS: usize = 1_000;

/// A value as it is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: Stored<T>,
    /// The revision of its last write.
    pub revision: Rev,
    /// The revision of its first write.
    pub created: Rev,
}

/// Values by their keys, shared by all states that have them.
pub type Values<K, T> = BTreeMap<K, Arc<Versioned<T>>>;

/// The routing configuration in force.
#[derive(Debug)]
pub struct Config {
    /// As it is in the store.
    pub raw: v1::RoutingConfig,
    /// The store revision at which it came into force.
    pub version: Rev,
    /// Checked. Wrong only if another version of Ferrypost has written it.
    pub checked: Result<RoutingConfig, Problems>,
}

/// How many records there are of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records by the destination that they live at.
    pub homes: BTreeMap<DestinationId, u64>,
    /// Records by a destination that they name as target or previous home.
    pub references: BTreeMap<DestinationId, u64>,
    /// Records by phase. Unreadable ones are in none.
    pub phases: BTreeMap<Phase, u64>,
    /// Migrations by state, also those that are not kept.
    pub migrations: BTreeMap<v1::MigrationState, u64>,
}

impl Counts {
    /// Accounts between FENCING and FLIPPED.
    pub fn fenced(&self) -> u64 {
        self.phases
            .iter()
            .filter(|(phase, _)| phase.is_fenced())
            .map(|(_, accounts)| accounts)
            .sum()
    }

    /// True if a record names the destination as home, target or previous home.
    pub fn uses(&self, destination: &DestinationId) -> bool {
        self.homes.contains_key(destination) || self.references.contains_key(destination)
    }
}

/// Everything that the store holds at [`State::revision`], but for requests and old migrations.
///
/// A clone shares all of it.
#[derive(Debug, Clone, Default)]
pub struct State {
    revision: Rev,
    installation: Option<(InstallationId, u64)>,
    head: Head,
    fleet: Rev,
    rewound: Option<Arc<Versioned<stored::Rewound>>>,
    config: Option<Arc<Config>>,
    leader: Option<(ReplicaId, Rev)>,
    cookie_keys: Option<Arc<Versioned<stored::CookieKeys>>>,
    accounts: RedBlackTreeMapSync<AccountId, Arc<Account>>,
    names: RedBlackTreeMapSync<Arc<str>, AccountId>,
    migrations: RedBlackTreeMapSync<MigrationId, Arc<Versioned<stored::MigrationRecord>>>,
    ended: RedBlackTreeSetSync<(Rev, MigrationId)>,
    past: RedBlackTreeMapSync<MigrationId, Past>,
    moves: Moves,
    awaited: Awaited,
    registrations: Values<InstanceId, stored::Registration>,
    departed: Values<(InstanceId, BootId), stored::Departed>,
    expelled: Arc<Values<(InstanceId, BootId), stored::Expelled>>,
    live: Values<InstanceId, stored::Live>,
    claims: Values<InstanceId, stored::RefusedClaim>,
    drained: BTreeMap<MigrationId, Values<InstanceId, stored::DrainedReport>>,
    commands: Values<(ReplicaId, Box<str>), stored::StoredCommand>,
    results: Values<(Box<str>, InstanceId), stored::StoredResult>,
    counts: Counts,
}

impl State {
    /// Everything up to here is in it. 0: nothing is loaded yet.
    pub fn revision(&self) -> Rev {
        self.revision
    }

    /// The revision as it is on the wire.
    pub fn wire_revision(&self) -> Revision {
        Revision::new(self.base(), self.revision)
    }

    /// How far a table built from this state reaches.
    pub fn position(&self) -> TablePosition {
        TablePosition {
            revision: self.wire_revision(),
            head: self.head.clone(),
        }
    }

    /// The installation's id; `None` before the first start is through.
    pub fn installation(&self) -> Option<&InstallationId> {
        self.installation.as_ref().map(|(id, _)| id)
    }

    /// See [`Revision`].
    pub fn base(&self) -> u64 {
        self.installation.as_ref().map_or(0, |(_, base)| *base)
    }

    /// The last change of routing.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The registration set's revision; 0: no data plane has ever registered.
    pub fn fleet(&self) -> Rev {
        self.fleet
    }

    /// Proof that the store was restored. While it exists nothing moves.
    pub fn rewound(&self) -> Option<&Versioned<stored::Rewound>> {
        self.rewound.as_deref()
    }

    /// The routing configuration in force.
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// The routing configuration in force, if this version understands it.
    pub fn routing(&self) -> Option<&RoutingConfig> {
        self.config.as_ref()?.checked.as_ref().ok()
    }

    /// The keys of cookies, if there are any.
    pub fn cookie_keys(&self) -> Option<&Arc<Versioned<stored::CookieKeys>>> {
        self.cookie_keys.as_ref()
    }

    /// The leader and its fencing token.
    pub fn leader(&self) -> Option<(&ReplicaId, Rev)> {
        self.leader
            .as_ref()
            .map(|(replica, token)| (replica, *token))
    }

    /// An account's record.
    pub fn account(&self, id: &AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(id)
    }

    /// The account that a canonical name points to.
    pub fn account_of(&self, name: &str) -> Option<&AccountId> {
        self.names.get(name)
    }

    /// The record of the account that a canonical name points to.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Account>> {
        self.account(self.account_of(name)?)
    }

    /// All records, by account id.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }

    /// The records after `after` (all, without it) by account id.
    pub fn accounts_sorted(
        &self,
        after: Option<&AccountId>,
    ) -> impl Iterator<Item = &Arc<Account>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts
            .range((after, Bound::Unbounded))
            .map(|(_, account)| account)
    }

    /// How many records there are.
    pub fn account_count(&self) -> usize {
        self.accounts.size()
    }

    /// How many names they have.
    pub fn name_count(&self) -> usize {
        self.names.size()
    }

    /// Records and migrations by what they are.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A migration, if it is under way or one of the last [`ENDED_MIGRATIONS`] that ended.
    pub fn migration(&self, id: &MigrationId) -> Option<&Arc<Versioned<stored::MigrationRecord>>> {
        self.migrations.get(id)
    }

    /// The migrations that are kept in memory, by their ids.
    pub fn migrations(
        &self,
    ) -> impl Iterator<Item = (&MigrationId, &Arc<Versioned<stored::MigrationRecord>>)> {
        self.migrations.iter()
    }

    /// All ended migrations that are in the store, by their ids.
    pub fn past(&self) -> impl Iterator<Item = (&MigrationId, &Past)> {
        self.past.iter()
    }

    /// What is remembered of a migration that has ended.
    pub fn past_migration(&self, id: &MigrationId) -> Option<&Past> {
        self.past.get(id)
    }

    /// The migrations that have not ended, in the order in which they are looked at.
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// True if a move waits for data planes to apply a record with an epoch above `before`, up to `applied`.
    pub fn awaits(&self, before: Revision, applied: Revision) -> bool {
        self.awaited.is_any_between(self.base(), before, applied)
    }

    /// The data planes that could be serving.
    pub fn registrations(&self) -> &Values<InstanceId, stored::Registration> {
        &self.registrations
    }

    /// Goodbyes that are not settled yet.
    pub fn departed(&self) -> &Values<(InstanceId, BootId), stored::Departed> {
        &self.departed
    }

    /// Boots that are refused for ever.
    pub fn expelled(&self) -> &Values<(InstanceId, BootId), stored::Expelled> {
        &self.expelled
    }

    /// What connected data planes have said.
    pub fn live(&self) -> &Values<InstanceId, stored::Live> {
        &self.live
    }

    /// Processes that ask for the place of a registered data plane and are refused.
    pub fn claims(&self) -> &Values<InstanceId, stored::RefusedClaim> {
        &self.claims
    }

    /// The drained reports for a migration's fence, of whatever boot.
    pub fn drained(
        &self,
        migration: &MigrationId,
    ) -> Option<&Values<InstanceId, stored::DrainedReport>> {
        self.drained.get(migration)
    }

    /// Migrations that have drained reports.
    pub fn drained_migrations(&self) -> impl Iterator<Item = &MigrationId> {
        self.drained.keys()
    }

    /// Commands for data planes, by the replica that serves them.
    pub fn commands(&self) -> &Values<(ReplicaId, Box<str>), stored::StoredCommand> {
        &self.commands
    }

    /// Results of commands.
    pub fn results(&self) -> &Values<(Box<str>, InstanceId), stored::StoredResult> {
        &self.results
    }
}

#[cfg(test)]
impl State {
    /// Takes one event in, for tests that make a state by hand.
    pub(crate) fn take(&mut self, event: &crate::kv::Event, revision: Rev) {
        self.apply(std::slice::from_ref(event));
        self.revision = revision;
    }
}

/// True once nothing will change in a migration: it was aborted, or its last phase is written.
pub fn has_ended(migration: &stored::MigrationRecord) -> bool {
    match migration.state() {
        v1::MigrationState::Aborted => true,
        v1::MigrationState::Succeeded => {
            matches!(migration.phase(), v1::Phase::Settled | v1::Phase::Retired)
        }
        _ => false,
    }
}
