//! The client's side before login: we are the server.

use std::sync::Arc;

use super::command::{self, Auth, Command};
use super::login::Acceptance;
use super::offer::{MECHANISMS, Offer};
use super::{Pop3Follower, words};
use crate::buf::WireBuf;
use crate::facts::Introduction;
use crate::foreign::{begins_tls, is_http};
use crate::reply::{ClientReply, ClientViolation};
use crate::sasl::{self, Exchange, Mechanism, Progress};
use crate::secret::{Credentials, InvalidCredentials, SecretWriter};
use crate::settings::{Channel, FrontLimits, FrontSettings};
use crate::{Front, FrontStep};

/// A POP3 server up to the login.
pub struct Pop3Front {
    channel: Channel,
    offer: Arc<Offer>,
    limits: FrontLimits,
    state: State,
    /// Whether nothing has been said on the leg as it is now: it may be another protocol yet.
    is_new: bool,
    commands: u32,
    errors: u32,
    /// The name that waits for its PASS.
    user: Option<Vec<u8>>,
    /// Whether the client reads UTF-8.
    utf8: bool,
}

/// What the next octets from the client are.
enum State {
    /// A command.
    Command,
    /// A response of an AUTH exchange.
    Responding(Exchange),
    /// What a client answers to the challenge that ends a token's exchange (RFC 7628 §3.2.3), whatever it is;
    /// then it hears this.
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

impl Pop3Front {
    pub(super) fn new(settings: FrontSettings<Offer>) -> Self {
        Self {
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            state: State::Command,
            is_new: true,
            commands: 0,
            errors: 0,
            user: None,
            utf8: false,
        }
    }

    fn advance(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Command => self.command(input, out),
            State::Responding(exchange) => self.response(exchange, input, out),
            State::Challenged(verdict) => self.acknowledged(verdict, input, out),
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
        match command::parse(&line) {
            Command::Capa => self.capabilities(out),
            Command::Quit => {
                words::line(out, "+OK Goodbye.");
                self.state = State::Closed;
                return Ok(Some(FrontStep::Close));
            }
            Command::Stls => return self.start_tls(out),
            Command::Utf8 if self.offer.has_utf8() => {
                self.utf8 = true;
                words::line(out, "+OK You are taken to read UTF-8.");
            }
            Command::Auth(Auth::List) => self.mechanisms(out),
            Command::User(_) | Command::Pass(_) | Command::Auth(_)
                if self.channel == Channel::Clear =>
            {
                return self.mistaken("-ERR Use STLS before you log in.", out);
            }
            Command::User(name) => return self.user(name, out),
            Command::Pass(password) => return self.pass(password, out),
            Command::Auth(Auth::Exchange {
                mechanism,
                response,
            }) => return self.authenticate(mechanism, response, out),
            Command::Utf8 | Command::Other => {
                let text = "-ERR Unknown command, or not one to use before the login.";
                return self.mistaken(text, out);
            }
        }
        Ok(None)
    }

    fn capabilities(&self, out: &mut Vec<u8>) {
        match self.channel {
            Channel::Clear => words::capabilities(out, &self.offer.in_clear()),
            Channel::Secure => words::capabilities(out, self.offer.capabilities()),
        }
    }

    /// Answers AUTH without a mechanism.
    fn mechanisms(&self, out: &mut Vec<u8>) {
        let offered = |mechanism: &Mechanism| {
            self.channel == Channel::Secure && self.offer.has_mechanism(*mechanism)
        };
        let names = MECHANISMS.into_iter().filter(offered).map(Mechanism::name);
        words::list(out, "+OK These are the mechanisms.", names);
    }

    fn start_tls(&mut self, out: &mut Vec<u8>) -> Outcome {
        if self.channel == Channel::Secure {
            return self.mistaken("-ERR TLS is on already.", out);
        }
        words::line(out, "+OK Begin TLS now.");
        self.state = State::Upgrading;
        Ok(Some(FrontStep::StartTls))
    }

    fn user(&mut self, name: &[u8], out: &mut Vec<u8>) -> Outcome {
        if !self.offer.has_user() {
            // It was offered, if the client uses it; it may be again.
            return self.mistaken("-ERR [SYS/TEMP] USER is not offered for now.", out);
        }
        self.user = Some(name.to_vec());
        words::line(out, "+OK Now the password.");
        Ok(None)
    }

    fn pass(&mut self, password: &[u8], out: &mut Vec<u8>) -> Outcome {
        let Some(name) = self.user.take() else {
            return self.mistaken("-ERR Say USER before PASS.", out);
        };
        let password = SecretWriter::with_capacity(password.len()).text(password);
        let credentials = Credentials::password(b"", &name, password.finish());
        Ok(Some(self.offered(credentials)))
    }

    /// Begins an AUTH exchange.
    fn authenticate(
        &mut self,
        mechanism: &[u8],
        response: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(mechanism) = Mechanism::from_name(mechanism) else {
            return self.mistaken("-ERR This mechanism is not offered.", out);
        };
        if !self.offer.has_mechanism(mechanism) {
            // A client may remember it from a longer list, and that comes back.
            return self.mistaken(
                "-ERR [SYS/TEMP] This mechanism is not offered for now.",
                out,
            );
        }
        let exchange = Exchange::new(mechanism);
        if let Some(response) = response.filter(|it| exchange.takes_first(it)) {
            return Ok(self.respond(exchange, response, out));
        }
        self.challenge(exchange, out);
        Ok(None)
    }

    fn challenge(&mut self, exchange: Exchange, out: &mut Vec<u8>) {
        words::challenge(out, exchange.challenge());
        self.state = State::Responding(exchange);
    }

    /// Reads a response of an exchange.
    fn response(&mut self, exchange: Exchange, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        match input.take_line(self.limits.max_line) {
            Err(_) => Ok(Some(self.unfit(InvalidCredentials::TooLong))),
            Ok(None) => {
                self.state = State::Responding(exchange);
                Ok(Some(FrontStep::NeedMore))
            }
            // RFC 5034 §4
            Ok(Some(line)) if **line == *b"*" => {
                self.mistaken("-ERR You cancelled the login.", out)
            }
            Ok(Some(line)) => Ok(self.respond(exchange, &line, out)),
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
            Ok(Progress::Done(credentials)) => Some(self.offered(Ok(credentials))),
            Err(invalid) => Some(self.offered(Err(invalid))),
        }
    }

    /// The client has offered credentials, fit or not.
    fn offered(&mut self, credentials: Result<Credentials, InvalidCredentials>) -> FrontStep {
        match credentials {
            Ok(credentials) => {
                self.state = State::Pending;
                FrontStep::Login(credentials)
            }
            Err(invalid) => self.unfit(invalid),
        }
    }

    /// Lets the driver answer what cannot be credentials, in its time: guessers must not learn more, or
    /// sooner, from a guess that is malformed than from one that is wrong.
    fn unfit(&mut self, invalid: InvalidCredentials) -> FrontStep {
        self.state = State::Pending;
        FrontStep::Unfit(invalid)
    }

    /// Reads the client's last words in a token's exchange and gives it ours.
    fn acknowledged(&mut self, verdict: String, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        match input.take_line(self.limits.max_line) {
            Err(_) => self.violated(ClientViolation::LineTooLong, out),
            Ok(None) => {
                self.state = State::Challenged(verdict);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Some(_)) => {
                words::line(out, &verdict);
                Ok(None)
            }
        }
    }

    /// Answers the login that waits; one by a token hears first why its server refuses it (RFC 7628 §3.2.2).
    fn refuse(&mut self, reply: &ClientReply, out: &mut Vec<u8>) {
        let verdict = words::refusal(reply);
        let challenge = match reply {
            ClientReply::Rejected(rejection) => rejection.challenge(),
            _ => None,
        };
        match challenge {
            Some(challenge) => {
                words::challenge(out, &sasl::encode_base64(challenge));
                self.state = State::Challenged(verdict);
            }
            None => words::line(out, &verdict),
        }
    }

    /// Answers a command that cannot be obeyed.
    fn mistaken(&mut self, text: &str, out: &mut Vec<u8>) -> Outcome {
        self.errors += 1;
        if self.errors > self.limits.max_errors {
            return self.violated(ClientViolation::TooManyErrors, out);
        }
        words::line(out, text);
        Ok(None)
    }

    /// Says goodbye to a client that broke the rules.
    fn violated(&mut self, violation: ClientViolation, out: &mut Vec<u8>) -> Outcome {
        words::line(out, words::violation(violation));
        self.state = State::Closed;
        Err(violation)
    }
}

impl Front for Pop3Front {
    type Follow = Pop3Follower;
    type Welcome = Acceptance;

    /// Without a timestamp: APOP would rest on it (RFC 1939 §7).
    fn greet(&mut self, out: &mut Vec<u8>) {
        words::line(out, "+OK Ferrypost is ready.");
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
        self.user = None;
        self.utf8 = false;
    }

    fn introduction(&self) -> Introduction {
        Introduction {
            utf8: self.utf8,
            ..Introduction::default()
        }
    }

    /// POP3 has no words that belong to no command.
    fn held(&mut self, _out: &mut Vec<u8>) {}

    fn reply(&mut self, reply: ClientReply, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Pending => self.refuse(&reply, out),
            // The driver does not wait for the client's answer.
            State::Challenged(verdict) => {
                words::line(out, &verdict);
                if reply.closes() {
                    words::line(out, &words::refusal(&reply));
                }
            }
            _ if reply.closes() => words::line(out, &words::refusal(&reply)),
            state => self.state = state,
        }
        if reply.closes() {
            self.state = State::Closed;
        }
    }

    fn accept(self, acceptance: Acceptance, out: &mut Vec<u8>) -> Pop3Follower {
        out.extend_from_slice(b"+OK ");
        words::line(out, acceptance.text());
        Pop3Follower::default()
    }
}
