//! Transactions that change routing.
//!
//! Whoever changes routing writes `/meta/head` with a fresh nonce in the same transaction, so that two
//! histories of a restored store can be told apart, and only while the store is not known to be restored.
//! Building them here means that none can forget it.

use ferrypost_proto::store::v1::{Fleet, MigrationRecord, NameEntry, RoutingHead, StoredConfig};
use ferrypost_proto::{MigrationId, v1};
use ferrypost_runtime::Random;

use super::placement::Placement;
use crate::kv::{Rev, Txn, keys, value::Stored};

/// A transaction that changes routing, while it is put together.
#[derive(Debug)]
#[must_use = "nothing happens until the transaction is committed"]
pub struct RoutingChange(Txn);

impl RoutingChange {
    /// Writes the head and demands that the store is not `rewound`.
    pub fn new(random: &Random) -> Self {
        Self(
            Txn::new()
                .absent(keys::REWOUND)
                .put(keys::HEAD, fresh_head(random).bytes()),
        )
    }

    /// Writes the head of a restored store, on the proof that it is one, of revision `proof`: what an operator
    /// has decided.
    pub fn resolving(random: &Random, proof: Rev) -> Self {
        Self(
            Txn::new()
                .at(keys::REWOUND, proof)
                .put(keys::HEAD, fresh_head(random).bytes()),
        )
    }

    /// Demands that the leader is still the one whose fencing token is `token`.
    pub fn led(mut self, token: Rev) -> Self {
        self.0 = self.0.at(keys::LEADER, token);
        self
    }

    /// Demands that no data plane was registered or has gone since the fleet's `revision`.
    pub fn fleet(mut self, revision: Rev) -> Self {
        self.0 = self.0.at(keys::FLEET, revision);
        self
    }

    /// Demands that the routing configuration is still the one of `version`.
    pub fn configured(mut self, version: Rev) -> Self {
        self.0 = self.0.at(keys::CONFIG, version);
        self
    }

    /// Demands that `key` was last written at `revision` (0: that it does not exist).
    pub fn at(mut self, key: Vec<u8>, revision: Rev) -> Self {
        self.0 = self.0.at(key, revision);
        self
    }

    /// Writes an account's record over the one that `placement.epoch` was read from; 0 creates it. The
    /// names are those that it has: see [`Self::add_name`] and [`Self::remove_name`].
    pub fn record(mut self, placement: &Placement) -> Self {
        let key = keys::account(&placement.account);
        self.0 = self
            .0
            .at(key.clone(), placement.epoch)
            .put(key, placement.to_stored().bytes());
        self
    }

    /// Removes an account's record.
    pub fn remove_record(mut self, placement: &Placement) -> Self {
        let key = keys::account(&placement.account);
        self.0 = self.0.at(key.clone(), placement.epoch).delete(key);
        self
    }

    /// Lets a name that nobody has point to the account.
    pub fn add_name(mut self, name: &str, placement: &Placement) -> Self {
        let key = keys::name(name);
        let entry = NameEntry {
            account_id: placement.account.as_str().to_owned(),
            ..NameEntry::default()
        };
        self.0 = self
            .0
            .absent(key.clone())
            .put(key, Stored::new(entry).bytes());
        self
    }

    /// Lets a name point to the account, whoever had it in a restored store.
    pub fn take_name(mut self, name: &str, placement: &Placement) -> Self {
        let entry = NameEntry {
            account_id: placement.account.as_str().to_owned(),
            ..NameEntry::default()
        };
        self.0 = self.0.put(keys::name(name), Stored::new(entry).bytes());
        self
    }

    /// Removes a name of an account. The guard on the record is the guard on its names.
    pub fn remove_name(mut self, name: &str) -> Self {
        self.0 = self.0.delete(keys::name(name));
        self
    }

    /// Writes a migration over the one of `revision`; 0 creates it.
    pub fn migration(
        mut self,
        id: &MigrationId,
        migration: &Stored<MigrationRecord>,
        revision: Rev,
    ) -> Self {
        let key = keys::migration(id);
        self.0 = self.0.at(key.clone(), revision).put(key, migration.bytes());
        self
    }

    /// Replaces the routing configuration of `version`; 0: there was none.
    pub fn config(mut self, config: v1::RoutingConfig, version: Rev) -> Self {
        let stored = StoredConfig {
            config: Some(config),
            ..StoredConfig::default()
        };
        self.0 = self
            .0
            .at(keys::CONFIG, version)
            .put(keys::CONFIG, Stored::new(stored).bytes());
        self
    }

    /// Adds guards and writes of other keys.
    pub fn with(mut self, add: impl FnOnce(Txn) -> Txn) -> Self {
        self.0 = add(self.0);
        self
    }

    /// The transaction.
    pub fn txn(self) -> Txn {
        self.0
    }
}

/// A nonce that no other change has.
fn fresh_head(random: &Random) -> Stored<RoutingHead> {
    Stored::new(RoutingHead {
        nonce: random.bytes::<16>().to_vec().into(),
        ..RoutingHead::default()
    })
}

/// Adds to a transaction that changes the set of registrations what every such transaction does: it
/// writes `/meta/fleet` over `revision` (0: no data plane has ever registered).
pub fn change_fleet(txn: Txn, revision: Rev) -> Txn {
    txn.at(keys::FLEET, revision)
        .put(keys::FLEET, Stored::new(Fleet::default()).bytes())
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{AccountId, DestinationId};

    use super::*;
    use crate::kv::{Guard, Write};

    #[test]
    fn every_change_moves_the_head_and_none_happens_while_rewound() {
        let random = Random::seeded(1);
        let first = RoutingChange::new(&random).txn();
        let second = RoutingChange::new(&random).txn();
        assert_ne!(first.writes, second.writes, "each has a nonce of its own");
        assert!(first.guards.contains(&Guard::Revision {
            key: keys::REWOUND.to_vec(),
            is: 0
        }));
        assert!(first.writes.iter().any(|write| write.key() == keys::HEAD));
    }

    #[test]
    fn a_record_is_written_over_the_epoch_that_was_read() {
        let random = Random::seeded(1);
        let mut placement = Placement::new(
            AccountId::generate(random.bytes()),
            ["alice".into()],
            DestinationId::parse("source").unwrap(),
        );
        placement.epoch = 7;
        let txn = RoutingChange::new(&random)
            .record(&placement)
            .add_name("alice", &placement)
            .txn();
        let key = keys::account(&placement.account);
        assert!(txn.guards.contains(&Guard::Revision {
            key: key.clone(),
            is: 7
        }));
        assert!(txn.guards.contains(&Guard::Revision {
            key: keys::name("alice"),
            is: 0
        }));
        assert!(
            txn.writes
                .iter()
                .any(|w| matches!(w, Write::Put { key: k, .. } if *k == key))
        );
        assert!(txn.check().is_ok());
    }
}
