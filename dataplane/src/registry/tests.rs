use std::{future::Future, pin::pin};

use ferrypost_proto::{DestinationId, DomainName, NoRoute, Phase, Recipient, v1::Protocol};
use ferrypost_routing::{RoutingTable, Rule, testing::*};
use ferrypost_wire::{
    Answered, BackLimits, BackSettings, Channel, Introduction, Open as _, WireBuf,
    lmtp::{Delivery, LmtpFront, LmtpLimits, LmtpOpening, LmtpSettings, LmtpStep, Offer},
};
use futures_util::FutureExt as _;

use super::*;
use crate::net::CloseProof;

fn registry(tables: &Tables) -> Arc<Registry> {
    let limits = HoldLimits {
        total: 3,
        per_name: 2,
        per_name_and_address: 2,
        ..HoldLimits::default()
    };
    Registry::new(tables.clone(), limits, &random())
}

fn request(login: &str) -> AdmitRequest {
    AdmitRequest {
        subject: Subject::Name(name(login)),
        kind: SessionKind::Session,
        on_fence: OnFence::Hold,
        protocol: Protocol::Imap,
        client: "192.0.2.1:1234".parse().ok(),
        reference: format!("ref-{login}"),
    }
}

fn routed(registry: &Arc<Registry>, login: &str) -> SessionGuard {
    match registry.admit(request(login)) {
        Admission::Routed(guard) => guard,
        other => panic!("{login} is not routed: {other:?}"),
    }
}

fn held(registry: &Arc<Registry>, login: &str) -> HeldLogin {
    match registry.admit(request(login)) {
        Admission::Held(held) => held,
        other => panic!("{login} is not held: {other:?}"),
    }
}

fn alice(phase: Phase) -> RoutingTable {
    let entry = entry(1, &["alice", "alice@a.example"], "source", 5);
    table(
        5,
        vec![if phase == Phase::Settled {
            entry
        } else {
            moving(entry, phase, None)
        }],
    )
}

fn flipped() -> RoutingTable {
    let mut entry = entry(1, &["alice", "alice@a.example"], "target", 9);
    entry = moving(entry, Phase::Flipped, None);
    table(9, vec![entry])
}

fn publish(tables: &Tables, table: RoutingTable) {
    tables.publish(Arc::new(table));
}

fn is_pending(future: impl Future) -> bool {
    pin!(future).now_or_never().is_none()
}

#[test]
fn nobody_is_admitted_before_the_first_table() {
    let tables = Tables::new();
    let registry = registry(&tables);
    assert!(matches!(
        registry.admit(request("alice")),
        Admission::NoTable
    ));
    assert_eq!(
        registry.counts(),
        Counts {
            sessions: 0,
            held: 0
        }
    );
}

#[test]
fn a_session_is_listed_until_its_guard_is_gone() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let guard = routed(&registry, "alice");
    assert_eq!(guard.route().destination.as_str(), "source");
    assert_eq!(guard.stage(), Stage::Connecting);
    guard.relaying();
    let listing = registry.sessions(&[name("alice")], 10);
    assert_eq!((listing.total, listing.held), (1, 0));
    assert_eq!(listing.sessions[0].stage, Stage::Relaying);
    assert_eq!(listing.sessions[0].reference, "ref-alice");
    assert_eq!(registry.sessions(&[name("bob")], 10).total, 0);
    let second = routed(&registry, "bob");
    let listing = registry.sessions(&[], 1);
    assert_eq!((listing.total, listing.sessions.len()), (2, 1));
    assert!(listing.more);
    assert_eq!(
        listing.sessions[0].reference, "ref-alice",
        "the first to begin"
    );
    let from = listing.sessions[0].serial + 1;
    let listing = registry.sessions_from(&[], from, 1);
    assert_eq!(listing.sessions[0].reference, "ref-bob");
    assert_eq!((listing.total, listing.more), (2, false));
    let tally: Vec<_> = registry.tally().into_values().collect();
    assert_eq!(tally, [1, 1], "one connecting, one relaying");
    drop((guard, second));
    assert_eq!(registry.sessions(&[], 10).total, 0);
    assert_eq!(
        registry.counts(),
        Counts {
            sessions: 0,
            held: 0
        }
    );
}

#[tokio::test]
async fn a_held_login_is_released_by_a_table_and_admitted_anew() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let registry = registry(&tables);
    let login = held(&registry, "alice");
    assert_eq!(
        registry.counts(),
        Counts {
            sessions: 0,
            held: 1
        }
    );
    assert_eq!(registry.sessions(&[], 9).held, 1);
    {
        let mut released = pin!(login.released());
        assert!(is_pending(&mut released));
        publish(&tables, alice(Phase::Quiesced));
        assert!(is_pending(&mut released), "still the same window");
        publish(&tables, flipped());
        released.await;
    }
    drop(login);
    assert_eq!(
        routed(&registry, "alice").route().destination.as_str(),
        "target"
    );
    assert_eq!(registry.counts().held, 0);
}

#[tokio::test(start_paused = true)]
async fn no_clock_ends_a_hold() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let registry = registry(&tables);
    let login = held(&registry, "alice");
    let waited = tokio::time::timeout(Duration::from_hours(24 * 365), login.released()).await;
    assert!(waited.is_err());
}

#[tokio::test]
async fn held_logins_are_limited_and_can_be_kicked() {
    let tables = Tables::new();
    let fenced = |n, login| moving(entry(n, &[login], "source", 5), Phase::Fencing, None);
    publish(
        &tables,
        table(
            5,
            vec![fenced(1, "alice"), fenced(2, "bob"), fenced(3, "carol")],
        ),
    );
    let registry = registry(&tables);
    let first = held(&registry, "alice");
    let _second = held(&registry, "alice");
    let from_elsewhere = AdmitRequest {
        client: "192.0.2.2:1234".parse().ok(),
        ..request("alice")
    };
    assert!(matches!(
        registry.admit(from_elsewhere),
        Admission::TooManyHeld(HoldLimit::PerName)
    ));
    let _third = held(&registry, "bob");
    assert!(matches!(
        registry.admit(request("carol")),
        Admission::TooManyHeld(HoldLimit::Total)
    ));
    assert_eq!(registry.kick(&[name("alice")]), 2);
    assert_eq!(first.closing().await, CloseReason::Kicked);
    drop(first);
    held(&registry, "carol");
}

#[test]
fn one_host_cannot_take_the_held_places_of_a_name() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let limits = HoldLimits {
        per_name: 3,
        per_name_and_address: 2,
        ..HoldLimits::default()
    };
    let registry = Registry::new(tables, limits, &random());
    let admit = |client: &str| {
        registry.admit(AdmitRequest {
            client: client.parse().ok(),
            ..request("alice")
        })
    };
    // Two hosts of one IPv6 customer are one.
    let host = ["[2001:db8::1]:1", "[2001:db8::2]:1"].map(admit);
    assert!(host.iter().all(|it| matches!(it, Admission::Held(_))));
    assert!(matches!(
        admit("[2001:db8::3]:1"),
        Admission::TooManyHeld(HoldLimit::PerNameAndAddress)
    ));
    let owner = admit("192.0.2.1:1");
    assert!(matches!(owner, Admission::Held(_)), "{owner:?}");
    drop(host);
    assert!(matches!(admit("[2001:db8::3]:1"), Admission::Held(_)));
}

#[tokio::test]
async fn a_kick_ends_a_session_once_and_the_first_reason_stays() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let guard = routed(&registry, "alice");
    assert!(is_pending(guard.closing()));
    assert_eq!(registry.kick(&[name("alice"), name("bob")]), 1);
    assert_eq!(registry.kick(&[name("alice")]), 0);
    registry.close_all(CloseReason::Stopping);
    assert_eq!(guard.closing().await, CloseReason::Kicked);
    assert_eq!(guard.stage(), Stage::Closing);
    assert_eq!(guard.recheck(), Err(Recheck::Closing(CloseReason::Kicked)));
}

#[tokio::test]
async fn a_waiting_session_is_woken_by_its_close() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let guard = routed(&registry, "alice");
    let waiting = tokio::spawn(async move { guard.closing().await });
    tokio::task::yield_now().await;
    registry.close_all(CloseReason::Expelled);
    assert_eq!(waiting.await.unwrap(), CloseReason::Expelled);
}

#[tokio::test]
async fn after_close_all_nobody_is_admitted_and_empty_waits_for_the_last() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let guard = routed(&registry, "alice");
    registry.close_all(CloseReason::Stopping);
    assert!(matches!(
        registry.admit(request("bob")),
        Admission::Closed(CloseReason::Stopping)
    ));
    let mut empty = pin!(registry.empty());
    assert!(is_pending(&mut empty));
    drop(guard);
    empty.await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_few_at_once_and_many_at_a_pace_but_within_its_limit() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let limit = Duration::from_secs(5);
    for (sessions, at_least, at_most) in [(3, 0, 0), (100, 1_500, 2_100), (2_000, 4_500, 5_500)] {
        let registry = registry(&tables);
        let guards: Vec<_> = (0..sessions)
            .map(|i| routed(&registry, &format!("user{i}@a.example")))
            .collect();
        let begun = Instant::now();
        registry.close_paced(CloseReason::Stopping, limit).await;
        let took = begun.elapsed().as_millis();
        assert!(
            (at_least..=at_most).contains(&took),
            "{sessions}: {took} ms"
        );
        let told = |guard: &SessionGuard| guard.close_reason() == Some(CloseReason::Stopping);
        assert!(guards.iter().all(told));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_admits_nobody_and_ends_held_logins_before_it_closes_sessions() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let registry = registry(&tables);
    let held = held(&registry, "alice");
    let guards: Vec<_> = (0..1_000)
        .map(|i| routed(&registry, &format!("user{i}@a.example")))
        .collect();
    let mut closing = pin!(registry.close_paced(CloseReason::Stopping, Duration::from_secs(5)));
    assert!(is_pending(&mut closing));
    assert_eq!(held.closing().await, CloseReason::Stopping);
    assert!(matches!(
        registry.admit(request("bob@a.example")),
        Admission::Closed(CloseReason::Stopping)
    ));
    let open = guards.iter().filter(|it| it.close_reason().is_none());
    assert!(open.count() > 900);
    // A fence need not wait for the pace.
    registry.close_all(CloseReason::Expelled);
    assert!(guards.iter().all(|it| it.close_reason().is_some()));
}

#[test]
fn the_recheck_wants_the_same_destination_and_no_fence() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let guard = routed(&registry, "alice");
    assert_eq!(guard.recheck(), Ok(()));
    publish(&tables, alice(Phase::Copying));
    assert_eq!(guard.recheck(), Ok(()), "a move that waits changes nothing");
    publish(&tables, alice(Phase::Fencing));
    assert_eq!(guard.recheck(), Err(Recheck::Changed));
    publish(&tables, flipped());
    assert_eq!(guard.recheck(), Err(Recheck::Changed));
}

#[test]
fn a_close_without_proof_is_remembered_for_the_settle_time() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tables = Tables::new();
        publish(&tables, alice(Phase::Settled));
        let registry = registry(&tables);
        drop(routed(&registry, "alice"));
        let mut proved = routed(&registry, "alice");
        proved.exposed();
        proved.closed(CloseProof::EOF);
        assert_eq!(registry.unconfirmed(), 0, "never opened, and proved");
        let mut dropped = routed(&registry, "alice");
        dropped.exposed();
        drop(dropped);
        assert_eq!(registry.unconfirmed(), 1);
        tokio::time::advance(SETTLE_TIME + Duration::from_millis(1)).await;
        assert_eq!(registry.unconfirmed(), 0);
    });
}

fn delivery(to: Recipient) -> AdmitRequest {
    AdmitRequest {
        subject: to.into(),
        kind: SessionKind::Delivery,
        on_fence: OnFence::Defer,
        protocol: Protocol::Imap,
        client: None,
        reference: "ref".into(),
    }
}

fn passed_through(destination: &str) -> AdmitRequest {
    AdmitRequest {
        subject: Subject::Destination(DestinationId::parse(destination).unwrap()),
        ..delivery(Recipient::Name(name("alice")))
    }
}

fn admitted(registry: &Arc<Registry>, request: AdmitRequest) -> SessionGuard {
    match registry.admit(request) {
        Admission::Routed(guard) => guard,
        other => panic!("not routed: {other:?}"),
    }
}

#[test]
fn a_deferred_admission_takes_no_held_place_and_leaves_no_entry() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let registry = registry(&tables);
    for _ in 0..10 {
        let admission = registry.admit(delivery(Recipient::Name(name("alice"))));
        assert!(matches!(admission, Admission::Deferred), "{admission:?}");
    }
    assert_eq!(registry.sessions(&[], 10).total, 0);
    // Two is the limit, and both places are free.
    let _held = [held(&registry, "alice"), held(&registry, "alice")];
}

#[tokio::test]
async fn a_delivery_is_a_session_that_a_fence_closes_and_waits_for() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let delivery = admitted(&registry, delivery(Recipient::Name(name("alice"))));
    let listed = registry.sessions(&[name("alice")], 1).sessions.remove(0);
    assert_eq!((listed.kind, listed.client), (SessionKind::Delivery, None));
    publish(&tables, alice(Phase::Fencing));
    let ledger = Arc::new(Ledger::new(Arc::new(Notify::new())));
    registry.fence(&name("alice"), &ledger);
    assert_eq!(delivery.closing().await, CloseReason::Moved);
    assert_eq!(registry.routed_under([&name("alice")]), 1);
    drop(delivery);
    assert_eq!(registry.routed_under([&name("alice")]), 0);
    assert_eq!((ledger.closed(), ledger.unconfirmed()), (1, 0));
}

/// The only way to one: a machine that reads a server's last reply about a message.
fn answered() -> Answered {
    let (mut input, mut out) = (WireBuf::new(1000), Vec::new());
    let mut front = LmtpFront::new(LmtpSettings {
        channel: Channel::Secure,
        offer: Arc::new(Offer::new(&[])),
        limits: LmtpLimits::default(),
    });
    input.extend(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n").unwrap();
    let to = loop {
        if let LmtpStep::Recipient(to) = front.step(&mut input, &mut out).unwrap() {
            break to;
        }
    };
    let mut opening = LmtpOpening::new(BackSettings {
        channel: Channel::Secure,
        announce: None,
        introduction: Introduction::default(),
        prefaced: false,
        limits: BackLimits::default(),
    });
    input
        .extend(b"220 hi\r\n250-hi\r\n250 PIPELINING\r\n")
        .unwrap();
    opening.step(&mut input, &mut out).unwrap();
    let mut back = opening.into_back().unwrap();
    back.recipient(&to, &mut out);
    back.message(&mut out);
    input.extend(b"250 yes\r\n354 go\r\n250 saved\r\n").unwrap();
    loop {
        match back.step(&mut input, &mut out).unwrap() {
            Delivery::GoAhead => back.end(&mut out),
            Delivery::Delivered(_, answered) => return answered,
            Delivery::NeedMore => panic!("it has said everything"),
            _ => {}
        }
    }
}

#[test]
fn a_servers_last_word_is_proof_without_the_end_of_its_connection() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let to = || delivery(Recipient::Name(name("alice")));
    // Before the end of its message there is nothing to prove.
    drop(admitted(&registry, to()));
    let mut proved = admitted(&registry, to());
    proved.exposed();
    proved.closed(answered());
    assert_eq!(registry.unconfirmed(), 0);
    let mut lost = admitted(&registry, to());
    lost.exposed();
    drop(lost);
    assert_eq!(registry.unsettled_names(), [name("alice")]);
}

#[test]
fn recipients_that_nobody_logs_in_as_follow_their_domain() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let registry = registry(&tables);
    let in_domain = |domain| delivery(Recipient::Domain(DomainName::parse(domain).unwrap()));
    // The fence of an account in the domain is none of theirs.
    let route = admitted(&registry, in_domain("a.example")).route().clone();
    assert_eq!(
        (route.destination.as_str(), route.rule),
        ("source", Rule::Default)
    );
    let route = admitted(&registry, in_domain("t.example")).route().clone();
    assert_eq!(
        (route.destination.as_str(), route.rule),
        ("target", Rule::DomainDefault)
    );
    for (domain, why) in [
        ("closed.example", NoRoute::Unlisted),
        ("elsewhere.example", NoRoute::UnknownDomain),
    ] {
        let admission = registry.admit(in_domain(domain));
        assert!(matches!(admission, Admission::Refused(found) if found == why));
    }
}

#[test]
fn a_server_that_is_passed_through_to_is_left_when_it_is_configured_no_longer() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Fencing));
    let registry = registry(&tables);
    let [third, target] = ["third", "target"].map(|id| admitted(&registry, passed_through(id)));
    assert_eq!(third.subject().name(), None);
    assert_eq!(registry.sessions(&[name("alice")], 9).total, 0);
    let listed = registry.sessions(&[], 9);
    assert!(listed.sessions.iter().all(|it| it.subject.name().is_none()));
    assert_eq!(registry.counts().sessions, 2);
    let mut snapshot = chunk(9, vec![]);
    snapshot.config = Some(config_without("third"));
    publish(&tables, snapshot_after(None, snapshot).unwrap());
    registry.sweep();
    assert_eq!(third.close_reason(), Some(CloseReason::Moved));
    assert_eq!(target.close_reason(), None, "no account's fence reaches it");
    assert!(matches!(
        registry.admit(passed_through("third")),
        Admission::Refused(NoRoute::UnknownDestination)
    ));
}

#[test]
fn an_end_that_is_nobody_s_makes_no_name_wait() {
    let tables = Tables::new();
    publish(&tables, alice(Phase::Settled));
    let registry = registry(&tables);
    let mut connection = admitted(&registry, passed_through("source"));
    connection.exposed();
    drop(connection);
    assert_eq!(registry.unconfirmed(), 1);
    assert_eq!(registry.unsettled_names(), []);
}
