//! The store is put back to an older state: that is found out, remembered and shown, and nothing moves.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::path::PathBuf;
use std::time::Duration;

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::story::{SOON, landing, migrate, move_to, served_by, session, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Operator, StoreKind, World, reason};

/// What holds the whole store, a file or a folder.
fn store(world: &mut World) -> PathBuf {
    if world.etcd().is_some() {
        world.folder().join("etcd/data")
    } else {
        let config = world.control_planes()[0].plane.config();
        config.with_file_name("ferrypost.redb")
    }
}

async fn stop_store(world: &mut World) {
    world.control_plane(0).stop().await.unwrap();
    if let Some(etcd) = world.etcd() {
        etcd.process().terminate(SOON).await.unwrap();
    }
}

async fn start_store(world: &mut World) {
    if let Some(etcd) = world.etcd() {
        etcd.start_again().await.unwrap();
    }
    world.control_plane(0).start().unwrap();
}

/// As a backup tool copies, owners and all.
async fn copy(from: &PathBuf, to: &PathBuf) {
    _ = std::fs::remove_dir_all(to).or_else(|_| std::fs::remove_file(to));
    let mut copy = tokio::process::Command::new("cp");
    let status = copy.arg("-a").args([from, to]).status().await.unwrap();
    assert!(status.success());
}

async fn until_rewound(operator: &Operator) {
    eventually("the restore is shown", Duration::from_secs(45), || async {
        match operator.get_stats().await {
            Ok(stats) if stats.rewound.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

async fn everybody_lives_where_they_did(world: &World) {
    for data_plane in 0..world.data_planes().len() {
        for (account, home) in world.accounts().iter().zip(["target", "source"]) {
            let landed = landing(&world.imaps(data_plane), account, world.password()).await;
            assert_eq!(landed.unwrap(), home, "{account}");
        }
    }
}

async fn put_back(kind: StoreKind) {
    let builder = World::builder().store(kind).limits(short_limits());
    let mut world = builder.numbered_accounts(3).start().await.unwrap();
    let operator = world.operator(0);
    let store = store(&mut world);
    let backup = world.folder().join("backup");
    stop_store(&mut world).await;
    copy(&store, &backup).await;
    start_store(&mut world).await;
    world.wait_for_leader(0).await.unwrap();

    let moved = world.accounts()[0].clone();
    let answer = migrate(&operator, move_to(&moved, "target")).await.unwrap();
    assert_eq!(answer.state(), MigrationState::Succeeded);
    let mut client = session(&world.imaps(0), &moved, world.password())
        .await
        .unwrap();
    everybody_lives_where_they_did(&world).await;

    stop_store(&mut world).await;
    copy(&backup, &store).await;
    start_store(&mut world).await;
    until_rewound(&operator).await;
    // The store thinks that the account never moved. Those who know better go on.
    everybody_lives_where_they_did(&world).await;
    nothing_moves(&operator, &world.accounts()[1]).await;

    // It is written down, so a restart does not forget it.
    stop_store(&mut world).await;
    start_store(&mut world).await;
    until_rewound(&operator).await;
    nothing_moves(&operator, &world.accounts()[1]).await;
    everybody_lives_where_they_did(&world).await;
    assert_eq!(served_by(&mut client).await.unwrap(), "target");
}

async fn nothing_moves(operator: &Operator, account: &str) {
    let refused = migrate(operator, move_to(account, "target"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("REWOUND"), "{refused:?}");
}

#[tokio::test]
async fn a_restored_file_is_found_out_remembered_and_moves_nothing() {
    put_back(StoreKind::Embedded).await;
}

#[tokio::test]
async fn a_restored_etcd_is_found_out_remembered_and_moves_nothing() {
    put_back(StoreKind::Etcd).await;
}
