//! Playing one dialogue.

use ferrypost_wire::{Capabilities as _, Channel, ClientReply, Credentials, Farewell, Tokens};

use super::Spoken;
use super::world::{Setup, Stage, World};

/// A dialogue that is being played.
pub(crate) struct Script<'a, P: Spoken> {
    name: &'a str,
    line: usize,
    /// Whether everything is sent octet by octet.
    split: bool,
    setup: Option<Setup<P>>,
    world: Option<World<P>>,
    together: Vec<u8>,
}

impl<'a, P: Spoken> Script<'a, P> {
    pub(crate) fn new(name: &'a str, split: bool) -> Self {
        Self {
            name,
            line: 0,
            split,
            setup: Some(Setup::new(P::OFFERED)),
            world: None,
            together: Vec::new(),
        }
    }

    pub(crate) fn run(mut self, lines: &[(usize, &str)]) {
        for &(number, line) in lines {
            self.line = number + 1;
            self.play(line);
        }
        self.expect_silence();
    }

    fn play(&mut self, line: &str) {
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

    fn place(&self) -> String {
        let how = if self.split {
            "octet by octet"
        } else {
            "line by line"
        };
        format!(
            "{}/{}.txt:{} ({how})",
            P::KIND.as_str(),
            self.name,
            self.line
        )
    }

    fn world(&mut self) -> &mut World<P> {
        let setup = &mut self.setup;
        self.world
            .get_or_insert_with(|| World::new(setup.take().expect("not yet started")))
    }

    fn setup(&mut self) -> &mut Setup<P> {
        let place = self.place();
        self.setup
            .as_mut()
            .unwrap_or_else(|| panic!("{place}: it has started already"))
    }

    fn send(&mut self, content: &str, end: &str, send: fn(&mut World<P>, &[u8])) {
        self.expect_silence();
        let mut bytes = std::mem::take(&mut self.together);
        bytes.extend(unescape(content));
        bytes.extend(end.as_bytes());
        let size = if self.split { 1 } else { bytes.len().max(1) };
        for chunk in bytes.chunks(size) {
            send(self.world(), chunk);
        }
    }

    fn expect(&mut self, content: &str, pick: fn(&mut World<P>) -> &mut Vec<u8>) {
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

    fn expect_exactly(&mut self, content: &str, pick: fn(&mut World<P>) -> &mut Vec<u8>) {
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
            ["tokens", "unreadable"] => self.setup().tokens = Tokens::Unreadable,
            ["announce"] => self.setup().announce = true,
            ["server-name", name] => name.clone_into(&mut self.setup().server_name),
            ["limit", name, value] => self.limit(name, value.parse().expect("a number")),
            ["destinations", ref lists @ ..] => {
                let lists = lists.join(" ");
                self.setup().destinations = lists
                    .split(" | ")
                    .map(|list| P::Capabilities::from_items(list.split(P::SEPARATOR)))
                    .collect();
            }
            [name] if shorthand::<P>(name).is_some() => {
                for line in shorthand::<P>(name).unwrap_or_default().lines() {
                    self.play(line);
                }
            }
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
            (["login-octets", name, password], Stage::Offered(Credentials::Password(seen))) => {
                assert_eq!(seen.name(), *name, "{place}");
                assert_eq!(seen.password().expose(), unescape(password), "{place}");
            }
            (["token", frame, name, token], Stage::Offered(Credentials::Bearer(seen))) => {
                assert_eq!(format!("{:?}", seen.frame()), *frame, "{place}");
                assert_eq!(seen.name().unwrap_or("-"), *name, "{place}");
                assert_eq!(seen.token().expose(), token.as_bytes(), "{place}");
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
                if let [codes @ .., fault] = rest {
                    let (code, said) = (codes.join(" "), seen.server_code().unwrap_or("-"));
                    let found = if seen.is_about_the_login() {
                        "login"
                    } else {
                        "server"
                    };
                    assert_eq!((said, found), (&*code, *fault), "{place}");
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

/// The lines that a directive stands for.
fn shorthand<P: Spoken>(name: &str) -> Option<&'static str> {
    let found = P::SHORTHANDS.iter().find(|(short, _)| *short == name);
    found.map(|(_, lines)| *lines)
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
