//! POP3 with real clients, through a data plane, on two Dovecots: what they fetch, which addresses the servers see,
//! and what a move looks like to them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ferrypost_proto::v1::{Protocol, endpoint_tls::Mode};
use ferrypost_tests::dovecot::{Dovecot, Service};
use ferrypost_tests::imap::{Connect, ImapError, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::log_file::LogFile;
use ferrypost_tests::story::{SOON, migrate, move_to, roll_back, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Entrance, World};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::announcement::reach;

/// What Dovecot's log line of a POP3 login holds: 2.3 goes on with `Login:`, 2.4 with `Logged in:`.
const LOGIN: &str = "pop3-login: Info: Log";

/// Not where anything else here comes from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 78));

/// What a client might say to be taken for another.
const FORGERY: &str = "203.0.113.66";

const MOVED: &str = "-ERR [SYS/TEMP] This account is being moved, connect again.";

async fn world() -> World {
    let builder = World::builder().data_planes(1).limits(short_limits());
    builder.start().await.unwrap()
}

/// Over TLS, from [`CLIENT`].
fn entrance(world: &World) -> Connect {
    let address = world.data_planes()[0].addr(Entrance::Pop3s);
    Connect::new(address, Security::Tls(world.trust())).from(CLIENT)
}

async fn greeted(connect: &Connect) -> Result<LineClient, ImapError> {
    let mut client = LineClient::open(connect).await?;
    let greeting = client.line().await?.unwrap_or_default();
    assert!(greeting.starts_with("+OK"), "{greeting}");
    Ok(client)
}

async fn logged_in(world: &World, account: &str) -> LineClient {
    let mut client = greeted(&entrance(world)).await.unwrap();
    client.ask(&format!("USER {account}")).await.unwrap();
    let answer = client.ask(&format!("PASS {}", world.password())).await;
    let answer = answer.unwrap();
    assert!(answer.starts_with("+OK"), "{answer}");
    client
}

/// Puts messages into an account on the source.
async fn deliver(world: &World, account: &str, messages: &[&str]) {
    let source = world.source().addr(Service::Imaps);
    let connect = Connect::new(source, Security::Tls(world.trust()));
    let mut client = connect.open().await.unwrap();
    let login = client.login(account, world.password()).await.unwrap();
    login.accepted().unwrap();
    for message in messages {
        let appended = client.append("INBOX", message.as_bytes()).await.unwrap();
        appended.accepted().unwrap();
    }
    client.logout().await.unwrap();
}

#[tokio::test]
async fn real_clients_fetch_their_mail_before_a_move_and_after_it() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    // A line that is a full stop, and others that begin with one.
    let dots = "Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n";
    deliver(&world, &account, &["Subject: first\r\n\r\nhello\r\n", dots]).await;
    for server in [world.source(), world.target()] {
        let log = server.log().from_now();
        curl(&world, &account, &["--interface", "127.0.0.78"]).await;
        let line = log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
        assert!(line.contains("rip=127.0.0.78,"), "{line}");
        for way in ["tls", "stls"] {
            poplib(&world, &account, way).await;
        }
        fetchmail(&world, &account).await;
        if server.role() == world.source().role() {
            let moving = migrate(&world.operator(0), move_to(&account, "target")).await;
            moving.unwrap();
        }
    }
    world.stop().await.unwrap();
}

/// Every way that curl logs in, over TLS and with STLS.
async fn curl(world: &World, account: &str, more: &[&str]) {
    let plane = &world.data_planes()[0];
    let (tls, clear) = (plane.addr(Entrance::Pop3s), plane.addr(Entrance::Pop3));
    let user = format!("{account}:{}", world.password());
    let authority = world.authority();
    for login in [
        &[][..],
        &["AUTH=PLAIN"],
        &["AUTH=LOGIN"],
        &["AUTH=PLAIN", "--sasl-ir"],
    ] {
        for url in [format!("pop3s://{tls}/2"), format!("pop3://{clear}/2")] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--ssl-reqd", "--user", &user]);
            curl.arg("--cacert").arg(&authority).args(more).arg(&url);
            if let Some((mechanism, flags)) = login.split_first() {
                curl.args(["--login-options", mechanism]).args(flags);
            }
            let said = run(curl).await;
            assert_eq!(
                said, "Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n",
                "{login:?} {url}"
            );
        }
    }
}

/// Python's standard module, which takes what is offered apart.
async fn poplib(world: &World, account: &str, way: &str) {
    const SCRIPT: &str = r#"
import poplib, ssl, sys
way, port, authority, account, password = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if way == "tls":
    client = poplib.POP3_SSL("127.0.0.1", int(port), context=context)
else:
    client = poplib.POP3("127.0.0.1", int(port))
    assert "USER" not in client.capa() and "STLS" in client.capa()
    client.stls(context=context)
offered = client.capa()
assert "STLS" not in offered and "PLAIN" in offered["SASL"] and "UIDL" in offered, offered
client.user(account)
client.pass_(password)
count, size = client.stat()
assert count == len(client.list()[1]) == len(client.uidl()[1]) == 2, count
assert client.top(1, 0)[1][0] == b"Subject: first"
assert client.retr(2)[1] == [b"Subject: dots", b"", b".", b"..", b".hidden"]
client.dele(1)
client.rset()
client.quit()
"#;
    let entrance = match way {
        "tls" => Entrance::Pop3s,
        _ => Entrance::Pop3,
    };
    let port = world.data_planes()[0].addr(entrance).port().to_string();
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-c", SCRIPT, way, &port])
        .arg(world.authority());
    run(python.args([account, world.password()]).kill_on_drop(true)).await;
}

/// fetchmail leaves on the server what it has fetched, and says what it made of it.
async fn fetchmail(world: &World, account: &str) {
    let home = tempfile::tempdir().unwrap();
    for (entrance, tls) in [(Entrance::Pop3s, "ssl"), (Entrance::Pop3, "sslproto TLS1+")] {
        let inbox = home.path().join(entrance.name());
        let configuration = format!(
            "poll 127.0.0.1 service {} protocol pop3 auth password username \"{account}\" password \"{}\" \
             {tls} sslcertck sslcommonname mail.example.org sslcertfile \"{}\" keep fetchall mda \"cat >> {}\"\n",
            world.data_planes()[0].addr(entrance).port(),
            world.password(),
            world.authority().display(),
            inbox.display(),
        );
        let file = home.path().join("fetchmailrc");
        write_private(&file, &configuration);
        let mut fetchmail = Command::new("fetchmail");
        fetchmail
            .env("FETCHMAILHOME", home.path())
            .env("HOME", home.path());
        run(fetchmail
            .arg("-f")
            .arg(&file)
            .args(["--nodetach", "--nosyslog"]))
        .await;
        let fetched = fs::read_to_string(&inbox).unwrap();
        for part in ["Subject: first", "Subject: dots", "\n.\n..\n.hidden\n"] {
            assert!(fetched.contains(part), "{part:?} is not in {fetched}");
        }
    }
}

fn write_private(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs a client that must succeed, and gives back what it prints.
async fn run(mut command: impl std::borrow::BorrowMut<Command>) -> String {
    let command = command.borrow_mut();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(SOON, command.output()).await;
    let output = output.expect("it does not end").unwrap();
    let (said, complaint) = (&output.stdout, &output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {} {} {}",
        output.status,
        String::from_utf8_lossy(said),
        String::from_utf8_lossy(complaint),
    );
    String::from_utf8_lossy(said).into_owned()
}

const WAYS: [(Mode, Service); 3] = [
    (Mode::Implicit, Service::Pop3s),
    (Mode::Starttls, Service::Pop3),
    (Mode::None, Service::Pop3),
];

#[tokio::test]
async fn the_source_sees_the_client_by_xclient() {
    let world = world().await;
    for way in WAYS {
        reach(&world, world.source(), Protocol::Pop3, way).await;
        let line = forge_and_log_in(&world, world.source()).await;
        // The session's reference is the same in both logs.
        let (_, session) = line.split_once("session=<").unwrap();
        let (reference, _) = session.split_once('>').unwrap();
        let ours = world.data_planes()[0].plane.log();
        let found = ours.wait_for(&[" login ", reference], SOON).await.unwrap();
        assert!(found.contains("client=127.0.0.78:"), "{found}");
        assert!(found.contains("announcement=\"xclient\""), "{found}");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_target_sees_the_client_by_its_proxy_header() {
    let world = world().await;
    let moving = move_to(&world.accounts()[0], "target");
    migrate(&world.operator(0), moving).await.unwrap();
    let connected = world.data_planes()[0].addr(Entrance::Pop3s);
    for way in WAYS {
        reach(&world, world.target(), Protocol::Pop3, way).await;
        let line = forge_and_log_in(&world, world.target()).await;
        let local = format!("lip={}, lport={},", connected.ip(), connected.port());
        assert!(line.contains(&local), "{way:?}: {line}");
    }
    world.stop().await.unwrap();
}

/// Logs in as somebody who pretends to come from elsewhere, before a failed login and behind it, and gives back
/// the server's line about the login.
async fn forge_and_log_in(world: &World, server: &Dovecot) -> String {
    let log = server.log().from_now();
    let account = &world.accounts()[0];
    let forgery = format!("XCLIENT ADDR={FORGERY} PORT=1");
    let mut client = greeted(&entrance(world)).await.unwrap();
    for password in ["wrong", world.password()] {
        let refused = client.ask(&forgery).await.unwrap();
        assert!(refused.starts_with("-ERR"), "{refused}");
        client.ask(&format!("USER {account}")).await.unwrap();
        let together = format!("PASS {password}\r\n{forgery}");
        let answer = client.ask(&together).await.unwrap();
        if password == "wrong" {
            assert!(answer.starts_with("-ERR [AUTH]"), "{answer}");
            assert!(client.line().await.unwrap().unwrap().starts_with("-ERR"));
        } else {
            assert!(answer.starts_with("+OK"), "{answer}");
        }
    }
    let line = log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
    assert!(line.contains("rip=127.0.0.78, rport="), "{line}");
    assert!(!server.log().text().contains(FORGERY), "{line}");
    line
}

#[tokio::test]
async fn everything_in_one_write_is_answered_in_order() {
    let world = world().await;
    let account = &world.accounts()[0];
    let (user, password) = (
        format!("USER {account}"),
        format!("PASS {}", world.password()),
    );
    let mut client = greeted(&entrance(&world)).await.unwrap();
    let together = format!("{user}\r\n{password}\r\nSTAT\r\nNOOP\r\nQUIT\r\n");
    client.send(together).await.unwrap();
    for _ in 0..5 {
        let answer = client.line().await.unwrap().unwrap();
        assert!(answer.starts_with("+OK"), "{answer}");
    }
    assert_eq!(client.line().await.unwrap(), None);

    // c-client asks so which mechanisms there are.
    let mut client = greeted(&entrance(&world)).await.unwrap();
    client.ask("AUTH").await.unwrap();
    assert_eq!(client.list().await.unwrap(), ["PLAIN", "LOGIN"]);
    client.ask(&user).await.unwrap();
    let answer = client.ask(&password).await.unwrap();
    assert!(answer.starts_with("+OK"), "{answer}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn an_idle_session_is_told_that_its_account_moves_and_finds_its_mail_on_the_other_side() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    deliver(&world, &account, &["Subject: one\r\n\r\n"]).await;
    let mut client = logged_in(&world, &account).await;
    client.ask("UIDL").await.unwrap();
    let before = client.list().await.unwrap();
    let moving = migrate(&world.operator(0), move_to(&account, "target")).await;
    moving.unwrap();
    assert_eq!(client.line().await.unwrap().as_deref(), Some(MOVED));
    assert_eq!(client.line().await.unwrap(), None);
    let log = world.target().log();
    let mut client = logged_in(&world, &account).await;
    client.ask("UIDL").await.unwrap();
    assert_eq!(client.list().await.unwrap(), before);
    log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
    world.stop().await.unwrap();
}

/// Clients at once that log in again and again.
const CLIENTS: usize = 4;

#[tokio::test]
async fn clients_that_log_in_again_and_again_notice_no_more_of_a_move_than_its_goodbye() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    deliver(
        &world,
        &account,
        &["Subject: one\r\n\r\n1\r\n", "Subject: two\r\n\r\n2\r\n"],
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (connect, stop, served) = (entrance(&world), Arc::clone(&stop), Arc::clone(&served));
        let login = format!("USER {account}\r\nPASS {}", world.password());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                fetch(&connect, &login).await;
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let operator = world.operator(0);
    for _ in 0..2 {
        let there = world.source().log();
        migrate(&operator, move_to(&account, "target"))
            .await
            .unwrap();
        expect_logins(world.target(), there.from_now(), &served).await;
        let there = world.target().log();
        roll_back(&operator, &account).await.unwrap();
        expect_logins(world.source(), there.from_now(), &served).await;
    }
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    world.stop().await.unwrap();
}

/// After a move each client is served once more, by `server` and not by the other one, whose log `left` is.
async fn expect_logins(server: &Dovecot, left: LogFile, rounds: &AtomicUsize) {
    let wanted = rounds.load(Ordering::Relaxed) + 2 * CLIENTS;
    let name = format!("they are served by the {}", server.role().name());
    eventually(&name, SOON, async || match rounds.load(Ordering::Relaxed) {
        count if count >= wanted => Ok(()),
        count => Err(format!("{count} of {wanted}")),
    })
    .await
    .unwrap();
    assert!(!left.text().contains(LOGIN), "{}", left.text());
}

/// Logs in, which must succeed however long it is held, and reads the mail, which may be cut short by a goodbye.
async fn fetch(connect: &Connect, login: &str) {
    let connect = connect.clone().limit(SOON);
    let mut client = greeted(&connect).await.unwrap();
    client.ask(login).await.unwrap();
    let answer = client.line().await.unwrap().unwrap_or_default();
    assert!(answer.starts_with("+OK"), "{answer}");
    let mut lines = Vec::new();
    _ = client.send("STAT\r\nRETR 1\r\nQUIT\r\n").await;
    while let Ok(Some(line)) = client.line().await {
        lines.push(line);
    }
    let last = lines.pop().unwrap_or_default();
    assert!(last.starts_with("+OK") || last == MOVED, "{lines:?} {last}");
    assert!(
        !lines.iter().any(|line| line.starts_with("-ERR")),
        "{lines:?}"
    );
}
