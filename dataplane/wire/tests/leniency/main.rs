//! Before the login we take what the servers take that people leave, and where we do not, a rule says why.
//!
//! `leniency.txt` is the table: sloppy inputs with the answers of Dovecot, Cyrus and ours. Here our machines are
//! held to their column; the tests on real servers hold Dovecot and the whole data plane to theirs.

#[expect(dead_code, reason = "shared with the transcripts")]
mod world;

mod sloppy;

use ferrypost_wire::{ClientReply, Credentials};
use sloppy::{Case, END, masked, octets, summary, table};
use world::{Setup, Stage, World};

const TABLE: &str = include_str!("leniency.txt");
const USER: &str = "alice@example.org";
const PASSWORD: &str = "secret";

#[test]
fn sloppy_inputs_are_answered_as_the_table_says() {
    for split in [false, true] {
        for case in table(TABLE).0 {
            assert_eq!(answer(&case, split), case.ours, "{}", case.input);
        }
    }
}

#[test]
fn what_we_answer_otherwise_than_dovecot_has_a_rule() {
    let (cases, rules) = table(TABLE);
    assert!(cases.len() > 150, "{} rows", cases.len());
    for case in &cases {
        let differs = case.ours != case.dovecot;
        assert_eq!(differs, !case.rule.is_empty(), "{}", case.input);
        assert!(!differs || rules.contains(&case.rule), "{}", case.rule);
    }
    for rule in rules {
        assert!(cases.iter().any(|case| case.rule == rule), "{rule}");
    }
}

#[test]
fn nothing_of_the_credentials_comes_back() {
    for case in table(TABLE).0 {
        let mut world = World::new(Setup::default());
        drive(&mut world, &octets(case.input, USER, PASSWORD), false);
        let said = String::from_utf8_lossy(&world.to_client);
        assert_eq!(masked(&said, USER, PASSWORD), said, "{}", case.input);
    }
}

/// What a client reads that sends the case's input and [`END`].
fn answer(case: &Case, split: bool) -> String {
    let mut world = World::new(Setup::default());
    world.to_client.clear();
    let input = [&octets(case.input, USER, PASSWORD), END].concat();
    drive(&mut world, &input, split);
    let ended = matches!(world.stage, Stage::Closed | Stage::ClientBroke(_));
    if matches!(world.stage, Stage::Relay(_)) && world.to_backend.ends_with(END) {
        world.to_client.extend(b"zz OK\r\n");
    }
    summary(&world.to_client, ended)
}

/// Sends `input`; logs in who has the right password.
fn drive(world: &mut World, input: &[u8], split: bool) {
    let size = if split { 1 } else { input.len() };
    for chunk in input.chunks(size) {
        world.client_sends(chunk);
        loop {
            match &world.stage {
                Stage::Unfit(invalid) => {
                    let invalid = *invalid;
                    world.reply(ClientReply::Unfit(invalid));
                }
                Stage::Offered(credentials) => {
                    let Credentials::Password(login) = credentials else {
                        panic!("IMAP offers no tokens");
                    };
                    let right =
                        login.name() == USER && login.password().expose() == PASSWORD.as_bytes();
                    if right {
                        log_in(world);
                    } else {
                        world.reply(ClientReply::AuthFailed);
                    }
                }
                _ => break,
            }
        }
    }
}

fn log_in(world: &mut World) {
    world.dial();
    world.backend_sends(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Ready.\r\n");
    world.backend_sends(b"F1 OK [CAPABILITY IMAP4rev1] Hello.\r\n");
    world.accept();
}
