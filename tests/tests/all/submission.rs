//! Messages submitted by real clients through a whole data plane to a real Postfix on either side. Each Postfix's own
//! log shows the client's address and the name that it gave itself: the source's by XCLIENT, the target's by its PROXY
//! header.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ferrypost_tests::dovecot::Role;
use ferrypost_tests::process::find_program;
use ferrypost_tests::story::{SOON, migrate, move_to, short_limits};
use ferrypost_tests::world::World;
use tokio::process::Command;
use tokio::time::timeout;

/// Python's own, by both families.
const SMTPLIB: &str = r#"
import smtplib, ssl, sys
host, port, source, ca, user, password, helo = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.check_hostname = ":" not in host
with smtplib.SMTP(host, int(port), local_hostname=helo, source_address=(source, 0)) as client:
    client.starttls(context=context)
    client.login(user, password)
    client.sendmail(user, ["bob@example.net"], "Subject: by smtplib\r\n\r\n.\r\nA message.\r\n")
"#;

/// No client takes longer to submit a message.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program that submits a message, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    program: &'static str,
    pub(crate) from: &'static str,
    helo: &'static str,
}

const CLIENTS: [Client; 4] = [
    Client {
        program: "swaks",
        from: "127.0.0.77",
        helo: "swaks.example.org",
    },
    Client {
        program: "curl",
        from: "127.0.0.78",
        helo: "curl.example.org",
    },
    PYTHON[0],
    PYTHON[1],
];

/// By either family.
pub(crate) const PYTHON: [Client; 2] = [
    Client {
        program: "python3",
        from: "127.0.0.79",
        helo: "python.example.org",
    },
    Client {
        program: "python3",
        from: "::1",
        helo: "python-6.example.org",
    },
];

#[tokio::test]
async fn each_postfix_sees_the_real_client_and_its_name_whoever_submits() {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder.postfixes().start().await.unwrap();
    for client in CLIENTS {
        is_seen(&world, Role::Source, client).await;
    }
    let moving = move_to(&world.accounts()[0], "target");
    migrate(&world.operator(0), moving).await.unwrap();
    for client in CLIENTS {
        is_seen(&world, Role::Target, client).await;
    }
    world.stop().await.unwrap();
}

/// Submits a message and reads the log of the Postfix that must have it.
async fn is_seen(world: &World, role: Role, client: Client) {
    let log = world.postfix(role).unwrap().log().from_now();
    let account = &world.accounts()[0];
    submit(world, client, account).await;
    let address = format!("[{}]", client.from);
    let user = format!("sasl_username={account}");
    let accepted = ["client=", &address, &user];
    log.wait_for(&accepted, SOON).await.unwrap();
    let named = format!("helo=<{}>", client.helo);
    let received = ["header Received: from", &address, &named];
    log.wait_for(&received, SOON).await.unwrap();
}

/// Submits a message of an account's.
pub(crate) async fn submit(world: &World, client: Client, account: &str) {
    let mut command = Command::new(find_program(Path::new(client.program)).unwrap());
    command
        .args(arguments(world, client, account))
        .stdin(Stdio::null());
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{client:?}: {said}");
}

fn arguments(world: &World, client: Client, user: &str) -> Vec<String> {
    let port = world.data_planes()[0].submission().unwrap().port();
    let password = world.password();
    let authority = world.authority().display().to_string();
    let Client { from, helo, .. } = client;
    let host = if from.contains(':') {
        "::1"
    } else {
        "127.0.0.1"
    };
    let words = match client.program {
        "swaks" => format!(
            "--server {host} --port {port} --local-interface {from} --tls --helo {helo} --from {user} \
             --to bob@example.net --auth PLAIN --auth-user {user} --auth-password {password}"
        ),
        "curl" => format!(
            "--silent --show-error --ssl-reqd --cacert {authority} --interface {from} \
             --url smtp://{host}:{port}/{helo} --user {user}:{password} --mail-from {user} \
             --mail-rcpt bob@example.net --upload-file {authority}"
        ),
        _ => format!("{host} {port} {from} {authority} {user} {password} {helo}"),
    };
    let script = ["-c", SMTPLIB].map(str::to_owned);
    let script = script.into_iter().filter(|_| client.program == "python3");
    script
        .chain(words.split_whitespace().map(str::to_owned))
        .collect()
}
