//! The backend's side up to the point where a secret may be sent: we are the client.

use super::login::Pop3Login;
use super::reply::{END_OF_LIST, Reply, parse, unstuffed};
use super::{offer, quirks};
use crate::buf::WireBuf;
use crate::code::split_code;
use crate::facts::ClientFacts;
use crate::lines::Lines;
use crate::reply::BackendViolation;
use crate::secret::Credentials;
use crate::settings::{BackSettings, Channel};
use crate::text::printable;
use crate::{Capabilities as _, Keywords, Negotiate, NegotiateStep, xclient};

/// The longest greeting that is kept for the operator, in octets.
const MAX_GREETING: usize = 512;

/// A POP3 client up to the login.
///
/// One command at a time: nothing is pipelined, since nothing is known yet about what answers.
pub struct Pop3Back {
    channel: Channel,
    /// The client to announce, until that has been done.
    announce: Option<ClientFacts>,
    utf8: Utf8,
    prefaced: bool,
    lines: Lines,
    state: State,
    greeting: String,
    /// As far as the greeting says, which somebody else may have written where it came in clear.
    offers_xclient: bool,
    /// Whether the leg was in clear when the greeting came.
    is_upgraded: bool,
    offered_in_clear: Option<Keywords>,
    offered: Option<Keywords>,
}

/// What we wait for.
enum State {
    Greeting,
    /// Nothing: the next command is to be chosen.
    Choosing,
    /// The answer to this command.
    Answer(Command),
    /// The rest of the list of capabilities.
    List(Keywords),
    /// The driver's TLS handshake.
    Handshake,
    /// Credentials.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Capa,
    Stls,
    Xclient,
    Utf8,
}

/// Whether the backend is to be told that the client reads UTF-8 (RFC 6856 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Utf8 {
    /// No, or it knows.
    Settled,
    Wanted,
    /// It would not hear of it before the login.
    Refused,
}

impl Pop3Back {
    pub(super) fn new(settings: BackSettings) -> Self {
        Self {
            channel: settings.channel,
            announce: settings.announce,
            utf8: if settings.introduction.utf8 {
                Utf8::Wanted
            } else {
                Utf8::Settled
            },
            prefaced: settings.prefaced,
            lines: Lines::new(settings.limits),
            state: State::Greeting,
            greeting: String::new(),
            offers_xclient: false,
            is_upgraded: false,
            offered_in_clear: None,
            offered: None,
        }
    }

    /// Whether the greeting offers XCLIENT, the only place where Dovecot does.
    pub(super) fn offers_xclient(&self) -> bool {
        self.offers_xclient
    }

    fn greet(&mut self, line: &[u8]) -> Result<(), BackendViolation> {
        match parse(line) {
            Some(Reply::Ok(text)) => {
                let (code, readable) = split_code(text);
                self.offers_xclient = code.is_some_and(|code| code.is("XCLIENT"));
                self.greeting = printable(readable, MAX_GREETING);
                self.state = State::Choosing;
                Ok(())
            }
            Some(Reply::Err(_)) => Err(BackendViolation::Bye),
            Some(Reply::Challenge(_)) | None => Err(BackendViolation::ForeignGreeting),
        }
    }

    /// Whether XCLIENT is worth a try. Under TLS no greeting comes that could be believed in what it does not say.
    fn may_take_xclient(&self) -> bool {
        self.offers_xclient || self.is_upgraded
    }

    /// Sends the next command, if one is needed before a secret may be sent.
    fn choose(&mut self, out: &mut Vec<u8>) -> Result<(), BackendViolation> {
        let Some(offered) = &self.offered else {
            self.send(Command::Capa, "CAPA", out);
            return Ok(());
        };
        if self.channel == Channel::Clear {
            if !offered.has("STLS") {
                return Err(BackendViolation::StartTlsMissing);
            }
            self.send(Command::Stls, "STLS", out);
        } else if let Some(facts) = self.announce.take().filter(|_| self.may_take_xclient()) {
            self.send(Command::Xclient, &xclient::command(&facts), out);
        } else if self.utf8 == Utf8::Wanted && offer::offers_utf8(offered) {
            self.send(Command::Utf8, "UTF8", out);
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

    /// Takes the answer to `command`.
    fn answer(&mut self, command: Command, line: &[u8]) -> Result<(), BackendViolation> {
        let is_ok = match parse(line) {
            Some(Reply::Ok(_)) => true,
            // Our commands are sound, so what is in error went before them.
            Some(Reply::Err(_)) if self.prefaced && command == Command::Capa => {
                return Err(BackendViolation::PrefaceRefused);
            }
            Some(Reply::Err(_)) => false,
            Some(Reply::Challenge(_)) | None => return Err(BackendViolation::Malformed),
        };
        self.state = match (command, is_ok) {
            (Command::Capa, true) => State::List(Keywords::default()),
            (Command::Capa, false) => {
                self.offered = Some(Keywords::from_items(quirks::WITHOUT_CAPA));
                State::Choosing
            }
            (Command::Stls, true) => State::Handshake,
            (Command::Stls, false) => return Err(BackendViolation::StartTlsRefused),
            (Command::Xclient, false) if self.offers_xclient => {
                return Err(BackendViolation::AnnounceRefused);
            }
            (Command::Xclient, _) => State::Choosing,
            (Command::Utf8, is_ok) => {
                self.utf8 = if is_ok { Utf8::Settled } else { Utf8::Refused };
                State::Choosing
            }
        };
        Ok(())
    }

    /// Takes a line of the list of capabilities.
    fn list(&mut self, mut known: Keywords, line: &[u8]) {
        if line == END_OF_LIST {
            self.offered = Some(known);
            self.state = State::Choosing;
            return;
        }
        if let Ok(line) = str::from_utf8(unstuffed(line)) {
            known.add(line);
        }
        self.state = State::List(known);
    }
}

impl Negotiate for Pop3Back {
    type Capabilities = Keywords;
    type Login = Pop3Login;

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        loop {
            match self.state {
                State::Choosing => {
                    self.choose(out)?;
                    continue;
                }
                State::Handshake => return Ok(NegotiateStep::StartTls),
                State::Ready => return Ok(NegotiateStep::Ready),
                State::Greeting | State::Answer(_) | State::List(_) => {}
            }
            let Some(line) = self.lines.next(input)? else {
                return Ok(NegotiateStep::NeedMore);
            };
            match std::mem::replace(&mut self.state, State::Greeting) {
                State::Answer(command) => self.answer(command, &line)?,
                State::List(known) => self.list(known, &line),
                _ => self.greet(&line)?,
            }
        }
    }

    fn secured(&mut self) {
        self.channel = Channel::Secure;
        self.is_upgraded = true;
        self.offered_in_clear = self.offered.take();
        self.state = State::Choosing;
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
        out.extend_from_slice(b"QUIT\r\n");
    }

    fn into_login(self, credentials: Credentials) -> Pop3Login {
        let is_ready = matches!(self.state, State::Ready);
        let offered = self.offered.filter(|_| is_ready);
        let owes_utf8 = self.utf8 == Utf8::Refused;
        Pop3Login::new(offered, self.lines, owes_utf8, credentials)
    }
}
