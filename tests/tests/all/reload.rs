//! What running programs take over from their configuration files, with sessions open, and what they say of the rest.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;

use ferrypost_tests::log_file::LogFile;
use ferrypost_tests::process::Spawn;
use ferrypost_tests::shell::shell;
use ferrypost_tests::story::{SOON, migrate, move_to, session, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{CONTROL_PLANE, DATA_PLANE, Plane, World, program};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};

const READ: &str = "the configuration was read again";

/// A program's file, which an operator edits, and its log.
struct Edited<'a> {
    plane: &'a Plane,
    text: String,
}

impl<'a> Edited<'a> {
    fn of(plane: &'a Plane) -> Self {
        let text = fs::read_to_string(plane.config()).unwrap();
        Self { plane, text }
    }

    /// Adds to the file as it was, and waits for a line about it.
    async fn with(&self, more: &str, line: &[&str]) -> LogFile {
        let log = self.plane.log().from_now();
        replace(self.plane.config(), &format!("{}\n{more}", self.text));
        log.wait_for(line, SOON).await.unwrap();
        log
    }

    async fn hang_up(&self) -> LogFile {
        let log = self.plane.log().from_now();
        let id = self.plane.id().unwrap();
        shell(&format!("kill -HUP {id}")).await.unwrap();
        log.wait_for(&[READ], SOON).await.unwrap();
        log
    }
}

/// As a careful editor does: nobody ever sees half a file.
fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, file).unwrap();
}

#[tokio::test]
async fn the_log_s_level_is_taken_over_while_a_session_is_open_and_what_needs_a_restart_is_named() {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder.start().await.unwrap();
    let (traveller, other) = (&world.accounts()[0], &world.accounts()[1]);
    let mut client = session(&world.imaps(0), other, world.password())
        .await
        .unwrap();
    let gateway = Edited::of(&world.data_planes()[0].plane);
    let replica = Edited::of(&world.control_planes()[0].plane);

    let debug = "[log]\nlevel = \"debug\"\n";
    let said = gateway.with(debug, &[READ, "level=debug"]).await;
    let steps = replica.with(debug, &[READ, "level=debug"]).await;
    migrate(&world.operator(0), move_to(traveller, "target"))
        .await
        .unwrap();
    said.wait_for(&["DEBUG", "a command"], SOON).await.unwrap();
    steps
        .wait_for(&["DEBUG", "a step of a move"], SOON)
        .await
        .unwrap();
    client.noop().await.unwrap().accepted().unwrap();

    // A mistake changes nothing, and what a restart would change is said, and for as long as it is so.
    let loud = "[log]\nlevel = \"loud\"\n";
    for edited in [&gateway, &replica] {
        let log = edited
            .with(
                loud,
                &["what was in force stays so", "\"loud\" must be one of"],
            )
            .await;
        assert!(log.lines_with(&[READ]).is_empty());
    }
    let probe = "[log]\nlevel = \"info\"\n[limits.probe]\ninterval = \"9s\"\n";
    let restart = "need a restart";
    gateway
        .with(probe, &[restart, "keys=\"limits.probe.interval\""])
        .await;
    let again = gateway.hang_up().await;
    again.wait_for(&[restart], SOON).await.unwrap();
    let format = "[log]\nformat = \"json\"\n";
    replica
        .with(format, &[restart, "keys=\"log.format\""])
        .await;
    gateway.with("", &[READ]).await;
    stays_away_for_a_while(&gateway).await;
    let settled = gateway.hang_up().await;
    assert!(settled.lines_with(&[restart]).is_empty());

    client.noop().await.unwrap().accepted().unwrap();
    client.logout().await.unwrap();
    world.stop().await.unwrap();
}

/// Nothing changes, and an operator hears of it.
async fn stays_away_for_a_while(edited: &Edited<'_>) {
    const GONE: &str = "the configuration file cannot be read";
    let (file, log) = (edited.plane.config(), edited.plane.log().from_now());
    let elsewhere = file.with_extension("elsewhere");
    fs::rename(file, &elsewhere).unwrap();
    log.wait_for(&[GONE], SOON).await.unwrap();
    fs::rename(&elsewhere, file).unwrap();
    log.wait_for(&["can be read again"], SOON).await.unwrap();
    assert_eq!(log.lines_with(&[GONE]).len(), 1);
}

#[tokio::test]
async fn a_hangup_before_a_program_has_read_its_file_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in [DATA_PLANE, CONTROL_PLANE] {
        // What opens it waits for whoever writes.
        let file = folder.path().join(name);
        mkfifoat(CWD, &file, Mode::RWXU).unwrap();
        let log = file.with_extension("log");
        let spawn = Spawn::new(program(name).unwrap(), log).unwrap();
        let mut process = spawn.arg("--config").arg(&file).start().unwrap();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let opened = eventually("the program opens its file", SOON, || async {
            open(&file, flags, Mode::empty()).map_err(|error| error.to_string())
        });
        let mut text = fs::File::from(opened.await.unwrap());
        shell(&format!("kill -HUP {}", process.id())).await.unwrap();
        text.write_all(b"colour = \"red\"\n").unwrap();
        drop(text);
        let status = process.wait(SOON).await.unwrap();
        assert_eq!(status.code(), Some(1), "{status}: {}", process.log().text());
        assert!(process.log().text().contains("colour"));
    }
}
