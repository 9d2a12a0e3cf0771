//! The control plane is killed with SIGKILL before and after every transition of a move, and exactly
//! one outcome follows. Needs programs built with `--all-features`.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use ferrypost_controlplane::failpoint;
use ferrypost_proto::v1::{
    AbortMigrationRequest, MigrateRequest, Migration, MigrationState, Phase, PhaseCount,
};
use ferrypost_tests::story::{
    SOON, closed, landing, migrate, move_to, placement, served_by, session, short_limits,
};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Operator, StoreKind, World};
use prost_types::Duration as Wait;
use rustix::process::Signal;
use tokio::time::timeout;
use tonic::{Code, Status};

const FAILPOINTS: &str = "FERRYPOST_FAILPOINTS";

/// Only a leader that takes over comes there.
fn takes_over(name: &str) -> bool {
    name.starts_with("withdrawn.")
}

/// Only a move that is given up comes there.
fn gives_up(name: &str) -> bool {
    name.starts_with("aborted.")
}

/// The control plane dies at `name` while it moves `account`, and comes back.
async fn die_at(world: &mut World, name: &str, account: &str) {
    let password = world.password().to_owned();
    let operator = world.operator(0);
    let mut client = session(&world.imaps(0), account, &password).await.unwrap();
    assert_eq!(served_by(&mut client).await.unwrap(), "source", "{name}");

    let mut request = move_to(account, "target");
    request.request_id = format!("at {name}");
    // The answer is lost with the process, unless it dies only after the outcome.
    let asking = tokio::spawn({
        let (operator, request) = (operator.clone(), request.clone());
        let gives_up = gives_up(name);
        async move {
            if gives_up {
                ask_and_give_up(&operator, request).await;
            } else {
                _ = migrate(&operator, request).await;
            }
        }
    });
    let status = world.control_plane(0).wait(SOON).await.unwrap();
    let killed = Signal::KILL.as_raw();
    assert_eq!(status.signal(), Some(killed), "{name}: {status}");
    asking.abort();
    if takes_over(name) {
        return die_again(world, name, request).await;
    }
    // What is logged in and not fenced goes on without a control plane; nothing is asked of it here.
    start_armed(world, "").await;
    one_outcome(world, &operator, name, request).await;
    drop(client);
}

/// The leader that takes over dies as well.
async fn die_again(world: &mut World, name: &str, request: MigrateRequest) {
    let operator = world.operator(0);
    world
        .control_plane(0)
        .set_env(FAILPOINTS, &format!("{name}=kill"));
    world.control_plane(0).start().unwrap();
    let status = world.control_plane(0).wait(SOON).await.unwrap();
    let killed = Signal::KILL.as_raw();
    assert_eq!(status.signal(), Some(killed), "{name}: {status}");
    start_armed(world, "").await;
    one_outcome(world, &operator, name, request).await;
}

/// A move that its operator ends before it has flipped.
async fn ask_and_give_up(operator: &Operator, mut request: MigrateRequest) {
    request.wait = Some(Wait::default());
    let Ok(asked) = migrate(operator, request).await else {
        return;
    };
    let abort = AbortMigrationRequest {
        migration_id: asked.migration_id,
        reason: "to die there".to_owned(),
    };
    _ = operator.migrations().abort_migration(abort).await;
}

/// Starts the control plane with this armed, and waits until it leads and is obeyed.
async fn start_armed(world: &mut World, failpoints: &str) {
    world.control_plane(0).set_env(FAILPOINTS, failpoints);
    world.control_plane(0).start().unwrap();
    world.wait_for_leader(0).await.unwrap();
    let operator = world.operator(0);
    let planes = u32::try_from(world.data_planes().len()).unwrap();
    eventually("every data plane is back", SOON, || async {
        let stats = operator.get_stats().await.map_err(|it| it.to_string())?;
        if stats.data_planes_connected == planes && stats.data_planes_registered == planes {
            Ok(())
        } else {
            Err(format!("{stats:?}"))
        }
    })
    .await
    .unwrap();
}

/// The move has ended in one way, everybody says the same of it, and nobody waits.
async fn one_outcome(world: &World, operator: &Operator, name: &str, request: MigrateRequest) {
    let account = request.account.clone();
    let first = outcome(operator, &request).await;
    let home = match &first {
        Ok(migration) => {
            assert_eq!(migration.state(), MigrationState::Succeeded, "{name}");
            "target"
        }
        Err(status) => {
            assert_eq!(status.code(), Code::Aborted, "{name}: {status:?}");
            "source"
        }
    };
    if gives_up(name) {
        assert_eq!(home, "source", "{name}");
    }
    let again = outcome(operator, &request).await;
    assert_eq!(identity(&again), identity(&first), "{name}");
    let placed = match placement(operator, &account).await {
        Ok(placement) => placement.destination,
        Err(status) if status.code() == Code::NotFound => "source".to_owned(),
        Err(other) => panic!("{name}: {other:?}"),
    };
    assert_eq!(placed, home, "{name}");
    for data_plane in 0..world.data_planes().len() {
        let landed = landing(&world.imaps(data_plane), &account, world.password()).await;
        assert_eq!(landed.unwrap(), home, "{name}");
    }
    // What is left of this move must not walk into the next one's failpoint.
    eventually(
        "nobody is held, and every account is settled",
        SOON,
        || async {
            let stats = operator.get_stats().await.map_err(|it| it.to_string())?;
            let settled = |it: &PhaseCount| it.phase() == Phase::Settled || it.accounts == 0;
            if stats.held_logins == 0 && stats.phases.iter().all(settled) {
                Ok(())
            } else {
                Err(format!("{stats:?}"))
            }
        },
    )
    .await
    .unwrap();
    println!("{name}: {home}");
}

/// The same question until there is an answer: it is meant to be repeated.
async fn outcome(operator: &Operator, request: &MigrateRequest) -> Result<Migration, Status> {
    let what = format!("{} has an outcome", request.request_id);
    eventually(&what, SOON, || async {
        let asked = timeout(Duration::from_secs(10), migrate(operator, request.clone()));
        match asked.await {
            Ok(Err(status)) if status.code() == Code::Unavailable => Err(status.to_string()),
            Ok(answer) => Ok(answer),
            Err(_) => Err("no answer".to_owned()),
        }
    })
    .await
    .unwrap()
}

/// Which migration an outcome is of.
fn identity(outcome: &Result<Migration, Status>) -> String {
    use tonic_types::StatusExt as _;
    match outcome {
        Ok(migration) => migration.migration_id.clone(),
        Err(status) => {
            let info = status.get_details_error_info().unwrap();
            info.metadata["migration"].clone()
        }
    }
}

/// The names in so many worlds, an account each: most of the time is spent waiting for leases that the dead held.
const WORLDS: usize = 4;

/// What falls to one of the worlds. Registrations come when the data planes come, so those two die before the first
/// move, and only in the first world.
async fn die_everywhere(store: StoreKind, share: usize) {
    let (of_registration, of_moves): (Vec<&str>, Vec<&str>) = failpoint::ALL
        .iter()
        .copied()
        .partition(|name| name.starts_with("registration."));
    let moves: Vec<&str> = of_moves.into_iter().skip(share).step_by(WORLDS).collect();
    let mut world = World::builder()
        .store(store)
        .limits(short_limits())
        .numbered_accounts(moves.len() + 1)
        .start()
        .await
        .unwrap();
    for name in of_registration.into_iter().filter(|_| share == 0) {
        die_at_a_registration(&mut world, name).await;
    }
    let accounts = world.accounts().to_vec();
    for (name, account) in moves.iter().zip(&accounts) {
        // In order: a leader that is killed keeps the next one waiting for its lease.
        world.control_plane(0).stop().await.unwrap();
        // Whoever gives up needs the time for it, best while the account is held.
        let late = if gives_up(name) {
            "hook.before=sleep(1000);"
        } else {
            ""
        };
        let first = if takes_over(name) {
            "quiesced.after"
        } else {
            *name
        };
        start_armed(&mut world, &format!("{late}{first}=kill")).await;
        die_at(&mut world, name, account).await;
    }
    // After all of that the last account moves as if nothing had been.
    let operator = world.operator(0);
    let last = accounts.last().unwrap();
    let mut client = session(&world.imaps(1), last, world.password())
        .await
        .unwrap();
    let again = migrate(&operator, move_to(last, "target")).await.unwrap();
    assert_eq!(again.state(), MigrationState::Succeeded);
    closed(&mut client).await.unwrap();
    world.stop().await.unwrap();
}

/// A data plane registers anew while the control plane dies of it.
async fn die_at_a_registration(world: &mut World, name: &str) {
    world.data_plane(1).stop().await.unwrap();
    world.control_plane(0).stop().await.unwrap();
    world
        .control_plane(0)
        .set_env(FAILPOINTS, &format!("{name}=kill"));
    world.control_plane(0).start().unwrap();
    world.wait_for_leader(0).await.unwrap();
    world.data_plane(1).start().unwrap();
    let status = world.control_plane(0).wait(SOON).await.unwrap();
    assert_eq!(
        status.signal(),
        Some(Signal::KILL.as_raw()),
        "{name}: {status}"
    );
    start_armed(world, "").await;
    world.wait_until_ready(1).await.unwrap();
    let account = &world.accounts()[0];
    let landed = landing(&world.imaps(1), account, world.password()).await;
    assert_eq!(landed.unwrap(), "source", "{name}");
}

/// A test for every share of the names, each as `whichever_step_kills_the_control_plane_one_outcome_follows`.
macro_rules! shares {
    ($($store:ident: $kind:expr;)*) => {$(
        mod $store {
            use super::{StoreKind, die_everywhere};

            #[tokio::test]
            async fn whichever_step_kills_the_control_plane_one_outcome_follows_first_share() {
                die_everywhere($kind, 0).await;
            }

            #[tokio::test]
            async fn whichever_step_kills_the_control_plane_one_outcome_follows_second_share() {
                die_everywhere($kind, 1).await;
            }

            #[tokio::test]
            async fn whichever_step_kills_the_control_plane_one_outcome_follows_third_share() {
                die_everywhere($kind, 2).await;
            }

            #[tokio::test]
            async fn whichever_step_kills_the_control_plane_one_outcome_follows_fourth_share() {
                die_everywhere($kind, 3).await;
            }
        }
    )*};
}

shares! {
    embedded: StoreKind::Embedded;
    etcd: StoreKind::Etcd;
}
