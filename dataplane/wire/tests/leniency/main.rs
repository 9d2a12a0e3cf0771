//! Before the login we take what the servers take that people leave, and where we do not, a rule says why.
//!
//! The tables, `*.txt`, have sloppy inputs with the answers of servers and ours. Here our machines are
//! held to their column; the tests on real servers hold Dovecot and the whole data plane to theirs.

#[path = "../sloppy/mod.rs"]
mod sloppy;
#[expect(dead_code, reason = "shared with the transcripts")]
#[path = "../world/mod.rs"]
mod world;

use ferrypost_wire::imap::Imap;
use ferrypost_wire::pop3::Pop3;
use ferrypost_wire::sieve::Sieve;
use ferrypost_wire::smtp::Submission;
use ferrypost_wire::{ClientReply, Credentials, LineProtocol};
use sloppy::{Case, masked, octets, table};
use world::{Setup, Stage, World};

const USER: &str = "alice@example.org";
const PASSWORD: &str = "secret";

/// One test for each protocol and rule of this file.
macro_rules! tables {
    ($($protocol:ident: $type:ty),+ $(,)?) => {
        $(mod $protocol {
            #[test]
            fn sloppy_inputs_are_answered_as_the_table_says() {
                super::answered_as_the_table_says::<$type>();
            }

            #[test]
            fn what_we_answer_otherwise_has_a_rule() {
                super::what_differs_has_a_rule::<$type>();
            }

            #[test]
            fn nothing_of_the_credentials_comes_back() {
                super::nothing_comes_back::<$type>();
            }
        })+
    };
}

tables! {
    imap: super::Imap,
    pop3: super::Pop3,
    managesieve: super::Sieve,
    submission: super::Submission,
}

/// A protocol that has a table.
trait Tabled: LineProtocol {
    const TABLE: &'static str;
    /// The servers whose answers are the measure: what we answer otherwise than all of them has a rule.
    const MEASURES: &'static [&'static str];
    const ROWS: usize;
    /// What is sent behind every input.
    const END: &'static [u8];
    /// What a backend answers to what is relayed.
    const RELAYED: &'static [(&'static [u8], &'static [u8])];
    /// What a destination offers.
    const OFFERED: &'static [&'static str];
    /// What a backend says, turn by turn, to who logs in with the right password.
    const BACKEND: &'static [&'static [u8]];

    /// A client's view, as the table has it.
    fn summary(said: &[u8], ended: bool) -> String;

    /// Whether two such views are the same to a client.
    fn are_alike(one: &str, other: &str) -> bool {
        one == other
    }
}

impl Tabled for Imap {
    const TABLE: &'static str = include_str!("imap.txt");
    const MEASURES: &'static [&'static str] = &["dovecot"];
    const ROWS: usize = 150;
    const END: &'static [u8] = sloppy::imap::END;
    const RELAYED: &'static [(&'static [u8], &'static [u8])] = &[(b"zz NOOP\r\n", b"zz OK\r\n")];
    const OFFERED: &'static [&'static str] = &[
        "IMAP4rev1",
        "SASL-IR",
        "ID",
        "ENABLE",
        "IDLE",
        "LITERAL+",
        "AUTH=PLAIN",
    ];
    const BACKEND: &'static [&'static [u8]] = &[
        b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Ready.\r\n",
        b"F1 OK [CAPABILITY IMAP4rev1] Hello.\r\n",
    ];

    fn summary(said: &[u8], ended: bool) -> String {
        sloppy::imap::summary(said, ended)
    }
}

impl Tabled for Pop3 {
    const TABLE: &'static str = include_str!("pop3.txt");
    const MEASURES: &'static [&'static str] = &["dovecot"];
    const ROWS: usize = 80;
    const END: &'static [u8] = sloppy::pop3::END;
    const RELAYED: &'static [(&'static [u8], &'static [u8])] = &[
        (b"STAT\r\n", b"+OK 0 0\r\n"),
        (sloppy::pop3::END, b"-ERR Unknown.\r\n"),
    ];
    const OFFERED: &'static [&'static str] = &["TOP", "UIDL", "USER", "SASL PLAIN LOGIN"];
    const BACKEND: &'static [&'static [u8]] = &[
        b"+OK Ready.\r\n",
        b"+OK\r\nUSER\r\nSASL PLAIN LOGIN\r\n.\r\n",
        b"+OK Logged in.\r\n",
    ];

    fn summary(said: &[u8], ended: bool) -> String {
        sloppy::pop3::summary(said, ended)
    }
}

impl Tabled for Sieve {
    const TABLE: &'static str = include_str!("managesieve.txt");
    const MEASURES: &'static [&'static str] = &["dovecot"];
    const ROWS: usize = 100;
    const END: &'static [u8] = sloppy::managesieve::END;
    const RELAYED: &'static [(&'static [u8], &'static [u8])] =
        &[(sloppy::managesieve::END, b"OK (TAG \"zz\")\r\n")];
    const OFFERED: &'static [&'static str] = &["SASL PLAIN LOGIN", "SIEVE fileinto", "VERSION 1.0"];
    const BACKEND: &'static [&'static [u8]] = &[
        b"\"SASL\" \"PLAIN LOGIN\"\r\nOK \"Ready.\"\r\n",
        b"OK \"Logged in.\"\r\n",
    ];

    fn summary(said: &[u8], ended: bool) -> String {
        sloppy::managesieve::summary(said, ended)
    }
}

impl Tabled for Submission {
    const TABLE: &'static str = include_str!("submission.txt");
    const MEASURES: &'static [&'static str] = &["dovecot", "postfix"];
    const ROWS: usize = 80;
    const END: &'static [u8] = sloppy::submission::END;
    const RELAYED: &'static [(&'static [u8], &'static [u8])] = &[
        (b"NOOP\r\n", b"250 2.0.0 Ok\r\n"),
        (
            b"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n",
            b"503 5.5.1 Error: already authenticated\r\n",
        ),
        (
            sloppy::submission::END,
            b"500 5.5.2 Error: command not recognized\r\n",
        ),
    ];
    const OFFERED: &'static [&'static str] = &["SIZE 10240000", "AUTH PLAIN LOGIN"];
    const BACKEND: &'static [&'static [u8]] = &[
        b"220 mx.example.org ESMTP\r\n",
        b"250-mx.example.org\r\n250 AUTH PLAIN LOGIN\r\n",
        b"235 2.7.0 Authentication successful\r\n",
    ];

    fn summary(said: &[u8], ended: bool) -> String {
        sloppy::submission::summary(said, ended)
    }

    fn are_alike(one: &str, other: &str) -> bool {
        sloppy::submission::codes(one) == sloppy::submission::codes(other)
    }
}

fn answered_as_the_table_says<P: Tabled>() {
    for split in [false, true] {
        for case in table(P::TABLE).0 {
            assert_eq!(answer::<P>(&case, split), case.by("ours"), "{}", case.input);
        }
    }
}

fn what_differs_has_a_rule<P: Tabled>() {
    let (cases, rules) = table(P::TABLE);
    assert!(cases.len() > P::ROWS, "{} rows", cases.len());
    for case in &cases {
        let is_like = |who: &&str| P::are_alike(case.by("ours"), case.by(who));
        let differs = !P::MEASURES.iter().any(is_like);
        assert_eq!(differs, !case.rule.is_empty(), "{}", case.input);
        assert!(!differs || rules.contains(&case.rule), "{}", case.rule);
    }
    for rule in rules {
        assert!(cases.iter().any(|case| case.rule == rule), "{rule}");
    }
}

fn nothing_comes_back<P: Tabled>() {
    for case in table(P::TABLE).0 {
        let mut world = World::new(Setup::<P>::new(P::OFFERED));
        drive(&mut world, &octets(case.input, USER, PASSWORD), false);
        let said = String::from_utf8_lossy(&world.to_client);
        assert_eq!(masked(&said, USER, PASSWORD), said, "{}", case.input);
    }
}

/// What a client reads that sends the case's input and the protocol's end.
fn answer<P: Tabled>(case: &Case, split: bool) -> String {
    let mut world = World::new(Setup::<P>::new(P::OFFERED));
    world.to_client.clear();
    let input = [&octets(case.input, USER, PASSWORD), P::END].concat();
    drive(&mut world, &input, split);
    let ended = matches!(world.stage, Stage::Closed | Stage::ClientBroke(_));
    while matches!(world.stage, Stage::Relay(_)) && !world.to_backend.is_empty() {
        let relayed = std::mem::take(&mut world.to_backend);
        for command in relayed.split_inclusive(|&octet| octet == b'\n') {
            let answer = P::RELAYED.iter().find(|(known, _)| *known == command);
            world.backend_sends(answer.map_or(&[][..], |(_, answer)| answer));
        }
    }
    P::summary(&world.to_client, ended)
}

/// Sends `input`; logs in who has the right password.
fn drive<P: Tabled>(world: &mut World<P>, input: &[u8], split: bool) {
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
                        panic!("no destination takes tokens");
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

fn log_in<P: Tabled>(world: &mut World<P>) {
    world.dial();
    for words in P::BACKEND {
        world.backend_sends(words);
    }
    world.to_backend.clear();
    world.accept();
}
