//! The decisions over a state that is made by hand.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    AccountId, BootId, DestinationId, InstanceId, MigrationId, Name, Phase, Random, Revision,
    RoutingConfig,
    store::v1::{
        Departed, DrainedReport, DrainedReportAccount, Expelled, Fleet, Leader, Live, LiveEndpoint,
        LiveRejected, Registration, Rewound, StoredConfig,
    },
    v1::{self, BlockerReason},
};

use super::{
    fence::{Prospect, before_fence, drain, unapplied, unsettled_ends},
    migration::Drain,
    placement::Placement,
    resolution::{
        ConfigRefused, Refused, Route, WantedRecord, config_refusals, delete_record, resolve,
        set_record,
    },
    start::{MoveRequest, MoveStart, MoveTerms, MoveVerdict, Requester, StartRefused, start},
};
use crate::{
    mirror::State,
    store::{
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
        let id = AccountId::generate(&self.random);
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

    fn set(&self, before: Option<&Placement>, names: &[&str], home: &str) -> Result<bool, Refused> {
        let wanted = WantedRecord {
            before: before.cloned(),
            new_id: AccountId::generate(&self.random),
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
        let id = MigrationId::generate(&self.random);
        let requester = Requester::default();
        let change = start.change(&self.random, &id, requester, crate::wall_clock::now());
        self.commit(change.txn());
        id
    }

    fn register(&mut self, name: &str) -> BootId {
        let boot = BootId::generate(&self.random);
        let registration = Registration {
            boot: boot.as_str().to_owned(),
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

fn destination(id: &str) -> DestinationId {
    DestinationId::parse(id).unwrap()
}

fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn server(id: &str) -> v1::Destination {
    v1::Destination {
        id: id.to_owned(),
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

fn document() -> v1::RoutingConfig {
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
    }
}

#[test]
fn a_name_goes_by_its_record_then_by_its_domain() {
    let mut ledger = Ledger::new();
    ledger.record(&["alice", "alice@example.org"], |p| {
        p.home = destination("target");
    });
    ledger.record(&["held@example.org"], |p| p.phase = Phase::Fencing);
    ledger.record(&["lost@example.org"], |p| p.home = destination("gone"));
    assert_eq!(
        ledger.route("Alice"),
        Route::Placement(destination("target"))
    );
    assert_eq!(
        ledger.route("ALICE@example.org"),
        Route::Placement(destination("target"))
    );
    assert_eq!(ledger.route("held@example.org"), Route::Held);
    assert_eq!(
        ledger.route("lost@example.org"),
        Route::Held,
        "never to another server"
    );
    assert_eq!(ledger.route("bob"), Route::Default(destination("source")));
    assert_eq!(
        ledger.route("bob@new.example"),
        Route::DomainDefault(destination("target"))
    );
    for refused in ["bob@closed.example", "bob@elsewhere.example"] {
        assert!(matches!(ledger.route(refused), Route::Refused(_)));
    }
}

#[test]
fn a_record_is_written_only_where_its_names_go() {
    let mut ledger = Ledger::new();
    assert_eq!(
        ledger.set(None, &["alice@example.org"], "source"),
        Ok(false)
    );
    let refused = ledger
        .set(None, &["alice@example.org"], "target")
        .unwrap_err();
    assert!(
        matches!(refused, Refused::WouldChangeRoute { .. }),
        "{refused}"
    );
    let refused = ledger.set(None, &["alice@example.org", "alice@new.example"], "source");
    assert!(matches!(refused, Err(Refused::WouldChangeRoute { .. })));
    assert_eq!(
        ledger.set(None, &["alice@example.org"], "nowhere"),
        Err(Refused::UnknownDestination(destination("nowhere")))
    );
    assert_eq!(ledger.set(None, &[], "source"), Err(Refused::NoNames));
    // Nobody serves it today, so nobody else can.
    assert_eq!(
        ledger.set(None, &["alice@closed.example"], "target"),
        Ok(false)
    );

    let alice = ledger.record(&["alice@example.org", "alice@new.example"], |_| {});
    assert_eq!(
        ledger.set(
            Some(&alice),
            &["alice@example.org", "alice@new.example"],
            "source"
        ),
        Ok(true),
        "it is so already"
    );
    assert_eq!(
        ledger.set(
            Some(&alice),
            &["alice@example.org", "alice@new.example", "alice"],
            "source"
        ),
        Ok(false)
    );
    // Without its record the name would go to its domain's default.
    let refused = ledger.set(Some(&alice), &["alice@example.org"], "source");
    assert!(matches!(refused, Err(Refused::WouldChangeRoute { .. })));
    let refused = ledger.set(
        Some(&alice),
        &["alice@example.org", "alice@new.example"],
        "target",
    );
    assert!(matches!(refused, Err(Refused::WouldChangeRoute { .. })));
    let refused = ledger.set(None, &["alice@example.org"], "source");
    assert!(matches!(refused, Err(Refused::NameTaken { .. })));
}

#[test]
fn names_change_only_while_an_account_is_settled() {
    let mut ledger = Ledger::new();
    let alice = ledger.record(&["alice@example.org"], |p| p.phase = Phase::Copying);
    let refused = ledger.set(Some(&alice), &["alice@example.org", "alice"], "source");
    assert_eq!(
        refused,
        Err(Refused::NotSettled {
            phase: Phase::Copying
        })
    );
    let refused = delete_record(&ledger.state, alice, None).unwrap_err();
    assert_eq!(
        refused,
        Refused::NotSettled {
            phase: Phase::Copying
        }
    );
}

#[test]
fn an_epoch_that_is_not_the_expected_one_is_refused() {
    let mut ledger = Ledger::new();
    let alice = ledger.record(&["alice@example.org"], |_| {});
    let stale = Some(Revision::new(0, alice.epoch - 1));
    let refused = delete_record(&ledger.state, alice.clone(), stale).unwrap_err();
    assert!(matches!(refused, Refused::EpochMismatch { .. }));
    let right = Some(Revision::new(0, alice.epoch));
    assert!(delete_record(&ledger.state, alice, right).is_ok());
}

#[test]
fn a_record_is_deleted_only_where_its_names_go_without_it() {
    let mut ledger = Ledger::new();
    let stays = ledger.record(&["bob@example.org"], |_| {});
    let change = delete_record(&ledger.state, stays, None).unwrap();
    ledger.commit(change.change(&ledger.random).txn());
    assert_eq!(ledger.state.account_count() + ledger.state.name_count(), 0);
    let moved = ledger.record(&["alice@example.org"], |p| p.home = destination("target"));
    let refused = delete_record(&ledger.state, moved, None);
    assert!(matches!(refused, Err(Refused::WouldChangeRoute { .. })));
}

#[test]
fn a_configuration_may_grow_but_not_move_a_name() {
    use v1::domain::Unlisted;
    let mut ledger = Ledger::new();
    // Nobody is served yet.
    assert!(
        ledger
            .config_refusals(|c| c.default_destination = "target".into())
            .is_empty()
    );
    ledger.register("dp-1");
    assert!(ledger.config_refusals(|_| {}).is_empty());
    let grown = ledger.config_refusals(|c| {
        c.domains.push(domain("more.example", None));
        c.destinations.push(server("more"));
        c.destinations[0].endpoints[0].host = "other.example.org".to_owned();
        c.destinations.retain(|d| d.id != "spare");
    });
    assert!(grown.is_empty(), "{grown:?}");
    assert!(matches!(
        ledger.config_refusals(|c| c.default_destination = "target".into())[..],
        [ConfigRefused::DefaultDestination { .. }]
    ));
    assert_eq!(
        ledger.config_refusals(|c| {
            c.domains[0].unlisted = Some(Unlisted::Destination("source".to_owned()));
        }),
        [ConfigRefused::DomainRule("example.org".to_owned())],
        "the default of today could become another tomorrow"
    );
    assert_eq!(
        ledger.config_refusals(|c| drop(c.domains.remove(2))),
        [ConfigRefused::DomainRemoved("closed.example".to_owned())]
    );
    assert_eq!(
        ledger.config_refusals(|c| c.names.as_mut().unwrap().local_part_case_sensitive = true),
        [ConfigRefused::NamePolicy]
    );
    ledger.record(&["alice@example.org"], |p| {
        p.previous_home = Some(destination("spare"));
    });
    assert_eq!(
        ledger.config_refusals(|c| c.destinations.retain(|d| d.id != "spare")),
        [ConfigRefused::DestinationInUse(destination("spare"))]
    );
}

#[test]
fn a_move_of_an_account_without_a_record_takes_all_its_names() {
    let mut ledger = Ledger::new();
    let names = ["Alice".to_owned()];
    let request = MoveRequest {
        account: "alice@example.org",
        names: &names,
        destination: Some("target"),
        expected_source: Some("source"),
    };
    let Ok(MoveVerdict::Start(start)) = ledger.ask_for(&request) else {
        panic!("it may start");
    };
    assert_eq!(start.accounts()[0].names, ["alice", "alice@example.org"]);
    let id = MigrationId::generate(&ledger.random);
    let change = start.change(
        &ledger.random,
        &id,
        Requester::default(),
        crate::wall_clock::now(),
    );
    ledger.commit(change.txn());
    assert_eq!(
        ledger.state.by_name("alice"),
        ledger.state.by_name("alice@example.org")
    );
    assert_eq!(
        ledger.route("alice"),
        Route::Placement(destination("source"))
    );
    let migration = ledger.state.migration(&id).unwrap();
    assert_eq!(migration.value.state(), v1::MigrationState::Queued);
    assert_eq!(migration.value.source, "source");
}

#[test]
fn a_move_that_makes_no_sense_is_refused() {
    let mut ledger = Ledger::new();
    ledger.record(&["alice@example.org", "alice"], |_| {});
    assert!(matches!(
        ledger.ask("alice", Some("source")),
        Err(StartRefused::AlreadyThere(_))
    ));
    assert!(matches!(
        ledger.ask("alice", Some("nowhere")),
        Err(StartRefused::UnknownDestination(_))
    ));
    assert!(matches!(
        ledger.ask("alice", None),
        Err(StartRefused::NoWayBack)
    ));
    assert!(matches!(
        ledger.ask("a b", Some("target")),
        Err(StartRefused::BadName { .. })
    ));
    assert!(matches!(
        ledger.ask("bob@closed.example", Some("target")),
        Err(StartRefused::GoesNowhere { .. })
    ));
    let unknown = AccountId::generate(&ledger.random);
    assert!(matches!(
        ledger.ask(unknown.as_str(), Some("target")),
        Err(StartRefused::UnknownAccount(_))
    ));
    let asked = |account, names: &[&str], expected_source| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        ledger.ask_for(&MoveRequest {
            account,
            names: &names,
            destination: Some("target"),
            expected_source,
        })
    };
    assert!(matches!(
        asked("alice", &[], Some("target")),
        Err(StartRefused::OtherSource { .. })
    ));
    assert!(matches!(
        asked("alice", &["alice"], None),
        Err(StartRefused::OtherNames)
    ));
    assert!(asked("alice", &["ALICE@example.org", "alice"], None).is_ok());
    assert!(matches!(
        asked("bob@example.org", &["bob@new.example"], None),
        Err(StartRefused::NamesDiverge { .. })
    ));
    assert!(matches!(
        asked("bob@example.org", &["alice"], None),
        Err(StartRefused::Record(Refused::NameTaken { .. }))
    ));
}

#[test]
fn a_second_request_joins_the_move_or_is_refused() {
    let mut ledger = Ledger::new();
    let id = ledger.moves("alice@example.org", Some("target"));
    assert!(matches!(
        ledger.ask("alice@example.org", Some("target")),
        Ok(MoveVerdict::Join(joined)) if joined == id
    ));
    assert!(matches!(
        ledger.ask("alice@example.org", Some("spare")),
        Err(StartRefused::MoveUnderWay { .. })
    ));
    let account = ledger.state.by_name("alice@example.org").unwrap().clone();
    let mut flipped = account.placement().unwrap().clone();
    flipped.home = destination("target");
    flipped.previous_home = Some(destination("source"));
    flipped.target = None;
    flipped.phase = Phase::Flipped;
    ledger.commit(
        super::commit::RoutingChange::new(&ledger.random)
            .record(&flipped)
            .txn(),
    );
    assert!(matches!(
        ledger.ask("alice@example.org", Some("target")),
        Ok(MoveVerdict::Join(joined)) if joined == id
    ));
    let back = ledger.starts("alice@example.org", None);
    assert_eq!(back.kind, v1::MigrationKind::Rollback);
    assert_eq!(
        (back.source, back.target),
        (destination("target"), destination("source"))
    );
}

#[test]
fn everything_that_stands_in_the_way_is_named() {
    let mut ledger = Ledger::new();
    let alice = ledger.record(&["alice@example.org"], |_| {});
    let none: [(BlockerReason, String); 0] = [];
    let by = |reason, who: &str| (reason, who.to_owned());
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        [by(BlockerReason::NoDataPlane, "")]
    );
    let boot = ledger.register("dp-1");
    let silent = [by(BlockerReason::DataPlaneSilent, "dp-1")];
    assert_eq!(ledger.blockers(&alice, alice.epoch), silent);
    let other = BootId::generate(&ledger.random);
    ledger.live("dp-1", &other, |_| {});
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        silent,
        "another boot's word"
    );
    ledger.live("dp-1", &boot, |live| {
        live.applied = Some(Revision::new(0, alice.epoch - 1).into());
    });
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        [by(BlockerReason::NotApplied, "dp-1")]
    );
    assert_eq!(
        ledger.blockers(&alice, 0),
        none,
        "nothing is written of a plan"
    );
    ledger.live("dp-1", &boot, |_| {});
    assert_eq!(ledger.blockers(&alice, alice.epoch), none);
    ledger.live("dp-1", &boot, |live| {
        live.rejected = vec![LiveRejected {
            account_id: alice.account.as_str().to_owned(),
            reason: "REJECT_REASON_BAD_NAME".to_owned(),
        }];
        let endpoint = |destination: &str, reachable| LiveEndpoint {
            destination: destination.to_owned(),
            protocol: v1::Protocol::Imap.into(),
            reachable,
            problem: String::new(),
        };
        live.endpoints = vec![
            endpoint("source", true),
            endpoint("target", false),
            endpoint("spare", false),
        ];
    });
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        [
            by(BlockerReason::EntryRejected, "dp-1"),
            by(BlockerReason::DestinationUnreachable, "target"),
        ]
    );
    ledger.live("dp-1", &boot, |_| {});
    for n in 0..2 {
        ledger.record(&[&format!("user{n}@example.org")], |p| {
            p.phase = Phase::Fencing;
        });
    }
    assert_eq!(
        ledger.blockers(&alice, 0),
        [by(BlockerReason::FenceBudget, "")]
    );
    ledger.put(keys::REWOUND.to_vec(), Rewound::default());
    ledger.commit(Txn::new().delete(keys::LEADER));
    let reasons: Vec<_> = ledger
        .blockers(&alice, 0)
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    assert_eq!(
        reasons,
        [
            BlockerReason::Rewound,
            BlockerReason::NoLeader,
            BlockerReason::FenceBudget,
        ]
    );
}

#[test]
fn ends_that_nobody_saw_are_unsettled_until_they_are_cleared() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    assert!(unsettled_ends(&ledger.state).is_empty());
    let succession = Registration {
        boot: boot.as_str().to_owned(),
        unsettled_predecessor: BootId::generate(&ledger.random).as_str().to_owned(),
        ..Registration::default()
    };
    ledger.put(keys::registration(&instance("dp-1")), succession);
    let other = BootId::generate(&ledger.random);
    ledger.put(
        keys::departed(&instance("dp-2"), &other),
        Departed::default(),
    );
    let expelled = |settled| Expelled {
        settled,
        ..Expelled::default()
    };
    ledger.put(keys::expelled(&instance("dp-3"), &other), expelled(false));
    ledger.put(keys::expelled(&instance("dp-4"), &other), expelled(true));
    let who: Vec<_> = unsettled_ends(&ledger.state)
        .iter()
        .map(|(end, _)| end.instance().as_str().to_owned())
        .collect();
    assert_eq!(who, ["dp-1", "dp-2", "dp-3"]);
}

#[test]
fn drained_is_what_every_registered_boot_says_of_this_fence() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    let migration = MigrationId::generate(&ledger.random);
    let account = AccountId::generate(&ledger.random);
    let fences = [(account.clone(), 40)];
    let said = |fence_epoch, unconfirmed, sessions_left| DrainedReportAccount {
        account_id: account.as_str().to_owned(),
        fence_epoch,
        closed: 1,
        unconfirmed,
        sessions_left,
    };
    let report = |ledger: &mut Ledger, boot: &BootId, said| {
        let report = DrainedReport {
            boot: boot.as_str().to_owned(),
            accounts: vec![said],
            ..DrainedReport::default()
        };
        ledger.put(keys::drained(&migration, &instance("dp-1")), report);
        drain(&ledger.state, &migration, &fences)
    };
    assert!(matches!(
        drain(&ledger.state, &migration, &fences),
        Drain::Waiting(_)
    ));
    assert_eq!(report(&mut ledger, &boot, said(40, 0, 0)), Drain::Complete);
    let stranger = BootId::generate(&ledger.random);
    assert!(matches!(
        report(&mut ledger, &stranger, said(40, 0, 0)),
        Drain::Waiting(_)
    ));
    for other_fence in [39, 41] {
        let drain = report(&mut ledger, &boot, said(other_fence, 0, 0));
        assert!(matches!(drain, Drain::Waiting(_)));
    }
    let Drain::Waiting(who) = report(&mut ledger, &boot, said(0, 0, 3)) else {
        panic!("sessions are left");
    };
    assert_eq!(
        (who[0].who.as_str(), who[0].message.contains('3')),
        ("dp-1", true)
    );
    assert!(matches!(
        report(&mut ledger, &boot, said(40, 2, 0)),
        Drain::Unconfirmed(_)
    ));
    report(&mut ledger, &boot, said(40, 0, 0));
    ledger.register("dp-2");
    assert!(matches!(
        drain(&ledger.state, &migration, &fences),
        Drain::Waiting(_)
    ));
}

#[test]
fn a_flip_is_applied_when_every_registered_boot_says_so() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    let revision = ledger.revision;
    let missing = |ledger: &Ledger| unapplied(&ledger.state, revision).count();
    assert_eq!(missing(&ledger), 1);
    ledger.live("dp-1", &boot, |live| live.applied = None);
    assert_eq!(missing(&ledger), 1);
    ledger.live("dp-1", &boot, |_| {});
    assert_eq!(missing(&ledger), 0);
    ledger.commit(Txn::new().delete(keys::live(&instance("dp-1"))));
    assert_eq!(missing(&ledger), 1, "it has stopped answering");
    ledger.commit(Txn::new().delete(keys::registration(&instance("dp-1"))));
    assert_eq!(
        missing(&ledger),
        0,
        "whoever is not registered does not count"
    );
}
