//! Runs the dialogues in `tests/transcripts`, each twice: fed line by line and octet by octet.
//!
//! ```text
//!   C: what the client sends            S: what the client reads
//!   B: what the backend sends           P: what the backend reads from us
//!   ! what the driver does or must have seen (see `Script::directive`)
//!   == the title of the next dialogue
//!   # a comment
//! ```
//!
//! A line stands for itself and CRLF. A `C+` or `B+` line is sent together with the next one. After
//! `C~` and `B~` no CRLF is added; after `S~` and `P~` all that there is to read must be just that.
//! `\r`, `\n`, `\\` and `\xNN` are escapes. Nothing may be left
//! unread when somebody sends, nor at the end.

mod world;

use std::fs;
use std::path::{Path, PathBuf};

use ferrypost_wire::imap::Capabilities;
use ferrypost_wire::{Channel, ClientReply, Credentials, Farewell};
use world::{Setup, Stage, World};

/// One test for each file, and one that finds a file without a test.
macro_rules! transcripts {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            run_file(stringify!($name));
        })*

        #[test]
        fn every_transcript_is_run() {
            let known = [$(stringify!($name)),*];
            for entry in fs::read_dir(folder()).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                assert!(known.contains(&name), "{name} has no test");
            }
        }
    };
}

transcripts! {
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
    relay_idle,
    relay_literals,
    relay_unauthenticate,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Runs every dialogue of a file; each begins with `== what it shows`.
fn run_file(name: &str) {
    let text = fs::read_to_string(folder().join(name).with_extension("txt"))
        .expect("the transcript is there");
    let lines: Vec<_> = text.lines().enumerate().collect();
    let dialogues = lines.split(|(_, line)| line.starts_with("== "));
    // What stands before the first title is a comment on the file.
    for dialogue in dialogues.skip(1) {
        for split in [false, true] {
            Script::new(name, split).run(dialogue);
        }
    }
}

const GREETING: &str = "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE AUTH=PLAIN \
    AUTH=LOGIN] Ferrypost is ready.";
const GREETING_IN_CLEAR: &str = "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE \
    STARTTLS LOGINDISABLED] Ferrypost is ready.";
const BACKEND_GREETING: &str =
    "* OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Ready.";

struct Script<'a> {
    name: &'a str,
    line: usize,
    /// Whether everything is sent octet by octet.
    split: bool,
    setup: Option<Setup>,
    world: Option<World>,
    together: Vec<u8>,
}

impl<'a> Script<'a> {
    fn new(name: &'a str, split: bool) -> Self {
        Self {
            name,
            line: 0,
            split,
            setup: Some(Setup::default()),
            world: None,
            together: Vec::new(),
        }
    }

    fn run(mut self, lines: &[(usize, &str)]) {
        for &(number, line) in lines {
            self.line = number + 1;
            let content = line.get(3..).unwrap_or_default();
            match line.get(..2).unwrap_or_default() {
                "C:" => self.send(content, "\r\n", World::client_sends),
                "C~" => self.send(content, "", World::client_sends),
                "B:" => self.send(content, "\r\n", World::backend_sends),
                "B~" => self.send(content, "", World::backend_sends),
                "S~" => self.expect_exactly(content, |world| &mut world.to_client),
                "P~" => self.expect_exactly(content, |world| &mut world.to_backend),
                "C+" | "B+" => {
                    let bytes = unescape(content);
                    self.together.extend(bytes);
                    self.together.extend(b"\r\n");
                }
                "S:" => self.expect(content, |world| &mut world.to_client),
                "P:" => self.expect(content, |world| &mut world.to_backend),
                "! " => {
                    let words: Vec<_> = line[2..].split(' ').collect();
                    self.directive(&words);
                }
                "" | "# " => {}
                _ => panic!("{}: what is {line:?}?", self.place()),
            }
        }
        self.expect_silence();
    }

    fn place(&self) -> String {
        let how = if self.split {
            "octet by octet"
        } else {
            "line by line"
        };
        format!("{}.txt:{} ({how})", self.name, self.line)
    }

    fn world(&mut self) -> &mut World {
        let setup = &mut self.setup;
        self.world
            .get_or_insert_with(|| World::new(setup.take().expect("not yet started")))
    }

    fn setup(&mut self) -> &mut Setup {
        let place = self.place();
        self.setup
            .as_mut()
            .unwrap_or_else(|| panic!("{place}: it has started already"))
    }

    fn send(&mut self, content: &str, end: &str, send: fn(&mut World, &[u8])) {
        self.expect_silence();
        let mut bytes = std::mem::take(&mut self.together);
        bytes.extend(unescape(content));
        bytes.extend(end.as_bytes());
        let size = if self.split { 1 } else { bytes.len().max(1) };
        for chunk in bytes.chunks(size) {
            send(self.world(), chunk);
        }
    }

    fn expect(&mut self, content: &str, pick: fn(&mut World) -> &mut Vec<u8>) {
        let mut expected = unescape(content);
        expected.extend(b"\r\n");
        let place = self.place();
        let actual = pick(self.world());
        let end = memchr::memchr(b'\n', actual).map_or(actual.len(), |end| end + 1);
        let line: Vec<u8> = actual.drain(..end).collect();
        assert_eq!(
            line.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{place}"
        );
    }

    fn expect_exactly(&mut self, content: &str, pick: fn(&mut World) -> &mut Vec<u8>) {
        let place = self.place();
        let actual = std::mem::take(pick(self.world()));
        assert_eq!(
            actual.escape_ascii().to_string(),
            unescape(content).escape_ascii().to_string(),
            "{place}"
        );
    }

    fn expect_silence(&mut self) {
        let place = self.place();
        let world = self.world();
        for (who, bytes) in [("client", &world.to_client), ("backend", &world.to_backend)] {
            assert!(
                bytes.is_empty(),
                "{place}: the {who} also read {}",
                bytes.escape_ascii()
            );
        }
    }

    /// `! verb arguments`
    fn directive(&mut self, words: &[&str]) {
        match *words {
            // Before anything is said.
            ["client", channel] => self.setup().client = parse_channel(channel),
            ["backend", channel] => self.setup().backend = parse_channel(channel),
            ["announce"] => self.setup().announce = true,
            ["limit", name, value] => self.limit(name, value.parse().expect("a number")),
            ["destinations", ref lists @ ..] => {
                let lists = lists.join(" ");
                self.setup().destinations = lists
                    .split(" | ")
                    .map(|list| Capabilities::parse(list.as_bytes()))
                    .collect();
            }
            // What happens in nearly every dialogue.
            ["greeted"] => self.expect(GREETING, |world| &mut world.to_client),
            ["greeted-in-clear"] => self.expect(GREETING_IN_CLEAR, |world| &mut world.to_client),
            ["backend-greets"] => self.send(BACKEND_GREETING, "\r\n", World::backend_sends),
            ["replayed"] => self.replay(),
            ["relayed"] => self.relay(),
            // What the driver does.
            ["tls", "client"] => self.world().client_tls(),
            ["tls", "backend"] => self.world().backend_tls(),
            ["dial"] => self.world().dial(),
            ["held"] => self.world().held(),
            ["reply", reply] => self.world().reply(parse_reply(reply)),
            ["accept"] => self.world().accept(),
            ["again"] => self.world().back_to_front(),
            ["drain"] => {
                self.world().draining = true;
                self.world().run();
            }
            ["release"] => self.world().release(),
            ["goodbye", why] => {
                let place = self.place();
                assert!(self.world().goodbye(parse_farewell(why)), "{place}");
            }
            _ => self.check(words),
        }
    }

    /// Alice logs in and her login is replayed.
    fn replay(&mut self) {
        self.directive(&["greeted"]);
        self.send("a LOGIN alice secret", "\r\n", World::client_sends);
        self.directive(&["login", "alice", "secret"]);
        self.directive(&["dial"]);
        self.directive(&["backend-greets"]);
        let login = "F1 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==";
        self.expect(login, |world| &mut world.to_backend);
    }

    /// Alice is relayed.
    fn relay(&mut self) {
        self.replay();
        let hello = "F1 OK [CAPABILITY IMAP4rev1] Hello.";
        self.send(hello, "\r\n", World::backend_sends);
        self.directive(&["accept"]);
        let hello = "a OK [CAPABILITY IMAP4rev1] Hello.";
        self.expect(hello, |world| &mut world.to_client);
    }

    /// What the driver must have seen.
    fn check(&mut self, words: &[&str]) {
        let place = self.place();
        let world = self.world();
        match (words, &world.stage) {
            (["login", name, password], Stage::Offered(Credentials::Password(seen))) => {
                assert_eq!(seen.name(), *name, "{place}");
                assert_eq!(seen.password().expose(), password.as_bytes(), "{place}");
            }
            (["login", name, as_whom, password], Stage::Offered(Credentials::Password(seen))) => {
                assert_eq!(seen.name(), *name, "{place}");
                assert_eq!(seen.authentication(), *as_whom, "{place}");
                assert_eq!(seen.password().expose(), password.as_bytes(), "{place}");
            }
            (["unread", rest @ ..], _) => {
                let rest = unescape(&rest.join(" "));
                assert_eq!(world.unread_from_client(), rest, "{place}");
            }
            (["unfit", what], &Stage::Unfit(seen)) => {
                assert_eq!(format!("{seen:?}"), *what, "{place}");
                world.reply(ClientReply::Unfit(seen));
            }
            (["rejected", kind, rest @ ..], Stage::Rejected(seen)) => {
                assert_eq!(
                    format!("{:?}", seen.kind()).to_lowercase(),
                    *kind,
                    "{place}"
                );
                if let [code, fault] = rest {
                    let said = seen.server_code().unwrap_or("-");
                    let found = if seen.is_about_the_login() {
                        "login"
                    } else {
                        "server"
                    };
                    assert_eq!((said, found), (*code, *fault), "{place}");
                }
            }
            (["client-broke", what], Stage::ClientBroke(seen)) => {
                assert_eq!(format!("{seen:?}"), *what, "{place}");
            }
            (["backend-broke", what], Stage::BackendBroke(seen)) => {
                assert_eq!(format!("{seen:?}"), *what, "{place}");
            }
            (["refused", what], Stage::Refused(seen)) => {
                assert_eq!(format!("{:?}", seen.farewell()), *what, "{place}");
                // Of the refused command the backend may have read a part, but never its end.
                assert!(!world.to_backend.contains(&b'\n'), "{place}");
                world.to_backend.clear();
            }
            (["closed"], Stage::Closed) | (["front"], Stage::Front) => {}
            (["no-goodbye"], Stage::Relay(_)) => {
                assert!(!world.goodbye(Farewell::Moved), "{place}");
            }
            (["safety", safety], Stage::Relay(_)) => {
                let seen = format!("{:?}", world.safety()).to_lowercase();
                assert_eq!(seen, *safety, "{place}");
            }
            _ => panic!("{place}: {words:?} is unknown or out of place"),
        }
    }

    fn limit(&mut self, name: &str, value: usize) {
        let setup = self.setup();
        let small = u32::try_from(value).expect("a small number");
        match name {
            "line" => setup.limits.max_line = value,
            "literal" => setup.limits.max_literal = value,
            "commands" => setup.limits.max_commands = small,
            "errors" => setup.limits.max_errors = small,
            "back-line" => setup.back_limits.max_line = value,
            "back-lines" => setup.back_limits.max_lines = small,
            "back-untagged" => setup.back_limits.max_untagged = value,
            _ => panic!("there is no limit {name:?}"),
        }
    }
}

fn parse_channel(word: &str) -> Channel {
    match word {
        "clear" => Channel::Clear,
        "secure" => Channel::Secure,
        _ => panic!("there is no channel {word:?}"),
    }
}

fn parse_reply(word: &str) -> ClientReply {
    match word {
        "auth-failed" => ClientReply::AuthFailed,
        "unavailable" => ClientReply::Unavailable,
        why => ClientReply::Closing(parse_farewell(why)),
    }
}

fn parse_farewell(word: &str) -> Farewell {
    match word {
        "moved" => Farewell::Moved,
        "kicked" => Farewell::Kicked,
        "shutting-down" => Farewell::ShuttingDown,
        "too-many" => Farewell::TooMany,
        "too-many-failures" => Farewell::TooManyFailures,
        "idle-timeout" => Farewell::IdleTimeout,
        "login-timeout" => Farewell::LoginTimeout,
        "relogin" => Farewell::Relogin,
        "protocol-error" => Farewell::ProtocolError,
        _ => panic!("there is no farewell {word:?}"),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'\\' {
            bytes.push(octet);
            continue;
        }
        let (&escape, after) = rest.split_first().expect("an escape is not over");
        rest = after;
        match escape {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = str::from_utf8(digits).expect("hexadecimal digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
            }
            other => panic!("there is no escape \\{}", char::from(other)),
        }
    }
    bytes
}
