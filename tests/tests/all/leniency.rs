//! Sloppy inputs before the login, on a real Dovecot or Postfix and through a whole data plane: each answers as the table
//! in `dataplane/wire/tests/leniency` says, which names a rule wherever ours differs from theirs.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferrypost_tests::dovecot::{Generation, Role, Service};
use ferrypost_tests::imap::{Connect, ImapError, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::postfix;
use ferrypost_tests::sieve::SieveConnect;
use ferrypost_tests::world::{Builder, Entrance, World};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::sloppy::{imap, managesieve, masked, octets, pop3, submission, table};

#[path = "../../../dataplane/wire/tests/sloppy/mod.rs"]
mod sloppy;

/// How long an answer may take before it counts as none. A failed login takes two seconds at least, and a Dovecot that has
/// the machine with forty others has needed more than eighteen.
const LIMIT: Duration = Duration::from_secs(45);

/// At least as many as a table has.
const MOST_ROWS: usize = 200;

/// Inputs under way at once.
const AT_ONCE: usize = 24;

/// A way to a server, by the protocol of a table.
trait Tabled: Clone + Send + 'static {
    const TABLE: &'static str;
    /// What is sent behind every input.
    const END: &'static [u8];
    /// Inputs behind which Dovecot reads what came with them at once, or not before more comes: that depends on whether
    /// its login process had reached the authentication server by then.
    const MAY_STOP: &'static [&'static str] = &[];

    /// Whether an answer is what the table says.
    fn agree(answer: &str, table: &str) -> bool {
        answer == table
    }

    /// What a client at `host` reads that sends `input`, as the table has it.
    fn answer(self, host: IpAddr, input: Vec<u8>) -> impl Future<Output = String> + Send;
}

#[tokio::test]
async fn sloppy_inputs_are_answered_as_by_dovecot_unless_a_rule_says_otherwise() {
    let world = world().start().await.unwrap();
    let tls = Security::Tls(world.trust());
    let dovecot = Connect::new(world.source().addr(Service::Imaps), tls);
    compare(&world, by_dovecot(&dovecot), &world.imaps(0)).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sloppy_inputs_of_managesieve_are_answered_likewise() {
    let world = world().start().await.unwrap();
    let to = |server| SieveConnect::new(server, world.trust(), address(0)).limit(LIMIT);
    let dovecot = to(world.source().addr(Service::Sieve));
    let through = to(world.data_planes()[0].sieve());
    compare(&world, by_dovecot(&dovecot), &through).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sloppy_inputs_of_pop3_are_answered_likewise() {
    let world = world().start().await.unwrap();
    let to = |server| Pop3Connect(Connect::new(server, Security::Tls(world.trust())).limit(LIMIT));
    let dovecot = to(world.source().addr(Service::Pop3s));
    let through = to(world.data_planes()[0].addr(Entrance::Pop3s));
    compare(&world, by_dovecot(&dovecot), &through).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sloppy_inputs_of_submission_are_answered_as_by_postfix_unless_a_rule_says_otherwise() {
    let world = world().postfixes().start().await.unwrap();
    let to = |server| Connect::new(server, Security::StartTls(world.trust())).limit(LIMIT);
    // The one that a PROXY header tells of its clients: the other one trusts whoever is on this machine.
    let postfix = SmtpConnect {
        connect: to(world.postfix(Role::Target).unwrap().addr()),
        is_announced: true,
    };
    let through = SmtpConnect {
        connect: to(world.data_planes()[0].submission().unwrap()),
        is_announced: false,
    };
    let is_of_the_table = postfix::version().unwrap().starts_with("3.7.");
    let by_postfix = is_of_the_table.then_some(("postfix", &postfix));
    compare(&world, by_postfix, &through).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sloppy_inputs_at_port_25_are_answered_as_by_postfix_unless_a_rule_says_otherwise() {
    let world = world().inbound_mail().start().await.unwrap();
    let to = |server| Connect::new(server, Security::Plain).limit(LIMIT);
    let postfix = MxConnect(SmtpConnect {
        connect: to(world.postfix(Role::Target).unwrap().mx()),
        is_announced: true,
    });
    let taken = MxConnect(SmtpConnect {
        connect: to(world.data_planes()[0].smtp().unwrap()),
        is_announced: false,
    });
    let is_of_the_table = postfix::version().unwrap().starts_with("3.7.");
    let by_postfix = is_of_the_table.then_some(("postfix", &postfix));
    compare(&world, by_postfix, &taken).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sloppy_inputs_of_lmtp_are_answered_by_dovecot_as_the_table_says() {
    let world = world().start().await.unwrap();
    let at = Connect::new(world.source().addr(Service::Lmtp), Security::Plain);
    if let Some((who, way)) = by_dovecot(&LmtpConnect(at.limit(LIMIT))) {
        let wrong = differences(&world, who, way).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    world.stop().await.unwrap();
}

/// A world with an account for each input, since whoever fails often at one account is slowed there; all of a
/// length whose credentials are padded in base64, and split in half are none.
fn world() -> Builder {
    let accounts = (0..MOST_ROWS).map(|n| format!("user{}@example.org", 1_000_000 + n));
    let accounts: Vec<_> = accounts.collect();
    let accounts: Vec<_> = accounts.iter().map(String::as_str).collect();
    World::builder().data_planes(1).accounts(&accounts)
}

/// The way to a Dovecot, if it is of the generation of the tables' column.
fn by_dovecot<T>(way: &T) -> Option<(&'static str, &T)> {
    let is_of_the_tables = Generation::installed().unwrap() == Generation::V2_3;
    is_of_the_tables.then_some(("dovecot", way))
}

/// Holds a server, if there is one of the column's version, and the data plane to their columns.
async fn compare<T: Tabled>(world: &World, server: Option<(&str, &T)>, through: &T) {
    let mut wrong = Vec::new();
    if let Some((who, way)) = server {
        wrong.extend(differences(world, who, way).await);
    }
    wrong.extend(differences(world, "ours", through).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sends every input of the table, each on a connection and from an address of its own.
async fn differences<T: Tabled>(world: &World, who: &str, way: &T) -> Vec<String> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let cases = table(T::TABLE).0;
    assert!(cases.len() <= MOST_ROWS, "{} rows", cases.len());
    let mut answers = JoinSet::new();
    for (host, (case, user)) in (2..).zip(cases.into_iter().zip(world.accounts())) {
        let way = way.clone();
        let (places, user) = (Arc::clone(&places), user.clone());
        let password = world.password().to_owned();
        answers.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let input = [&octets(case.input, &user, &password), T::END].concat();
            let answer = way.answer(address(host), input).await;
            (case, masked(&answer, &user, &password))
        });
    }
    let all = answers.join_all().await;
    all.into_iter()
        .filter(|(case, answer)| {
            let stops = who == "dovecot" && T::MAY_STOP.contains(&case.input);
            match answer.strip_suffix(", silent").filter(|_| stops) {
                Some(before) => !case.by(who).starts_with(before),
                None => !T::agree(answer, case.by(who)),
            }
        })
        .map(|(case, answer)| {
            let (input, rule, expected) = (case.input, case.rule, case.by(who));
            format!("{who}: {answer:?} and not {expected:?} to {input} (rule: {rule:?})")
        })
        .collect()
}

fn address(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 7, host))
}

impl Tabled for Connect {
    const TABLE: &'static str = include_str!("../../../dataplane/wire/tests/leniency/imap.txt");
    const END: &'static [u8] = imap::END;

    async fn answer(self, host: IpAddr, input: Vec<u8>) -> String {
        let mut client = self.from(host).limit(LIMIT).open().await.unwrap();
        client.send(&input).await.unwrap();
        let mut said = String::new();
        let ended = loop {
            match client.next_response().await {
                Ok(response) => {
                    said.push_str(&response.text);
                    said.push('\n');
                    if response.text.starts_with("zz ") {
                        break false;
                    }
                }
                Err(ImapError::Closed { .. }) => break true,
                Err(ImapError::Late(_)) => break false,
                Err(other) => panic!("{other}"),
            }
        };
        imap::summary(said.as_bytes(), ended)
    }
}

impl Tabled for SieveConnect {
    const TABLE: &'static str =
        include_str!("../../../dataplane/wire/tests/leniency/managesieve.txt");
    const END: &'static [u8] = managesieve::END;
    const MAY_STOP: &'static [&'static str] = &[
        r#"AUTHENTICATE "FOO"\r\n"#,
        r#"AUTHENTICATE "FOO" "<plain>"\r\n"#,
        r#"AUTHENTICATE "CRAM-MD5"\r\n"#,
        r#"AUTHENTICATE ""\r\n"#,
        r#"AUTHENTICATE "PLA\\IN" "<plain>"\r\n"#,
        r#"AUTHENTICATE "X-FOO"\r\n"<plain>"\r\n"#,
    ];

    async fn answer(self, host: IpAddr, input: Vec<u8>) -> String {
        let mut client = self.from(host).open().await.unwrap();
        // Some are hung up on before they have said everything.
        _ = client.send(&input).await;
        let mut said = String::new();
        let ended = loop {
            match client.line().await {
                Ok(Some(line)) => {
                    said.push_str(&line);
                    said.push('\n');
                    if line.starts_with("OK (TAG \"zz\")") {
                        break false;
                    }
                }
                Ok(None) => break true,
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => break false,
                Err(error) => panic!("{error}"),
            }
        };
        managesieve::summary(said.as_bytes(), ended)
    }
}

/// POP3 over TLS.
#[derive(Clone)]
struct Pop3Connect(Connect);

impl Tabled for Pop3Connect {
    const TABLE: &'static str = include_str!("../../../dataplane/wire/tests/leniency/pop3.txt");
    const END: &'static [u8] = pop3::END;

    /// Whoever has not been hung up on says QUIT: its answer, which is left out, is the only `+OK` that a session
    /// ends with.
    async fn answer(self, host: IpAddr, input: Vec<u8>) -> String {
        let mut client = LineClient::open(&self.0.from(host)).await.unwrap();
        client.line().await.unwrap();
        let quits = input[..4].eq_ignore_ascii_case(b"QUIT");
        // Some are hung up on before they have said everything.
        _ = client.send([&input, &b"QUIT\r\n"[..]].concat()).await;
        let mut said = Vec::new();
        loop {
            match client.line().await {
                Ok(Some(line)) => said.push(line),
                Ok(None) | Err(ImapError::Io(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let goes_on = !quits && said.last().is_some_and(|line| line.starts_with("+OK"));
        if goes_on {
            said.pop();
        }
        pop3::summary(said.join("\n").as_bytes(), !goes_on)
    }
}

/// Submission over STARTTLS.
#[derive(Clone)]
struct SmtpConnect {
    connect: Connect,
    /// Whether the client's address stands in a PROXY header.
    is_announced: bool,
}

impl SmtpConnect {
    fn from(&self, host: IpAddr) -> Connect {
        let connect = self.connect.clone();
        let IpAddr::V4(address) = host else {
            panic!("an address of this machine's");
        };
        if !self.is_announced {
            return connect.from(host);
        }
        let [.., last] = address.octets();
        let [client, server] = [(last, 50_000), (1, 587)]
            .map(|(last, port)| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), port)));
        connect.announcing(client, server)
    }
}

impl Tabled for SmtpConnect {
    const TABLE: &'static str =
        include_str!("../../../dataplane/wire/tests/leniency/submission.txt");
    const END: &'static [u8] = submission::END;

    async fn answer(self, host: IpAddr, input: Vec<u8>) -> String {
        let connect = self.from(host);
        let mut client = LineClient::open(&connect).await.unwrap();
        client.line().await.unwrap();
        assert!(client.ask("STARTTLS").await.unwrap().starts_with("220 "));
        let client = client.secure(&connect).await.unwrap();
        smtp_answer(client, &input).await
    }
}

/// SMTP in clear between mail systems. What the server said of a recipient or a message is passed on by us with its
/// enhanced code, so the table's are not compared.
#[derive(Clone)]
struct MxConnect(SmtpConnect);

impl Tabled for MxConnect {
    const TABLE: &'static str = include_str!("../../../dataplane/wire/tests/leniency/smtp.txt");
    const END: &'static [u8] = submission::END;

    fn agree(answer: &str, table: &str) -> bool {
        submission::codes(answer) == submission::codes(table)
    }

    async fn answer(self, host: IpAddr, input: Vec<u8>) -> String {
        let mut client = LineClient::open(&self.0.from(host)).await.unwrap();
        client.line().await.unwrap();
        smtp_answer(client, &input).await
    }
}

/// LMTP in clear.
#[derive(Clone)]
struct LmtpConnect(Connect);

impl Tabled for LmtpConnect {
    const TABLE: &'static str = include_str!("../../../dataplane/wire/tests/leniency/lmtp.txt");
    const END: &'static [u8] = submission::END;

    async fn answer(self, _host: IpAddr, input: Vec<u8>) -> String {
        let mut client = LineClient::open(&self.0).await.unwrap();
        client.line().await.unwrap();
        smtp_answer(client, &input).await
    }
}

/// What a server answers to an input. Whoever has not been hung up on says QUIT, whose answer is left out.
async fn smtp_answer(mut client: LineClient, input: &[u8]) -> String {
    let quits = input.windows(4).any(|word| word == b"QUIT");
    // Some are hung up on before they have said everything.
    _ = client.send([input, &b"QUIT\r\n"[..]].concat()).await;
    let mut said = Vec::new();
    loop {
        match client.line().await {
            Ok(Some(line)) => said.push(line),
            Ok(None) | Err(ImapError::Io(_)) => break,
            Err(error) => panic!("{error} behind {said:?}"),
        }
    }
    // Who was not taken at his word has his next words answered, which nobody knows.
    let goes_on = match &said[..] {
        [.., unknown, bye] if quits => unknown.starts_with("500 ") && bye.starts_with("221 2.0.0"),
        [.., bye] if !quits => bye.starts_with("221 2.0.0"),
        _ => false,
    };
    if goes_on {
        said.pop();
    }
    submission::summary(said.join("\n").as_bytes(), !goes_on)
}
