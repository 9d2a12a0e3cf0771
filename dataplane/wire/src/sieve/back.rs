//! The backend's side up to the point where a secret may be sent: we are the client.

use super::login::SieveLogin;
use super::response::{Reason, Response, Responses, Status, parse};
use crate::buf::WireBuf;
use crate::facts::ClientFacts;
use crate::keywords::Keywords;
use crate::reply::BackendViolation;
use crate::secret::Credentials;
use crate::settings::{BackSettings, Channel};
use crate::text::printable;
use crate::{Negotiate, NegotiateStep, xclient};

/// The longest greeting that is kept for the operator, in octets.
const MAX_GREETING: usize = 512;

/// A ManageSieve client up to the login.
pub struct SieveBack {
    channel: Channel,
    announce: Option<ClientFacts>,
    /// Whether something went before that the backend may have taken for commands. Answers have no tags: until
    /// it has obeyed one of ours, its NO may be for what it did not understand.
    prefaced: bool,
    responses: Responses,
    state: State,
    greeting: String,
    offered_in_clear: Option<Keywords>,
    offered: Option<Keywords>,
    /// What it says now, until the end of the list.
    list: Option<Keywords>,
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
    /// Nothing: the handshake is over.
    Secured,
    /// Credentials.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Capability,
    StartTls,
    /// NOOP behind the handshake. The list that is to come unasked (RFC 5804 §2.2) comes before its answer, or
    /// never: there are servers from before the RFC that wait to be asked.
    Noop,
    /// XCLIENT with the client's address. A backend that does not offer it trusts us in nothing, and takes our
    /// address for the client's: the operator is told.
    Announce,
}

impl SieveBack {
    pub(super) fn new(settings: BackSettings) -> Self {
        Self {
            channel: settings.channel,
            announce: settings.announce,
            prefaced: settings.prefaced,
            responses: Responses::new(settings.limits),
            state: State::Greeting,
            greeting: String::new(),
            offered_in_clear: None,
            offered: None,
            list: None,
        }
    }

    /// Sends the next command, if one is needed before a secret may be sent.
    fn choose(&mut self, out: &mut Vec<u8>) -> Result<(), BackendViolation> {
        let offered = self.offered.as_ref();
        let offers = |name| offered.is_some_and(|list| list.has(name));
        if offered.is_none() || self.prefaced && self.channel == Channel::Secure {
            self.send(Command::Capability, "CAPABILITY", out);
        } else if self.channel == Channel::Clear {
            if !offers("STARTTLS") {
                return Err(BackendViolation::StartTlsMissing);
            }
            self.send(Command::StartTls, "STARTTLS", out);
        } else if let Some(facts) = self.announce.take().filter(|_| offers("XCLIENT")) {
            self.send(Command::Announce, &xclient::command(&facts), out);
        } else {
            self.state = State::Ready;
        }
        Ok(())
    }

    fn send(&mut self, command: Command, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.state = State::Answer(command);
    }

    fn take(&mut self, text: &[u8]) -> Result<(), BackendViolation> {
        match (self.state, parse(text)) {
            (_, Some(Response::One(name))) => self.hear(&name, b""),
            (_, Some(Response::Two(name, value))) => self.hear(&name, &value),
            (State::Answer(command), Some(Response::Status(status, _))) => {
                self.answered(command, status)
            }
            (_, Some(Response::Status(status, reason))) => self.greeted(status, &reason),
            (State::Answer(_), None) => Err(BackendViolation::Malformed),
            (_, None) => Err(BackendViolation::ForeignGreeting),
        }
    }

    /// Takes a capability. One that names whose login it is (RFC 5804 §1.7) takes us for somebody, and would
    /// serve *that* account, whoever logs in.
    fn hear(&mut self, name: &[u8], value: &[u8]) -> Result<(), BackendViolation> {
        if name.eq_ignore_ascii_case(b"OWNER") && !value.is_empty() {
            return Err(BackendViolation::Preauthenticated);
        }
        let list = self.list.get_or_insert_default();
        if let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) {
            list.add(&format!("{name} {value}"));
        }
        Ok(())
    }

    fn greeted(&mut self, status: Status, reason: &Reason<'_>) -> Result<(), BackendViolation> {
        match status {
            Status::Ok => {
                self.greeting = printable(&reason.text, MAX_GREETING);
                self.offered = self.list.take();
                self.state = State::Choosing;
                Ok(())
            }
            Status::No if self.prefaced => Err(BackendViolation::PrefaceRefused),
            Status::No => Err(BackendViolation::ForeignGreeting),
            Status::Bye => Err(BackendViolation::Bye),
        }
    }

    fn answered(&mut self, command: Command, status: Status) -> Result<(), BackendViolation> {
        let list = self.list.take();
        match (command, status) {
            (_, Status::Bye) => Err(BackendViolation::Bye),
            (Command::Noop, _) => {
                // A list is the unasked one, and the answer is still to come.
                self.state = match list {
                    Some(_) => State::Answer(Command::Noop),
                    None => State::Choosing,
                };
                self.offered = list.or(self.offered.take());
                Ok(())
            }
            (_, Status::No) if self.prefaced => Err(BackendViolation::PrefaceRefused),
            (Command::StartTls, Status::Ok) => {
                self.state = State::Handshake;
                Ok(())
            }
            (Command::Capability, Status::Ok) if list.is_some() => {
                self.prefaced = false;
                self.offered = list;
                self.state = State::Choosing;
                Ok(())
            }
            (Command::Announce, Status::Ok) => {
                self.state = State::Choosing;
                Ok(())
            }
            (Command::Capability, _) => Err(BackendViolation::CapabilitiesMissing),
            (Command::StartTls, Status::No) => Err(BackendViolation::StartTlsRefused),
            (Command::Announce, Status::No) => Err(BackendViolation::AnnounceRefused),
        }
    }
}

impl Negotiate for SieveBack {
    type Capabilities = Keywords;
    type Login = SieveLogin;

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        loop {
            match self.state {
                State::Choosing => self.choose(out)?,
                State::Secured => self.send(Command::Noop, "NOOP", out),
                State::Handshake => return Ok(NegotiateStep::StartTls),
                State::Ready => return Ok(NegotiateStep::Ready),
                State::Greeting | State::Answer(_) => {
                    let Some(text) = self.responses.next(input)? else {
                        return Ok(NegotiateStep::NeedMore);
                    };
                    self.take(text.octets())?;
                }
            }
        }
    }

    fn secured(&mut self) {
        self.channel = Channel::Secure;
        // It has obeyed STARTTLS.
        self.prefaced = false;
        self.offered_in_clear = self.offered.take();
        self.list = None;
        self.state = State::Secured;
    }

    fn greeting(&self) -> &str {
        &self.greeting
    }

    fn offered_in_clear(&self) -> Option<&Keywords> {
        self.offered_in_clear.as_ref()
    }

    fn offered(&self) -> Option<&Keywords> {
        self.offered.as_ref()
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"LOGOUT\r\n");
    }

    fn into_login(self, credentials: Credentials) -> SieveLogin {
        let ready = self.state == State::Ready;
        let offered = self.offered.filter(|_| ready);
        SieveLogin::new(offered, self.responses, credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Login as _;
    use crate::facts::Introduction;
    use crate::secret::SecretWriter;
    use crate::settings::BackLimits;

    fn back(channel: Channel, prefaced: bool) -> SieveBack {
        SieveBack::new(BackSettings {
            channel,
            announce: None,
            introduction: Introduction::default(),
            prefaced,
            limits: BackLimits::default(),
        })
    }

    fn hear(
        back: &mut SieveBack,
        said: &str,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        let mut input = WireBuf::new(1024);
        input.extend(said.as_bytes()).unwrap();
        back.step(&mut input, out)
    }

    #[test]
    fn credentials_given_too_soon_are_not_sent() {
        let mut back = back(Channel::Clear, false);
        let greeting = "\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n";
        let step = hear(&mut back, greeting, &mut Vec::new());
        assert_eq!(step, Ok(NegotiateStep::NeedMore));
        let password = SecretWriter::with_capacity(0).text(b"secret").finish();
        let credentials = Credentials::password(b"", b"alice", password).ok().unwrap();
        let step = back.into_login(credentials).step(&mut WireBuf::new(1024));
        assert!(matches!(step, Err(BackendViolation::NotReady)));
    }

    #[test]
    fn a_probe_can_tell_what_was_offered_in_clear_and_under_tls() {
        let mut back = back(Channel::Clear, false);
        let mut out = Vec::new();
        let greeting = "\"SASL\" \"\"\r\n\"STARTTLS\"\r\nOK \"ready \x1b[2J\"\r\nOK\r\n";
        let step = hear(&mut back, greeting, &mut out);
        assert_eq!(step, Ok(NegotiateStep::StartTls));
        back.secured();
        assert_eq!(back.offered(), None);
        let step = hear(&mut back, "\"SASL\" \"PLAIN\"\r\nOK\r\nOK\r\n", &mut out);
        assert_eq!(step, Ok(NegotiateStep::Ready));
        let text = |list: Option<&Keywords>| list.unwrap().to_string();
        assert_eq!(text(back.offered_in_clear()), "SASL, STARTTLS");
        assert_eq!(text(back.offered()), "SASL PLAIN");
        assert_eq!(back.greeting(), "ready ?[2J");
        back.leave(&mut out);
        assert_eq!(out, b"STARTTLS\r\nNOOP\r\nLOGOUT\r\n");
    }

    #[test]
    fn what_a_backend_says_to_what_it_did_not_understand_is_no_verdict() {
        const GREETING: &str = "\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n";
        let refused = Err(BackendViolation::PrefaceRefused);
        let garbled = format!("{GREETING}NO \"Unknown command.\"\r\n");
        for channel in [Channel::Clear, Channel::Secure] {
            let mut back = back(channel, true);
            assert_eq!(hear(&mut back, &garbled, &mut Vec::new()), refused);
        }
        // It obeys, and so it has understood what went before.
        let mut understood = back(Channel::Secure, true);
        let mut out = Vec::new();
        let step = hear(&mut understood, &GREETING.repeat(2), &mut out);
        assert_eq!(step, Ok(NegotiateStep::Ready));
        assert_eq!(out, b"CAPABILITY\r\n");
    }
}
