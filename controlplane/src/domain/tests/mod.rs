//! The decisions over a state that is made by hand.

mod fences;
mod routes;
mod starts;

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    AccountId, BootId, DestinationId, InstanceId, MigrationId, Name, Revision, RoutingConfig,
    store::v1::{Fleet, Leader, Live, Registration, StoredConfig},
    v1::{self, BlockerReason},
};
use ferrypost_runtime::Random;

use super::{
    fence::{Prospect, before_fence},
    placement::Placement,
    resolution::{
        ConfigRefused, Route, WantedRecord, WriteRefused, config_refusals, resolve, set_record,
    },
    start::{MoveRequest, MoveStart, MoveTerms, MoveVerdict, Requester, StartRefused, start},
};
use crate::{
    domain::state::State,
    kv::{
        Event, KeyValue, Rev, Txn, Write, keys,
        value::{Stored, Value},
    },
};

/// A state that is written like a store, one transaction a revision.
struct Ledger {
    state: State,
    random: Random,
    revision: Rev,
}

impl Ledger {
    fn new() -> Self {
        let mut ledger = Self {
            state: State::default(),
            random: Random::seeded(1),
            revision: 0,
        };
        ledger.put(
            keys::CONFIG.to_vec(),
            StoredConfig {
                config: Some(document()),
                ..StoredConfig::default()
            },
        );
        let leader = Leader {
            replica: "cp-1".to_owned(),
            ..Leader::default()
        };
        ledger.put(keys::LEADER.to_vec(), leader);
        ledger
    }

    fn put<T: Value>(&mut self, key: Vec<u8>, value: T) {
        self.commit(Txn::new().put(key, Stored::new(value).bytes()));
    }

    fn commit(&mut self, txn: Txn) {
        self.revision += 1;
        for write in txn.writes {
            let event = match write {
                Write::Put { key, value, .. } => Event::Put(KeyValue {
                    key,
                    value,
                    mod_revision: self.revision,
                    create_revision: self.revision,
                }),
                Write::Delete { key } => Event::Delete {
                    key,
                    mod_revision: self.revision,
                },
            };
            self.state.take(&event, self.revision);
        }
    }

    fn name(&self, login: &str) -> Name {
        let routing = self.state.routing().unwrap();
        routing.names().canonicalise(login).unwrap()
    }

    fn route(&self, login: &str) -> Route {
        resolve(
            &self.state,
            self.state.routing().unwrap(),
            &self.name(login),
        )
        .0
    }

    /// A record that says what `change` makes of it.
    fn record(&mut self, names: &[&str], change: impl FnOnce(&mut Placement)) -> Placement {
        let id = AccountId::generate(self.random.bytes());
        let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
        let mut placement = Placement::new(id, names, destination("source"));
        change(&mut placement);
        let change = super::commit::RoutingChange::new(&self.random).record(&placement);
        let change = placement
            .names
            .iter()
            .fold(change, |change, name| change.add_name(name, &placement));
        self.commit(change.txn());
        placement.epoch = self.revision;
        placement
    }

    fn set(
        &self,
        before: Option<&Placement>,
        names: &[&str],
        home: &str,
    ) -> Result<bool, WriteRefused> {
        let wanted = WantedRecord {
            before: before.cloned(),
            new_id: AccountId::generate(self.random.bytes()),
            names: names.iter().map(|name| self.name(name)).collect(),
            home: destination(home),
            expected: None,
        };
        set_record(&self.state, wanted).map(|change| change.is_empty())
    }

    fn ask(&self, account: &str, to: Option<&str>) -> Result<MoveVerdict, StartRefused> {
        self.ask_for(&MoveRequest {
            account,
            names: &[],
            destination: to,
            expected_source: None,
        })
    }

    fn ask_for(&self, request: &MoveRequest<'_>) -> Result<MoveVerdict, StartRefused> {
        start(&self.state, &self.random, request, TERMS)
    }

    fn starts(&self, account: &str, to: Option<&str>) -> MoveStart {
        match self.ask(account, to) {
            Ok(MoveVerdict::Start(start)) => *start,
            other => panic!("{other:?} is no start"),
        }
    }

    /// Starts a move and writes it.
    fn moves(&mut self, account: &str, to: Option<&str>) -> MigrationId {
        let start = self.starts(account, to);
        self.begin(&start)
    }

    /// Writes a move that may start.
    fn begin(&mut self, start: &MoveStart) -> MigrationId {
        let id = MigrationId::generate(self.random.bytes());
        let requester = Requester::default();
        let change = start.change(&self.random, &id, requester, crate::wall_clock::now());
        self.commit(change.txn());
        id
    }

    fn register(&mut self, name: &str) -> BootId {
        let boot = BootId::generate(self.random.bytes());
        let registration = Registration {
            boot: boot.as_str().to_owned(),
            limits: Some(limits(25)),
            ..Registration::default()
        };
        self.put(keys::registration(&instance(name)), registration);
        self.put(keys::FLEET.to_vec(), Fleet::default());
        boot
    }

    fn live(&mut self, name: &str, boot: &BootId, change: impl FnOnce(&mut Live)) {
        let mut live = Live {
            boot: boot.as_str().to_owned(),
            ready: true,
            applied: Some(Revision::new(0, self.revision).into()),
            ..Live::default()
        };
        change(&mut live);
        self.put(keys::live(&instance(name)), live);
    }

    fn blockers(&self, account: &Placement, written: Rev) -> Vec<(BlockerReason, String)> {
        let prospect = Prospect {
            accounts: std::slice::from_ref(&account.account),
            source: "source",
            target: "target",
            written,
            budget: 2,
            window: TERMS.window,
        };
        let blockers = before_fence(&self.state, &prospect);
        blockers
            .iter()
            .map(|b| (b.reason(), b.who.clone()))
            .collect()
    }

    fn config_refusals(&self, change: impl FnOnce(&mut v1::RoutingConfig)) -> Vec<ConfigRefused> {
        let mut after = document();
        change(&mut after);
        config_refusals(&self.state, &RoutingConfig::try_from(&after).unwrap())
    }
}

const TERMS: MoveTerms = MoveTerms {
    window: Duration::from_secs(20),
    delta_hook: false,
};

/// Those of a data plane that holds logins for so many seconds.
fn limits(hold: i64) -> v1::DataPlaneLimits {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    v1::DataPlaneLimits {
        hold: seconds(hold),
        drain: seconds(10),
        close: seconds(5),
    }
}

fn destination(id: &str) -> DestinationId {
    DestinationId::parse(id).unwrap()
}

fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn server(id: &str) -> v1::Destination {
    v1::Destination {
        id: id.to_owned(),
        without: Vec::new(),
        endpoints: vec![v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: "mail.example.org".to_owned(),
            port: 993,
            tls: Some(v1::EndpointTls {
                mode: v1::endpoint_tls::Mode::Implicit.into(),
                ..v1::EndpointTls::default()
            }),
            announcement: v1::Announcement::None.into(),
            ..v1::Endpoint::default()
        }],
    }
}

fn domain(name: &str, unlisted: Option<v1::domain::Unlisted>) -> v1::Domain {
    v1::Domain {
        name: name.to_owned(),
        unlisted,
    }
}

pub(super) fn document() -> v1::RoutingConfig {
    use v1::domain::Unlisted;
    v1::RoutingConfig {
        schema: 1,
        destinations: ["source", "target", "spare"].map(server).to_vec(),
        default_destination: "source".to_owned(),
        domains: vec![
            domain("example.org", None),
            domain(
                "new.example",
                Some(Unlisted::Destination("target".to_owned())),
            ),
            domain(
                "closed.example",
                Some(Unlisted::Refuse(v1::UnlistedRefuse {})),
            ),
        ],
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
            ..v1::NamePolicy::default()
        }),
        ..v1::RoutingConfig::default()
    }
}
