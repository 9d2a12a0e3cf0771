//! The backend's side up to the point where a secret may be sent: we are the client.

use super::login::SubmissionLogin;
use super::reply::{Replies, Reply};
use super::xclient::{self, Announcement};
use super::{quirks, verdict};
use crate::buf::WireBuf;
use crate::keywords::Keywords;
use crate::reply::BackendViolation;
use crate::secret::Credentials;
use crate::settings::{BackSettings, Channel};
use crate::text::printable;
use crate::{Negotiate, NegotiateStep};

/// The longest greeting that is kept for the operator, in octets.
const MAX_GREETING: usize = 512;

/// The name for who has none: a probe, and a client that did not say its own. An address literal is a name that
/// checks of its form let pass (RFC 5321 §4.1.3).
const NAMELESS: &str = "[127.0.0.1]";

/// A submission client up to the login.
///
/// One command at a time: nothing is pipelined, since nothing is known yet about what answers (and Postfix 3.9
/// hangs up on who does).
pub struct SubmissionBack {
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
    /// Credentials.
    Ready,
    /// Nothing: the server will not have this client.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Ehlo,
    StartTls,
    Xclient,
}

impl SubmissionBack {
    pub(super) fn new(settings: BackSettings) -> Self {
        Self {
            channel: settings.channel,
            helo: settings.introduction.helo,
            announcement: settings.announce.as_ref().map(Announcement::new),
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
    pub(super) fn takes_announcements(&self) -> bool {
        self.takes_announcements
    }

    /// Sends the next command, if one is needed before a secret may be sent.
    fn choose(&mut self, out: &mut Vec<u8>) -> Result<(), BackendViolation> {
        let Some(offered) = &self.offered else {
            let name = self.helo.as_deref().unwrap_or(NAMELESS);
            let command = format!("EHLO {name}");
            self.send(Command::Ehlo, command.as_bytes(), out);
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
            (Command::Ehlo, 500 | 221) if self.prefaced => {
                return Err(BackendViolation::PrefaceRefused);
            }
            (Command::Ehlo | Command::StartTls, 421) => return Err(BackendViolation::Bye),
            (Command::Ehlo, 250) => {
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
            (Command::Ehlo, 400..=599) if self.helo.is_none() && self.announcement.is_none() => {
                return Err(BackendViolation::CapabilitiesMissing);
            }
            // A word about the client's name or address.
            (Command::Ehlo | Command::Xclient, 400..=599) => return Ok(self.refused(reply)),
            _ => return Err(BackendViolation::Malformed),
        }
        Ok(NegotiateStep::NeedMore)
    }

    fn refused(&mut self, reply: &Reply) -> NegotiateStep {
        self.state = State::Refused;
        NegotiateStep::Refused(verdict::on_client(reply))
    }
}

impl Negotiate for SubmissionBack {
    type Capabilities = Keywords;
    type Login = SubmissionLogin;

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

    fn secured(&mut self) {
        self.channel = Channel::Secure;
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

    fn into_login(self, credentials: Credentials) -> SubmissionLogin {
        let ready = self.state == State::Ready;
        let offered = self.offered.filter(|_| ready);
        SubmissionLogin::new(offered, self.replies, credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ClientFacts, HopLimit, Introduction, SessionReference, TlsFacts};
    use crate::settings::BackLimits;

    /// A client of whom there is more to say than one command holds.
    fn back() -> SubmissionBack {
        let introduction = Introduction {
            helo: Some("n".repeat(255)),
            ..Introduction::default()
        };
        SubmissionBack::new(BackSettings {
            channel: Channel::Secure,
            announce: Some(ClientFacts {
                peer: "192.0.2.7:50000".parse().unwrap(),
                local: "198.51.100.1:587".parse().unwrap(),
                tls: Some(TlsFacts {
                    version: "TLSv1.3",
                    cipher: "TLS13_AES_128_GCM_SHA256",
                    server_name: Some("s".repeat(255)),
                }),
                session: SessionReference::new("fp-1".to_owned()).unwrap(),
                hops: HopLimit::FIRST,
                introduction: introduction.clone(),
            }),
            introduction,
            prefaced: false,
            limits: BackLimits::default(),
        })
    }

    /// Whether the server took announcements that answers EHLO so, each time, and how often XCLIENT was sent.
    fn announced(answers: &[&str]) -> (bool, usize) {
        let (mut back, mut out) = (back(), Vec::new());
        let mut input = WireBuf::new(4096);
        for extensions in answers {
            let said = format!("220 mx ESMTP\r\n250-mx\r\n250 {extensions}\r\n");
            input.extend(said.as_bytes()).unwrap();
        }
        let step = back.step(&mut input, &mut out);
        assert_eq!(step, Ok(NegotiateStep::Ready));
        let sent = String::from_utf8(out).unwrap().matches("XCLIENT").count();
        (back.takes_announcements(), sent)
    }

    #[test]
    fn only_a_server_that_listened_to_the_address_took_the_announcement() {
        const LISTENS: &str = "XCLIENT HELO DESTNAME ADDR";
        const NO: &str = "AUTH PLAIN";
        assert_eq!(announced(&[LISTENS, LISTENS, NO]), (true, 2));
        assert_eq!(announced(&[LISTENS, NO]), (false, 1));
        assert_eq!(announced(&[NO]), (false, 0));
        assert_eq!(announced(&["XCLIENT ADDR", NO]), (true, 1));
    }
}
