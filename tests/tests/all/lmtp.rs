//! Mail delivered by LMTP through whole data planes into the mailboxes of real Dovecots, by hand and by a real Postfix.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;

use ferrypost_proto::v1::{Protocol, RoutingConfig};
use ferrypost_tests::certs::Authority;
use ferrypost_tests::dovecot::{Dovecot, Generation, Role, Service, scratch};
use ferrypost_tests::imap::{Connect, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::ports::Port;
use ferrypost_tests::postfix::{self, Arrival, Onward, Postfix};
use ferrypost_tests::process::{Process, Spawn};
use ferrypost_tests::story::{SOON, migrate, move_to, roll_back, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::announcement::{endpoint_of, reconfigure};

async fn world() -> World {
    let builder = World::builder().data_planes(1).limits(short_limits());
    builder.deliveries().start().await.unwrap()
}

/// A mail system by hand, or a client of one.
pub(crate) struct Sender(pub(crate) LineClient);

impl Sender {
    pub(crate) async fn connect(address: SocketAddr, hello: &str) -> Self {
        Self::open(&Connect::new(address, Security::Plain), hello).await
    }

    pub(crate) async fn open(connect: &Connect, hello: &str) -> Self {
        let mut client = LineClient::open(connect).await.unwrap();
        assert!(client.line().await.unwrap().unwrap().starts_with("220"));
        client
            .send(format!("{hello} mx.example.org\r\n"))
            .await
            .unwrap();
        let mut sender = Self(client);
        sender.reply().await;
        sender
    }

    /// The last line of a reply.
    pub(crate) async fn reply(&mut self) -> String {
        loop {
            let line = self.0.line().await.unwrap().unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    pub(crate) async fn ask(&mut self, command: &str) -> String {
        self.0.send(format!("{command}\r\n")).await.unwrap();
        self.reply().await
    }

    /// Says everything up to where a message may come, to recipients who are all accepted.
    pub(crate) async fn begin(&mut self, to: &[&str]) {
        let said = self.ask("MAIL FROM:<from@example.net>").await;
        assert!(said.starts_with("250"), "{said}");
        for to in to {
            let said = self.ask(&format!("RCPT TO:<{to}>")).await;
            assert!(said.starts_with("250"), "{said}");
        }
        assert!(self.ask("DATA").await.starts_with("354"));
    }

    /// Sends a message to recipients who are all accepted. Returns so many answers to it.
    pub(crate) async fn send(&mut self, subject: &str, to: &[&str], answers: usize) -> Vec<String> {
        self.begin(to).await;
        let text = format!("Subject: {subject}\r\n\r\n..Hello.\r\n.\r\n");
        self.0.send(text).await.unwrap();
        let mut said = Vec::new();
        for _ in 0..answers {
            said.push(self.reply().await);
        }
        said
    }
}

/// The subjects of the messages in an account's INBOX, sorted. Dovecot fails where the mailbox comes into being at this
/// moment.
pub(crate) async fn subjects(server: &Dovecot, account: &str) -> Vec<String> {
    let query = [
        "-f",
        "tab",
        "fetch",
        "-u",
        account,
        "hdr.subject",
        "mailbox",
        "INBOX",
    ];
    let fetched = eventually("the server lists the messages", SOON, || async {
        let table = server.doveadm(&query).await;
        table.map_err(|error| error.to_string())
    });
    let table = fetched.await.unwrap();
    let mut subjects: Vec<_> = table.lines().skip(1).map(str::to_owned).collect();
    subjects.sort();
    subjects
}

/// A move is over before each data plane has heard of its release.
async fn accepted_again(address: SocketAddr, account: &str) {
    eventually("the account may have mail again", SOON, || async {
        let mut other = Sender::connect(address, "LHLO").await;
        other.ask("MAIL FROM:<>").await;
        let said = other.ask(&format!("RCPT TO:<{account}>")).await;
        said.starts_with("250").then_some(()).ok_or(said)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_message_reaches_two_mailboxes_on_two_servers_and_follows_an_account_to_its_new_home() {
    let world = world().await;
    let [alice, bob] = [0, 1].map(|n| world.accounts()[n].clone());
    migrate(&world.operator(0), move_to(&bob, "target"))
        .await
        .unwrap();
    let address = world.data_planes()[0].deliveries().unwrap();
    accepted_again(address, &bob).await;
    let mut sender = Sender::connect(address, "LHLO").await;
    let both = [&*alice, &*bob];
    let said = sender.send("one", &both, 2).await;
    assert!(
        said.iter().all(|it| it.starts_with("250 2.0.0")),
        "{said:?}"
    );
    assert_eq!(subjects(world.source(), &alice).await, ["one"]);
    assert_eq!(subjects(world.target(), &bob).await, ["one"]);
    assert_eq!(subjects(world.source(), &bob).await, [""; 0]);

    // The same connection, over a flip, as soon as the data plane has heard of the release.
    migrate(&world.operator(0), move_to(&alice, "target"))
        .await
        .unwrap();
    accepted_again(address, &alice).await;
    let said = sender.send("two", &both, 2).await;
    assert!(
        said.iter().all(|it| it.starts_with("250 2.0.0")),
        "{said:?}"
    );
    assert_eq!(subjects(world.source(), &alice).await, ["one"]);
    assert_eq!(subjects(world.target(), &alice).await, ["one", "two"]);
    assert_eq!(subjects(world.target(), &bob).await, ["one", "two"]);

    // Whose domain is not ours, and who is nobody on the server that would have him.
    assert!(sender.ask("MAIL FROM:<>").await.starts_with("250"));
    assert!(
        sender
            .ask("RCPT TO:<x@elsewhere.example>")
            .await
            .starts_with("550 5.1.2")
    );
    assert!(sender.ask("QUIT").await.starts_with("221"));
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_mail_system_on_the_same_machine_may_use_a_socket_in_the_file_system() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    let socket = world.data_planes()[0].delivery_socket();
    let stream = UnixStream::connect(&socket).await.unwrap();
    let mut stream = BufReader::new(stream);
    let said = format!(
        "LHLO mx\r\nMAIL FROM:<>\r\nRCPT TO:<{account}>\r\nDATA\r\nSubject: local\r\n\r\nHello.\r\n.\r\nQUIT\r\n"
    );
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut heard = String::new();
    while stream.read_line(&mut heard).await.unwrap() > 0 {}
    assert!(
        heard.contains("\r\n354 ") && heard.contains("\r\n221 "),
        "{heard}"
    );
    assert_eq!(subjects(world.source(), &account).await, ["local"]);
    world.stop().await.unwrap();
}

/// A real mail system beside a world.
pub(crate) async fn mail_system(world: &World, onward: Onward<'_>) -> Postfix {
    // Beside that of the source, if there is one.
    let folder = world.folder().join("mail-system");
    std::fs::create_dir(&folder).unwrap();
    let authority = Authority::new("Mail system").unwrap();
    let setup = postfix::Setup {
        role: Role::Source,
        identity: &authority.server().unwrap(),
        accounts: world.source().addr(Service::Auth),
        survives: false,
        network: None,
        arrival: Arrival::Direct,
        lookups: None,
        delivers_to: Some(onward),
    };
    Postfix::start(&folder, setup).await.unwrap()
}

#[tokio::test]
async fn a_real_postfix_that_insists_on_a_certificate_delivers_by_starttls() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    let secure = world.data_planes()[0].secure_deliveries().unwrap();
    let mut in_clear = Sender::connect(secure, "LHLO").await;
    assert!(in_clear.ask("MAIL FROM:<>").await.starts_with("530 5.7.0"));
    let authority = world.authority();
    let postfix = mail_system(&world, Onward::LmtpOverTls(secure, &authority)).await;
    let mut sender = Sender::connect(postfix.addr(), "EHLO").await;
    sender.send("under TLS", &[&account], 1).await;
    let log = postfix.log();
    let verified = ["Verified TLS connection established to 127.0.0.1"];
    log.wait_for(&verified, SOON).await.unwrap();
    log.wait_for(&[&account, "status=sent"], SOON)
        .await
        .unwrap();
    assert_eq!(subjects(world.source(), &account).await, ["under TLS"]);
    drop(postfix);
    world.stop().await.unwrap();
}

/// Waits until a destination's LMTP was found to be well.
async fn is_reachable(world: &World, role: Role) {
    let admin = world.admin(0);
    eventually("it is reachable by LMTP", SOON, || async {
        let stats = admin.stats().await.map_err(|error| error.to_string())?;
        let found = &stats["destinations"][role.name()]["lmtp"];
        match found["word"].as_str() {
            Some("reachable") => Ok(()),
            _ => Err(found.to_string()),
        }
    })
    .await
    .unwrap();
}

/// What a mail system is offered.
async fn offered(world: &World) -> Vec<String> {
    let address = world.data_planes()[0].deliveries().unwrap();
    let mut sender = Sender::connect(address, "LHLO").await;
    sender.0.send("LHLO mx.example.org\r\n").await.unwrap();
    let mut offered = Vec::new();
    loop {
        let line = sender.0.line().await.unwrap().unwrap();
        offered.push(line[4..].to_owned());
        if line.starts_with("250 ") {
            offered.remove(0);
            return offered;
        }
    }
}

async fn is_offered(world: &World, expected: &[&str]) {
    eventually("what both servers take is offered", SOON, || async {
        let offered = offered(world).await;
        (offered == *expected)
            .then_some(())
            .ok_or(offered.join(" "))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn mail_systems_and_dovecots_are_offered_what_both_servers_were_found_to_take() {
    let world = world().await;
    for role in [Role::Source, Role::Target] {
        is_reachable(&world, role).await;
    }
    let ours = ["PIPELINING", "ENHANCEDSTATUSCODES", "XFERRYPOST"];
    is_offered(&world, &[&["8BITMIME"], &ours[..]].concat()).await;
    // The source's Dovecot takes more of whom it trusts.
    let port = world.source().addr(Service::Lmtp).port();
    let edit = |config: &mut RoutingConfig| {
        endpoint_of(config, Role::Target, Protocol::Lmtp).port = port.into();
    };
    reconfigure(&world, "one server", edit).await;
    let expected = [&["8BITMIME", "XRCPTFORWARD"], &ours[..]].concat();
    is_offered(&world, &expected).await;
    by_a_dovecot(&world).await;
    world.stop().await.unwrap();
}

/// Another Dovecot, of the generation whose settings are below, delivers through the data plane.
async fn by_a_dovecot(world: &World) {
    if Generation::installed().unwrap() != Generation::V2_3 {
        return;
    }
    let both = [0, 1].map(|n| &*world.accounts()[n]);
    let address = world.data_planes()[0].deliveries().unwrap();
    let proxy = DovecotProxy::start(address).await;
    let mut sender = Sender::connect(proxy.port.addr(), "LHLO").await;
    let said = sender.send("by a proxy", &both, 2).await;
    assert!(said.iter().all(|it| it.starts_with("250")), "{said:?}");
    for account in both {
        assert_eq!(subjects(world.source(), account).await, ["by a proxy"]);
    }
}

/// A Dovecot that passes all mail on to somebody, and tells him of each recipient what only its own servers understand.
struct DovecotProxy {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

impl DovecotProxy {
    async fn start(to: SocketAddr) -> Self {
        let (folder, port) = (scratch().unwrap(), Port::reserve().unwrap());
        let place = folder.path().display();
        let config = format!(
            "base_dir = {place}/run\nstate_dir = {place}/state\nlog_path = {place}/log\n\
             listen = 127.0.0.1\nprotocols = lmtp\nssl = no\nlmtp_proxy = yes\n\
             passdb {{\n  driver = static\n  args = nopassword=y proxy=y host={} port={} protocol=lmtp forward_x=y\n}}\n\
             service lmtp {{\n  inet_listener lmtp {{\n    port = {}\n  }}\n}}\n",
            to.ip(),
            to.port(),
            port.number(),
        );
        let file = folder.path().join("dovecot.conf");
        std::fs::write(&file, config).unwrap();
        let spawn = Spawn::new("dovecot", folder.path().join("out")).unwrap();
        let spawn = spawn.arg("-F").arg("-c").arg(&file);
        let process = spawn.terminate_with_parent().start().unwrap();
        eventually("the proxy takes connections", SOON, || {
            TcpStream::connect(port.addr())
        })
        .await
        .unwrap();
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_xclient_sees_the_mail_system_and_not_us() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    let address = world.data_planes()[0].deliveries().unwrap();
    let log = world.source().log().from_now();
    let connect = Connect::new(address, Security::Plain).from("127.0.0.77".parse().unwrap());
    let mut sender = Sender::open(&connect, "LHLO").await;
    let said = sender.send("announced", &[&account], 1).await;
    assert!(said[0].starts_with("250"), "{said:?}");
    sender.ask("QUIT").await;
    log.wait_for(&["lmtp(", " from 127.0.0.77"], SOON)
        .await
        .unwrap();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_real_postfix_delivers_during_moves_is_on_each_accounts_home_once() {
    let world = world().await;
    let through = world.data_planes()[0].deliveries().unwrap();
    let postfix = mail_system(&world, Onward::Lmtp(through)).await;
    let [alice, bob] = [0, 1].map(|n| world.accounts()[n].clone());
    let operator = world.operator(0);
    let mut sent = Vec::new();
    let mut sender = Sender::connect(postfix.addr(), "EHLO").await;
    for round in 0..3 {
        // Moves there, back, and there once more, with messages before and during each.
        let moving = async {
            if round == 1 {
                roll_back(&operator, &alice).await.unwrap();
            } else {
                migrate(&operator, move_to(&alice, "target")).await.unwrap();
            }
        };
        let sending = async {
            for n in 0..12 {
                let mut subject = String::new();
                write!(subject, "message {round}-{n:02}").unwrap();
                let said = sender.send(&subject, &[&alice, &bob], 1).await;
                assert!(said[0].starts_with("250"), "{said:?}");
                sent.push(subject);
            }
        };
        tokio::join!(moving, sending);
    }
    // Released by the operator, as the guide has it.
    postfix.flush().await.unwrap();
    for (server, account) in [(world.target(), &alice), (world.source(), &bob)] {
        eventually("every message is there", SOON, || {
            let (postfix, sent) = (&postfix, &sent);
            async move {
                let found = subjects(server, account).await;
                if found.len() >= sent.len() {
                    assert_eq!(found, *sent, "each once");
                    return Ok(());
                }
                postfix.flush().await.map_err(|error| error.to_string())?;
                Err(format!("{} of {}", found.len(), sent.len()))
            }
        })
        .await
        .unwrap();
    }
    let kept = postfix.log().lines_with(&["conn_use=2"]);
    assert!(!kept.is_empty(), "its connections were kept");
    drop(postfix);
    world.stop().await.unwrap();
}
