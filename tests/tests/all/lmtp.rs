//! Mail delivered by LMTP through whole data planes into the mailboxes of real Dovecots, by hand and by a real Postfix.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;

use ferrypost_tests::certs::Authority;
use ferrypost_tests::dovecot::{Dovecot, Role, Service};
use ferrypost_tests::imap::{Connect, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::postfix::{self, Onward, Postfix};
use ferrypost_tests::story::{SOON, migrate, move_to, roll_back, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

async fn world() -> World {
    let builder = World::builder().data_planes(1).limits(short_limits());
    builder.deliveries().start().await.unwrap()
}

/// A mail system by hand, or a client of one.
struct Sender(LineClient);

impl Sender {
    async fn connect(address: SocketAddr, hello: &str) -> Self {
        let connect = Connect::new(address, Security::Plain);
        let mut client = LineClient::open(&connect).await.unwrap();
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
    async fn reply(&mut self) -> String {
        loop {
            let line = self.0.line().await.unwrap().unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    async fn ask(&mut self, command: &str) -> String {
        self.0.send(format!("{command}\r\n")).await.unwrap();
        self.reply().await
    }

    /// Sends a message to recipients who are all accepted. Returns so many answers to it.
    async fn send(&mut self, subject: &str, to: &[&str], answers: usize) -> Vec<String> {
        assert!(
            self.ask("MAIL FROM:<from@example.net>")
                .await
                .starts_with("250")
        );
        for to in to {
            let said = self.ask(&format!("RCPT TO:<{to}>")).await;
            assert!(said.starts_with("250"), "{said}");
        }
        assert!(self.ask("DATA").await.starts_with("354"));
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
async fn subjects(server: &Dovecot, account: &str) -> Vec<String> {
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

#[tokio::test]
async fn one_message_reaches_two_mailboxes_on_two_servers_and_follows_an_account_to_its_new_home() {
    let world = world().await;
    let [alice, bob] = [0, 1].map(|n| world.accounts()[n].clone());
    migrate(&world.operator(0), move_to(&bob, "target"))
        .await
        .unwrap();
    let address = world.data_planes()[0].deliveries().unwrap();
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
    eventually("alice may have mail again", SOON, || async {
        let mut other = Sender::connect(address, "LHLO").await;
        other.ask("MAIL FROM:<>").await;
        let said = other.ask(&format!("RCPT TO:<{alice}>")).await;
        said.starts_with("250").then_some(()).ok_or(said)
    })
    .await
    .unwrap();
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

#[tokio::test]
async fn what_a_real_postfix_delivers_during_moves_is_on_each_accounts_home_once() {
    let world = world().await;
    let authority = Authority::new("Ferrypost tests").unwrap();
    let postfix = Postfix::start(
        world.folder(),
        postfix::Setup {
            role: Role::Source,
            identity: &authority.server().unwrap(),
            accounts: world.source().addr(Service::Auth),
            survives: false,
            network: None,
            lookups: None,
            delivers_to: world.data_planes()[0].deliveries().map(Onward::Lmtp),
        },
    )
    .await
    .unwrap();
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
