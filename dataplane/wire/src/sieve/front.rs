//! The client's side before login: we are the server.

use std::sync::Arc;

use super::SieveFollower;
use super::acceptance::Acceptance;
use super::command::{self, Argument, Command, Verb};
use super::frame::{Beyond, Frame, Room, Taken};
use super::offer::{self, Offer};
use super::words;
use crate::buf::WireBuf;
use crate::facts::Introduction;
use crate::foreign;
use crate::reply::{ClientReply, ClientViolation};
use crate::sasl::{Exchange, Mechanism, Progress, encode_base64};
use crate::secret::{Credentials, InvalidCredentials, Secret};
use crate::settings::{Channel, FrontLimits, FrontSettings};
use crate::{Front, FrontStep};

/// A ManageSieve server up to the login.
pub struct SieveFront {
    channel: Channel,
    offer: Arc<Offer>,
    limits: FrontLimits,
    state: State,
    /// Whether nothing has been said on the leg as it is now: it may be another protocol yet.
    is_new: bool,
    commands: u32,
    errors: u32,
}

/// What the next octets from the client are.
enum State {
    /// A command, of which a part may have been read.
    Command(Frame),
    /// A response of an AUTHENTICATE exchange.
    Responding(Exchange, Frame),
    /// Not ours to read: a login waits for its answer.
    Pending,
    /// The client's last word in an exchange that has failed, and the answer that it gets then.
    Challenged(Frame, ClientReply),
    /// Not ours to read: the leg is being upgraded.
    Upgrading,
    /// Not ours to read: the session is over.
    Closed,
}

/// `None`: go on with the state as it is now.
type Outcome = Result<Option<FrontStep>, ClientViolation>;

impl SieveFront {
    pub(super) fn new(settings: FrontSettings<Offer>) -> Self {
        Self {
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            state: State::Command(frame(settings.limits)),
            is_new: true,
            commands: 0,
            errors: 0,
        }
    }

    fn next_command(&self) -> State {
        State::Command(frame(self.limits))
    }

    fn advance(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        let next = self.next_command();
        match std::mem::replace(&mut self.state, next) {
            State::Command(frame) => self.command(frame, input, out),
            State::Responding(exchange, frame) => self.response(exchange, frame, input, out),
            State::Challenged(frame, reply) => self.last_word(frame, reply, input, out),
            state @ (State::Pending | State::Upgrading | State::Closed) => {
                self.state = state;
                Ok(Some(FrontStep::NeedMore))
            }
        }
    }

    /// Reads a command and obeys it.
    fn command(&mut self, mut frame: Frame, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        if self.is_new && frame.lines() == 0 && foreign::begins_tls(input) {
            return self.violated(ClientViolation::ForeignProtocol, out);
        }
        let (text, is_whole) = match frame.take(input) {
            Err(_) => return self.violated(ClientViolation::LineTooLong, out),
            Ok(Taken::More) => {
                self.state = State::Command(frame);
                return Ok(Some(FrontStep::NeedMore));
            }
            Ok(Taken::Whole(text)) => (text, true),
            Ok(Taken::TooLong(text)) => (text, false),
        };
        if std::mem::take(&mut self.is_new) && foreign::is_http(text.octets()) {
            return self.violated(ClientViolation::ForeignProtocol, out);
        }
        self.commands += 1;
        if self.commands > self.limits.max_commands {
            return self.violated(ClientViolation::TooManyCommands, out);
        }
        let command = Command::new(text.octets());
        match command.verb {
            Verb::Later => self.mistaken("NO \"Log in first.\"", out),
            Verb::Unknown => self.mistaken("NO \"There is no such command.\"", out),
            _ if !is_whole => self.mistaken("NO \"The literal is too long.\"", out),
            Verb::Noop => self.noop(command, out),
            Verb::Authenticate => self.authenticate(command, out),
            verb if command.stands_alone() => self.simple(verb, out),
            _ => self.mistaken("NO \"This command takes no arguments.\"", out),
        }
    }

    /// Obeys a command that has no arguments.
    fn simple(&mut self, verb: Verb, out: &mut Vec<u8>) -> Outcome {
        match verb {
            Verb::Logout => {
                words::line(out, "OK \"Goodbye.\"");
                self.state = State::Closed;
                Ok(Some(FrontStep::Close))
            }
            Verb::StartTls if self.channel == Channel::Clear => {
                words::line(out, "OK \"Begin TLS now.\"");
                self.state = State::Upgrading;
                Ok(Some(FrontStep::StartTls))
            }
            Verb::StartTls => self.mistaken("NO \"TLS is on already.\"", out),
            _ => {
                self.write_capabilities(out);
                words::line(out, "OK \"That is what is offered before the login.\"");
                Ok(None)
            }
        }
    }

    /// Says the client's own word back, by which it finds the answer that it is at (RFC 5804 §2.13).
    fn noop(&mut self, command: Command<'_>, out: &mut Vec<u8>) -> Outcome {
        match command.echo() {
            Argument::Odd => self.mistaken("NO \"NOOP takes a string.\"", out),
            Argument::Missing => {
                words::line(out, "OK \"Done.\"");
                Ok(None)
            }
            Argument::Text(text) => {
                out.extend_from_slice(b"OK (TAG ");
                words::string(out, text.octets());
                words::line(out, ") \"Done.\"");
                Ok(None)
            }
        }
    }

    /// Begins an AUTHENTICATE exchange.
    fn authenticate(&mut self, command: Command<'_>, out: &mut Vec<u8>) -> Outcome {
        if self.channel == Channel::Clear {
            let text = "NO (ENCRYPT-NEEDED) \"Use STARTTLS before you log in.\"";
            return self.mistaken(text, out);
        }
        let Some((mechanism, response)) = command.authenticate() else {
            return self.mistaken(
                "NO \"AUTHENTICATE takes a mechanism, and a response.\"",
                out,
            );
        };
        let ours = |mechanism: &Mechanism| offer::MECHANISMS.contains(mechanism);
        let Some(mechanism) = Mechanism::from_name(mechanism.octets()).filter(ours) else {
            return self.mistaken("NO \"This mechanism is not offered.\"", out);
        };
        if !offer::offers(self.offer.capabilities(), mechanism) {
            // One of ours, so that a client may remember it from a longer list: that list comes back.
            let text = "NO (TRYLATER) \"This mechanism is not offered for now.\"";
            return self.mistaken(text, out);
        }
        let exchange = Exchange::new(mechanism);
        if let Some(response) = response.filter(|it| exchange.takes_first(it.octets())) {
            return Ok(self.respond(exchange, &response, out));
        }
        self.challenge(exchange, out);
        Ok(None)
    }

    fn challenge(&mut self, exchange: Exchange, out: &mut Vec<u8>) {
        words::string(out, exchange.challenge().as_bytes());
        words::line(out, "");
        self.state = State::Responding(exchange, frame(self.limits));
    }

    /// Reads a response of an exchange.
    fn response(
        &mut self,
        exchange: Exchange,
        mut frame: Frame,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match frame.take(input) {
            Err(_) => Ok(Some(self.unfit(InvalidCredentials::TooLong))),
            Ok(Taken::More) => {
                self.state = State::Responding(exchange, frame);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Taken::TooLong(_)) => self.mistaken("NO \"The literal is too long.\"", out),
            Ok(Taken::Whole(text)) => match command::response(text.octets()) {
                None => Ok(Some(self.unfit(InvalidCredentials::Malformed))),
                // RFC 5804 §2.1
                Some(response) if response.octets() == b"*" => {
                    self.mistaken("NO \"You cancelled the login.\"", out)
                }
                Some(response) => Ok(self.respond(exchange, &response, out)),
            },
        }
    }

    fn respond(
        &mut self,
        exchange: Exchange,
        response: &Secret,
        out: &mut Vec<u8>,
    ) -> Option<FrontStep> {
        match exchange.respond(response.octets()) {
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

    /// Reads what a client says to the challenge that ended its exchange, whatever it is, and tells it no.
    fn last_word(
        &mut self,
        mut frame: Frame,
        reply: ClientReply,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match frame.take(input) {
            Err(_) => {
                words::refuse_login(out, &reply);
                self.violated(ClientViolation::LineTooLong, out)
            }
            Ok(Taken::More) => {
                self.state = State::Challenged(frame, reply);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Taken::Whole(_) | Taken::TooLong(_)) => {
                words::refuse_login(out, &reply);
                Ok(None)
            }
        }
    }

    /// Answers a command that has been read to its end and cannot be obeyed.
    fn mistaken(&mut self, text: &str, out: &mut Vec<u8>) -> Outcome {
        words::line(out, text);
        self.errors += 1;
        if self.errors <= self.limits.max_errors {
            return Ok(None);
        }
        self.violated(ClientViolation::TooManyErrors, out)
    }

    /// Says goodbye to a client that broke the rules.
    fn violated(&mut self, violation: ClientViolation, out: &mut Vec<u8>) -> Outcome {
        words::line(out, words::violation(violation));
        self.state = State::Closed;
        Err(violation)
    }

    /// Says what is offered on the leg as it is now.
    fn write_capabilities(&self, out: &mut Vec<u8>) {
        match self.channel {
            Channel::Clear => self.offer.write_in_clear(out),
            Channel::Secure => self.offer.write(out),
        }
    }
}

/// A command or a response that is to be read.
fn frame(limits: FrontLimits) -> Frame {
    Frame::new(Room {
        lines: limits.max_line,
        literals: limits.max_literal,
        beyond: Beyond::Dropped,
        most_lines: u32::MAX,
    })
}

impl Front for SieveFront {
    type Follow = SieveFollower;
    type Welcome = Acceptance;

    fn greet(&mut self, out: &mut Vec<u8>) {
        self.write_capabilities(out);
        words::line(out, "OK \"Ferrypost is ready.\"");
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

    /// Says unasked what is offered now (RFC 5804 §2.2): clients wait for it.
    fn secured(&mut self, out: &mut Vec<u8>) {
        self.channel = Channel::Secure;
        self.is_new = true;
        self.state = self.next_command();
        self.write_capabilities(out);
        words::line(out, "OK \"TLS is on.\"");
    }

    /// Nothing: clients have no way to say who they are.
    fn introduction(&self) -> Introduction {
        Introduction::default()
    }

    /// Nothing: whatever is said is taken for the answer to the login.
    fn held(&mut self, _out: &mut Vec<u8>) {}

    fn reply(&mut self, reply: ClientReply, out: &mut Vec<u8>) {
        let next = self.next_command();
        match (std::mem::replace(&mut self.state, next), &reply) {
            (State::Pending, ClientReply::Rejected(rejection))
                if rejection.challenge().is_some() =>
            {
                let challenge = rejection.challenge().unwrap_or_default();
                words::string(out, encode_base64(challenge).as_bytes());
                words::line(out, "");
                self.state = State::Challenged(frame(self.limits), reply);
                return;
            }
            (State::Pending, reply) => words::refuse_login(out, reply),
            (State::Challenged(_, earlier), _) => words::refuse_login(out, &earlier),
            (state, _) => self.state = state,
        }
        match reply {
            ClientReply::Closing(why) => out.extend_from_slice(words::goodbye(why)),
            ClientReply::Unfit(InvalidCredentials::TooLong) => {
                words::line(out, words::violation(ClientViolation::LineTooLong));
            }
            _ => return,
        }
        self.state = State::Closed;
    }

    /// No list of capabilities comes with it: no security layer was begun (RFC 5804 §2.1).
    fn accept(self, acceptance: Acceptance, out: &mut Vec<u8>) -> SieveFollower {
        out.extend_from_slice(b"OK ");
        words::string(out, acceptance.text().as_bytes());
        words::line(out, "");
        SieveFollower::default()
    }
}
