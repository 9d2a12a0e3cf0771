//! What tests build tables from, here and in the data plane.

use ferrypost_proto::{
    Name, Phase, RoutingConfig,
    routing::v1::{
        AccountEntry, Change, Delta, SnapshotChunk, TablePosition, change::Change as Kind,
    },
    v1,
};
use ferrypost_runtime::Random;

use super::{Assembly, RoutingTable, SnapshotError};

/// Destinations `source` (the default), `target` and `third`; domains `a.example` (the default
/// destination), `t.example` (`target`) and `closed.example` (refused); bare names are listed.
pub fn config() -> v1::RoutingConfig {
    let destination = |id: &str| v1::Destination {
        id: id.into(),
        without: Vec::new(),
        endpoints: vec![v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: format!("{id}.example"),
            port: 993,
            tls: Some(v1::EndpointTls {
                mode: v1::endpoint_tls::Mode::Implicit.into(),
                ..Default::default()
            }),
            announcement: v1::Announcement::ProxyV2.into(),
            ..Default::default()
        }],
    };
    let domain = |name: &str, unlisted| v1::Domain {
        name: name.into(),
        unlisted,
    };
    v1::RoutingConfig {
        schema: 1,
        destinations: ["source", "target", "third"].map(destination).to_vec(),
        default_destination: "source".into(),
        domains: vec![
            domain("a.example", None),
            domain(
                "t.example",
                Some(v1::domain::Unlisted::Destination("target".into())),
            ),
            domain(
                "closed.example",
                Some(v1::domain::Unlisted::Refuse(v1::UnlistedRefuse {})),
            ),
        ],
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
            ..Default::default()
        }),
        ..v1::RoutingConfig::default()
    }
}

/// The configuration without one destination.
pub fn config_without(destination: &str) -> v1::RoutingConfig {
    let mut config = config();
    config.destinations.retain(|known| known.id != destination);
    config
}

/// A canonical name.
pub fn name(text: &str) -> Name {
    let config = RoutingConfig::try_from(&config()).expect("the test's configuration is valid");
    config.names().canonicalise(text).expect("a name")
}

/// The id of the `n`th account.
pub fn account(n: u64) -> String {
    format!("acct-{n:026}")
}

/// The id of the `n`th migration.
pub fn migration(n: u64) -> String {
    format!("move-{n:026}")
}

/// A revision of the store.
pub fn revision(store: u64) -> v1::Revision {
    v1::Revision { base: 0, store }
}

/// Account `n` of some names, settled on `home` since `epoch`.
pub fn entry(n: u64, names: &[&str], home: &str, epoch: u64) -> AccountEntry {
    AccountEntry {
        account_id: account(n),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        home: home.into(),
        phase: v1::Phase::from(Phase::Settled).into(),
        epoch: Some(revision(epoch)),
        ..Default::default()
    }
}

/// The same, in migration `n` to `target`.
pub fn moving(mut entry: AccountEntry, phase: Phase, fence: Option<u64>) -> AccountEntry {
    entry.target = "target".into();
    entry.phase = v1::Phase::from(phase).into();
    entry.fence_epoch = fence.map(revision);
    entry.migration_id = entry.account_id.replace("acct-", "move-");
    entry
}

/// A position of the store.
pub fn position(store: u64) -> TablePosition {
    TablePosition {
        revision: Some(revision(store)),
        head: None,
    }
}

/// A whole snapshot in one chunk.
pub fn chunk(store: u64, accounts: Vec<AccountEntry>) -> SnapshotChunk {
    SnapshotChunk {
        position: Some(position(store)),
        index: 0,
        last: true,
        config: Some(config()),
        accounts,
        comparison: false,
    }
}

/// The same random numbers every time.
pub fn random() -> Random {
    Random::seeded(1)
}

/// A table from a snapshot, after another.
pub fn snapshot_after(
    previous: Option<&RoutingTable>,
    chunk: SnapshotChunk,
) -> Result<RoutingTable, SnapshotError> {
    let held = previous.map(|table| table.position().revision);
    Assembly::begin(chunk, held, &random())?.finish(previous)
}

/// A table from a snapshot.
pub fn table(store: u64, accounts: Vec<AccountEntry>) -> RoutingTable {
    snapshot_after(None, chunk(store, accounts)).expect("a good snapshot")
}

/// A change that sets an entry.
pub fn put(entry: AccountEntry) -> Change {
    Change {
        change: Some(Kind::Account(entry)),
    }
}

/// A change that removes the `n`th account.
pub fn removed(n: u64) -> Change {
    Change {
        change: Some(Kind::AccountRemoved(account(n))),
    }
}

/// A change of the configuration.
pub fn reconfigured(config: v1::RoutingConfig) -> Change {
    Change {
        change: Some(Kind::Config(config)),
    }
}

/// Changes from one position to the next.
pub fn delta(from: u64, to: u64, changes: Vec<Change>) -> Delta {
    Delta {
        from: Some(revision(from)),
        to: Some(position(to)),
        changes,
    }
}
