//! `ManageSieve` in front of real servers: whom they see, what people's clients make of it, and a move.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::dovecot::Dovecot;
use ferrypost_tests::sieve::{SieveClient, SieveConnect};
use ferrypost_tests::story::{SOON, migrate, move_to, short_limits};
use ferrypost_tests::tools::tool;
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;

use super::shell::shell;

/// Not where anything else here comes from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 78));

/// Words of Dovecot's about a login to this service: 2.3 goes on with `Login:`, 2.4 with `Logged in:`.
const LOGIN: &str = "managesieve-login: Info: Log";

const SCRIPT: &str = "require [\"fileinto\"];\r\nfileinto \"INBOX\";\r\n";

#[tokio::test]
async fn the_source_sees_the_client_by_xclient() {
    let world = world().await;
    let line = login_seen_by(&world, world.source()).await;
    // The session's reference is the same in both logs.
    let (_, session) = line.split_once("session=<").unwrap();
    let (reference, _) = session.split_once('>').unwrap();
    let ours = world.data_planes()[0].plane.log();
    let found = ours.wait_for(&[" login ", reference], SOON).await.unwrap();
    assert!(found.contains("client=127.0.0.78:"), "{found}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_target_sees_the_client_by_its_proxy_header() {
    let world = world().await;
    let moving = move_to(&world.accounts()[0], "target");
    migrate(&world.operator(0), moving).await.unwrap();
    let line = login_seen_by(&world, world.target()).await;
    let connected = world.data_planes()[0].sieve();
    let local = format!("lip={}, lport={},", connected.ip(), connected.port());
    assert!(line.contains(&local), "{line}");
    world.stop().await.unwrap();
}

/// The server's line about a login of somebody who pretends to come from elsewhere.
async fn login_seen_by(world: &World, server: &Dovecot) -> String {
    let log = server.log().from_now();
    let mut client = connect(world).open().await.unwrap();
    let forged = client.command("XCLIENT ADDR=203.0.113.66").await.unwrap();
    assert!(
        forged.iter().all(|line| line.starts_with("NO ")),
        "{forged:?}"
    );
    client
        .login(&world.accounts()[0], world.password())
        .await
        .unwrap();
    let line = log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
    assert!(line.contains("rip=127.0.0.78, rport="), "{line}");
    client.command("LOGOUT").await.unwrap();
    line
}

#[tokio::test]
async fn an_editor_s_session_is_ended_by_a_move_and_the_next_is_on_the_new_server() {
    let world = world().await;
    let mut client = alice_on(&world, world.source()).await;
    let stored = store(&mut client, "mine").await;
    assert!(stored.starts_with("OK"), "{stored}");
    let moving = move_to(&world.accounts()[0], "target");
    let moved = migrate(&world.operator(0), moving).await.unwrap();
    assert_eq!(moved.state(), MigrationState::Succeeded);
    let goodbye = client.line().await.unwrap();
    let expected = "BYE (TRYLATER) \"This account is being moved, connect again.\"";
    assert_eq!(goodbye.as_deref(), Some(expected));
    assert_eq!(client.line().await.unwrap(), None);

    let mut client = alice_on(&world, world.target()).await;
    let stored = store(&mut client, "mine").await;
    assert!(stored.starts_with("OK"), "{stored}");
    let listed = client.command("LISTSCRIPTS").await.unwrap();
    assert!(listed.contains(&"\"mine\"".to_owned()), "{listed:?}");
    // What an editor has read before the login is true of its server.
    let capabilities = client.command("CAPABILITY").await.unwrap();
    let words = |lines: &[String]| {
        let sieve = lines.iter().find(|line| line.starts_with("\"SIEVE\""));
        sieve
            .unwrap()
            .split(['"', ' '])
            .map(str::to_owned)
            .collect()
    };
    let (before, after): (Vec<_>, Vec<_>) = (words(client.offered()), words(&capabilities));
    assert!(
        before.iter().all(|word| after.contains(word)),
        "{before:?} {after:?}"
    );
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sieve_connect_keeps_a_script() {
    let world = world().await;
    let folder = world.folder();
    std::fs::write(folder.join("mine.sieve"), SCRIPT).unwrap();
    let address = world.data_planes()[0].sieve();
    let connect = |action: &str| {
        format!(
            "cd {folder} && sieve-connect --server {host} --port {port} --user {account} \
             --tlscafile {ca} --passwordfd 3 {action} 3<<END 2>&1\n{password}\nEND\n",
            folder = folder.display(),
            host = address.ip(),
            port = address.port(),
            account = world.accounts()[0],
            ca = world.authority().display(),
            password = world.password(),
        )
    };
    let remote = "--remotesieve mine";
    shell(&connect(&format!(
        "--localsieve mine.sieve {remote} --upload"
    )))
    .await;
    shell(&connect(&format!("{remote} --activate"))).await;
    let listed = shell(&connect("--list")).await;
    assert!(listed.contains("\"mine\" ACTIVE"), "{listed}");
    shell(&connect(&format!(
        "--localsieve copy.sieve {remote} --download"
    )))
    .await;
    let copy = std::fs::read_to_string(folder.join("copy.sieve")).unwrap();
    assert_eq!(copy.replace("\r\n", "\n"), SCRIPT.replace("\r\n", "\n"));
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sieveshell_of_python_s_managesieve_keeps_a_script() {
    let world = world().await;
    let folder = world.folder();
    std::fs::write(folder.join("mine.sieve"), SCRIPT).unwrap();
    let address = world.data_planes()[0].sieve();
    let listed = shell(&format!(
        "cd {folder} && SIEVE_PASSWORD='{password}' SSL_CERT_FILE={ca} {program} --port {port} \
         --authname {account} {host} 2>&1 <<'END'\nput mine.sieve mine\nlist\nEND\n",
        folder = folder.display(),
        password = world.password(),
        ca = world.authority().display(),
        program = tool("sieveshell").unwrap().display(),
        port = address.port(),
        account = world.accounts()[0],
        host = address.ip(),
    ))
    .await;
    assert!(listed.contains("mine"), "{listed}");
    let mut client = alice_on(&world, world.source()).await;
    let listed = client.command("LISTSCRIPTS").await.unwrap();
    assert!(listed.contains(&"\"mine\"".to_owned()), "{listed:?}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_piped_into_openssl_is_answered_in_full_and_ends() {
    let world = world().await;
    let mut client = alice_on(&world, world.source()).await;
    store(&mut client, "mine").await;
    let (account, password) = (&world.accounts()[0], world.password());
    // All at once, each with a bare LF at its end.
    let said = shell(&format!(
        "openssl s_client -quiet -starttls sieve -connect {} 2>&1 <<'END'\n\
         AUTHENTICATE \"PLAIN\" \"{}\"\nLISTSCRIPTS\nLOGOUT\nEND\n",
        world.data_planes()[0].sieve(),
        BASE64.encode(format!("\0{account}\0{password}")),
    ))
    .await;
    let (before, behind) = said
        .split_once("\"mine\"")
        .unwrap_or_else(|| panic!("{said}"));
    let answers = |text: &str| text.lines().filter(|line| line.starts_with("OK ")).count();
    // To STARTTLS, unasked behind it, to the login; to the list and to the goodbye.
    assert_eq!((answers(before), answers(behind)), (3, 2), "{said}");
    world.stop().await.unwrap();
}

/// One data plane, whose offer rests on what both servers have said.
async fn world() -> World {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder.start().await.unwrap();
    eventually("both servers' extensions are offered", SOON, || async {
        let client = connect(&world)
            .open()
            .await
            .map_err(|error| error.to_string())?;
        let offered = client.offered().to_vec();
        let has = offered
            .iter()
            .any(|line| line.starts_with("\"SIEVE\" \"fileinto"));
        if has {
            Ok(())
        } else {
            Err(format!("{offered:?}"))
        }
    })
    .await
    .unwrap();
    world
}

fn connect(world: &World) -> SieveConnect {
    SieveConnect::new(world.data_planes()[0].sieve(), world.trust(), CLIENT)
}

/// The first account, logged in through the data plane on this server.
async fn alice_on(world: &World, server: &Dovecot) -> SieveClient {
    let log = server.log().from_now();
    let mut client = connect(world).open().await.unwrap();
    let (account, password) = (&world.accounts()[0], world.password());
    client.login(account, password).await.unwrap();
    log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
    client
}

/// The last line of the answer to a script that is stored.
async fn store(client: &mut SieveClient, name: &str) -> String {
    let command = format!("PUTSCRIPT \"{name}\" {{{}+}}\r\n{SCRIPT}", SCRIPT.len());
    client.command(&command).await.unwrap().pop().unwrap()
}
