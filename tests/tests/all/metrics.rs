//! What monitoring sees of both planes while an account moves; the real promtool reads it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::story::{SOON, closed, migrate, move_to, session, short_limits};
use ferrypost_tests::tools::tool;
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Admin, World};

/// A page of `/metrics`.
struct Page(String);

impl Page {
    async fn of(admin: &Admin) -> Self {
        let (status, text) = admin.get("/metrics").await.unwrap();
        assert_eq!(status, 200, "{text}");
        Self(text)
    }

    /// What a series stands at: its name and labels as they are written.
    fn value(&self, series: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let mut values = values.filter(|(name, _)| *name == series);
        values.next().map(|(_, value)| value.parse().unwrap())
    }

    /// The page on which all of these stand at one. What is counted is counted a moment after others see it.
    async fn with(admin: &Admin, series: &[&str]) -> Self {
        eventually("all are counted", SOON, || async {
            let page = Self::of(admin).await;
            let missing = series.iter().find(|it| page.value(it) != Some(1.0));
            match missing {
                None => Ok(page),
                Some(missing) => Err(format!("{missing} in\n{}", page.0)),
            }
        })
        .await
        .unwrap()
    }

    /// Prometheus' own check of form and names.
    fn pleases_promtool(&self) {
        let mut promtool = Command::new(tool("promtool").unwrap());
        let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut running = promtool.stderr(Stdio::piped()).spawn().unwrap();
        let mut input = running.stdin.take().unwrap();
        input.write_all(self.0.as_bytes()).unwrap();
        drop(input);
        let judged = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&judged.stderr).into_owned();
        assert!(
            judged.status.success() && said.is_empty(),
            "{said}\n{}",
            self.0
        );
    }
}

#[tokio::test]
async fn both_planes_measure_a_move_and_name_nobody() {
    let world = World::builder()
        .limits(short_limits())
        .start()
        .await
        .unwrap();
    let account = world.accounts()[0].clone();
    let mut client = session(&world.imaps(0), &account, world.password())
        .await
        .unwrap();

    let here = "{destination=\"source\",protocol=\"imap\",kind=\"session\",stage=\"relaying\"}";
    let accepted = "{protocol=\"imap\",outcome=\"accepted\",blame=\"nobody\"}";
    let reachable = |destination: &str| {
        format!(
            "ferrypost_dataplane_backend_reachable{{destination=\"{destination}\",protocol=\"imap\"}}"
        )
    };
    let before = Page::with(
        &world.admin(0),
        &[
            "ferrypost_dataplane_ready",
            "ferrypost_dataplane_control_connection{state=\"live\"}",
            &format!("ferrypost_dataplane_sessions_open{here}"),
            &format!("ferrypost_dataplane_logins_total{accepted}"),
            &reachable("source"),
            &reachable("target"),
        ],
    )
    .await;

    let moved = migrate(&world.operator(0), move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    closed(&mut client).await.unwrap();

    let succeeded = "{outcome=\"succeeded\",reason=\"none\"}";
    let step =
        |step: &str| format!("ferrypost_controlplane_migration_steps_total{{step=\"{step}\"}}");
    let control = Page::with(
        &world.admin_of_replica(0),
        &[
            &format!("ferrypost_controlplane_migrations_total{succeeded}"),
            &step("fencing"),
            &step("quiesced"),
            &step("flipped"),
            "ferrypost_controlplane_migration_held_seconds_count",
            "ferrypost_controlplane_leader",
            "ferrypost_controlplane_store_state{state=\"following\"}",
        ],
    )
    .await;
    assert_eq!(control.value("ferrypost_controlplane_rewound"), Some(0.0));
    let asked = "{operation=\"transact\",answer=\"ok\"}";
    let asked = format!("ferrypost_controlplane_store_operation_duration_seconds_count{asked}");
    assert!(control.value(&asked) > Some(3.0), "{}", control.0);

    let after = relay_has_ended(&world.admin(0)).await;
    for page in [&before, &control, &after] {
        page.pleases_promtool();
        let name = account.split('@').next().unwrap();
        assert!(!page.0.contains(name), "{}", page.0);
        assert!(!page.0.contains("_OTHER"), "{}", page.0);
    }
    every_data_plane_is_synced(&world).await;
}

/// The page of a data plane that has counted the end of the one relay.
async fn relay_has_ended(admin: &Admin) -> Page {
    let labels = "{protocol=\"imap\",stage=\"relay\",end=\"moved\",blame=\"us\"}";
    let ended = format!("ferrypost_dataplane_session_duration_seconds_count{labels}");
    Page::with(admin, &[&ended]).await
}

async fn every_data_plane_is_synced(world: &World) {
    let planes = u32::try_from(world.data_planes().len()).unwrap();
    let synced = "ferrypost_controlplane_data_planes{standing=\"synced\"}";
    eventually("every data plane is synced", SOON, || async {
        let page = Page::of(&world.admin_of_replica(0)).await;
        let all = page.value(synced) == Some(f64::from(planes));
        if all { Ok(()) } else { Err(page.0) }
    })
    .await
    .unwrap();
}
