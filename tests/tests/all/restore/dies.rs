//! The control plane is killed with SIGKILL while it resolves a restore, and the same call finishes it. Needs programs
//! built with `--all-features`.

use std::os::unix::process::ExitStatusExt as _;

use ferrypost_proto::v1::Keep;
use ferrypost_tests::story::{SOON, short_limits};
use ferrypost_tests::world::{StoreKind, World};
use rustix::process::Signal;

use super::{
    back_up, lands_until, listed, moves, put_in_place, resolve, start_store, stop_store,
    until_rewound,
};

/// Two accounts have moved since the backup. With one of their records written it dies, and once more before the end.
async fn dies_twice(kind: StoreKind) {
    let builder = World::builder().store(kind).limits(short_limits());
    let mut world = builder
        .numbered_accounts(2)
        .data_planes(2)
        .start()
        .await
        .unwrap();
    let backup = back_up(&mut world).await;
    let accounts = world.accounts().to_vec();
    let operator = world.operator(0);
    for account in &accounts {
        moves(&operator, account).await;
    }
    put_in_place(&mut world, &backup).await;
    until_rewound(&operator).await;
    for name in ["resolving.after", "resolved.before"] {
        stop_store(&mut world).await;
        let armed = format!("{name}=kill");
        world
            .control_plane(0)
            .set_env("FERRYPOST_FAILPOINTS", &armed);
        start_store(&mut world).await;
        listed(&operator).await;
        let cut_off = resolve(&operator, Keep::Fleet, "", "restore").await;
        assert!(cut_off.is_err(), "{cut_off:?}");
        let status = world.control_plane(0).wait(SOON).await.unwrap();
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{name}: {status}"
        );
        world.control_plane(0).set_env("FERRYPOST_FAILPOINTS", "");
        world.control_plane(0).start().unwrap();
        listed(&operator).await;
    }
    resolve(&operator, Keep::Fleet, "", "restore")
        .await
        .unwrap();
    for account in &accounts {
        for n in 0..2 {
            lands_until(&world, n, account, "target").await;
        }
    }
}

#[tokio::test]
async fn a_control_plane_that_is_killed_while_it_resolves_a_restored_file_finishes_it() {
    dies_twice(StoreKind::Embedded).await;
}

#[tokio::test]
async fn a_control_plane_that_is_killed_while_it_resolves_a_restored_etcd_finishes_it() {
    dies_twice(StoreKind::Etcd).await;
}
