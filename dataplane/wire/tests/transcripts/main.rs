//! Runs the dialogues in the folders of `tests/transcripts`, one folder a protocol, each twice: fed line by line and
//! octet by octet.
//!
//! ```text
//!   C: what the client sends            S: what the client reads
//!   B: what the backend sends           P: what the backend reads from us
//!   ! what the driver does or must have seen (see `Script::directive`), or a shorthand of the protocol's
//!   == the title of the next dialogue
//!   # a comment
//! ```
//!
//! A line stands for itself and CRLF. A `C+` or `B+` line is sent together with the next one. After
//! `C~` and `B~` no CRLF is added; after `S~` and `P~` all that there is to read must be just that.
//! `\r`, `\n`, `\\` and `\xNN` are escapes. Nothing may be left
//! unread when somebody sends, nor at the end.

mod script;
#[path = "../world/mod.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use ferrypost_wire::LineProtocol;
use ferrypost_wire::imap::Imap;
use ferrypost_wire::pop3::Pop3;
use ferrypost_wire::sieve::Sieve;
use ferrypost_wire::smtp::Submission;
use script::Script;

/// One test for each file, and one that finds a file without a test.
macro_rules! transcripts {
    ($protocol:ident: $type:ty = $($name:ident),* $(,)?) => {
        mod $protocol {
            $(#[test]
            fn $name() {
                super::run_file::<$type>(stringify!($name));
            })*

            #[test]
            fn every_transcript_is_run() {
                super::none_is_left_out::<$type>(&[$(stringify!($name)),*]);
            }
        }
    };
}

transcripts! {
    imap: super::Imap =
    walkthrough,
    before_login,
    credentials,
    starttls,
    greeting,
    announce,
    replay,
    verdict,
    tokens,
    capabilities,
    goodbye,
    limits,
    relay,
    relay_idle,
    relay_literals,
    relay_unauthenticate,
}

transcripts! {
    pop3: super::Pop3 =
    walkthrough,
    before_login,
    credentials,
    tokens,
    starttls,
    greeting,
    announce,
    utf8,
    replay,
    verdict,
    goodbye,
    limits,
    relay,
}

transcripts! {
    managesieve: super::Sieve =
    walkthrough,
    before_login,
    credentials,
    starttls,
    greeting,
    announce,
    replay,
    verdict,
    capabilities,
    goodbye,
    limits,
    relay,
    relay_unauthenticate,
}

transcripts! {
    submission: super::Submission =
    walkthrough,
    together,
    before_login,
    credentials,
    offer,
    starttls,
    greeting,
    announce,
    replay,
    verdict,
    goodbye,
    limits,
    relay,
    relay_messages,
    relay_doubt,
    relay_relogin,
}

/// A protocol that has transcripts.
trait Spoken: LineProtocol {
    /// What the one destination offers, unless a dialogue says otherwise.
    const OFFERED: &'static [&'static str];
    /// What parts the items of a list.
    const SEPARATOR: &'static str;
    /// What happens in nearly every dialogue: a directive, and the lines that it stands for.
    const SHORTHANDS: &'static [(&'static str, &'static str)];
}

impl Spoken for Imap {
    const OFFERED: &'static [&'static str] = &[
        "IMAP4rev1",
        "SASL-IR",
        "ID",
        "ENABLE",
        "IDLE",
        "LITERAL+",
        "AUTH=PLAIN",
    ];
    const SEPARATOR: &'static str = " ";
    const SHORTHANDS: &'static [(&'static str, &'static str)] = &[
        (
            "greeted",
            "S: * OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE AUTH=PLAIN AUTH=LOGIN] \
             Ferrypost is ready.",
        ),
        (
            "greeted-in-clear",
            "S: * OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE STARTTLS LOGINDISABLED] \
             Ferrypost is ready.",
        ),
        (
            "backend-greets",
            "B: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Ready.",
        ),
        // Alice logs in and her login is replayed.
        (
            "replayed",
            "! greeted\n\
             C: a LOGIN alice secret\n\
             ! login alice secret\n\
             ! dial\n\
             ! backend-greets\n\
             P: F1 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==",
        ),
        // Alice is relayed.
        (
            "relayed",
            "! replayed\n\
             B: F1 OK [CAPABILITY IMAP4rev1] Hello.\n\
             ! accept\n\
             S: a OK [CAPABILITY IMAP4rev1] Hello.",
        ),
    ];
}

impl Spoken for Pop3 {
    const OFFERED: &'static [&'static str] = &[
        "TOP",
        "UIDL",
        "RESP-CODES",
        "PIPELINING",
        "AUTH-RESP-CODE",
        "USER",
        "SASL PLAIN LOGIN",
    ];
    const SEPARATOR: &'static str = ", ";
    const SHORTHANDS: &'static [(&'static str, &'static str)] = &[
        ("greeted", "S: +OK Ferrypost is ready."),
        (
            "backend-greets",
            "B: +OK Ready.\n\
             P: CAPA\n\
             B+ +OK\n\
             B+ AUTH-RESP-CODE\n\
             B+ USER\n\
             B+ SASL PLAIN LOGIN\n\
             B: .",
        ),
        // Alice logs in and her login is replayed.
        (
            "replayed",
            "! greeted\n\
             C: USER alice\n\
             S: +OK Now the password.\n\
             C: PASS secret\n\
             ! login alice secret\n\
             ! dial\n\
             ! backend-greets\n\
             P: AUTH PLAIN AGFsaWNlAHNlY3JldA==",
        ),
        // Alice is relayed.
        (
            "relayed",
            "! replayed\n\
             B: +OK Logged in.\n\
             ! accept\n\
             S: +OK Logged in.",
        ),
    ];
}

impl Spoken for Sieve {
    const OFFERED: &'static [&'static str] =
        &["SASL PLAIN LOGIN", "SIEVE fileinto vacation", "VERSION 1.0"];
    const SEPARATOR: &'static str = ", ";
    const SHORTHANDS: &'static [(&'static str, &'static str)] = &[
        (
            "greeted",
            "S: \"IMPLEMENTATION\" \"Ferrypost\"\n\
             S: \"SASL\" \"PLAIN LOGIN\"\n\
             S: \"SIEVE\" \"fileinto vacation\"\n\
             S: \"VERSION\" \"1.0\"\n\
             S: OK \"Ferrypost is ready.\"",
        ),
        (
            "greeted-in-clear",
            "S: \"IMPLEMENTATION\" \"Ferrypost\"\n\
             S: \"SASL\" \"\"\n\
             S: \"SIEVE\" \"fileinto vacation\"\n\
             S: \"VERSION\" \"1.0\"\n\
             S: \"STARTTLS\"\n\
             S: OK \"Ferrypost is ready.\"",
        ),
        (
            "greeted-with-tokens",
            "S: \"IMPLEMENTATION\" \"Ferrypost\"\n\
             S: \"SASL\" \"PLAIN LOGIN OAUTHBEARER XOAUTH2\"\n\
             S: \"SIEVE\" \"\"\n\
             S: OK \"Ferrypost is ready.\"",
        ),
        (
            "backend-greets",
            "B+ \"SASL\" \"PLAIN LOGIN\"\n\
             B+ \"SIEVE\" \"fileinto vacation\"\n\
             B: OK \"Ready.\"",
        ),
        // Alice logs in and her login is replayed.
        (
            "replayed",
            "! greeted\n\
             C: AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"\n\
             ! login alice secret\n\
             ! dial\n\
             ! backend-greets\n\
             P: AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"",
        ),
        // Alice is relayed.
        (
            "relayed",
            "! replayed\n\
             B: OK \"Hello.\"\n\
             ! accept\n\
             S: OK \"Hello.\"",
        ),
    ];
}

impl Spoken for Submission {
    const OFFERED: &'static [&'static str] = &[
        "PIPELINING",
        "SIZE 10240000",
        "VRFY",
        "AUTH PLAIN LOGIN",
        "8BITMIME",
        "CHUNKING",
    ];
    const SEPARATOR: &'static str = ", ";
    const SHORTHANDS: &'static [(&'static str, &'static str)] = &[
        ("greeted", "S: 220 ferrypost ESMTP is ready."),
        (
            "ehlo",
            "! greeted\n\
             C: EHLO client.example.org\n\
             ! offered",
        ),
        (
            "offered",
            "S: 250-ferrypost\n\
             S: 250-SIZE 10240000\n\
             S: 250-PIPELINING\n\
             S: 250-8BITMIME\n\
             S: 250-CHUNKING\n\
             S: 250-VRFY\n\
             S: 250 AUTH PLAIN LOGIN",
        ),
        (
            "ehlo-in-clear",
            "! greeted\n\
             C: EHLO client.example.org\n\
             S: 250-ferrypost\n\
             S: 250-SIZE 10240000\n\
             S: 250-PIPELINING\n\
             S: 250-8BITMIME\n\
             S: 250-CHUNKING\n\
             S: 250-VRFY\n\
             S: 250 STARTTLS",
        ),
        // A backend greets, and says what it offers.
        (
            "backend-greets",
            "B: 220 mx.example.org ESMTP\n\
             P: EHLO client.example.org\n\
             B+ 250-mx.example.org\n\
             B+ 250-PIPELINING\n\
             B+ 250-CHUNKING\n\
             B: 250 AUTH PLAIN LOGIN",
        ),
        // Alice logs in and her login is replayed.
        (
            "replayed",
            "! ehlo\n\
             C: AUTH PLAIN AGFsaWNlAHNlY3JldA==\n\
             ! login alice secret\n\
             ! dial\n\
             ! backend-greets\n\
             P: AUTH PLAIN AGFsaWNlAHNlY3JldA==",
        ),
        // Alice is relayed.
        (
            "relayed",
            "! replayed\n\
             B: 235 2.7.0 Authentication successful\n\
             ! accept\n\
             S: 235 2.7.0 Authentication successful",
        ),
    ];
}

fn folder<P: Spoken>() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(P::KIND.as_str())
}

fn none_is_left_out<P: Spoken>(known: &[&str]) {
    for entry in fs::read_dir(folder::<P>()).expect("the folder is there") {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a transcript has a plain name");
        assert!(known.contains(&name), "{name} has no test");
    }
}

/// Runs every dialogue of a file; each begins with `== what it shows`.
fn run_file<P: Spoken>(name: &str) {
    let path = folder::<P>().join(name).with_extension("txt");
    let text = fs::read_to_string(path).expect("the transcript is there");
    let lines: Vec<_> = text.lines().enumerate().collect();
    let dialogues = lines.split(|(_, line)| line.starts_with("== "));
    // What stands before the first title is a comment on the file.
    for dialogue in dialogues.skip(1) {
        for split in [false, true] {
            Script::<P>::new(name, split).run(dialogue);
        }
    }
}
