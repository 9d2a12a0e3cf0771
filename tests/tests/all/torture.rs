//! The torture run in short, on both stores, and the broken builds that it must find out.
//!
//! `FERRYPOST_TORTURE_SECONDS` makes the runs longer (that long each, faults included) and
//! `FERRYPOST_TORTURE_SEED` others: a failed run prints its seed and keeps its logs.
//!
//!     FERRYPOST_TORTURE_SECONDS=600 FERRYPOST_TORTURE_SEED=42 \
//!         cargo test -p ferrypost-tests --test all -- --nocapture torture::a_sound
//!
//! The programs are those beside the test program, built with `--all-features`: without the feature
//! `sabotage` nothing can be broken.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::env;
use std::time::Duration;

use ferrypost_tests::checker::Floors;
use ferrypost_tests::history::Summary;
use ferrypost_tests::torture::{Aim, Plan, Report, Speaks, torture};
use ferrypost_tests::world::{Builder, StoreKind, World};

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
    )
}

/// Floors grow with the run. A tenth of what an idle machine does.
fn plan(seconds: u64, aim: Aim) -> Plan {
    let seconds = setting("FERRYPOST_TORTURE_SECONDS").unwrap_or(seconds);
    let moves = usize::try_from(seconds / 4).unwrap();
    Plan {
        seed: setting("FERRYPOST_TORTURE_SEED").unwrap_or(1),
        duration: Duration::from_secs(seconds),
        aim,
        speaks: Speaks::Everything,
        writers: 2,
        floors: Floors {
            operations: 100 * moves,
            moves,
        },
    }
}

async fn run(world: Builder, plan: Plan) -> Report {
    let world = world.numbered_accounts(4).alone();
    let report = torture(world, plan).await.unwrap();
    println!("{report}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_build_survives_on_the_embedded_store() {
    let report = run(World::builder(), plan(20, Aim::Endurance)).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_build_survives_on_etcd_with_two_control_planes() {
    let world = World::builder().store(StoreKind::Etcd).control_planes(2);
    let report = run(world, plan(25, Aim::Endurance)).await;
    assert!(report.is_clean(), "{report}");
}

/// Whoever leads dies or freezes every few seconds: users wait for a window and a take-over at most, and moves end.
async fn leaders_keep_dying(world: Builder) {
    let mut plan = plan(25, Aim::Leaders);
    // Hardly any does: nothing is fenced in a new leader's first seconds that was withdrawn before.
    plan.floors.moves = 0;
    let report = run(world, plan).await;
    assert!(report.is_clean(), "{report}");
    assert!(report.longest_wait.is_some(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_keep_dying_hold_nobody_for_long_on_the_embedded_store() {
    leaders_keep_dying(World::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_keep_dying_hold_nobody_for_long_on_etcd() {
    let world = World::builder().store(StoreKind::Etcd).control_planes(2);
    leaders_keep_dying(world).await;
}

/// Moves under load in all protocols at once: nobody logs in on the old side after a flip, logins that come meanwhile
/// are held and granted, and no message is cut off between its end and its answer, which is what the checker looks at.
/// Thunderbird shows each refusal as an alert: a login that lies with the old server when the fence comes is held
/// and sent to the new one, and nothing is asked of its client.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_breaks_a_move_sends_nobody_away() {
    let report = run(World::builder(), plan(12, Aim::Quiet)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.sent_away.total(), 0, "{report}");
    let Summary {
        refused,
        unanswered,
        ..
    } = report.summary;
    assert_eq!((refused, unanswered), (0, 0), "{report}");
}

/// Old and new replicas, old and new data planes, in every mixture that the order of an upgrade has.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_and_the_way_back_lose_nothing() {
    let world = World::builder().store(StoreKind::Etcd).control_planes(2);
    let report = run(world, plan(4, Aim::Upgrade)).await;
    assert!(report.is_clean(), "{report}");
    let replaced: usize = report.faults.values().sum();
    assert_eq!(replaced, 8, "{report}");
}

/// A broken build must be found out. The run ends with the first violation, mostly within seconds; on a machine that has
/// other things to do it takes more moves until a client is where it must not be, and the limit is for a build in which
/// nothing is broken.
async fn is_found_out(world: Builder, defect: &str) {
    let report = run(world, plan(300, Aim::Violation)).await;
    assert!(
        !report.verdict.violations.is_empty(),
        "{defect} went unnoticed; were the programs built with --all-features?\n{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_a_fence_is_found_out() {
    let defect = "fence-off";
    let world = World::builder().data_plane_env("FERRYPOST_SABOTAGE", defect);
    is_found_out(world, defect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_registers_after_the_dial_is_found_out() {
    let defect = "register-after-dial";
    let world = World::builder().data_plane_env("FERRYPOST_SABOTAGE", defect);
    is_found_out(world, defect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_releases_early_is_found_out() {
    let defect = "release-early";
    let world = World::builder().control_plane_env("FERRYPOST_SABOTAGE", defect);
    is_found_out(world, defect).await;
}

/// Requests are routed one by one: nothing that mail's sessions do helps to find it.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_a_fence_is_found_out_by_http_alone() {
    let defect = "fence-off";
    let world = World::builder().data_plane_env("FERRYPOST_SABOTAGE", defect);
    let mut plan = plan(300, Aim::Violation);
    plan.speaks = Speaks::Http;
    let report = run(world, plan).await;
    let mut violations = report.verdict.violations.iter();
    assert!(
        violations.any(|it| it.to_string().contains("HTTP")),
        "{report}"
    );
}
