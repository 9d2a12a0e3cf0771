//! The store is put back to an older state: that is found out, remembered and shown, nothing moves, and an operator
//! resolves it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod by_hand;
mod dies;
mod resolved;

use std::path::{Path, PathBuf};

use ferrypost_proto::v1::{
    GetRewoundRequest, GetRewoundResponse, Keep, MigrationState, ResolveRewoundRequest,
    ResolveRewoundResponse, Revision,
};
use ferrypost_tests::story::{
    SOON, data_planes, landing, migrate, move_to, placement, served_by, session, short_limits,
};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Operator, StoreKind, World, reason};
use tonic::Status;

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
async fn copy(from: &Path, to: &Path) {
    _ = std::fs::remove_dir_all(to).or_else(|_| std::fs::remove_file(to));
    let mut copy = tokio::process::Command::new("cp");
    let status = copy.arg("-a").args([from, to]).status().await.unwrap();
    assert!(status.success());
}

async fn until_rewound(operator: &Operator) {
    eventually("the restore is shown", SOON, || async {
        match operator.get_stats().await {
            Ok(stats) if stats.rewound.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

/// A copy of the whole store, made while it is stopped.
async fn back_up(world: &mut World) -> PathBuf {
    let store = store(world);
    let backup = world.folder().join("backup");
    stop_store(world).await;
    copy(&store, &backup).await;
    start_store(world).await;
    world.wait_for_leader(0).await.unwrap();
    backup
}

/// Puts the copy in the place of the store, and starts the control plane over it.
async fn put_in_place(world: &mut World, backup: &Path) {
    let store = store(world);
    stop_store(world).await;
    copy(backup, &store).await;
    start_store(world).await;
}

async fn get_rewound(operator: &Operator) -> Result<GetRewoundResponse, Status> {
    let request = GetRewoundRequest::default();
    Ok(operator.stats().get_rewound(request).await?.into_inner())
}

async fn resolve(
    operator: &Operator,
    keep: Keep,
    digest: &str,
    request_id: &str,
) -> Result<ResolveRewoundResponse, Status> {
    let request = ResolveRewoundRequest {
        keep: keep.into(),
        reason: "the disk was replaced".to_owned(),
        digest: digest.to_owned(),
        request_id: request_id.to_owned(),
    };
    Ok(operator
        .stats()
        .resolve_rewound(request)
        .await?
        .into_inner())
}

/// Moves an account, and waits until every gateway has acknowledged that. A move that ran out of time on a busy
/// machine is asked for again.
async fn moves(operator: &Operator, account: &str) {
    eventually("the account moves", SOON, || async {
        let answer = migrate(operator, move_to(account, "target")).await;
        match answer.map(|it| it.state()) {
            Ok(MigrationState::Succeeded) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    until_acknowledged(operator, account).await;
}

/// What they have not acknowledged they need not know after a kill.
async fn until_acknowledged(operator: &Operator, account: &str) {
    eventually("every gateway has acknowledged the move", SOON, || async {
        let list = data_planes(operator).await;
        let list = list.map_err(|status| status.to_string())?;
        let moved = placement(operator, account).await;
        let moved = moved.map_err(|status| status.to_string())?;
        let at = |revision: Revision| (revision.base, revision.store);
        let mut planes = list.data_planes.iter();
        if planes.all(|plane| plane.applied.map(at) >= moved.epoch.map(at)) {
            Ok(())
        } else {
            Err(format!("{list:?}"))
        }
    })
    .await
    .unwrap();
}

/// The list, once every gateway has compared what it knows with the store.
async fn listed(operator: &Operator) -> GetRewoundResponse {
    eventually("both gateways have compared", SOON, || async {
        match get_rewound(operator).await {
            Ok(list) if list.data_planes.len() == 2 => Ok(list),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap()
}

/// Where the accounts land on a gateway, once it serves again.
async fn lands_until(world: &World, n: usize, account: &str, home: &str) {
    eventually("the account is served", SOON, || async {
        match landing(&world.imaps(n), account, world.password()).await {
            Ok(landed) if landed == home => Ok(()),
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
    let backup = back_up(&mut world).await;

    let moved = world.accounts()[0].clone();
    let answer = migrate(&operator, move_to(&moved, "target")).await.unwrap();
    assert_eq!(answer.state(), MigrationState::Succeeded);
    let mut client = session(&world.imaps(0), &moved, world.password())
        .await
        .unwrap();
    everybody_lives_where_they_did(&world).await;

    put_in_place(&mut world, &backup).await;
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
