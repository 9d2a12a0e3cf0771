//! Where names go, and writes that would change it.

use ferrypost_proto::{Phase, Revision, v1};

use super::{
    super::resolution::{ConfigRefused, Route, WriteRefused, delete_record, namesake},
    Ledger, destination, domain, server,
};

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
fn a_name_of_no_record_may_be_that_of_an_account_that_lives_elsewhere() {
    let mut ledger = Ledger::new();
    ledger.record(&["alice@example.org"], |p| p.home = destination("target"));
    ledger.record(&["bob"], |p| p.home = destination("source"));
    let namesake = |login: &str| {
        let routing = ledger.state.routing().unwrap();
        let name = ledger.name(login);
        let route = ledger.route(login);
        let goes = route.destination().expect("it goes by default");
        let found = namesake(&ledger.state, routing, &name, goes);
        found.map(|(_, home)| home.as_str().to_owned())
    };
    assert_eq!(namesake("alice").as_deref(), Some("target"));
    assert_eq!(namesake("alice@new.example"), None, "it goes there too");
    assert_eq!(namesake("bob@new.example").as_deref(), Some("source"));
    assert_eq!(namesake("bob@example.org"), None);
    assert_eq!(namesake("carol"), None);
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
        matches!(refused, WriteRefused::WouldChangeRoute { .. }),
        "{refused}"
    );
    let refused = ledger.set(None, &["alice@example.org", "alice@new.example"], "source");
    assert!(matches!(
        refused,
        Err(WriteRefused::WouldChangeRoute { .. })
    ));
    assert_eq!(
        ledger.set(None, &["alice@example.org"], "nowhere"),
        Err(WriteRefused::UnknownDestination(destination("nowhere")))
    );
    assert_eq!(ledger.set(None, &[], "source"), Err(WriteRefused::NoNames));
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
    assert!(matches!(
        refused,
        Err(WriteRefused::WouldChangeRoute { .. })
    ));
    let refused = ledger.set(
        Some(&alice),
        &["alice@example.org", "alice@new.example"],
        "target",
    );
    assert!(matches!(
        refused,
        Err(WriteRefused::WouldChangeRoute { .. })
    ));
    let refused = ledger.set(None, &["alice@example.org"], "source");
    assert!(matches!(refused, Err(WriteRefused::NameTaken { .. })));
}

#[test]
fn names_change_only_while_an_account_is_settled() {
    let mut ledger = Ledger::new();
    let alice = ledger.record(&["alice@example.org"], |p| p.phase = Phase::Copying);
    let refused = ledger.set(Some(&alice), &["alice@example.org", "alice"], "source");
    assert_eq!(
        refused,
        Err(WriteRefused::NotSettled {
            phase: Phase::Copying
        })
    );
    let refused = delete_record(&ledger.state, alice, None).unwrap_err();
    assert_eq!(
        refused,
        WriteRefused::NotSettled {
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
    assert!(matches!(refused, WriteRefused::EpochMismatch { .. }));
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
    assert!(matches!(
        refused,
        Err(WriteRefused::WouldChangeRoute { .. })
    ));
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
