//! The rules of the stream, each by its number in the documentation of `ferrypost_proto`. Rule 8 is
//! about the store and has its tests there.

use ferrypost_proto::{
    CONTRACTS, Phase, SCHEMAS,
    routing::v1::{
        RejectReason, UnsettledSessions, Welcome, stream_request::Message as Up,
        stream_response::Message as Down,
    },
};
use ferrypost_routing::testing::*;
use tokio::time::{Duration, Instant};

use super::scripted::{HEARTBEAT, Served, TIMING, World, installation, said_limits, welcome};
use crate::{
    feed::{ConnectionState, StreamRefused},
    registry::Admission,
};

fn alice_on(home: &str, epoch: u64) -> ferrypost_proto::routing::v1::AccountEntry {
    entry(1, &["alice"], home, epoch)
}

fn drained(message: Up) -> Option<ferrypost_proto::routing::v1::Drained> {
    match message {
        Up::Drained(drained) => Some(drained),
        _ => None,
    }
}

/// The data plane lets go of a stream that has broken a rule, and comes again with what it holds.
async fn resyncs_from(world: &mut World, broken: Served, store: u64) {
    broken.given_up().await;
    let (_, hello) = world.welcomed().await;
    let applied = hello.applied.and_then(|position| position.revision);
    assert_eq!(applied, Some(revision(store)));
}

#[tokio::test(start_paused = true)]
async fn rule_1_hello_names_the_versions_and_what_is_applied() {
    let mut world = World::new();
    let (mut stream, hello) = world.welcomed().await;
    assert_eq!(hello.contract, CONTRACTS.oldest());
    assert_eq!(hello.contracts, Some(CONTRACTS.into()));
    assert_eq!(hello.schemas, Some(SCHEMAS.into()));
    assert_eq!(hello.instance, "dp-1");
    assert_eq!(hello.limits, Some(said_limits()));
    assert_eq!((hello.applied, hello.installation.as_str()), (None, ""));
    stream.snapshot(chunk(5, vec![])).await;
    drop(stream);
    let (_, again) = world.welcomed().await;
    let applied = again.applied.and_then(|position| position.revision);
    assert_eq!(applied, Some(revision(5)));
    assert_eq!((again.boot, again.state_id), (hello.boot, hello.state_id));
}

#[tokio::test(start_paused = true)]
async fn rule_1_a_delta_that_does_not_follow_ends_the_stream_and_resyncs() {
    let mut world = World::new();
    let stream = world.synced(chunk(5, vec![])).await;
    let gap = delta(7, 8, vec![put(alice_on("third", 8))]);
    stream.send(Down::Delta(gap)).await;
    resyncs_from(&mut world, stream, 5).await;
    assert_eq!(world.destination("alice").as_deref(), Some("source"));
}

#[tokio::test(start_paused = true)]
async fn rule_2_a_bad_entry_is_reported_and_fenced_and_said_again_on_every_sync() {
    let mut world = World::new();
    let (mut stream, _) = world.welcomed().await;
    let bad = alice_on("nowhere", 5);
    let rejected = stream
        .snapshot(chunk(5, vec![bad, entry(2, &["bob"], "third", 5)]))
        .await
        .expect("a rejection before applied");
    assert_eq!(rejected.entries.len(), 1);
    assert_eq!(rejected.entries[0].account_id, account(1));
    assert_eq!(
        rejected.entries[0].reason(),
        RejectReason::UnknownDestination
    );
    assert!(matches!(world.admit("alice"), Admission::Held(_)));
    assert_eq!(world.destination("bob").as_deref(), Some("third"));
    drop(stream);
    let (mut stream, _) = world.welcomed().await;
    let again = stream
        .find(|message| match message {
            Up::Rejected(rejected) => Some(rejected),
            _ => None,
        })
        .await;
    assert_eq!(again.entries, rejected.entries);
    // The whole list each time: an empty one takes it back.
    stream
        .send(Down::Delta(delta(5, 6, vec![put(alice_on("third", 6))])))
        .await;
    let rejected = stream.until_applied(Some(position(6))).await;
    assert_eq!(rejected.map(|rejected| rejected.entries), Some(vec![]));
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
}

/// As with what was rejected: when the control plane sees the move as applied, it knows what is in its way.
#[tokio::test(start_paused = true)]
async fn a_close_that_was_not_seen_is_said_before_the_table_of_a_move_is_applied() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    stream.hello().await;
    let settle = Duration::from_secs(1);
    let welcome = Welcome {
        settle: prost_types::Duration::try_from(settle).ok(),
        ..welcome()
    };
    stream.send(Down::Welcome(welcome)).await;
    stream.snapshot(chunk(5, vec![])).await;
    let Admission::Routed(mut session) = world.admit("alice") else {
        panic!("nothing is fenced");
    };
    session.exposed();
    drop(session);
    let moving = vec![
        put(alice_on("source", 6)),
        put(entry(2, &["bob"], "source", 6)),
    ];
    stream.send(Down::Delta(delta(5, 6, moving))).await;
    let health = stream.health_before_applied().await.expect("it says so");
    let unsettled = health.unsettled.expect("it says");
    assert_eq!(
        (unsettled.account_ids, unsettled.more),
        (vec![account(1)], false)
    );

    // The control plane's settle time counts, not our own.
    tokio::time::advance(settle + Duration::from_millis(1)).await;
    stream.heartbeat(1).await;
    let health = stream.find(|message| match message {
        Up::Health(health) => Some(health),
        _ => None,
    });
    assert_eq!(health.await.unsettled, Some(UnsettledSessions::default()));
}

#[tokio::test(start_paused = true)]
async fn rule_2_a_bad_snapshot_leaves_the_whole_old_table() {
    let mut world = World::new();
    let stream = world.synced(chunk(5, vec![alice_on("third", 4)])).await;
    let mut bad = chunk(6, vec![alice_on("target", 6)]);
    bad.config = bad.config.map(|mut config| {
        config.default_destination = "nowhere".into();
        config
    });
    stream.send(Down::SnapshotChunk(bad)).await;
    resyncs_from(&mut world, stream, 5).await;
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
}

#[tokio::test(start_paused = true)]
async fn rule_2_half_a_snapshot_changes_nothing() {
    let mut world = World::new();
    let stream = world.synced(chunk(5, vec![alice_on("third", 4)])).await;
    let mut half = chunk(6, vec![alice_on("target", 6)]);
    half.last = false;
    stream.send(Down::SnapshotChunk(half)).await;
    drop(stream);
    let (mut stream, _) = world.welcomed().await;
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
    // And the half that came is forgotten with its stream.
    let mut rest = chunk(6, vec![]);
    rest.index = 1;
    rest.config = None;
    stream.send(Down::SnapshotChunk(rest)).await;
    stream.given_up().await;
    let (second, _) = world.welcomed().await;
    stream = second;
    stream.snapshot(chunk(6, vec![alice_on("target", 6)])).await;
    assert_eq!(world.destination("alice").as_deref(), Some("target"));
}

#[tokio::test(start_paused = true)]
async fn rule_3_backoff_grows_with_connects_and_resets_on_the_first_applied() {
    let mut world = World::new();
    let mut pauses = Vec::new();
    let mut lost = None;
    for _ in 0..8 {
        let (stream, _) = world.welcomed().await;
        pauses.extend(lost.map(|lost| stream.opened - lost));
        lost = Some(Instant::now());
    }
    // Every connect was welcomed, and the pauses grew all the same.
    assert!(pauses.last() > Some(&Duration::from_secs(2)), "{pauses:?}");
    drop(world.synced(chunk(5, vec![])).await);
    let lost = Instant::now();
    let (stream, _) = world.welcomed().await;
    let pause = stream.opened - lost;
    assert!(
        pause <= TIMING.first_pause + Duration::from_millis(10),
        "{pause:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_3_three_silent_intervals_mean_reconnect() {
    let mut world = World::new();
    let stream = world.synced(chunk(5, vec![])).await;
    for sequence in 1..5 {
        // The clock is paused: this is when the heartbeat comes, and takes no time.
        tokio::time::sleep(HEARTBEAT * 5 / 2).await;
        stream.heartbeat(sequence).await;
    }
    let heard = Instant::now();
    stream.given_up().await;
    let silence = heard.elapsed();
    assert!(silence >= HEARTBEAT * 3, "{silence:?}");
    assert!(
        silence < HEARTBEAT * 3 + Duration::from_millis(100),
        "{silence:?}"
    );
    world.welcomed().await;
}

#[tokio::test(start_paused = true)]
async fn rule_4_not_ready_until_registered_and_the_first_table_is_in() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    stream.hello().await;
    assert_eq!(world.readiness.reasons().len(), 2);
    stream.send(Down::Welcome(welcome())).await;
    let mut status = world.handle.status();
    status
        .wait_for(|status| status.connection == ConnectionState::Syncing)
        .await
        .unwrap();
    assert_eq!(
        world.readiness.reasons(),
        ["no routing table from the control plane yet"]
    );
    stream.snapshot(chunk(5, vec![])).await;
    assert!(world.readiness.is_ready());
    drop(stream);
    world.stream().await.hello().await;
    assert!(
        world.readiness.is_ready(),
        "losing the stream changes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_5_no_table_is_not_the_default() {
    let mut world = World::new();
    let (mut stream, _) = world.welcomed().await;
    assert!(matches!(world.admit("alice"), Admission::NoTable));
    stream.snapshot(chunk(5, vec![])).await;
    assert_eq!(world.destination("alice").as_deref(), Some("source"));
    assert!(matches!(
        world.admit("a@nowhere.example"),
        Admission::Refused(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_slow_subscriber_takes_a_snapshot_between_deltas() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    stream
        .send(Down::Delta(delta(5, 6, vec![put(alice_on("third", 6))])))
        .await;
    stream.until_applied(Some(position(6))).await;
    let mut first = chunk(90, vec![alice_on("target", 80)]);
    first.last = false;
    let mut last = chunk(90, vec![entry(2, &["bob"], "third", 70)]);
    last.index = 1;
    last.config = None;
    stream.send(Down::SnapshotChunk(first)).await;
    stream.heartbeat(1).await;
    stream.send(Down::SnapshotChunk(last)).await;
    stream.until_applied(Some(position(90))).await;
    assert_eq!(world.destination("alice").as_deref(), Some("target"));
    assert_eq!(world.destination("bob").as_deref(), Some("third"));
}

#[tokio::test(start_paused = true)]
async fn rule_6_no_delta_between_the_chunks_of_a_snapshot() {
    let mut world = World::new();
    let stream = world.synced(chunk(5, vec![])).await;
    let mut first = chunk(90, vec![]);
    first.last = false;
    stream.send(Down::SnapshotChunk(first)).await;
    stream.send(Down::Delta(delta(5, 6, vec![]))).await;
    resyncs_from(&mut world, stream, 5).await;
}

#[tokio::test(start_paused = true)]
async fn rule_7_drained_is_said_again_on_every_reconnect_until_the_fence_has_ended() {
    let mut world = World::new();
    let fenced = moving(alice_on("source", 5), Phase::Fencing, None);
    let mut stream = world.synced(chunk(5, vec![fenced])).await;
    for _ in 0..3 {
        let drained = stream.find(drained).await;
        assert_eq!(drained.migration_id, migration(1));
        assert_eq!(drained.accounts[0].fence_epoch, Some(revision(5)));
        stream = world.welcomed().await.0;
    }
    stream.find(drained).await;
    let mut flipped = moving(alice_on("target", 9), Phase::Flipped, None);
    flipped.target = "source".into();
    stream
        .send(Down::Delta(delta(5, 9, vec![put(flipped)])))
        .await;
    stream.until_applied(Some(position(9))).await;
    let (mut stream, _) = world.welcomed().await;
    stream.heartbeat(1).await;
    stream
        .find(|message| match message {
            Up::Health(_) => Some(()),
            Up::Drained(drained) => panic!("the fence has ended: {drained:?}"),
            _ => None,
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn rule_7_drained_comes_after_the_applied_of_its_table_and_the_last_session() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let Admission::Routed(mut session) = world.admit("alice") else {
        panic!("alice is routed");
    };
    session.exposed();
    let fenced = moving(alice_on("source", 6), Phase::Fencing, None);
    stream
        .send(Down::Delta(delta(5, 6, vec![put(fenced)])))
        .await;
    stream.until_applied(Some(position(6))).await;
    let left = stream
        .find(|message| match message {
            Up::Draining(draining) => Some(draining.sessions_left),
            Up::Drained(_) => panic!("a session is left"),
            _ => None,
        })
        .await;
    assert_eq!(left, 1);
    drop(session);
    let drained = stream.find(drained).await;
    assert_eq!(
        (drained.accounts[0].closed, drained.accounts[0].unconfirmed),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn rule_9_an_older_snapshot_is_refused() {
    let mut world = World::new();
    let stream = world.synced(chunk(5, vec![alice_on("third", 4)])).await;
    stream
        .send(Down::SnapshotChunk(chunk(4, vec![alice_on("target", 4)])))
        .await;
    resyncs_from(&mut world, stream, 5).await;
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
}

#[tokio::test(start_paused = true)]
async fn rule_9_a_snapshot_below_the_registration_is_refused() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    stream.hello().await;
    let mut late = welcome();
    late.registered = Some(revision(6));
    stream.send(Down::Welcome(late.clone())).await;
    stream.send(Down::SnapshotChunk(chunk(5, vec![]))).await;
    stream.given_up().await;
    assert!(matches!(world.admit("alice"), Admission::NoTable));
    let mut stream = world.stream().await;
    stream.hello().await;
    stream.send(Down::Welcome(late)).await;
    stream.snapshot(chunk(6, vec![])).await;
}

#[tokio::test(start_paused = true)]
async fn rule_10_the_installation_is_pinned_across_restarts_and_another_refused() {
    let mut world = World::new();
    let (stream, _) = world.welcomed().await;
    let mut status = world.handle.status();
    status
        .wait_for(|status| status.installation == Some(installation()))
        .await
        .unwrap();
    drop(stream);
    let mut world = world.restart().await;
    let mut stream = world.stream().await;
    let hello = stream.hello().await;
    assert_eq!(hello.installation, installation().as_str());
    let mut other = welcome();
    other.installation = "0".repeat(26);
    stream.send(Down::Welcome(other)).await;
    stream.given_up().await;
    let mut status = world.handle.status();
    status
        .wait_for(|status| {
            status.connection == ConnectionState::Refused(StreamRefused::OtherInstallation)
        })
        .await
        .unwrap();
    assert!(!world.readiness.is_ready());
    // The right one answers again, and all is well.
    world.synced(chunk(5, vec![])).await;
    assert!(world.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn rule_11_under_rewound_a_data_plane_keeps_what_it_has_and_says_so() {
    let mut world = World::new();
    drop(world.synced(chunk(5, vec![alice_on("third", 4)])).await);
    let mut stream = world.stream().await;
    stream.hello().await;
    let mut rewound = welcome();
    rewound.rewound = true;
    stream.send(Down::Welcome(rewound)).await;
    let mut status = world.handle.status();
    status.wait_for(|status| status.rewound).await.unwrap();
    assert!(world.readiness.is_ready());
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
    drop(stream);
    world.welcomed().await;
    status.wait_for(|status| !status.rewound).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rule_11_what_was_acknowledged_is_said_again_after_a_restart() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![alice_on("third", 4)])).await;
    let later = delta(5, 9, vec![put(alice_on("third", 9))]);
    stream.send(Down::Delta(later)).await;
    let acknowledged = stream.find(|message| match message {
        Up::Applied(applied) => applied.position,
        _ => None,
    });
    let acknowledged = acknowledged.await;
    drop(stream);
    let mut world = world.restart().await;
    let hello = world.stream().await.hello().await;
    assert_eq!(hello.applied, None, "it has no table to serve from");
    assert_eq!(hello.held, Some(acknowledged));
    assert!(hello.held_current);
}

#[tokio::test(start_paused = true)]
async fn rule_11_who_has_left_proves_a_restore_but_may_have_missed_moves() {
    let mut world = World::left_with(chunk(5, vec![])).await;
    let hello = world.stream().await.hello().await;
    assert!(hello.held.is_some() && !hello.held_current);
    drop(world.synced(chunk(7, vec![])).await);
    let hello = world.stream().await.hello().await;
    assert!(hello.held_current, "it has a table again");
}
