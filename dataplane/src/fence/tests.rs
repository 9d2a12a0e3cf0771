use std::future::Future;

use ferrypost_proto::{Phase, routing::v1::AccountEntry, v1::Protocol};
use ferrypost_routing::testing::*;
use tokio::time::{advance, timeout};

use super::*;
use crate::{
    limits::HoldLimits,
    net::CloseProof,
    registry::{
        Admission, AdmitRequest, CloseReason, OnFence, SETTLE_TIME, SessionGuard, SessionKind,
        Subject,
    },
    tables::Tables,
};

/// A data plane without sockets: tables, sessions, fences.
struct Plane {
    tables: Tables,
    registry: Arc<Registry>,
    fences: Fences,
}

impl Plane {
    fn new(accounts: Vec<AccountEntry>) -> Self {
        let tables = Tables::new();
        let limits = HoldLimits {
            total: 10,
            per_name: 10,
            per_name_and_address: 10,
            ..HoldLimits::default()
        };
        let registry = Registry::new(tables.clone(), limits, &random());
        let fences = Fences::new(Arc::clone(&registry));
        let plane = Self {
            tables,
            registry,
            fences,
        };
        plane.snapshot(5, accounts);
        plane
    }

    fn snapshot(&self, store: u64, accounts: Vec<AccountEntry>) {
        let all = Touched {
            all: true,
            ..Touched::default()
        };
        self.put_in_force(table(store, accounts), &all);
    }

    /// Follows with one change.
    fn change(&self, store: u64, entry: AccountEntry) {
        let now = self.tables.current().unwrap();
        let from = now.position().revision.store();
        let applied = now.apply(delta(from, store, vec![put(entry)])).unwrap();
        self.put_in_force(applied.table, &applied.touched);
    }

    fn put_in_force(&self, table: RoutingTable, touched: &Touched) {
        let table = Arc::new(table);
        self.tables.publish(Arc::clone(&table));
        self.fences.settle(&table, touched);
    }

    fn login(&self, login: &str) -> SessionGuard {
        let admission = self.registry.admit(AdmitRequest {
            subject: Subject::Name(name(login)),
            kind: SessionKind::Session,
            on_fence: OnFence::Hold,
            protocol: Protocol::Imap,
            client: "192.0.2.1:1234".parse().ok(),
            reference: "ref".into(),
        });
        match admission {
            Admission::Routed(mut guard) => {
                guard.exposed();
                guard
            }
            other => panic!("{login} is not routed: {other:?}"),
        }
    }

    fn somebody_at(&self, destination: &str) -> Admission {
        self.registry.admit(AdmitRequest {
            subject: Subject::SomebodyAt(DestinationId::parse(destination).unwrap()),
            kind: SessionKind::Exchange,
            on_fence: OnFence::Hold,
            protocol: Protocol::Http,
            client: "192.0.2.1:1234".parse().ok(),
            reference: "ref".into(),
        })
    }

    async fn drained(&self) -> Vec<(u32, u32)> {
        loop {
            if let FenceReport::Drained(drained) = self.fences.report().await {
                let counts = |account: DrainedAccount| (account.closed, account.unconfirmed);
                return drained.accounts.into_iter().map(counts).collect();
            }
        }
    }
}

async fn nothing_within(wait: Duration, report: impl Future<Output = FenceReport>) {
    let reported = timeout(wait, report).await;
    assert!(reported.is_err(), "{reported:?}");
}

fn alice() -> AccountEntry {
    entry(1, &["alice", "alice@a.example"], "source", 5)
}

fn fencing(mut entry: AccountEntry, epoch: u64) -> AccountEntry {
    entry.epoch = Some(revision(epoch));
    moving(entry, Phase::Fencing, None)
}

#[tokio::test(start_paused = true)]
async fn sessions_under_every_name_are_closed_and_counted_even_without_a_record_before() {
    let plane = Plane::new(vec![]);
    let by_name = plane.login("alice");
    let by_address = plane.login("alice@a.example");
    let other = plane.login("bob");
    plane.change(6, fencing(alice(), 6));
    assert_eq!(by_name.closing().await, CloseReason::Moved);
    assert_eq!(by_address.closing().await, CloseReason::Moved);
    assert_eq!(other.close_reason(), None);
    by_name.closed(CloseProof::EOF);
    by_address.closed(CloseProof::RESET);
    assert_eq!(plane.drained().await, [(2, 0)]);
}

#[tokio::test(start_paused = true)]
async fn drained_waits_for_the_last_session_and_progress_is_said_once_a_second() {
    let plane = Plane::new(vec![alice()]);
    let (first, second) = (plane.login("alice"), plane.login("alice"));
    plane.change(6, fencing(alice(), 6));
    let left = |report| match report {
        FenceReport::Draining(draining) => draining.sessions_left,
        FenceReport::Drained(_) => panic!("drained with sessions left"),
    };
    assert_eq!(left(plane.fences.report().await), 2);
    first.closed(CloseProof::EOF);
    nothing_within(Duration::from_millis(999), plane.fences.report()).await;
    assert_eq!(left(plane.fences.report().await), 1);
    nothing_within(Duration::from_millis(999), plane.fences.report()).await;
    assert_eq!(left(plane.fences.report().await), 1);
    second.closed(CloseProof::EOF);
    assert_eq!(plane.drained().await, [(2, 0)]);
    nothing_within(Duration::from_hours(1), plane.fences.report()).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_without_proof_is_reported_as_unconfirmed() {
    let plane = Plane::new(vec![alice()]);
    let (proved, dropped) = (plane.login("alice"), plane.login("alice"));
    plane.change(6, fencing(alice(), 6));
    proved.closed(CloseProof::EOF);
    drop(dropped);
    assert_eq!(plane.drained().await, [(2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_ended_shortly_before_the_fence() {
    let plane = Plane::new(vec![alice()]);
    drop(plane.login("alice"));
    plane.change(6, fencing(alice(), 6));
    assert_eq!(plane.drained().await, [(0, 1)]);
    plane.change(7, entry(1, &["alice", "alice@a.example"], "source", 7));
    advance(SETTLE_TIME + Duration::from_millis(1)).await;
    plane.change(8, fencing(alice(), 8));
    assert_eq!(plane.drained().await, [(0, 0)], "settled by now");
}

#[tokio::test(start_paused = true)]
async fn drained_is_repeated_on_every_reconnect_until_the_fence_has_ended() {
    let plane = Plane::new(vec![alice()]);
    plane.change(6, fencing(alice(), 6));
    for _ in 0..3 {
        assert_eq!(plane.drained().await, [(0, 0)]);
        nothing_within(Duration::from_hours(1), plane.fences.report()).await;
        plane.fences.reconnected();
    }
    let mut quiesced = moving(alice(), Phase::Quiesced, Some(6));
    quiesced.epoch = Some(revision(7));
    plane.change(7, quiesced);
    assert_eq!(plane.drained().await, [(0, 0)], "the same fence goes on");
    let mut flipped = moving(alice(), Phase::Flipped, None);
    flipped.epoch = Some(revision(8));
    flipped.home = "target".into();
    plane.change(8, flipped);
    plane.fences.reconnected();
    nothing_within(Duration::from_hours(1), plane.fences.report()).await;
}

#[tokio::test(start_paused = true)]
async fn a_later_phase_of_the_same_window_neither_forgets_nor_repeats() {
    let plane = Plane::new(vec![alice()]);
    let session = plane.login("alice");
    plane.change(6, fencing(alice(), 6));
    drop(session);
    assert_eq!(plane.drained().await, [(1, 1)]);
    // A whole snapshot that holds the fence is the same fence as well.
    let mut quiesced = moving(alice(), Phase::Quiesced, Some(6));
    quiesced.epoch = Some(revision(7));
    plane.snapshot(7, vec![quiesced]);
    nothing_within(Duration::from_hours(1), plane.fences.report()).await;
    plane.fences.reconnected();
    assert_eq!(plane.drained().await, [(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_fence_after_an_aborted_one_counts_afresh_and_takes_over_who_still_lingers() {
    let plane = Plane::new(vec![alice()]);
    let lingering = plane.login("alice");
    plane.change(6, fencing(alice(), 6));
    let mut back = alice();
    back.epoch = Some(revision(7));
    plane.change(7, back);
    let fresh = plane.login("alice@a.example");
    plane.change(8, fencing(alice(), 8));
    fresh.closed(CloseProof::EOF);
    assert!(matches!(
        plane.fences.report().await,
        FenceReport::Draining(Draining {
            sessions_left: 1,
            ..
        })
    ));
    drop(lingering);
    assert_eq!(plane.drained().await, [(2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_held_login_does_not_keep_a_fence_from_draining() {
    let plane = Plane::new(vec![fencing(alice(), 5)]);
    let held = plane.registry.admit(AdmitRequest {
        subject: Subject::Name(name("alice")),
        kind: SessionKind::Session,
        on_fence: OnFence::Hold,
        protocol: Protocol::Imap,
        client: "192.0.2.1:1234".parse().ok(),
        reference: "ref".into(),
    });
    assert!(matches!(held, Admission::Held(_)));
    assert_eq!(plane.drained().await, [(0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn the_accounts_of_one_migration_are_reported_together() {
    let fenced = |n, login| {
        let mut entry = moving(entry(n, &[login], "source", 5), Phase::Fencing, None);
        entry.migration_id = migration(9);
        entry
    };
    let plane = Plane::new(vec![]);
    let slow = plane.login("bob");
    plane.snapshot(6, vec![fenced(1, "alice"), fenced(2, "bob")]);
    assert_eq!(plane.drained().await, [(0, 0)]);
    slow.closed(CloseProof::EOF);
    assert_eq!(plane.drained().await, [(0, 0), (1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_entry_closes_its_sessions_and_is_never_drained() {
    let plane = Plane::new(vec![alice()]);
    let session = plane.login("alice");
    let mut bad = fencing(alice(), 6);
    bad.home = "nowhere".into();
    plane.change(6, bad);
    assert_eq!(session.closing().await, CloseReason::Moved);
    drop(session);
    nothing_within(Duration::from_hours(1), plane.fences.report()).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_elsewhere_now_is_closed_and_one_that_does_not_is_not() {
    let plane = Plane::new(vec![]);
    let (alice, bob) = (plane.login("alice"), plane.login("bob"));
    // Bob gets a record on the server where the default sends him already.
    plane.change(6, entry(2, &["bob"], "source", 6));
    plane.change(7, entry(1, &["alice"], "target", 7));
    assert_eq!(alice.close_reason(), Some(CloseReason::Moved));
    assert_eq!(bob.close_reason(), None);
    plane.snapshot(8, vec![entry(2, &["bob"], "target", 8)]);
    assert_eq!(bob.close_reason(), Some(CloseReason::Moved));
}

#[tokio::test(start_paused = true)]
async fn names_that_were_dropped_are_swept_up_in_the_background() {
    let plane = Plane::new(vec![entry(1, &["alice", "al@t.example"], "third", 5)]);
    let session = plane.login("al@t.example");
    plane.change(6, entry(1, &["alice"], "third", 6));
    assert_eq!(session.close_reason(), None);
    tokio::select! {
        never = plane.fences.tend() => match never {},
        reason = session.closing() => assert_eq!(reason, CloseReason::Moved),
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_write_to_anybody_at_a_server_is_held_while_somebody_there_is_fenced() {
    let plane = Plane::new(vec![alice()]);
    let Admission::Routed(running) = plane.somebody_at("source") else {
        panic!("nobody is fenced");
    };
    let Admission::Routed(elsewhere) = plane.somebody_at("third") else {
        panic!("nobody is fenced");
    };
    plane.change(6, fencing(alice(), 6));
    assert_eq!(running.close_reason(), Some(CloseReason::Moved));
    assert_eq!(elsewhere.close_reason(), None);
    let Admission::Held(held) = plane.somebody_at("source") else {
        panic!("alice is fenced there");
    };
    // Where she is to go, others live who must not wait for her.
    assert!(matches!(plane.somebody_at("target"), Admission::Routed(_)));
    // Nobody can tell whose it is, so that no fence waits for it.
    assert_eq!(plane.drained().await, [(0, 0)]);
    let mut moved = alice();
    moved.epoch = Some(revision(7));
    moved.home = "target".into();
    plane.change(7, moved);
    timeout(Duration::from_secs(1), held.released())
        .await
        .expect("the fence has ended");
    drop(held);
    assert!(matches!(plane.somebody_at("source"), Admission::Routed(_)));
}
