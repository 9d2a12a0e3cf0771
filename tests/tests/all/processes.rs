//! Children end with the test that started them, and the installed tools run.

use std::time::Duration;

use ferrypost_tests::process::{ProcessMark, Spawn, is_running};
use ferrypost_tests::tools::tool;
use ferrypost_tests::wait::until;

const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_dropped_process_is_gone_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo child $!; wait";
    let process = Spawn::new("sh", folder.path().join("log"))
        .unwrap()
        .args(["-c", script])
        .start()
        .unwrap();
    let line = process.log().wait_for(&["child "], SOON).await.unwrap();
    let child: u32 = line.trim_start_matches("child ").parse().unwrap();
    let parent = process.id();
    assert!(is_running(parent) && is_running(child));
    drop(process);
    until("both are gone", SOON, || {
        !is_running(parent) && !is_running(child)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_surviving_process_goes_on_until_its_group_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo child $!; trap '' TERM; wait; wait";
    let spawn = Spawn::new("sh", folder.path().join("log"))
        .unwrap()
        .args(["-c", script]);
    let process = spawn.survives().start().unwrap();
    let line = process.log().wait_for(&["child "], SOON).await.unwrap();
    let child: u32 = line.trim_start_matches("child ").parse().unwrap();
    let leader = ProcessMark::of(process.id()).unwrap();
    drop(process);
    assert!(leader.is_running() && is_running(child));

    let written = leader.to_string();
    let leader: ProcessMark = written.parse().unwrap();
    let stranger: ProcessMark = format!("{written}0").parse().unwrap();
    stranger.stop_group(Duration::ZERO).await;
    assert!(leader.is_running(), "it is not the process that was marked");

    leader.stop_group(Duration::from_millis(100)).await;
    until("both are gone", SOON, || {
        !leader.is_running() && !is_running(child)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_process_reports_its_end_and_obeys_signals() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut process = Spawn::new("sh", &log)
        .unwrap()
        .args([
            "-c",
            "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
        ])
        .start()
        .unwrap();
    process.log().wait_for(&["ready"], SOON).await.unwrap();
    process.freeze().unwrap();
    assert!(
        process.terminate(Duration::from_millis(200)).await.is_err(),
        "it is frozen"
    );
    process.resume().unwrap();
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(7));
    assert!(process.freeze().is_err(), "it has ended");

    let missing = Spawn::new("no-such-program-of-ferrypost", &log);
    assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn the_tools_that_debian_lacks_run() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["grpcurl", "buf", "etcd-3.5"] {
        let log = folder.path().join(name);
        let spawn = Spawn::new(tool(name).unwrap(), log)
            .unwrap()
            .arg("--version");
        let status = spawn.start().unwrap().wait(SOON).await.unwrap();
        assert!(status.success(), "{name}: {status}");
    }
}
