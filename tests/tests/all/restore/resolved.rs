//! Whatever became of the gateways meanwhile, a restore is resolved and nobody is on the wrong side.

use ferrypost_proto::v1::{Keep, MigrationState};
use ferrypost_tests::story::{SOON, landing, migrate, move_to, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{StoreKind, World, reason};

use super::{back_up, lands_until, listed, moves, put_in_place, resolve, until_rewound};

/// What becomes of each of the two gateways while the store is put back.
#[derive(Clone, Copy, PartialEq)]
enum Gateway {
    Runs,
    Killed,
    Stopped,
}

/// A world whose store was put back to before the move of its first account, found out.
async fn found_out(kind: StoreKind, gateways: [Gateway; 2]) -> World {
    let builder = World::builder().store(kind).limits(short_limits());
    let mut world = builder
        .numbered_accounts(2)
        .data_planes(2)
        .start()
        .await
        .unwrap();
    let backup = back_up(&mut world).await;
    let operator = world.operator(0);
    moves(&operator, &world.accounts()[0]).await;
    for (n, gateway) in gateways.into_iter().enumerate() {
        match gateway {
            Gateway::Runs => {}
            Gateway::Killed => world.data_plane(n).kill(),
            Gateway::Stopped => world.data_plane(n).stop().await.unwrap(),
        }
    }
    put_in_place(&mut world, &backup).await;
    for (n, gateway) in gateways.into_iter().enumerate() {
        if gateway != Gateway::Runs {
            world.data_plane(n).start().unwrap();
        }
    }
    until_rewound(&operator).await;
    world
}

/// Back up, move, restore, start, resolve: nobody on the wrong side at any time.
async fn recipe(kind: StoreKind, gateways: [Gateway; 2], keep: Keep) {
    let mut world = found_out(kind, gateways).await;
    let operator = world.operator(0);
    let (moved, stayed) = (world.accounts()[0].clone(), world.accounts()[1].clone());
    let list = listed(&operator).await;
    assert_eq!(list.in_doubt, 1, "{list:?}");
    assert!(list.accounts[0].names.contains(&moved), "{list:?}");
    assert!(
        list.accounts[0]
            .held
            .iter()
            .all(|held| held.destination == "target")
    );
    for (n, gateway) in gateways.into_iter().enumerate() {
        let landed = landing(&world.imaps(n), &moved, world.password()).await;
        if gateway == Gateway::Runs {
            assert_eq!(landed.unwrap(), "target", "it keeps what it has");
        } else {
            assert!(landed.is_err(), "{landed:?}");
        }
        if gateway != Gateway::Stopped {
            lands_until(&world, n, &stayed, "source").await;
        }
    }
    if keep == Keep::Store {
        let refused = resolve(&operator, keep, "", "restore").await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some("DIGEST_MISMATCH"));
    }
    let resolved = resolve(&operator, keep, &list.digest, "restore")
        .await
        .unwrap();
    assert_eq!((resolved.accounts, resolved.base), (1, 1));
    let again = resolve(&operator, keep, &list.digest, "restore")
        .await
        .unwrap();
    assert_eq!(
        (again.accounts, again.base),
        (1, 1),
        "the request id is known"
    );

    let home = if keep == Keep::Fleet {
        "target"
    } else {
        "source"
    };
    // Also a gateway that is restarted afterwards.
    for n in 0..2 {
        lands_until(&world, n, &moved, home).await;
        lands_until(&world, n, &stayed, "source").await;
    }
    world.data_plane(0).kill();
    world.data_plane(0).start().unwrap();
    lands_until(&world, 0, &moved, home).await;
    let answer = migrate(&operator, move_to(&stayed, "target"))
        .await
        .unwrap();
    assert_eq!(answer.state(), MigrationState::Succeeded);
    for n in 0..2 {
        lands_until(&world, n, &stayed, "target").await;
    }
}

#[tokio::test]
async fn a_restored_file_is_resolved_for_the_fleet_after_every_gateway_was_killed() {
    recipe(StoreKind::Embedded, [Gateway::Killed; 2], Keep::Fleet).await;
}

#[tokio::test]
async fn a_restored_etcd_is_resolved_for_the_fleet_after_every_gateway_was_killed() {
    recipe(StoreKind::Etcd, [Gateway::Killed; 2], Keep::Fleet).await;
}

#[tokio::test]
async fn a_restored_file_is_resolved_for_the_fleet_after_every_gateway_was_stopped() {
    recipe(StoreKind::Embedded, [Gateway::Stopped; 2], Keep::Fleet).await;
}

#[tokio::test]
async fn a_restored_file_is_resolved_for_the_fleet_after_one_gateway_was_restarted() {
    let one = [Gateway::Runs, Gateway::Killed];
    recipe(StoreKind::Embedded, one, Keep::Fleet).await;
}

#[tokio::test]
async fn a_restored_etcd_is_resolved_for_the_store_after_one_gateway_was_restarted() {
    let one = [Gateway::Runs, Gateway::Killed];
    recipe(StoreKind::Etcd, one, Keep::Store).await;
}

#[tokio::test]
async fn a_restored_file_is_resolved_for_the_store_while_both_gateways_run() {
    recipe(StoreKind::Embedded, [Gateway::Runs; 2], Keep::Store).await;
}

/// It left before the move, comes first, and believes the restored store. The one that remembers finds the restore
/// out, and from then on nobody is served on both sides.
#[tokio::test]
async fn a_gateway_that_believes_a_restored_store_is_told_what_others_have_in_doubt() {
    let builder = World::builder().limits(short_limits());
    let mut world = builder
        .numbered_accounts(2)
        .data_planes(2)
        .start()
        .await
        .unwrap();
    let (moved, stayed) = (world.accounts()[0].clone(), world.accounts()[1].clone());
    world.data_plane(1).stop().await.unwrap();
    let backup = back_up(&mut world).await;
    let operator = world.operator(0);
    moves(&operator, &moved).await;
    world.data_plane(0).kill();
    put_in_place(&mut world, &backup).await;
    world.data_plane(1).start().unwrap();
    lands_until(&world, 1, &moved, "source").await;
    world.data_plane(0).start().unwrap();
    until_rewound(&operator).await;

    eventually("it holds the account", SOON, || async {
        match landing(&world.imaps(1), &moved, world.password()).await {
            Err(_) => Ok(()),
            Ok(home) => Err(home),
        }
    })
    .await
    .unwrap();
    for n in 0..2 {
        lands_until(&world, n, &stayed, "source").await;
    }
    let digest = listed(&operator).await.digest;
    resolve(&operator, Keep::Fleet, &digest, "restore")
        .await
        .unwrap();
    for n in 0..2 {
        lands_until(&world, n, &moved, "target").await;
    }
}
