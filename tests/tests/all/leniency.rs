//! Sloppy inputs before the login, on a real Dovecot and through a whole data plane: each answers as the table in
//! `dataplane/wire/tests/leniency` says, which names a rule wherever the two differ.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrypost_tests::dovecot::{Generation, Service};
use ferrypost_tests::imap::{Connect, ImapError, Security};
use ferrypost_tests::sieve::SieveConnect;
use ferrypost_tests::world::World;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::sloppy::{imap, managesieve, masked, octets, table};

#[expect(dead_code, reason = "POP3's answers are for the machines' own test")]
#[path = "../../../dataplane/wire/tests/sloppy/mod.rs"]
mod sloppy;

/// How long an answer may take before it counts as none. A failed login takes two seconds at least, and up to
/// fifteen for an account for which many fail.
const LIMIT: Duration = Duration::from_secs(18);

/// Inputs under way at once.
const AT_ONCE: usize = 24;

/// A way to a server, by the protocol of a table.
trait Tabled: Clone + Send + 'static {
    const TABLE: &'static str;
    /// What is sent behind every input.
    const END: &'static [u8];

    /// What a client at `host` reads that sends `input`, as the table has it.
    fn answer(self, host: IpAddr, input: Vec<u8>) -> impl Future<Output = String> + Send;
}

#[tokio::test]
async fn sloppy_inputs_are_answered_as_by_dovecot_unless_a_rule_says_otherwise() {
    let world = World::builder().data_planes(1).start().await.unwrap();
    let tls = Security::Tls(world.trust());
    let dovecot = Connect::new(world.source().addr(Service::Imaps), tls);
    compare(&world, &dovecot, &world.imaps(0)).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn sloppy_inputs_of_managesieve_are_answered_likewise() {
    let world = World::builder().data_planes(1).start().await.unwrap();
    let to = |server| SieveConnect::new(server, world.trust(), address(0)).limit(LIMIT);
    let dovecot = to(world.source().addr(Service::Sieve));
    let through = to(world.data_planes()[0].sieve());
    compare(&world, &dovecot, &through).await;
    world.stop().await.unwrap();
}

/// Holds a server and the data plane to their columns.
async fn compare<T: Tabled>(world: &World, dovecot: &T, through: &T) {
    let mut wrong = Vec::new();
    if Generation::installed().unwrap() == Generation::V2_3 {
        wrong.extend(differences(world, "dovecot", dovecot).await);
    }
    wrong.extend(differences(world, "ours", through).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sends every input of the table, each on a connection and from an address of its own.
async fn differences<T: Tabled>(world: &World, who: &str, way: &T) -> Vec<String> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let account = (world.accounts()[0].clone(), world.password().to_owned());
    let mut answers = JoinSet::new();
    for (host, case) in (2..).zip(table(T::TABLE).0) {
        let way = way.clone();
        let (places, (user, password)) = (Arc::clone(&places), account.clone());
        answers.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let input = [&octets(case.input, &user, &password), T::END].concat();
            let answer = way.answer(address(host), input).await;
            (case, masked(&answer, &user, &password))
        });
    }
    let all = answers.join_all().await;
    all.into_iter()
        .filter(|(case, answer)| answer != case.by(who))
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
