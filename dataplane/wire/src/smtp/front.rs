//! The client's side before login: we are the server.

use std::sync::Arc;

use super::command::{self, Verb};
use super::login::Acceptance;
use super::offer::{self, Offer};
use super::{SubmissionFollower, quirks, words};
use crate::buf::WireBuf;
use crate::facts::Introduction;
use crate::foreign::{begins_tls, is_http};
use crate::reply::{ClientReply, ClientViolation};
use crate::sasl::{self, Exchange, Mechanism, Progress};
use crate::secret::{Credentials, InvalidCredentials};
use crate::settings::{Channel, FrontLimits, FrontSettings};
use crate::{Front, FrontStep};

/// A submission server up to the login.
pub struct SubmissionFront {
    channel: Channel,
    offer: Arc<Offer>,
    limits: FrontLimits,
    state: State,
    /// Whether nothing has been said on the leg as it is now: it may be another protocol yet.
    is_new: bool,
    commands: u32,
    errors: u32,
    helo: Option<String>,
}

/// What the next octets from the client are.
enum State {
    /// A command.
    Command,
    /// A response of an AUTH exchange.
    Responding(Exchange),
    /// A message that came without a login: so many octets of it.
    Skipping(u64),
    /// The client's word that it has read what is wrong with its token; then it hears this.
    Challenged(String),
    /// Not ours to read: a login waits for its answer.
    Pending,
    /// Not ours to read: the leg is being upgraded.
    Upgrading,
    /// Not ours to read: the session is over.
    Closed,
}

/// `None`: go on with the state as it is now.
type Outcome = Result<Option<FrontStep>, ClientViolation>;

impl SubmissionFront {
    pub(super) fn new(settings: FrontSettings<Offer>) -> Self {
        Self {
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            state: State::Command,
            is_new: true,
            commands: 0,
            errors: 0,
            helo: None,
        }
    }

    fn advance(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Command => self.command(input, out),
            State::Responding(exchange) => Ok(self.response(exchange, input, out)),
            State::Skipping(missing) => Ok(self.skip(missing, input)),
            State::Challenged(last_words) => self.challenged(last_words, input, out),
            state @ (State::Pending | State::Upgrading | State::Closed) => {
                self.state = state;
                Ok(Some(FrontStep::NeedMore))
            }
        }
    }

    /// Reads and obeys a command.
    fn command(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        if self.is_new && begins_tls(input) {
            return self.violated(ClientViolation::ForeignProtocol, out);
        }
        let Ok(line) = input.take_line(self.limits.max_line) else {
            return self.violated(ClientViolation::LineTooLong, out);
        };
        let Some(line) = line else {
            return Ok(Some(FrontStep::NeedMore));
        };
        if std::mem::take(&mut self.is_new) && is_http(&line) {
            return self.violated(ClientViolation::ForeignProtocol, out);
        }
        self.commands += 1;
        if self.commands > self.limits.max_commands {
            return self.violated(ClientViolation::TooManyCommands, out);
        }
        let (verb, arguments) = command::split(&line);
        match verb {
            Verb::Ehlo | Verb::Helo if !arguments.is_empty() => self.greeted(verb, arguments, out),
            Verb::Auth => return self.auth(arguments, out),
            Verb::Bdat => {
                self.mistaken(self.not_logged_in(), out)?;
                let chunk = command::chunk(arguments);
                self.state = chunk.map_or(State::Command, |chunk| State::Skipping(chunk.size));
            }
            Verb::Noop | Verb::Rset | Verb::Quit | Verb::StartTls
                if arguments.is_empty() || quirks::ignores_arguments(verb) =>
            {
                return self.simple(verb, out);
            }
            verb => self.mistaken(self.refusal(verb), out)?,
        }
        Ok(None)
    }

    /// Answers EHLO and HELO. No name is too odd to be greeted; what is passed on of it is another matter.
    fn greeted(&mut self, verb: Verb, name: &[u8], out: &mut Vec<u8>) {
        self.helo = quirks::helo_name(name);
        let lines = match (verb, self.channel) {
            (Verb::Helo, _) => Vec::new(),
            (_, Channel::Clear) => self.offer.lines_in_clear(),
            (_, Channel::Secure) => self.offer.lines(),
        };
        let mut sign = if lines.is_empty() { ' ' } else { '-' };
        words::line(out, &format!("250{sign}{}", words::NAME));
        for (position, line) in lines.iter().enumerate() {
            if position + 1 == lines.len() {
                sign = ' ';
            }
            words::line(out, &format!("250{sign}{line}"));
        }
    }

    /// Obeys a command that needs no arguments.
    fn simple(&mut self, verb: Verb, out: &mut Vec<u8>) -> Outcome {
        match verb {
            Verb::Quit => {
                words::line(out, words::BYE);
                self.state = State::Closed;
                return Ok(Some(FrontStep::Close));
            }
            Verb::StartTls if self.channel == Channel::Clear => {
                words::line(out, words::BEGIN_TLS);
                self.state = State::Upgrading;
                return Ok(Some(FrontStep::StartTls));
            }
            Verb::StartTls => self.mistaken(words::TLS_IS_ON, out)?,
            _ => words::line(out, words::OK),
        }
        Ok(None)
    }

    /// Why a command is not obeyed.
    fn refusal(&self, verb: Verb) -> &'static str {
        match verb {
            Verb::Transaction | Verb::Data | Verb::Bdat | Verb::Burl => self.not_logged_in(),
            Verb::Trust => words::NOT_YOURS,
            Verb::Other => words::UNKNOWN,
            _ => words::ARGUMENTS,
        }
    }

    /// The answer to what is for who is logged in (RFC 4954 §6), or under TLS first (RFC 3207 §4).
    fn not_logged_in(&self) -> &'static str {
        match self.channel {
            Channel::Clear => words::TLS_FIRST,
            Channel::Secure => words::LOG_IN_FIRST,
        }
    }

    /// Begins an AUTH exchange. It needs no EHLO before it, as with the servers behind us.
    fn auth(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Outcome {
        let refused = |front: &mut Self, words, out| front.mistaken(words, out).map(|()| None);
        if self.channel == Channel::Clear {
            return refused(self, words::TLS_BEFORE_LOGIN, out);
        }
        let Some((mechanism, response)) = command::auth(arguments) else {
            return refused(self, words::ARGUMENTS, out);
        };
        let ours = |mechanism: &Mechanism| offer::MECHANISMS.contains(mechanism);
        let Some(mechanism) = Mechanism::from_name(mechanism).filter(ours) else {
            return refused(self, words::NO_MECHANISM, out);
        };
        if !self.offer.has(mechanism) {
            return refused(self, words::NO_MECHANISM_NOW, out);
        }
        let exchange = Exchange::new(mechanism);
        if let Some(response) = response.filter(|it| exchange.takes_first(it)) {
            return Ok(self.respond(exchange, response, out));
        }
        self.challenge(exchange, out);
        Ok(None)
    }

    /// Asks for the next response. There is a space behind 334 also where nothing follows it: clients compare.
    fn challenge(&mut self, exchange: Exchange, out: &mut Vec<u8>) {
        words::line(out, &format!("334 {}", exchange.challenge()));
        self.state = State::Responding(exchange);
    }

    /// Reads a response of an exchange.
    fn response(
        &mut self,
        exchange: Exchange,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Option<FrontStep> {
        match input.take_line(self.limits.max_line) {
            Err(_) => Some(self.unfit(InvalidCredentials::TooLong)),
            Ok(None) => {
                self.state = State::Responding(exchange);
                Some(FrontStep::NeedMore)
            }
            // RFC 4954 §4
            Ok(Some(line)) if **line == *b"*" => {
                words::line(out, words::CANCELLED);
                None
            }
            Ok(Some(line)) => self.respond(exchange, &line, out),
        }
    }

    fn respond(
        &mut self,
        exchange: Exchange,
        response: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<FrontStep> {
        match exchange.respond(response) {
            Ok(Progress::Challenge(exchange)) => {
                self.challenge(exchange, out);
                None
            }
            Ok(Progress::Done(credentials)) => Some(self.offered(credentials)),
            Err(invalid) => Some(self.unfit(invalid)),
        }
    }

    fn offered(&mut self, credentials: Credentials) -> FrontStep {
        self.state = State::Pending;
        FrontStep::Login(credentials)
    }

    /// Lets the driver answer what cannot be credentials, in its time: guessers must not learn more, or
    /// sooner, from a guess that is malformed than from one that is wrong.
    fn unfit(&mut self, invalid: InvalidCredentials) -> FrontStep {
        self.state = State::Pending;
        FrontStep::Unfit(invalid)
    }

    /// Drops the octets of a message that was sent without waiting (RFC 3030 §2): they are no commands. However
    /// many there are, it costs nothing but the time that a login may take.
    fn skip(&mut self, missing: u64, input: &mut WireBuf) -> Option<FrontStep> {
        let count = usize::try_from(missing)
            .unwrap_or(usize::MAX)
            .min(input.len());
        input.consume(count);
        let missing = missing - count as u64;
        if missing == 0 {
            return None;
        }
        self.state = State::Skipping(missing);
        Some(FrontStep::NeedMore)
    }

    /// Reads the client's answer to the last challenge, whatever it is, and says no.
    fn challenged(
        &mut self,
        last_words: String,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match input.take_line(self.limits.max_line) {
            Err(_) => self.violated(ClientViolation::LineTooLong, out),
            Ok(None) => {
                self.state = State::Challenged(last_words);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Some(_)) => {
                words::line(out, &last_words);
                Ok(None)
            }
        }
    }

    /// Answers a command that cannot be obeyed, or ends the session over one too many.
    fn mistaken(&mut self, words: &str, out: &mut Vec<u8>) -> Result<(), ClientViolation> {
        self.errors += 1;
        if self.errors > self.limits.max_errors {
            return self.violated(ClientViolation::TooManyErrors, out).map(drop);
        }
        words::line(out, words);
        Ok(())
    }

    /// Says goodbye to a client that broke the rules.
    fn violated(&mut self, violation: ClientViolation, out: &mut Vec<u8>) -> Outcome {
        words::line(out, words::violation(violation));
        self.state = State::Closed;
        Err(violation)
    }
}

impl Front for SubmissionFront {
    type Follow = SubmissionFollower;
    type Welcome = Acceptance;

    fn greet(&mut self, out: &mut Vec<u8>) {
        words::line(out, words::GREETING);
    }

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<FrontStep, ClientViolation> {
        loop {
            if let Some(step) = self.advance(input, out)? {
                return Ok(step);
            }
        }
    }

    fn secured(&mut self, _out: &mut Vec<u8>) {
        self.channel = Channel::Secure;
        self.is_new = true;
        self.state = State::Command;
        self.helo = None;
    }

    fn introduction(&self) -> Introduction {
        Introduction {
            helo: self.helo.clone(),
            ..Introduction::default()
        }
    }

    /// SMTP has no word that is not an answer.
    fn held(&mut self, _out: &mut Vec<u8>) {}

    fn reply(&mut self, reply: ClientReply, out: &mut Vec<u8>) {
        let refusal = words::refusal(&reply);
        let challenge = match &reply {
            ClientReply::Rejected(rejection) => rejection.challenge(),
            _ => None,
        };
        match (
            std::mem::replace(&mut self.state, State::Command),
            challenge,
        ) {
            (State::Pending, Some(challenge)) => {
                words::line(out, &format!("334 {}", sasl::encode_base64(challenge)));
                self.state = State::Challenged(refusal);
            }
            (State::Pending, None) => words::line(out, &refusal),
            (state, _) => {
                if let ClientReply::Closing(_) = reply {
                    words::line(out, &refusal);
                }
                self.state = state;
            }
        }
        if reply.closes() {
            self.state = State::Closed;
        }
    }

    fn accept(self, acceptance: Acceptance, out: &mut Vec<u8>) -> SubmissionFollower {
        words::line(out, &format!("235 2.7.0 {}", acceptance.text));
        SubmissionFollower::new(acceptance.takes_chunks)
    }
}
