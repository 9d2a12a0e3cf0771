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
use ferrypost_tests::world::World;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::sloppy::imap::{END, summary};
use self::sloppy::{masked, octets, table};

#[expect(
    dead_code,
    reason = "other protocols' answers are for the machines' own test"
)]
#[path = "../../../dataplane/wire/tests/sloppy/mod.rs"]
mod sloppy;

const TABLE: &str = include_str!("../../../dataplane/wire/tests/leniency/imap.txt");

/// How long an answer may take before it counts as none. A failed login takes two seconds at least.
const LIMIT: Duration = Duration::from_secs(8);

/// Inputs under way at once.
const AT_ONCE: usize = 24;

#[tokio::test]
async fn sloppy_inputs_are_answered_as_by_dovecot_unless_a_rule_says_otherwise() {
    let world = World::builder().data_planes(1).start().await.unwrap();
    let dovecot = Connect::new(
        world.source().addr(Service::Imaps),
        Security::Tls(world.trust()),
    );
    let through = world.imaps(0);
    let mut wrong = Vec::new();
    if Generation::installed().unwrap() == Generation::V2_3 {
        wrong.extend(differences(&world, "dovecot", &dovecot).await);
    }
    wrong.extend(differences(&world, "ours", &through).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.stop().await.unwrap();
}

/// Sends every input of the table, each on a connection and from an address of its own.
async fn differences(world: &World, who: &str, connect: &Connect) -> Vec<String> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let account = (world.accounts()[0].clone(), world.password().to_owned());
    let mut answers = JoinSet::new();
    for (host, case) in (2..).zip(table(TABLE).0) {
        let connect = connect.clone().from(address(host)).limit(LIMIT);
        let (places, (user, password)) = (Arc::clone(&places), account.clone());
        answers.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let input = [&octets(case.input, &user, &password), END].concat();
            let answer = answer(&connect, &input).await.unwrap();
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

async fn answer(connect: &Connect, input: &[u8]) -> Result<String, ImapError> {
    let mut client = connect.open().await?;
    client.send(input).await?;
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
            Err(other) => return Err(other),
        }
    };
    Ok(summary(said.as_bytes(), ended))
}
