//! The backend's side up to the point where a secret may be sent: we are the client.

use super::capability::Capabilities;
use super::id;
use super::login::ImapLogin;
use super::response::{Lines, Response, Status, parse};
use crate::buf::WireBuf;
use crate::code::{Code, split_code};
use crate::facts::{ClientFacts, Introduction};
use crate::reply::BackendViolation;
use crate::secret::Credentials;
use crate::settings::{BackSettings, Channel};
use crate::text::printable;
use crate::{Negotiate, NegotiateStep};

/// The longest greeting that is kept for the operator, in octets.
const MAX_GREETING: usize = 512;

/// An IMAP client up to the login.
///
/// One command at a time: nothing is pipelined, since nothing is known yet about what answers.
pub struct ImapBack {
    channel: Channel,
    announce: Option<ClientFacts>,
    introduction: Introduction,
    prefaced: bool,
    lines: Lines,
    state: State,
    tags: Tags,
    greeting: String,
    offered_in_clear: Option<Capabilities>,
    offered: Option<Capabilities>,
}

/// What we wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    /// Nothing: the next command is to be chosen.
    Choosing,
    /// The end of the answer to this command.
    Answer(Command),
    /// The driver's TLS handshake.
    Handshake,
    /// Credentials.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Capability,
    StartTls,
    /// ID with the client's address, without which it must not be logged in.
    Announce,
    /// ID with the client's own words, which the backend may like or not.
    Introduce,
}

/// The tags of one backend connection, each used once.
pub(super) struct Tags(u32);

impl Tags {
    /// None is used yet.
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// The tag of the command that was sent last.
    pub(super) fn current(&self) -> String {
        format!("F{}", self.0)
    }

    /// The tag of the next command.
    pub(super) fn next(&mut self) -> String {
        self.0 += 1;
        self.current()
    }
}

impl ImapBack {
    pub(super) fn new(settings: BackSettings) -> Self {
        Self {
            channel: settings.channel,
            announce: settings.announce,
            introduction: settings.introduction,
            prefaced: settings.prefaced,
            lines: Lines::new(settings.limits),
            state: State::Greeting,
            tags: Tags::new(),
            greeting: String::new(),
            offered_in_clear: None,
            offered: None,
        }
    }

    /// Classifies the first line. A server that takes us for somebody (PREAUTH) would serve *that*
    /// account, whoever logs in.
    fn greet(&mut self, line: &[u8]) -> Result<(), BackendViolation> {
        match parse(line, b"") {
            Some(Response::Status(Status::Ok, text)) => {
                let (code, readable) = split_code(text);
                self.greeting = printable(readable, MAX_GREETING);
                self.learn(code);
                self.state = State::Choosing;
                Ok(())
            }
            Some(Response::Preauth(_)) => Err(BackendViolation::Preauthenticated),
            Some(Response::Bye) => Err(BackendViolation::Bye),
            Some(Response::Status(Status::Bad, _)) if self.prefaced => {
                Err(BackendViolation::PrefaceRefused)
            }
            _ => Err(BackendViolation::ForeignGreeting),
        }
    }

    /// Sends the next command, if one is needed before a secret may be sent.
    fn choose(&mut self, out: &mut Vec<u8>) -> Result<(), BackendViolation> {
        let Some(offered) = &self.offered else {
            self.send(Command::Capability, b"CAPABILITY", out);
            return Ok(());
        };
        if self.channel == Channel::Clear {
            if !offered.has("STARTTLS") {
                return Err(BackendViolation::StartTlsMissing);
            }
            self.send(Command::StartTls, b"STARTTLS", out);
        } else if let Some(facts) = self.announce.take() {
            if !offered.has("ID") {
                return Err(BackendViolation::AnnounceMissing);
            }
            let mut command = b"ID ".to_vec();
            id::write_arguments(&facts, &mut command);
            self.send(Command::Announce, &command, out);
            // Said with it.
            self.introduction = Introduction::default();
        } else if let Some(words) = self.own_words() {
            self.send(Command::Introduce, &[b"ID ", &words[..]].concat(), out);
        } else {
            self.state = State::Ready;
        }
        Ok(())
    }

    /// What the client said about itself, to be said once and where ID is offered.
    fn own_words(&mut self) -> Option<Vec<u8>> {
        let introduction = std::mem::take(&mut self.introduction);
        let offered = self.offered.as_ref()?;
        offered.has("ID").then(|| id::own_words(&introduction))?
    }

    fn send(&mut self, command: Command, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.tags.next().as_bytes());
        out.push(b' ');
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
        self.state = State::Answer(command);
    }

    /// Takes a line of the answer to `command`.
    fn answer(&mut self, command: Command, line: &[u8]) -> Result<(), BackendViolation> {
        match parse(line, self.tags.current().as_bytes()) {
            Some(Response::Tagged(Status::Ok, text)) => {
                self.learn(split_code(text).0);
                self.done(command)
            }
            Some(Response::Tagged(..)) => match command {
                Command::Capability => Err(BackendViolation::CapabilitiesMissing),
                Command::StartTls => Err(BackendViolation::StartTlsRefused),
                Command::Announce => Err(BackendViolation::AnnounceRefused),
                Command::Introduce => self.done(command),
            },
            Some(Response::Capability(list)) => {
                self.offered = Some(Capabilities::parse(list));
                Ok(())
            }
            // An error in what is no command (RFC 9051 §7.1.3), and our commands are sound.
            Some(Response::Status(Status::Bad, _)) if self.prefaced => {
                Err(BackendViolation::PrefaceRefused)
            }
            Some(Response::Status(..) | Response::Data) => Ok(()),
            Some(Response::Bye) => Err(BackendViolation::Bye),
            Some(Response::Continue(_) | Response::Preauth(_)) | None => {
                Err(BackendViolation::Malformed)
            }
        }
    }

    fn done(&mut self, command: Command) -> Result<(), BackendViolation> {
        self.state = match command {
            Command::StartTls => State::Handshake,
            Command::Capability if self.offered.is_none() => {
                return Err(BackendViolation::CapabilitiesMissing);
            }
            Command::Capability | Command::Announce | Command::Introduce => State::Choosing,
        };
        Ok(())
    }

    /// Takes a list that came as a response code.
    fn learn(&mut self, code: Option<Code<'_>>) {
        if let Some(code) = code.filter(|code| code.is("CAPABILITY")) {
            self.offered = Some(Capabilities::parse(code.arguments));
        }
    }
}

impl Negotiate for ImapBack {
    type Capabilities = Capabilities;
    type Login = ImapLogin;

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        loop {
            match self.state {
                State::Choosing => self.choose(out)?,
                State::Handshake => return Ok(NegotiateStep::StartTls),
                State::Ready => return Ok(NegotiateStep::Ready),
                State::Greeting | State::Answer(_) => {
                    let Some(line) = self.lines.next(input)? else {
                        return Ok(NegotiateStep::NeedMore);
                    };
                    match self.state {
                        State::Answer(command) => self.answer(command, &line)?,
                        _ => self.greet(&line)?,
                    }
                }
            }
        }
    }

    fn secured(&mut self) {
        self.channel = Channel::Secure;
        self.offered_in_clear = self.offered.take();
        self.state = State::Choosing;
    }

    fn greeting(&self) -> &str {
        &self.greeting
    }

    fn offered_in_clear(&self) -> Option<&Capabilities> {
        self.offered_in_clear.as_ref()
    }

    fn offered(&self) -> Option<&Capabilities> {
        self.offered.as_ref()
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.tags.next().as_bytes());
        out.extend_from_slice(b" LOGOUT\r\n");
    }

    fn into_login(self, credentials: Credentials) -> ImapLogin {
        let ready = self.state == State::Ready;
        let offered = self.offered.filter(|_| ready);
        ImapLogin::new(offered, self.lines, self.tags, credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Login as _;
    use crate::secret::SecretWriter;
    use crate::settings::BackLimits;

    #[test]
    fn credentials_given_too_soon_are_not_sent() {
        let mut back = ImapBack::new(BackSettings {
            channel: Channel::Clear,
            announce: None,
            introduction: Introduction::default(),
            prefaced: false,
            limits: BackLimits::default(),
        });
        let mut input = WireBuf::new(1024);
        let greeting = b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN SASL-IR] hi\r\n";
        input.extend(greeting).unwrap();
        let step = back.step(&mut input, &mut Vec::new());
        assert_eq!(step, Ok(NegotiateStep::NeedMore));
        let password = SecretWriter::with_capacity(0).text(b"secret").finish();
        let credentials = Credentials::password(b"", b"alice", password).ok().unwrap();
        let step = back.into_login(credentials).step(&mut input);
        assert!(matches!(step, Err(BackendViolation::NotReady)));
    }

    #[test]
    fn a_probe_can_tell_what_was_offered_in_clear_and_under_tls() {
        let mut back = ImapBack::new(BackSettings {
            channel: Channel::Clear,
            announce: None,
            introduction: Introduction::default(),
            prefaced: false,
            limits: BackLimits::default(),
        });
        let mut input = WireBuf::new(1024);
        let mut out = Vec::new();
        input
            .extend(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready \x1b[2J\r\nF1 OK go\r\n")
            .unwrap();
        let step = back.step(&mut input, &mut out);
        assert_eq!(step, Ok(NegotiateStep::StartTls));
        back.secured();
        assert_eq!(back.offered(), None);
        input
            .extend(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nF2 OK\r\n")
            .unwrap();
        let step = back.step(&mut input, &mut out);
        assert_eq!(step, Ok(NegotiateStep::Ready));
        let text = |list: Option<&Capabilities>| list.unwrap().to_string();
        assert_eq!(text(back.offered_in_clear()), "IMAP4rev1 STARTTLS");
        assert_eq!(text(back.offered()), "IMAP4rev1 AUTH=PLAIN");
        assert_eq!(back.greeting(), "ready ?[2J");
        back.leave(&mut out);
        assert_eq!(out, b"F1 STARTTLS\r\nF2 CAPABILITY\r\nF3 LOGOUT\r\n");
    }
    #[test]
    fn an_error_that_belongs_to_no_command_is_about_what_went_before_on_the_connection() {
        let after_greeting = |prefaced| {
            let mut back = ImapBack::new(BackSettings {
                channel: Channel::Secure,
                announce: None,
                introduction: Introduction::default(),
                prefaced,
                limits: BackLimits::default(),
            });
            let mut input = WireBuf::new(1024);
            let said = b"* OK ready\r\n* BAD [PARSE] what?\r\n* CAPABILITY IMAP4rev1\r\nF1 OK\r\n";
            input.extend(said).unwrap();
            back.step(&mut input, &mut Vec::new())
        };
        assert_eq!(after_greeting(true), Err(BackendViolation::PrefaceRefused));
        assert_eq!(after_greeting(false), Ok(NegotiateStep::Ready));
    }
}
