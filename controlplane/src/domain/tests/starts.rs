//! What a request to move comes to.

use ferrypost_proto::{AccountId, Phase, v1};

use super::{
    super::{
        commit::RoutingChange,
        resolution::{Route, WriteRefused},
        start::{MoveRequest, MoveVerdict, StartRefused},
    },
    Ledger, destination,
};

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
    let id = ledger.begin(&start);
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
    let unknown = AccountId::generate(ledger.random.bytes());
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
        Err(StartRefused::Record(WriteRefused::NameTaken { .. }))
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
    ledger.commit(RoutingChange::new(&ledger.random).record(&flipped).txn());
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

/// The request that has created the record comes again, word for word.
#[test]
fn a_repeated_request_with_names_joins_the_move_that_it_has_started() {
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
    let id = ledger.begin(&start);
    assert!(matches!(
        ledger.ask_for(&request),
        Ok(MoveVerdict::Join(joined)) if joined == id
    ));
}

/// Whoever wants to go back and is told OK must not find the account on the other side.
#[test]
fn a_rollback_does_not_join_a_move_forward() {
    let mut ledger = Ledger::new();
    let account = ledger.record(&["alice@example.org"], |placement| {
        placement.previous_home = Some(destination("spare"));
    });
    let id = ledger.moves("alice@example.org", Some("target"));
    assert!(matches!(
        ledger.ask("alice@example.org", None),
        Err(StartRefused::MoveUnderWay { migration, target })
            if migration == id && target == destination("target")
    ));
    // A rollback that is under way is joined by the next one.
    let account = ledger.state.account(&account.account).unwrap();
    let mut back = account.placement().unwrap().clone();
    back.target = Some(destination("spare"));
    ledger.commit(RoutingChange::new(&ledger.random).record(&back).txn());
    assert!(matches!(
        ledger.ask("alice@example.org", None),
        Ok(MoveVerdict::Join(joined)) if joined == id
    ));
}

#[test]
fn a_rollback_of_a_first_move_that_is_under_way_names_that_move() {
    let mut ledger = Ledger::new();
    let id = ledger.moves("alice@example.org", Some("target"));
    assert!(matches!(
        ledger.ask("alice@example.org", None),
        Err(StartRefused::MoveUnderWay { migration, .. }) if migration == id
    ));
}
