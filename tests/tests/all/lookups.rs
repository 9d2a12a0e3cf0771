//! The way of a recipient, as mail systems hear it: Postfix's own client of a socketmap, a real Postfix that splits mail
//! between two Dovecots, a real Exim, and curl.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::dovecot::{Dovecot, Role, Service, scratch};
use ferrypost_tests::process::find_program;
use ferrypost_tests::story::{SOON, migrate, move_to, roll_back, short_limits};
use ferrypost_tests::tools::tool;
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;
use tokio::process::Command;

const ROUTERS: &str = include_str!("../../../docs/examples/exim-routers.conf");

const FAILPOINTS: &str = "FERRYPOST_FAILPOINTS";

/// Where the data plane says that one of its look-ups is.
async fn lookups(world: &World, name: &str) -> SocketAddr {
    let log = world.data_planes()[0].plane.log();
    let line = log.wait_for(&["started", "lookups"], SOON).await.unwrap();
    let (_, behind) = line.split_once(&format!("\"{name}\": ")).unwrap();
    let end = behind.find(['}', ',']).unwrap();
    behind[..end].parse().unwrap()
}

async fn run(command: &mut Command) -> Output {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(SOON, ended).await.unwrap().unwrap()
}

/// Asks as Postfix does.
async fn ask(map: &str, key: &str) -> Output {
    // The configuration of this machine's Postfix is none of ours.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    let mut command = Command::new(find_program(Path::new("postmap")).unwrap());
    run(command
        .arg("-c")
        .arg(folder.path())
        .args(["-q", key])
        .arg(format!("socketmap:{map}:transport")))
    .await
}

async fn way(map: &str, key: &str) -> String {
    let asked = ask(map, key).await;
    assert!(asked.status.success(), "{key}: {asked:?}");
    String::from_utf8(asked.stdout).unwrap().trim().to_owned()
}

/// What the world's look-ups say of a server.
fn hop(server: &Dovecot) -> String {
    format!("lmtp:inet:{}", server.addr(Service::Lmtp))
}

#[tokio::test]
async fn postfix_is_told_where_an_account_lives_before_and_after_its_move() {
    let world = World::builder().limits(short_limits()).data_planes(1);
    let world = world.start().await.unwrap();
    let file = world.lookups();
    let maps = [
        format!("inet:{}", lookups(&world, "lookups").await),
        format!("unix:{}", file.display()),
    ];
    let account = world.accounts()[0].clone();
    let (local, domain) = account.split_once('@').unwrap();
    let forms = [
        account.clone(),
        format!("\"{local}\"@{}", domain.to_uppercase()),
    ];
    let all = async |expected: &Dovecot| {
        for map in &maps {
            for form in &forms {
                assert_eq!(way(map, form).await, hop(expected), "{form} by {map}");
            }
        }
    };
    all(world.source()).await;
    let moved = migrate(&world.operator(0), move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    all(world.target()).await;
    let back = roll_back(&world.operator(0), &account).await;
    assert_eq!(back.unwrap().state(), MigrationState::Succeeded);
    all(world.source()).await;
    let elsewhere = ask(&maps[0], "alice@elsewhere.example").await;
    assert_eq!(
        (elsewhere.status.code(), &*elsewhere.stdout),
        (Some(1), &b""[..])
    );
    http_says_the_same(&world, &account).await;
    world.stop().await.unwrap();
}

async fn http_says_the_same(world: &World, account: &str) {
    let url = format!("http://{}/next-hop", lookups(world, "lookups-http").await);
    let asked = run(Command::new("curl").args(["-sSf", "--data-raw", account, &url])).await;
    assert!(asked.status.success(), "{asked:?}");
    let told = String::from_utf8(asked.stdout).unwrap();
    let hop = hop(world.source());
    let expected = format!(r#"{{"answer":"found","destination":"source","next_hop":"{hop}"}}"#);
    assert_eq!(told.trim(), expected);
}

/// A message comes to port 25, and through the data plane to the target's Postfix. Each has a sender of its own: Postfix
/// keeps its last answer for half a minute, by sender and recipient.
async fn send(world: &World, subject: &str, to: &str) {
    let mut command = Command::new(find_program(Path::new("swaks")).unwrap());
    let at = world.data_planes()[0].mx().unwrap();
    let sent = run(command
        .args(["--server", &at.to_string(), "--tls", "--to", to])
        .args(["--from", &format!("{subject}@example.net")])
        .args(["--h-Subject", subject, "--body", "A message."]))
    .await;
    let said = String::from_utf8_lossy(&sent.stdout);
    assert!(sent.status.success(), "{said}");
}

/// How many messages of this subject an account has on a server. Dovecot fails where the mailbox comes into being at this
/// moment.
async fn copies(server: &Dovecot, account: &str, subject: &str) -> Result<usize, String> {
    let query = [
        "search", "-u", account, "mailbox", "INBOX", "subject", subject,
    ];
    let found = server.doveadm(&query).await;
    Ok(found.map_err(|error| error.to_string())?.lines().count())
}

/// Waits for a message; there must not be two of it. What a busy server has put off would come by itself in five minutes.
async fn arrives(world: &World, server: &Dovecot, account: &str, subject: &str) {
    let what = format!("{subject} is with the {}", server.role().name());
    let postfix = world.postfix(Role::Target).unwrap();
    eventually(&what, SOON, || async {
        match copies(server, account, subject).await? {
            1 => Ok(()),
            0 => {
                postfix.flush().await.map_err(|error| error.to_string())?;
                Err(postfix.log().tail())
            }
            count => Err(format!("there are {count}")),
        }
    })
    .await
    .unwrap();
}

/// What Exim does with an address, by the manual's routers.
async fn exim(world: &World, address: &str) -> String {
    let folder = scratch().unwrap();
    let at = lookups(world, "lookups-exim").await.to_string();
    let routers = ROUTERS
        .replace("127.0.0.1:2527", &at)
        .replace("= example.org", "= example.org : elsewhere.example");
    let place = folder.path().display();
    let text = format!(
        "spool_directory = {place}/spool\nlog_file_path = {place}/spool/%slog\nkeep_environment =\n\
         primary_hostname = mx.example.org\n\
         begin routers\n{routers}\nbegin transports\nferrypost_lmtp:\n  driver = smtp\n  protocol = lmtp\n"
    );
    let config = folder.path().join("exim.conf");
    std::fs::write(&config, text).unwrap();
    // The program wants a user that only its package makes, and none that is root.
    let users = ["passwd", "group"].map(|name| {
        let file = folder.path().join(name);
        let home = if name == "passwd" { "::/:/bin/sh" } else { "" };
        let user = |user: &str, id: u32| format!("{user}:x:{id}:{id}{home}\n");
        std::fs::write(&file, user("root", 0) + &user("Debian-exim", 65_534)).unwrap();
        file
    });
    let mut command = Command::new(tool("exim4").unwrap());
    let asked = run(command
        .env("LD_PRELOAD", "libnss_wrapper.so")
        .env("NSS_WRAPPER_PASSWD", &users[0])
        .env("NSS_WRAPPER_GROUP", &users[1])
        .arg("-C")
        .arg(&config)
        .args(["-bt", address]))
    .await;
    let said = [asked.stdout, asked.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// Exim sends what is for an account to a server.
async fn exim_sends(world: &World, account: &str, to: &Dovecot) {
    let said = exim(world, account).await;
    let port = format!("port={}", to.addr(Service::Lmtp).port());
    for expected in ["router = ferrypost, transport = ferrypost_lmtp", &port] {
        assert!(said.contains(expected), "{said}");
    }
}

/// A fence ends by no clock, so its account is held for as long as there is no control plane.
#[tokio::test]
async fn postfix_splits_mail_by_placement_and_keeps_what_comes_while_an_account_is_moved() {
    let mut world = World::builder()
        .data_planes(1)
        .limits(short_limits())
        .control_plane_env(FAILPOINTS, "quiesced.before=kill")
        .split_mail()
        .start()
        .await
        .unwrap();
    let [account, other] = [0, 1].map(|n| world.accounts()[n].clone());

    send(&world, "before", &account).await;
    arrives(&world, world.source(), &account, "before").await;
    exim_sends(&world, &account, world.source()).await;
    let elsewhere = exim(&world, "alice@elsewhere.example").await;
    assert!(elsewhere.contains("Unrouteable"), "{elsewhere}");

    let mut request = move_to(&account, "target");
    request.request_id = "the move".to_owned();
    let lost = migrate(&world.operator(0), request.clone()).await;
    lost.expect_err("the control plane died");
    world.control_plane(0).wait(SOON).await.unwrap();
    waits_while_held(&world, &account, &other).await;
    world.control_plane(0).set_env(FAILPOINTS, "");
    world.control_plane(0).start().unwrap();
    world.wait_for_leader(0).await.unwrap();
    let moved = migrate(&world.operator(0), request).await.unwrap();
    assert_eq!(moved.state(), MigrationState::Succeeded, "{moved:?}");

    let postfix = world.postfix(Role::Target).unwrap();
    postfix.flush().await.unwrap();
    arrives(&world, world.target(), &account, "during").await;
    send(&world, "after", &account).await;
    arrives(&world, world.target(), &account, "after").await;
    exim_sends(&world, &account, world.target()).await;
    for subject in ["during", "after"] {
        assert_eq!(copies(world.source(), &account, subject).await, Ok(0));
    }

    let back = roll_back(&world.operator(0), &account).await.unwrap();
    assert_eq!(back.state(), MigrationState::Succeeded, "{back:?}");
    send(&world, "at-home", &account).await;
    for subject in ["before", "during", "after", "at-home"] {
        arrives(&world, world.source(), &account, subject).await;
    }
    world.stop_ferrypost().await.unwrap();
    let away = exim(&world, &account).await;
    assert!(away.contains("cannot be resolved at this time"), "{away}");
    world.stop().await.unwrap();
}

/// Mail for an account that is held waits with Postfix, and nobody else's does.
async fn waits_while_held(world: &World, account: &str, other: &str) {
    let log = world.postfix(Role::Target).unwrap().log().from_now();
    send(world, "during", account).await;
    let deferred = ["to=<", account, "status=deferred", "being moved"];
    log.wait_for(&deferred, SOON).await.unwrap();
    send(world, "meanwhile", other).await;
    arrives(world, world.source(), other, "meanwhile").await;
    let said = exim(world, account).await;
    let held = "cannot be resolved at this time: TEMP 4.2.1 This mailbox is being moved";
    assert!(said.contains(held), "{said}");
}
