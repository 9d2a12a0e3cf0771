//! The backend's side up to the point where a secret or a message may be sent: we are the client.

use super::reply::{Replies, Reply};
use super::xclient::{self, Announcement};
use super::{quirks, verdict};
use crate::NegotiateStep;
use crate::buf::WireBuf;
use crate::keywords::Keywords;
use crate::reply::BackendViolation;
use crate::settings::{BackSettings, Channel};
use crate::text::printable;

/// The longest greeting that is kept for the operator, in octets.
const MAX_GREETING: usize = 512;

/// The name for who has none: a probe, and a client that did not say its own. An address literal is a name that
/// checks of its form let pass (RFC 5321 §4.1.3).
const NAMELESS: &str = "[127.0.0.1]";

/// What is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SMTP, for submission or relay.
    Smtp,
    Lmtp,
}

impl Dialect {
    const fn hello(self) -> &'static str {
        match self {
            Self::Smtp => "EHLO",
            Self::Lmtp => "LHLO",
        }
    }

    /// As XCLIENT says it.
    const fn protocol(self) -> &'static str {
        match self {
            Self::Smtp => "ESMTP",
            Self::Lmtp => "LMTP",
        }
    }
}

/// A client up to the login, or up to the first message.
///
/// One command at a time: nothing is pipelined, since nothing is known yet about what answers (and Postfix 3.9
/// hangs up on who does).
pub(crate) struct Opening {
    dialect: Dialect,
    channel: Channel,
    /// The client's own name, in every EHLO: after XCLIENT and STARTTLS too the last one is what the server
    /// judges and writes into the message.
    helo: Option<String>,
    announcement: Option<Announcement>,
    prefaced: bool,
    replies: Replies,
    state: State,
    greeting: String,
    takes_announcements: bool,
    offered_in_clear: Option<Keywords>,
    offered: Option<Keywords>,
}

/// What we wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    /// Nothing: the next command is to be chosen.
    Choosing,
    /// The answer to this command.
    Answer(Command),
    /// The driver's TLS handshake.
    Handshake,
    /// Credentials, or a message.
    Ready,
    /// Nothing: the server will not have this client.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Hello,
    StartTls,
    Xclient,
}

impl Opening {
    pub(crate) fn new(dialect: Dialect, settings: BackSettings) -> Self {
        let announce = settings.announce.as_ref();
        Self {
            dialect,
            channel: settings.channel,
            helo: settings.introduction.helo,
            announcement: announce.map(|facts| Announcement::new(facts, dialect.protocol())),
            prefaced: settings.prefaced,
            replies: Replies::new(settings.limits),
            state: State::Greeting,
            greeting: String::new(),
            takes_announcements: false,
            offered_in_clear: None,
            offered: None,
        }
    }

    /// Whether the server takes announcements of clients from us: it offers it to whom it trusts. Of a client that
    /// has been announced: whether it did until it had heard everything.
    pub(crate) fn takes_announcements(&self) -> bool {
        self.takes_announcements
    }

    /// Sends the next command, if one is needed before a secret or a message may be sent.
    fn choose(&mut self, out: &mut Vec<u8>) -> Result<(), BackendViolation> {
        let Some(offered) = &self.offered else {
            let name = self.helo.as_deref().unwrap_or(NAMELESS);
            let command = format!("{} {name}", self.dialect.hello());
            self.send(Command::Hello, command.as_bytes(), out);
            return Ok(());
        };
        if self.channel == Channel::Clear {
            if !offered.has("STARTTLS") {
                return Err(BackendViolation::StartTlsMissing);
            }
            self.send(Command::StartTls, b"STARTTLS", out);
            return Ok(());
        }
        let is_over = |announcement: &Announcement| announcement.is_over();
        if !self.announcement.as_ref().is_some_and(is_over) {
            self.takes_announcements = xclient::takes_announcements(offered);
        }
        let announcement = self.announcement.as_mut();
        match announcement.and_then(|announcement| announcement.next(offered)) {
            Some(command) => self.send(Command::Xclient, &command, out),
            None => self.state = State::Ready,
        }
        Ok(())
    }

    fn send(&mut self, command: Command, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
        self.state = State::Answer(command);
    }

    /// Takes the greeting. One that is none tells us to go, or the client who was announced before it.
    fn greet(&mut self, reply: &Reply) -> Result<NegotiateStep, BackendViolation> {
        match reply.code {
            220 => {
                self.greeting = printable(reply.text(), MAX_GREETING);
                self.state = State::Choosing;
                Ok(NegotiateStep::NeedMore)
            }
            500..=599 if self.prefaced => Ok(self.refused(reply)),
            400..=599 => Err(BackendViolation::Bye),
            _ => Err(BackendViolation::ForeignGreeting),
        }
    }

    /// Takes the answer to `command`.
    fn answer(
        &mut self,
        command: Command,
        reply: &Reply,
    ) -> Result<NegotiateStep, BackendViolation> {
        match (command, reply.code) {
            // What Postfix says to a header that it does not expect, in which there is a QUIT.
            (Command::Hello, 500 | 221) if self.prefaced => {
                return Err(BackendViolation::PrefaceRefused);
            }
            (Command::Hello | Command::StartTls, 421) => return Err(BackendViolation::Bye),
            (Command::Hello, 250) => {
                let mut offered = Keywords::default();
                for line in reply.extensions() {
                    offered.add(&quirks::extension(line));
                }
                self.offered = Some(offered);
                self.state = State::Choosing;
            }
            (Command::StartTls, 220) => self.state = State::Handshake,
            (Command::StartTls, _) => return Err(BackendViolation::StartTlsRefused),
            // A new greeting: the server knows nothing any more but whom it talks to.
            (Command::Xclient, 200..=299) => {
                self.offered = None;
                self.state = State::Choosing;
            }
            (Command::Xclient, 500..=504) => return Err(BackendViolation::AnnounceRefused),
            (Command::Hello, 400..=599) if self.helo.is_none() && self.announcement.is_none() => {
                return Err(BackendViolation::CapabilitiesMissing);
            }
            // A word about the client's name or address.
            (Command::Hello | Command::Xclient, 400..=599) => return Ok(self.refused(reply)),
            _ => return Err(BackendViolation::Malformed),
        }
        Ok(NegotiateStep::NeedMore)
    }

    fn refused(&mut self, reply: &Reply) -> NegotiateStep {
        self.state = State::Refused;
        NegotiateStep::Refused(verdict::on_client(reply))
    }

    /// See [`Negotiate::step`](crate::Negotiate::step).
    pub(crate) fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        loop {
            match self.state {
                State::Choosing => self.choose(out)?,
                State::Handshake => return Ok(NegotiateStep::StartTls),
                State::Ready => return Ok(NegotiateStep::Ready),
                State::Refused => return Ok(NegotiateStep::NeedMore),
                State::Greeting | State::Answer(_) => {
                    let Some(reply) = self.replies.next(input)? else {
                        return Ok(NegotiateStep::NeedMore);
                    };
                    let step = match self.state {
                        State::Answer(command) => self.answer(command, &reply)?,
                        _ => self.greet(&reply)?,
                    };
                    if step != NegotiateStep::NeedMore {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// TLS is on.
    pub(crate) fn secured(&mut self) {
        self.channel = Channel::Secure;
        self.offered_in_clear = self.offered.take();
        self.state = State::Choosing;
    }

    /// The greeting, printable and shortened.
    pub(crate) fn greeting(&self) -> &str {
        &self.greeting
    }

    /// What was offered before STARTTLS.
    pub(crate) fn offered_in_clear(&self) -> Option<&Keywords> {
        self.offered_in_clear.as_ref()
    }

    /// What is offered.
    pub(crate) fn offered(&self) -> Option<&Keywords> {
        self.offered.as_ref()
    }

    /// What is spoken.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The list that the server offered last and the reader of its replies, if it is ready.
    pub(crate) fn finish(self) -> (Option<Keywords>, Replies) {
        let is_ready = self.state == State::Ready;
        (self.offered.filter(|_| is_ready), self.replies)
    }
}
