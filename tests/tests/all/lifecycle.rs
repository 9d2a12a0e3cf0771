//! How data planes and the control plane come, go, die and come back, and what moves and users see of it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::path::{Path, PathBuf};

use ferrypost_proto::v1::{BlockerReason, ExpelDataPlaneRequest, Migration, MigrationState};
use ferrypost_tests::imap::ImapError;
use ferrypost_tests::ports::Port;
use ferrypost_tests::process::{Process, Spawn};
use ferrypost_tests::story::{
    SOON, closed, data_plane, data_planes, landing, migrate, migration_until, move_to, session,
    short_limits,
};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Builder, DATA_PLANE, DataPlane, Entrance, World, program, reason};
use prost_types::Duration as Wait;
use tokio::time::timeout;

fn world() -> Builder {
    World::builder().limits(short_limits())
}

/// Asks for a move and does not wait for it.
async fn begin(world: &World, account: &str) -> Migration {
    let mut request = move_to(account, "target");
    request.wait = Some(Wait::default());
    migrate(&world.operator(0), request).await.unwrap()
}

fn is_blocked_by(migration: &Migration, who: &str) -> bool {
    migration.state() == MigrationState::Queued
        && migration.blockers.iter().any(|it| it.who.contains(who))
}

fn succeeded(migration: &Migration) -> bool {
    migration.state() == MigrationState::Succeeded
}

#[tokio::test]
async fn a_killed_data_plane_makes_moves_wait_and_its_restart_lets_them_go_on() {
    let mut world = world().start().await.unwrap();
    let operator = world.operator(0);
    let password = world.password().to_owned();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(0), &account, &password).await.unwrap();
    world.data_plane(1).kill();

    let asked = begin(&world, &account).await;
    let id = &asked.migration_id;
    migration_until(&operator, id, "the move names who is missing", |it| {
        is_blocked_by(it, "gateway-2")
    })
    .await
    .unwrap();
    // It waits unfenced: nobody is closed, and nobody is held.
    client.noop().await.unwrap().accepted().unwrap();
    let landed = landing(&world.imaps(0), &account, &password).await;
    assert_eq!(landed.unwrap(), "source");

    world.data_plane(1).start().unwrap();
    world.wait_until_ready(1).await.unwrap();
    let moved = migration_until(&operator, id, "the move has gone on", succeeded)
        .await
        .unwrap();
    let waits = moved.evidence.unwrap().waits;
    assert!(
        waits
            .iter()
            .any(|it| it.reason() == BlockerReason::Settling),
        "it did not wait for the settle time: {waits:?}"
    );
    closed(&mut client).await.unwrap();
    for data_plane in 0..2 {
        let landed = landing(&world.imaps(data_plane), &account, &password).await;
        assert_eq!(landed.unwrap(), "target");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_plane_that_is_asked_to_end_closes_its_sessions_and_blocks_nothing() {
    let mut world = world().start().await.unwrap();
    let operator = world.operator(0);
    let password = world.password().to_owned();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(1), &account, &password).await.unwrap();
    // Fails unless it exits with 0.
    let (stopped, bye) = tokio::join!(world.data_plane(1).stop(), closed(&mut client));
    stopped.unwrap();
    assert!(bye.unwrap().is_some_and(|it| it.contains("UNAVAILABLE")));
    let listed = data_planes(&operator).await.unwrap();
    let instances: Vec<_> = listed.data_planes.iter().map(|it| &it.instance).collect();
    assert_eq!(instances, ["gateway-1"]);
    let moved = migrate(&operator, move_to(&account, "target"))
        .await
        .unwrap();
    assert!(succeeded(&moved), "{moved:?}");
    // It comes back as somebody new, without a settle time.
    world.data_plane(1).start().unwrap();
    world.wait_until_ready(1).await.unwrap();
    let back = data_plane(&operator, "gateway-2").await.unwrap();
    assert_eq!(back.settling, None, "{back:?}");
    let landed = landing(&world.imaps(1), &account, &password).await;
    assert_eq!(landed.unwrap(), "target");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_plane_that_is_drained_by_a_call_blocks_nothing_and_ends_at_a_signal() {
    let mut world = world().start().await.unwrap();
    let operator = world.operator(0);
    let password = world.password().to_owned();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(1), &account, &password).await.unwrap();
    let admin = world.admin(1);
    let (drained, bye) = tokio::join!(admin.drain(), closed(&mut client));
    assert_eq!(drained.unwrap()["goodbye"], "accepted");
    assert!(bye.unwrap().is_some_and(|it| it.contains("UNAVAILABLE")));
    admin.ready().await.unwrap_err();
    let moved = migrate(&operator, move_to(&account, "target"))
        .await
        .unwrap();
    assert!(succeeded(&moved), "{moved:?}");
    // The order on the command line joins in, and returns once that is so.
    let config = world.data_plane(1).config().to_owned();
    let mut order = tokio::process::Command::new(program(DATA_PLANE).unwrap());
    let order = order.args(["drain", "--after", "10ms", "--config"]);
    let ordered = timeout(SOON, order.arg(&config).output());
    let ordered = ordered.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ordered.stdout).into_owned();
    assert!(ordered.status.success(), "{ordered:?}");
    assert!(said.contains("\"goodbye\": \"accepted\""), "{said}");
    // It runs until it is told to end, and then exits with 0.
    assert_eq!(admin.get("/healthz").await.unwrap().0, 200);
    world.data_plane(1).stop().await.unwrap();
    world.stop().await.unwrap();
}

/// A second process of a data plane, told apart by its configuration file.
struct Second {
    process: Process,
    log: PathBuf,
}

impl Second {
    /// Starts one beside `first` with the lines of its configuration replaced.
    fn start(first: &Path, name: &str, replace: &[(&str, &str)]) -> Self {
        let mut text = std::fs::read_to_string(first).unwrap();
        for (line, other) in replace {
            assert!(text.contains(line), "{line} is not in\n{text}");
            text = text.replace(line, other);
        }
        let config = first.with_file_name(format!("{name}.toml"));
        std::fs::write(&config, text).unwrap();
        let log = config.with_extension("log");
        let process = Spawn::new(program(DATA_PLANE).unwrap(), &log)
            .unwrap()
            .arg("--config")
            .arg(&config)
            .start()
            .unwrap();
        Self { process, log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The lines of a data plane's configuration that a second one beside it must have otherwise, and the ports in them.
fn beside(first: &DataPlane) -> (Vec<Port>, Vec<(String, String)>) {
    let own: Vec<_> = Entrance::ALL
        .into_iter()
        .map(|entrance| first.addr(entrance))
        .chain([first.admin()])
        .chain(first.lookups())
        .collect();
    let spare: Vec<_> = own.iter().map(|_| Port::reserve().unwrap()).collect();
    let others = spare.iter().map(|it| it.addr().to_string());
    let addresses = own.iter().map(ToString::to_string).zip(others);
    let socket = ["lookups", "other-lookups"].map(|file| format!("socket = \"{file}\""));
    let lines = addresses.chain([socket.into()]).collect();
    (spare, lines)
}

#[tokio::test]
async fn a_copied_state_directory_is_no_proof_of_death_and_operators_see_who_asks() {
    let mut world = world().start().await.unwrap();
    let operator = world.operator(0);
    let account = world.accounts()[0].clone();
    let name = world.data_planes()[0].plane.name().to_owned();
    world.data_plane(0).freeze().unwrap();
    eventually("it is missed", SOON, || async {
        match data_plane(&operator, &name).await {
            Ok(plane) if !plane.connected => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let first = &world.data_planes()[0];
    let original = first.plane.config().with_file_name("state");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&original, &original.with_file_name("copied-state")])
        .status();
    assert!(copied.unwrap().success());
    let (_spare, mut replace) = beside(first);
    replace.push((
        STATE_DIR.into(),
        "state_directory = \"copied-state\"".into(),
    ));
    let replace: Vec<_> = replace.iter().map(|(a, b)| (&**a, &**b)).collect();
    let mut copy = Second::start(first.plane.config(), "copy", &replace);
    eventually("it is shown", SOON, || async {
        let plane = data_plane(&operator, &name).await;
        let plane = plane.map_err(|status| status.to_string())?;
        match &plane.refused {
            Some(refused) if refused.why.contains("ExpelDataPlane") => Ok(()),
            _ => Err(format!("{plane:?}")),
        }
    })
    .await
    .unwrap();
    let migration = begin(&world, &account).await;
    migration_until(
        &operator,
        &migration.migration_id,
        "the blocker says so",
        |it| {
            let mut blockers = it.blockers.iter();
            blockers.any(|it| it.who == name && it.message.contains("ExpelDataPlane"))
        },
    )
    .await
    .unwrap();
    copy.process.kill();
    world.data_plane(0).resume().unwrap();
    migration_until(&operator, &migration.migration_id, "it goes on", succeeded)
        .await
        .unwrap();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_process_with_the_same_instance_id_is_refused_and_serves_nobody() {
    let world = world().data_planes(1).start().await.unwrap();
    let first = &world.data_planes()[0];
    let (spare, mut replace) = beside(first);
    replace.push((STATE_DIR.into(), "state_directory = \"other-state\"".into()));
    let replace: Vec<_> = replace.iter().map(|(a, b)| (&**a, &**b)).collect();
    let mut second = Second::start(first.plane.config(), "second", &replace);
    eventually("it is told why", SOON, || {
        let said = second.said();
        let verdict = if said.contains("INSTANCE_IN_USE") || said.contains("instance id") {
            Ok(())
        } else {
            Err(said)
        };
        std::future::ready(verdict)
    })
    .await
    .unwrap();
    assert!(
        second.process.status().unwrap().is_none(),
        "{}",
        second.said()
    );
    let token = std::fs::read_to_string(world.admin_token_file()).unwrap();
    let admin = ferrypost_tests::world::Admin::new(
        spare.last().unwrap().addr(),
        token.trim(),
        world.trust(),
    );
    assert!(admin.ready().await.is_err());
    // The first one does not mind.
    let landed = landing(&world.imaps(0), &world.accounts()[0], world.password()).await;
    assert_eq!(landed.unwrap(), "source");
    second.process.kill();
    world.stop().await.unwrap();
}

/// The example's line.
const STATE_DIR: &str = "state_directory = \"state\"";

#[tokio::test]
async fn a_state_directory_belongs_to_one_process() {
    let world = world().data_planes(1).start().await.unwrap();
    let first = &world.data_planes()[0];
    let mut second = Second::start(first.plane.config(), "second", &[]);
    let status = second.process.wait(SOON).await.unwrap();
    assert!(!status.success(), "{}", second.said());
    assert!(
        second
            .said()
            .contains("another process uses this state directory"),
        "{}",
        second.said()
    );
    let landed = landing(&world.imaps(0), &world.accounts()[0], world.password()).await;
    assert_eq!(landed.unwrap(), "source");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn an_expelled_data_plane_serves_nobody_and_the_store_says_who_did_it_and_why() {
    let world = world().start().await.unwrap();
    let operator = world.operator(0);
    let (account, password) = (&world.accounts()[0], world.password());
    let mut client = session(&world.imaps(1), account, password).await.unwrap();
    let boot = data_plane(&operator, "gateway-2").await.unwrap().boot;
    let mut request = ExpelDataPlaneRequest {
        instance: "gateway-2".to_owned(),
        boot: "another".to_owned(),
        reason: "its machine burned".to_owned(),
    };
    // Somebody who means another process does not hit this one.
    let refused = operator
        .stats()
        .expel_data_plane(request.clone())
        .await
        .unwrap_err();
    assert!(reason(&refused).is_some(), "{refused:?}");
    request.boot.clone_from(&boot);
    operator.stats().expel_data_plane(request).await.unwrap();

    closed(&mut client).await.unwrap();
    eventually("it accepts nobody", SOON, || async {
        match landing(&world.imaps(1), account, password).await {
            Ok(server) => Err(format!("a login landed on {server}")),
            Err(ImapError::Refused { code, text, .. })
                if code.as_deref() != Some("UNAVAILABLE") =>
            {
                Err(text)
            }
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();
    assert!(world.admin(1).ready().await.is_err());
    let listed = data_planes(&operator).await.unwrap();
    let [expelled] = listed.expelled.as_slice() else {
        panic!("{listed:?}");
    };
    assert_eq!(expelled.instance, "gateway-2");
    assert_eq!(expelled.boot, boot);
    assert_eq!(expelled.reason, "its machine burned");
    assert!(expelled.expelled_by.contains("operator"), "{expelled:?}");
    assert!(expelled.expelled_at.is_some());
    assert!(
        listed
            .data_planes
            .iter()
            .all(|it| it.instance != "gateway-2")
    );

    // After the settle time moves go on without it.
    let asked = begin(&world, account).await;
    let id = &asked.migration_id;
    migration_until(&operator, id, "the move has gone on", succeeded)
        .await
        .unwrap();
    let landed = landing(&world.imaps(0), account, password).await;
    assert_eq!(landed.unwrap(), "target");
}

#[tokio::test]
async fn users_do_not_notice_that_the_control_plane_is_away() {
    let mut world = world().start().await.unwrap();
    let password = world.password().to_owned();
    let (moved, stayed) = (world.accounts()[0].clone(), world.accounts()[1].clone());
    migrate(&world.operator(0), move_to(&moved, "target"))
        .await
        .unwrap();
    let mut client = session(&world.imaps(0), &stayed, &password).await.unwrap();
    world.control_plane(0).kill();
    for data_plane in 0..2 {
        for (account, home) in [(&moved, "target"), (&stayed, "source")] {
            let landed = landing(&world.imaps(data_plane), account, &password).await;
            assert_eq!(landed.unwrap(), home);
        }
    }
    client.noop().await.unwrap().accepted().unwrap();
    assert!(world.admin(0).ready().await.is_ok());

    world.control_plane(0).start().unwrap();
    world.wait_for_leader(0).await.unwrap();
    let again = migrate(&world.operator(0), move_to(&stayed, "target"))
        .await
        .unwrap();
    assert!(succeeded(&again), "{again:?}");
    closed(&mut client).await.unwrap();
    let landed = landing(&world.imaps(1), &stayed, &password).await;
    assert_eq!(landed.unwrap(), "target");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_plane_that_never_had_a_control_plane_answers_come_again() {
    let mut world = world().data_planes(1).start().await.unwrap();
    let password = world.password().to_owned();
    let account = world.accounts()[0].clone();
    world.data_plane(0).stop().await.unwrap();
    world.control_plane(0).stop().await.unwrap();
    world.data_plane(0).start().unwrap();
    let admin = world.admin(0);
    eventually("it says that it is not ready", SOON, || async {
        match admin.get("/readyz").await {
            Ok((503, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    for connect in [world.imaps(0), world.imap_starttls(0)] {
        // Whether it is told at the greeting or at the login: it is temporary, and no wrong password.
        match landing(&connect, &account, &password).await.unwrap_err() {
            ImapError::Refused { code, .. } => assert_eq!(code.as_deref(), Some("UNAVAILABLE")),
            ImapError::Closed { bye } => {
                assert!(bye.is_some_and(|it| it.contains("UNAVAILABLE")));
            }
            other => panic!("{other}"),
        }
    }
    world.control_plane(0).start().unwrap();
    world.wait_until_ready(0).await.unwrap();
    let landed = landing(&world.imaps(0), &account, &password).await;
    assert_eq!(landed.unwrap(), "source");
    world.stop().await.unwrap();
}
