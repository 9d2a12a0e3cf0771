//! Stories about single tables; [`super::model`] tells the long ones.

use ferrypost_proto::{
    NoRoute, Phase, Revision,
    routing::v1::{AccountEntry, Delta, RejectReason},
};

use super::{testing::*, *};

fn destination(table: &RoutingTable, login: &str) -> String {
    match table.resolve(&name(login)) {
        Resolution::Route(route) => route.destination.into(),
        Resolution::Fenced(fenced) if fenced.is_rejected() => "rejected".into(),
        Resolution::Fenced(_) => "fenced".into(),
        Resolution::Refused(refusal) => format!("{refusal:?}"),
    }
}

fn reasons(table: &RoutingTable) -> Vec<(String, RejectReason)> {
    table
        .rejected()
        .into_iter()
        .map(|entry| (entry.account_id.clone(), entry.reason()))
        .collect()
}

fn apply(table: &RoutingTable, delta: Delta) -> RoutingTable {
    table.apply(delta).expect("the delta applies").table
}

#[test]
fn a_name_goes_by_its_record_then_its_domain_then_the_default() {
    let table = table(7, vec![entry(1, &["alice", "alice@a.example"], "third", 5)]);
    let Resolution::Route(route) = table.resolve(&name("alice")) else {
        panic!("alice has a route");
    };
    assert_eq!(route.destination.as_str(), "third");
    assert_eq!(route.account.expect("hers").as_str(), account(1));
    assert_eq!(route.epoch.expect("its").revision(), Revision::new(0, 5));
    assert_eq!(route.rule, Rule::Placement);
    assert_eq!(destination(&table, "alice@a.example"), "third");
    let rule = |login| match table.resolve(&name(login)) {
        Resolution::Route(route) => (String::from(route.destination), route.rule),
        other => panic!("{login}: {other:?}"),
    };
    assert_eq!(rule("bob@a.example"), ("source".into(), Rule::Default));
    assert_eq!(
        rule("bob@t.example"),
        ("target".into(), Rule::DomainDefault)
    );
    assert_eq!(rule("bob"), ("source".into(), Rule::Default));
    assert_eq!(
        table.resolve(&name("bob@closed.example")),
        Resolution::Refused(NoRoute::Unlisted)
    );
    assert_eq!(
        table.resolve(&name("bob@nowhere.example")),
        Resolution::Refused(NoRoute::UnknownDomain)
    );
}

#[test]
fn a_fence_holds_every_name_until_the_flip_sends_them_to_the_new_home() {
    let alice = |epoch| entry(1, &["alice", "alice@a.example"], "source", epoch);
    let settled = table(7, vec![alice(5)]);
    let fenced = apply(
        &settled,
        delta(7, 8, vec![put(moving(alice(8), Phase::Fencing, None))]),
    );
    for login in ["alice", "alice@a.example"] {
        let Resolution::Fenced(fence) = fenced.resolve(&name(login)) else {
            panic!("{login} is fenced");
        };
        assert_eq!(fence.migration.expect("a move").as_str(), migration(1));
        assert_eq!(
            fence.fence.expect("a fence").revision(),
            Revision::new(0, 8)
        );
    }
    let later = apply(
        &fenced,
        delta(8, 9, vec![put(moving(alice(9), Phase::Quiesced, Some(8)))]),
    );
    assert_eq!(destination(&later, "alice"), "fenced");
    let mut flipped = moving(alice(10), Phase::Flipped, None);
    flipped.home = "target".into();
    let flipped = apply(&later, delta(9, 10, vec![put(flipped)]));
    assert_eq!(destination(&flipped, "alice"), "target");
    assert_eq!(destination(&flipped, "alice@a.example"), "target");
    assert_eq!(flipped.fenced().count(), 0);
    // The old table is still what it was: whoever holds it reads one moment.
    assert_eq!(destination(&settled, "alice"), "source");
}

#[test]
fn names_that_a_settled_account_drops_follow_their_domain_again() {
    let settled = table(
        7,
        vec![
            entry(1, &["alice", "alice@t.example"], "third", 5),
            entry(2, &["bob"], "third", 6),
        ],
    );
    let same = entry(1, &["alice", "alice@t.example"], "third", 8);
    let applied = settled
        .apply(delta(7, 8, vec![put(same)]))
        .expect("applies");
    assert!(!applied.touched.dropped, "nothing was dropped");
    let fewer = entry(1, &["alice"], "third", 8);
    let applied = settled
        .apply(delta(7, 8, vec![put(fewer)]))
        .expect("applies");
    assert!(applied.touched.dropped);
    assert_eq!(destination(&applied.table, "alice"), "third");
    assert_eq!(destination(&applied.table, "alice@t.example"), "target");
    let gone = settled
        .apply(delta(7, 8, vec![removed(1)]))
        .expect("applies");
    assert!(gone.touched.dropped);
    assert_eq!(destination(&gone.table, "alice"), "source");
    assert_eq!(destination(&gone.table, "bob"), "third");
}

#[test]
fn names_that_an_unsettled_account_drops_are_named() {
    let settled = table(7, vec![]);
    let both = apply(
        &settled,
        delta(7, 8, vec![put(entry(1, &["alice", "al"], "third", 8))]),
    );
    let applied = both
        .apply(delta(8, 9, vec![put(entry(1, &["alice"], "third", 9))]))
        .expect("applies");
    assert!(applied.touched.names.contains(&name("al")));
    assert!(!applied.touched.dropped);
}

#[test]
fn a_delta_that_does_not_follow_is_refused() {
    let table = table(7, vec![]);
    for from in [6, 8] {
        assert!(matches!(
            table.apply(delta(from, 9, vec![])),
            Err(ApplyError::Gap { .. })
        ));
    }
    let mut other_base = delta(7, 9, vec![]);
    other_base.from = Some(ferrypost_proto::v1::Revision { base: 1, store: 7 });
    assert!(matches!(
        table.apply(other_base),
        Err(ApplyError::Gap { .. })
    ));
}

#[test]
fn nothing_goes_below_the_revision_that_is_held() {
    let held = table(7, vec![entry(1, &["alice"], "third", 5)]);
    assert!(matches!(
        held.apply(delta(7, 6, vec![])),
        Err(ApplyError::Backwards { .. })
    ));
    assert!(matches!(
        snapshot_after(Some(&held), chunk(6, vec![])),
        Err(SnapshotError::Backwards { .. })
    ));
    assert!(snapshot_after(Some(&held), chunk(7, vec![])).is_ok());
}

#[test]
fn an_epoch_below_the_one_held_is_rejected() {
    let held = table(9, vec![entry(1, &["alice"], "third", 8)]);
    let older = entry(1, &["alice"], "source", 7);
    let bad = apply(&held, delta(9, 10, vec![put(older.clone())]));
    assert_eq!(reasons(&bad), [(account(1), RejectReason::BadEpoch)]);
    assert_eq!(destination(&bad, "alice"), "rejected");
    // Still below what was held before the rejection, then above.
    let still = apply(&bad, delta(10, 11, vec![put(older.clone())]));
    assert_eq!(reasons(&still), [(account(1), RejectReason::BadEpoch)]);
    let good = apply(
        &still,
        delta(11, 12, vec![put(entry(1, &["alice"], "source", 8))]),
    );
    assert_eq!(destination(&good, "alice"), "source");
    assert_eq!(reasons(&good), []);
    // A snapshot is held to the same, whether the account lies in the base or in the overlay.
    for before in [&held, &good] {
        let snapshot = snapshot_after(Some(before), chunk(20, vec![older.clone()]));
        let snapshot = snapshot.expect("only the entry is bad");
        assert_eq!(reasons(&snapshot), [(account(1), RejectReason::BadEpoch)]);
        assert_eq!(destination(&snapshot, "alice"), "rejected");
        // And its own floor is the higher epoch.
        let after = apply(&snapshot, delta(20, 21, vec![put(older.clone())]));
        assert_eq!(reasons(&after), [(account(1), RejectReason::BadEpoch)]);
    }
}

#[test]
fn every_kind_of_bad_entry_fences_the_names_that_can_be_read() {
    type Spoil = fn(&mut AccountEntry);
    let good = entry(1, &["alice"], "third", 5);
    let cases: [(&str, Spoil, _); 6] = [
        (
            "id",
            |e| e.account_id = "x".into(),
            RejectReason::BadAccountId,
        ),
        (
            "name",
            |e| e.names.push("B@A.example".into()),
            RejectReason::BadName,
        ),
        (
            "home",
            |e| e.home = "nowhere".into(),
            RejectReason::UnknownDestination,
        ),
        (
            "target",
            |e| e.target = "nowhere".into(),
            RejectReason::UnknownDestination,
        ),
        ("phase", |e| e.phase = 99, RejectReason::UnknownPhase),
        ("epoch", |e| e.epoch = None, RejectReason::BadEpoch),
    ];
    for (what, spoil, reason) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let by_delta = apply(&table(4, vec![]), delta(4, 5, vec![put(bad.clone())]));
        let by_snapshot = table(5, vec![bad.clone()]);
        for table in [by_delta, by_snapshot] {
            assert_eq!(
                reasons(&table),
                [(bad.account_id.clone(), reason)],
                "{what}"
            );
            assert_eq!(destination(&table, "alice"), "rejected", "{what}");
            if what == "name" {
                // Read under the policy in force: the login that would reach it is held.
                assert_eq!(destination(&table, "b@a.example"), "rejected");
            }
            assert_eq!(destination(&table, "bob"), "source", "{what}");
            let healed = apply(&table, delta(5, 6, vec![put(good.clone())]));
            // A malformed id is another account, as far as anybody can know.
            let expected = if what == "id" { "rejected" } else { "third" };
            assert_eq!(destination(&healed, "alice"), expected, "{what}");
        }
    }
}

#[test]
fn a_rejection_of_a_settled_account_fences_it_and_its_removal_frees_it() {
    let held = table(7, vec![entry(1, &["alice"], "third", 5)]);
    let mut bad = entry(1, &["alice"], "third", 8);
    bad.phase = 99;
    let fenced = apply(&held, delta(7, 8, vec![put(bad)]));
    assert_eq!(destination(&fenced, "alice"), "rejected");
    let free = apply(&fenced, delta(8, 9, vec![removed(1)]));
    assert_eq!(destination(&free, "alice"), "source");
    assert_eq!(reasons(&free), []);
}

#[test]
fn a_name_that_two_accounts_claim_is_held_until_one_lets_go() {
    let first = entry(1, &["alice", "al"], "third", 5);
    let second = entry(2, &["al", "other"], "target", 6);
    let by_delta = apply(
        &table(5, vec![first.clone()]),
        delta(5, 6, vec![put(second.clone())]),
    );
    let by_snapshot = table(6, vec![first.clone(), second]);
    for table in [by_delta, by_snapshot] {
        assert_eq!(reasons(&table), [(account(2), RejectReason::NameTaken)]);
        assert_eq!(destination(&table, "alice"), "third", "the first is served");
        assert_eq!(destination(&table, "al"), "rejected");
        assert_eq!(destination(&table, "other"), "rejected");
        let without = apply(&table, delta(6, 7, vec![removed(2)]));
        assert_eq!(destination(&without, "al"), "third");
        assert_eq!(destination(&without, "other"), "source");
    }
    // The first goes on to change while the second is in its way, and what they share stays held.
    let contested = table(
        6,
        vec![first.clone(), entry(2, &["al", "other"], "target", 6)],
    );
    let moved = apply(
        &contested,
        delta(6, 7, vec![put(entry(1, &["alice", "al"], "source", 7))]),
    );
    let merged = moved.with_merged(moved.merge()).expect("the same base");
    for table in [moved, merged] {
        assert_eq!(reasons(&table), [(account(2), RejectReason::NameTaken)]);
        assert_eq!(destination(&table, "alice"), "source");
        assert_eq!(destination(&table, "al"), "rejected");
    }
    // Where the text is known, the other comes into its own when the name is free.
    let second = entry(2, &["al", "other"], "target", 6);
    let taken = apply(&table(5, vec![first]), delta(5, 6, vec![put(second)]));
    let free = apply(
        &taken,
        delta(6, 7, vec![put(entry(1, &["alice"], "third", 7))]),
    );
    assert_eq!(reasons(&free), []);
    assert_eq!(destination(&free, "al"), "target");
}

#[test]
fn a_name_may_change_hands_within_one_revision() {
    let held = table(
        5,
        vec![
            entry(1, &["alice", "al"], "third", 4),
            entry(2, &["bob"], "third", 5),
        ],
    );
    let gives = put(entry(1, &["alice"], "third", 6));
    let takes = put(entry(2, &["bob", "al"], "target", 6));
    for changes in [vec![gives.clone(), takes.clone()], vec![takes, gives]] {
        let table = apply(&held, delta(5, 6, changes));
        assert_eq!(reasons(&table), []);
        assert_eq!(destination(&table, "al"), "target");
    }
}

#[test]
fn a_configuration_that_settled_accounts_cannot_be_judged_by_needs_a_snapshot() {
    let held = table(5, vec![entry(1, &["alice"], "third", 4)]);
    let without_home = reconfigured(config_without("third"));
    assert_eq!(
        held.apply(delta(5, 6, vec![without_home])).err(),
        Some(ApplyError::NeedsSnapshot)
    );
    let mut other_names = config();
    if let Some(names) = &mut other_names.names {
        names.sub_address_separator = "+".into();
    }
    assert_eq!(
        held.apply(delta(5, 6, vec![reconfigured(other_names)]))
            .err(),
        Some(ApplyError::NeedsSnapshot)
    );
    let mut other_default = config();
    other_default.default_destination = "target".into();
    let applied = held
        .apply(delta(5, 6, vec![reconfigured(other_default)]))
        .expect("applies");
    assert!(applied.touched.all);
    assert_eq!(destination(&applied.table, "bob"), "target");
    assert_eq!(destination(&applied.table, "alice"), "third");
}

#[test]
fn an_entry_becomes_valid_with_the_configuration_that_it_waited_for() {
    let mut early = chunk(5, vec![entry(1, &["alice"], "third", 4)]);
    early.config = Some(config_without("third"));
    let table = snapshot_after(None, early).expect("only the entry is bad");
    assert_eq!(
        reasons(&table),
        [(account(1), RejectReason::UnknownDestination)]
    );
    let table = apply(&table, delta(5, 6, vec![reconfigured(config())]));
    assert_eq!(reasons(&table), []);
    assert_eq!(destination(&table, "alice"), "third");
}

#[test]
fn an_invalid_configuration_changes_nothing() {
    let held = table(5, vec![]);
    let mut bad = config();
    bad.default_destination = "nowhere".into();
    assert!(matches!(
        held.apply(delta(5, 6, vec![reconfigured(bad)])),
        Err(ApplyError::Config(_))
    ));
}

#[test]
fn chunks_that_do_not_follow_each_other_are_refused() {
    let first = || {
        let mut first = chunk(5, vec![entry(1, &["alice"], "third", 4)]);
        first.last = false;
        Assembly::begin(first, None, &random()).expect("a good first chunk")
    };
    let next = |index, store| {
        let mut next = chunk(store, vec![entry(2, &["bob"], "third", 4)]);
        next.index = index;
        next.config = None;
        next
    };
    assert!(first().push(next(1, 5)).is_ok());
    assert_eq!(first().push(next(2, 5)), Err(SnapshotError::OutOfOrder));
    assert_eq!(first().push(next(1, 6)), Err(SnapshotError::OutOfOrder));
    assert!(matches!(
        Assembly::begin(next(0, 5), None, &random()),
        Err(SnapshotError::Incomplete)
    ));
    let mut late = chunk(5, vec![]);
    late.index = 1;
    assert!(matches!(
        Assembly::begin(late, None, &random()),
        Err(SnapshotError::OutOfOrder)
    ));
}

#[test]
fn an_account_that_is_there_twice_spoils_a_snapshot() {
    let settled = entry(1, &["alice"], "third", 4);
    let fenced = moving(entry(1, &["alice"], "third", 4), Phase::Fencing, None);
    for pair in [
        vec![settled.clone(), settled.clone()],
        vec![settled, fenced.clone()],
        vec![fenced.clone(), fenced],
    ] {
        assert!(matches!(
            snapshot_after(None, chunk(5, pair)),
            Err(SnapshotError::Build(BuildError::AccountTwice))
        ));
    }
}

#[test]
fn a_snapshot_that_is_wrong_all_over_is_no_snapshot() {
    let bad = (0..5000).map(|n| entry(n, &[], "nowhere", 4)).collect();
    assert!(matches!(
        snapshot_after(None, chunk(5, bad)),
        Err(SnapshotError::TooManyRejected(_))
    ));
}

/// What does not go into the packed form: accounts in a held window, and wrong ones.
#[test]
fn a_snapshot_of_more_that_is_not_settled_than_it_can_hold_is_refused() {
    let fenced = |n| moving(entry(n, &[], "source", 2), Phase::Fencing, Some(2));
    let fenced = |count: u64| (0..count).map(fenced).collect();
    let at_the_limit = Assembly::begin(chunk(5, fenced(1 << 16)), None, &random());
    assert!(at_the_limit.is_ok());
    let one_past_it = Assembly::begin(chunk(5, fenced((1 << 16) + 1)), None, &random());
    assert!(matches!(one_past_it, Err(SnapshotError::TooManyExact)));
}
