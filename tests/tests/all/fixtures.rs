//! The fixtures keep their own promises: what the other tests stand on is tested here.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferrypost_tests::certs::Authority;
use ferrypost_tests::dovecot::{
    self, Dovecot, ID_FIELD, LOGIN, MASTER, MASTER_PASSWORD, Pace, Role, Service, Setup, scratch,
};
use ferrypost_tests::imap::{Connect, ImapClient, ImapError, Reply, Security, Status};
use ferrypost_tests::wait::eventually;
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

const ALICE: &str = "alice@example.org";
const PASSWORD: &str = "secret";
const SOON: Duration = Duration::from_mins(1);

/// Documentation addresses (RFC 5737), so that nothing can mistake them for a real connection's.
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), 40_077);
const EDGE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 5)), 993);

struct Servers {
    authority: Authority,
    parent: TempDir,
}

impl Servers {
    fn new() -> Self {
        Self {
            authority: Authority::new("Fixtures").unwrap(),
            parent: scratch().unwrap(),
        }
    }

    async fn start(&self, role: Role) -> Dovecot {
        let identity = self.authority.server().unwrap();
        let accounts = [ALICE.to_owned(), "bob@example.org".to_owned()];
        let setup = Setup {
            role,
            told_as: role,
            identity: &identity,
            accounts: &accounts,
            password: PASSWORD,
            introspection: None,
            pace: Pace::Hurried,
            survives: false,
            network: None,
        };
        Dovecot::start(self.parent.path(), setup).await.unwrap()
    }

    fn trust(&self) -> Arc<ClientConfig> {
        self.authority.client_config().unwrap()
    }
}

/// Straight to a server's plain port, with the header that a target asks for.
fn direct(server: &Dovecot) -> Connect {
    let connect = Connect::new(server.addr(Service::Imap), Security::Plain);
    match server.role() {
        Role::Source => connect,
        Role::Target => connect.announcing(CLIENT, EDGE),
    }
}

fn ok(reply: Result<Reply, ImapError>) -> Reply {
    reply.unwrap().accepted().unwrap()
}

async fn alice_on(server: &Dovecot) -> ImapClient {
    let mut client = direct(server).open().await.unwrap();
    ok(client.login(ALICE, PASSWORD).await);
    client
}

async fn append(client: &mut ImapClient, subject: &str) -> u32 {
    let message = format!("Subject: {subject}\r\n\r\nText.\r\n");
    let reply = ok(client.append("INBOX", message.as_bytes()).await);
    reply.append_uid().unwrap().1
}

/// UID, flags and subject of every message in a mailbox, one text each.
async fn listing(server: &Dovecot, mailbox: &str) -> Vec<String> {
    let mut client = alice_on(server).await;
    ok(client.select(mailbox).await);
    let items = "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])";
    let reply = ok(client.uid_fetch("1:*", items).await);
    client.logout().await.unwrap();
    reply
        .untagged
        .iter()
        .filter(|response| response.is("FETCH"))
        .map(describe)
        .collect()
}

fn describe(response: &ferrypost_tests::imap::Response) -> String {
    let text = response
        .text
        .replace(" \\Recent", "")
        .replace("\\Recent", "");
    let (_, rest) = text.split_once("UID ").unwrap();
    let (facts, _) = rest.split_once(" BODY").unwrap();
    let subject = String::from_utf8_lossy(&response.literals[0]);
    format!("{facts} {}", subject.trim().trim_start_matches("Subject: "))
}

#[tokio::test]
async fn the_source_serves_imap_plain_by_starttls_and_by_tls() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let ways = [
        (Service::Imap, Security::Plain),
        (Service::Imap, Security::StartTls(servers.trust())),
        (Service::Imaps, Security::Tls(servers.trust())),
    ];
    for (service, security) in ways {
        let mut client = Connect::new(source.addr(service), security)
            .open()
            .await
            .unwrap();
        assert!(client.greeting().starts_with("OK"), "{}", client.greeting());
        assert!(client.has("AUTH=PLAIN"), "{:?}", client.capabilities());
        let refused = client.login(ALICE, "wrong").await.unwrap();
        assert_eq!(
            (refused.status, refused.code()),
            (Status::No, Some("AUTHENTICATIONFAILED"))
        );
        ok(client.authenticate_plain("", ALICE, PASSWORD).await);
        assert!(
            client.has("IDLE") && !client.has("AUTH=PLAIN"),
            "{:?}",
            client.capabilities()
        );
        assert_eq!(
            client.id_field(ID_FIELD).await.unwrap().as_deref(),
            Some("source")
        );
        client.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_stranger_s_certificate_is_refused() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let stranger = Authority::new("Stranger").unwrap().client_config().unwrap();
    let connect = Connect::new(source.addr(Service::Imaps), Security::Tls(stranger));
    assert!(matches!(connect.open().await, Err(ImapError::Tls(_))));
}

#[tokio::test]
async fn a_bare_name_and_a_master_reach_the_account() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let master = format!("{ALICE}%{MASTER}");
    for (user, password) in [
        ("alice", PASSWORD),
        ("ALICE", PASSWORD),
        (&master, MASTER_PASSWORD),
    ] {
        let mut client = direct(&source).open().await.unwrap();
        ok(client.login(user, password).await);
        client.logout().await.unwrap();
    }
    // Dovecot's log is written by a process of its own, a moment after the answer.
    let log = source.log();
    eventually("all three are in the log", SOON, || async {
        let logins = log.lines_with(&[LOGIN, "user=<alice@example.org>"]);
        if logins.len() == 3 {
            Ok(())
        } else {
            Err(format!("{logins:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_source_believes_the_announced_address() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let mut client = direct(&source).open().await.unwrap();
    let announcement = "ID (\"x-originating-ip\" \"192.0.2.77\" \"x-originating-port\" \"40077\" \
                        \"x-session-ext-id\" \"fp-fixture-1\" \"x-proxy-ttl\" \"4\")";
    ok(client.command(announcement).await);
    ok(client.login(ALICE, PASSWORD).await);
    let seen = [
        LOGIN,
        "user=<alice@example.org>",
        "rip=192.0.2.77, rport=40077",
    ];
    let line = source.log().wait_for(&seen, SOON).await.unwrap();
    assert!(line.contains("session=<fp-fixture-1>"), "{line}");
}

#[tokio::test]
async fn the_target_requires_a_proxy_header_and_believes_it() {
    let servers = Servers::new();
    let target = servers.start(Role::Target).await;
    for (service, security) in [
        (Service::Imap, Security::Plain),
        (Service::Imaps, Security::Tls(servers.trust())),
    ] {
        let bare = Connect::new(target.addr(service), security.clone()).limit(SOON);
        let refused = bare.open().await;
        assert!(
            matches!(
                refused,
                Err(ImapError::Closed { bye: None } | ImapError::Tls(_))
            ),
            "{:?}",
            refused.err()
        );

        let log = target.log().from_now();
        let announced = bare.announcing(CLIENT, EDGE);
        let mut client = announced.open().await.unwrap();
        ok(client.login(ALICE, PASSWORD).await);
        assert_eq!(
            client.id_field(ID_FIELD).await.unwrap().as_deref(),
            Some("target")
        );
        let line = log
            .wait_for(&[LOGIN, "user=<alice@example.org>"], SOON)
            .await
            .unwrap();
        assert!(line.contains("rip=192.0.2.77, rport=40077"), "{line}");
        assert!(line.contains("lip=198.51.100.5, lport=993"), "{line}");
    }
}

#[tokio::test]
async fn the_target_ignores_an_announcement_by_id() {
    let servers = Servers::new();
    let target = servers.start(Role::Target).await;
    let mut client = direct(&target).open().await.unwrap();
    let announcement = "ID (\"x-originating-ip\" \"203.0.113.9\")";
    ok(client.command(announcement).await);
    ok(client.login(ALICE, PASSWORD).await);
    let line = target
        .log()
        .wait_for(&[LOGIN, "user=<alice@example.org>"], SOON)
        .await
        .unwrap();
    assert!(line.contains("rip=192.0.2.77"), "{line}");
}

#[tokio::test]
async fn every_other_service_greets() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    for (service, greeting) in [
        (Service::Pop3, "+OK"),
        (Service::Sieve, "\"IMPLEMENTATION\""),
        (Service::Submission, "220 "),
        (Service::Lmtp, "220 "),
    ] {
        let stream = TcpStream::connect(source.addr(service)).await.unwrap();
        let mut line = String::new();
        let mut stream = BufReader::new(stream);
        tokio::time::timeout(SOON, stream.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        assert!(line.starts_with(greeting), "{service:?}: {line}");
    }
}

#[tokio::test]
async fn a_sync_carries_everything_over_and_back() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let target = servers.start(Role::Target).await;
    source.create_mailbox(ALICE, "Archive").await.unwrap();
    let mut client = alice_on(&source).await;
    for subject in ["one", "two", "three"] {
        append(&mut client, subject).await;
    }
    ok(client.append("Archive", b"Subject: old\r\n\r\n").await);
    source.sync_to(&target, ALICE).await.unwrap();
    let first = ["1 FLAGS () one", "2 FLAGS () two", "3 FLAGS () three"];
    assert_eq!(listing(&target, "INBOX").await, first);
    assert_eq!(listing(&target, "Archive").await, ["1 FLAGS () old"]);

    // What came on the source after the first copy, while its sessions were open.
    ok(client.select("INBOX").await);
    ok(client.command("STORE 1 +FLAGS (\\Seen $Work)").await);
    ok(client.command("STORE 2 +FLAGS (\\Deleted)").await);
    ok(client.command("EXPUNGE").await);
    append(&mut client, "four").await;
    source.sync_to(&target, ALICE).await.unwrap();
    let second = [
        "1 FLAGS (\\Seen $Work) one",
        "3 FLAGS () three",
        "4 FLAGS () four",
    ];
    assert_eq!(listing(&target, "INBOX").await, second);

    // And the way back.
    let mut client = alice_on(&target).await;
    ok(client.select("INBOX").await);
    append(&mut client, "five").await;
    ok(client.command("UID STORE 1 -FLAGS (\\Seen)").await);
    ok(client.command("UID STORE 3 +FLAGS (\\Deleted)").await);
    ok(client.command("EXPUNGE").await);
    ok(client.command("RENAME Archive Old").await);
    target.sync_to(&source, ALICE).await.unwrap();
    let third = ["1 FLAGS ($Work) one", "4 FLAGS () four", "5 FLAGS () five"];
    assert_eq!(listing(&source, "INBOX").await, third);
    assert_eq!(listing(&source, "Old").await, ["1 FLAGS () old"]);
    assert_eq!(uid_validity(&source).await, uid_validity(&target).await);
}

async fn uid_validity(server: &Dovecot) -> Option<String> {
    let mut client = alice_on(server).await;
    let reply = ok(client.command("STATUS INBOX (UIDVALIDITY)").await);
    reply
        .untagged("STATUS")
        .map(|response| response.text.clone())
}

/// What a sync without `-f` overlooks: both copies show the same counters and differ.
#[tokio::test]
async fn a_sync_sees_a_change_that_the_counters_hide() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let target = servers.start(Role::Target).await;
    append(&mut alice_on(&source).await, "one").await;
    source.sync_to(&target, ALICE).await.unwrap();
    for server in [&source, &target] {
        let mut client = alice_on(server).await;
        ok(client.select("INBOX").await);
        let flag = format!("STORE 1 +FLAGS ({})", server.role().name());
        ok(client.command(&flag).await);
    }
    source.sync_to(&target, ALICE).await.unwrap();
    let listing = listing(&target, "INBOX").await;
    assert!(
        listing[0].contains("source") && listing[0].contains("target"),
        "{listing:?}"
    );
}

#[tokio::test]
async fn a_kick_and_a_stop_say_goodbye_and_mail_outlives_both() {
    let servers = Servers::new();
    let mut source = servers.start(Role::Source).await;
    let mut client = alice_on(&source).await;
    append(&mut client, "kept").await;
    let idle = client.idle().await;
    source.kick(ALICE).await.unwrap();
    assert_goodbye(&client.next_response().await.unwrap().text);
    assert!(matches!(
        client.next_response().await,
        Err(ImapError::Closed { bye: Some(_) })
    ));
    drop(idle);

    let mut client = alice_on(&source).await;
    source.stop().await.unwrap();
    assert_goodbye(&client.next_response().await.unwrap().text);
    assert!(direct(&source).open().await.is_err());

    source.start_again().await.unwrap();
    assert_eq!(listing(&source, "INBOX").await, ["1 FLAGS () kept"]);
}

fn assert_goodbye(text: &str) {
    assert!(text.starts_with("* BYE"), "{text}");
}

#[tokio::test]
async fn a_killed_server_takes_its_sessions_along() {
    let servers = Servers::new();
    let mut source = servers.start(Role::Source).await;
    let mut client = alice_on(&source).await;
    source.kill();
    let end = client.next_response().await;
    assert!(
        matches!(end, Err(ImapError::Closed { .. } | ImapError::Io(_))),
        "{end:?}"
    );
    assert!(direct(&source).open().await.is_err());
    source.start_again().await.unwrap();
    alice_on(&source).await.logout().await.unwrap();
}

#[tokio::test]
async fn one_address_may_hold_many_idle_sessions() {
    let servers = Servers::new();
    let source = servers.start(Role::Source).await;
    let mut sessions = Vec::new();
    for _ in 0..100 {
        let mut client = alice_on(&source).await;
        ok(client.select("INBOX").await);
        let idle = client.idle().await.unwrap();
        sessions.push((client, idle));
    }
    append(&mut alice_on(&source).await, "news").await;
    for (client, idle) in &mut sessions {
        // Those that came first may have waited for minutes, in which the server says so.
        let news = loop {
            let said = client.next_response().await.unwrap();
            if said.text != "* OK Still here" {
                break said;
            }
        };
        assert!(news.is("EXISTS"), "{}", news.text);
        let _ = idle;
    }
    let (mut client, idle) = sessions.swap_remove(0);
    idle.done(&mut client).await.unwrap().accepted().unwrap();
    ok(client.noop().await);
}

#[tokio::test]
async fn a_sync_command_names_both_servers() {
    let words = dovecot::sync_command("/a.conf".as_ref(), "/b.conf".as_ref(), ALICE).unwrap();
    let from = words.iter().position(|word| word == "/a.conf").unwrap();
    let to = words.iter().position(|word| word == "/b.conf").unwrap();
    assert!(
        from < to && words[from..to].contains(&"-f".to_owned()),
        "{words:?}"
    );
}

#[tokio::test]
async fn a_client_does_not_panic_at_a_server_that_speaks_nonsense() {
    for nonsense in [
        "",
        "\r\n",
        "* BYE go away\r\n",
        "* OK hello\r\nt1 MAYBE\r\n",
        "+ \r\n",
        "\0\n",
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, nonsense.as_bytes())
                .await
                .unwrap();
        });
        let outcome: Result<Reply, ImapError> = async {
            let mut client = Connect::new(address, Security::Plain).open().await?;
            client.login(ALICE, PASSWORD).await
        }
        .await;
        assert!(outcome.is_err(), "{nonsense:?}: {outcome:?}");
        server.await.unwrap();
    }
}
