//! The client's side before login: we are the server.

use std::sync::Arc;

use super::ImapFollower;
use super::acceptance::Acceptance;
use super::capability::{Capabilities, Offer};
use super::command::{self, Head, Verb};
use super::lex::{Announcement, MAX_LITERAL, Tag, announced_literal};
use super::{offer, words};
use crate::buf::WireBuf;
use crate::facts::Introduction;
use crate::foreign::{begins_tls, is_http};
use crate::reply::{ClientReply, ClientViolation};
use crate::sasl::{self, Exchange, Mechanism, Progress};
use crate::secret::{Credentials, InvalidCredentials, Secret, SecretWriter};
use crate::settings::{Channel, FrontLimits, FrontSettings};
use crate::{Front, FrontStep};

const NO_COMMAND: &str = "BAD A command is a tag, a space and a name.";

/// An IMAP server up to the login.
pub struct ImapFront {
    channel: Channel,
    offer: Arc<Offer>,
    limits: FrontLimits,
    state: State,
    /// Whether nothing has been said on the leg as it is now: it may be another protocol yet.
    is_new: bool,
    commands: u32,
    errors: u32,
    /// Whether the client has sent CAPABILITY on the leg as it is now: how it will expect to learn
    /// what its server offers after login.
    asked_capability: bool,
    introduction: Introduction,
    leftover: Leftover,
}

/// What may still come of a login that has been answered with a refusal, from a client that did not wait for
/// it. It may be a name or a password, and is never echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    Nothing,
    /// Responses of an exchange: lines of one word, which are not answered either.
    Responses,
    /// A literal that was declined: anything but what is sure to be a command.
    Literal,
}

/// What the next octets from the client are.
enum State {
    /// A command.
    Command,
    /// The rest of a command that goes on behind a literal.
    Collecting(Collecting),
    /// The rest of a command that has been answered already and is sent all the same.
    Skipping(Skipping),
    /// A response of an AUTHENTICATE exchange.
    Responding(Tag, Exchange),
    /// Not ours to read: a login waits for its answer.
    Pending(Tag),
    /// The answer to the challenge that says why a token is refused; then the client hears the refusal
    /// (RFC 7628 §3.2.3).
    Refused(Tag, ClientReply),
    /// Not ours to read: the leg is being upgraded.
    Upgrading,
    /// Not ours to read: the session is over.
    Closed,
}

struct Collecting {
    tag: Tag,
    verb: Verb,
    text: SecretWriter,
    /// Octets of the current literal that are still to come.
    missing: usize,
    /// What the limits leave for this command.
    room: Room,
}

struct Skipping {
    /// Octets of the current literal that are still to come.
    missing: u64,
    /// Octets of lines that are still allowed.
    line: usize,
}

/// What a command may still take: octets in lines and octets in literals.
#[derive(Clone, Copy)]
struct Room {
    line: usize,
    literals: usize,
}

/// `None`: go on with the state as it is now.
type Outcome = Result<Option<FrontStep>, ClientViolation>;

impl ImapFront {
    pub(super) fn new(settings: FrontSettings<Offer>) -> Self {
        Self {
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            state: State::Command,
            is_new: true,
            commands: 0,
            errors: 0,
            asked_capability: false,
            introduction: Introduction::default(),
            leftover: Leftover::Nothing,
        }
    }

    fn advance(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Command => self.command(input, out),
            State::Collecting(collecting) => self.collect(collecting, input, out),
            State::Skipping(skipping) => self.skip(skipping, input, out),
            State::Responding(tag, exchange) => self.response(tag, exchange, input, out),
            State::Refused(tag, refusal) => self.challenged(tag, refusal, input, out),
            state @ (State::Pending(_) | State::Upgrading | State::Closed) => {
                self.state = state;
                Ok(Some(FrontStep::NeedMore))
            }
        }
    }

    /// Reads the first line of a command.
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
        let literal = announced_literal(&line);
        let room = Room {
            line: self.limits.max_line - line.len(),
            literals: self.limits.max_literal,
        };
        let Some(head) = command::head(&line).filter(|head| self.may_echo(head)) else {
            return self.no_command(&line, literal, room, out);
        };
        self.leftover = Leftover::Nothing;
        match head.verb {
            Some(verb @ (Verb::Id | Verb::Login)) if self.may(verb) => {
                let text = SecretWriter::with_capacity(line.len() + 2).text(&line);
                let collecting = Collecting {
                    tag: head.tag,
                    verb,
                    text,
                    missing: 0,
                    room,
                };
                self.extend(collecting, literal, out)
            }
            Some(Verb::Authenticate) if literal.is_none() && self.may(Verb::Authenticate) => {
                self.authenticate(head.tag, &line, out)
            }
            Some(verb) if literal.is_none() && verb.stands_alone(head.rest) => {
                self.simple(&head.tag, verb, out)
            }
            verb => {
                words::tagged(out, &head.tag, self.refusal(verb));
                self.leave_over(verb, literal);
                self.mistaken(literal, room, out)
            }
        }
    }

    /// Whether a line that reads as a command is one, and not what is left of a refused login.
    fn may_echo(&self, head: &Head<'_>) -> bool {
        match self.leftover {
            Leftover::Nothing => true,
            Leftover::Responses => head.verb.is_some(),
            Leftover::Literal => head.verb.is_some_and(|verb| verb != Verb::Other),
        }
    }

    /// Answers a line whose tag, if it has one, must not be echoed. One that cannot be a command is passed over
    /// where a login has just been refused.
    fn no_command(
        &mut self,
        line: &[u8],
        literal: Option<Announcement>,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let is_command = command::head(line).is_some_and(|head| head.verb.is_some());
        if self.leftover != Leftover::Nothing && !is_command {
            return self.skip_literal(literal, room.line, out);
        }
        words::untagged(out, self.refusal(is_command.then_some(Verb::Other)));
        self.mistaken(literal, room, out)
    }

    /// Remembers what a client that does not wait will still send of a command that is refused.
    fn leave_over(&mut self, verb: Option<Verb>, literal: Option<Announcement>) {
        let declined = literal.is_some_and(|literal| literal.synchronising);
        self.leftover = match verb {
            Some(Verb::Login | Verb::Authenticate) if declined => Leftover::Literal,
            Some(Verb::Authenticate) => Leftover::Responses,
            _ => Leftover::Nothing,
        };
    }

    /// Whether the state of the leg allows `verb`.
    fn may(&self, verb: Verb) -> bool {
        match verb {
            Verb::Login => {
                self.channel == Channel::Secure && !self.offer.capabilities().has("LOGINDISABLED")
            }
            Verb::Authenticate => self.channel == Channel::Secure,
            _ => true,
        }
    }

    /// Why a command is not obeyed.
    fn refusal(&self, verb: Option<Verb>) -> &'static str {
        match verb {
            None => NO_COMMAND,
            Some(Verb::Login | Verb::Authenticate) if self.channel == Channel::Clear => {
                "NO [PRIVACYREQUIRED] Use STARTTLS before you log in."
            }
            // It was offered, if the client asks for it; it may be again.
            Some(Verb::Login) => "NO [UNAVAILABLE] LOGIN is disabled for now, use AUTHENTICATE.",
            Some(Verb::Enable) => "BAD ENABLE is for after the login.",
            Some(Verb::Other) => "BAD Unknown command, or not one to use before the login.",
            Some(_) => "BAD The arguments of this command are wrong.",
        }
    }

    /// Obeys a command that has no arguments.
    fn simple(&mut self, tag: &Tag, verb: Verb, out: &mut Vec<u8>) -> Outcome {
        match verb {
            Verb::Capability => {
                self.asked_capability = true;
                out.extend_from_slice(b"* CAPABILITY ");
                self.capabilities().write(out);
                out.extend_from_slice(b"\r\n");
                words::tagged(out, tag, "OK That is what is offered before the login.");
            }
            Verb::Logout => {
                words::untagged(out, "BYE Logging out.");
                words::tagged(out, tag, "OK Goodbye.");
                self.state = State::Closed;
                return Ok(Some(FrontStep::Close));
            }
            Verb::StartTls if self.channel == Channel::Clear => {
                words::tagged(out, tag, "OK Begin TLS now.");
                self.state = State::Upgrading;
                return Ok(Some(FrontStep::StartTls));
            }
            Verb::StartTls => {
                words::tagged(out, tag, "BAD TLS is on already.");
                self.count_error(out)?;
            }
            _ => words::tagged(out, tag, "OK Done."),
        }
        Ok(None)
    }

    /// Goes on with a command whose last line announces `literal`, or obeys it.
    fn extend(
        &mut self,
        mut command: Collecting,
        literal: Option<Announcement>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(literal) = literal else {
            return self.complete(command, out);
        };
        let Some(length) = command.room.admit(literal) else {
            words::tagged(out, &command.tag, "NO [TOOBIG] The literal is too long.");
            self.leave_over(Some(command.verb), Some(literal));
            return self.mistaken(Some(literal), command.room, out);
        };
        if literal.synchronising {
            out.extend_from_slice(b"+ Go on.\r\n");
        }
        command.text = command.text.text(b"\r\n");
        command.missing = length;
        self.state = State::Collecting(command);
        Ok(None)
    }

    /// Reads the octets of a literal and the line behind it.
    fn collect(
        &mut self,
        mut command: Collecting,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let count = command.missing.min(input.len());
        command.text = command.text.text(&input.filled()[..count]);
        command.missing -= count;
        input.consume(count);
        let line = match command.missing {
            0 => input.take_line(command.room.line),
            _ => Ok(None),
        };
        match line {
            Err(_) => self.violated(ClientViolation::LineTooLong, out),
            Ok(None) => {
                self.state = State::Collecting(command);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Some(line)) => {
                command.room.line -= line.len();
                command.text = command.text.text(&line);
                self.extend(command, announced_literal(&line), out)
            }
        }
    }

    /// Obeys a command that has been read to its end.
    fn complete(&mut self, command: Collecting, out: &mut Vec<u8>) -> Outcome {
        let Collecting {
            tag, verb, text, ..
        } = command;
        let text = text.finish();
        match verb {
            Verb::Login => match command::login(text.octets()) {
                Some((name, password)) => self.login(tag, &name, password, out),
                None => self.malformed(&tag, "BAD LOGIN takes a name and a password.", out),
            },
            _ => match command::id(text.octets()) {
                Some(introduction) => {
                    // The first one counts, as with the servers behind us.
                    if self.introduction.id.is_empty() {
                        self.introduction = introduction;
                    }
                    words::untagged(out, "ID (\"name\" \"Ferrypost\")");
                    words::tagged(out, &tag, "OK Pleased to meet you.");
                    Ok(None)
                }
                None => self.malformed(&tag, "BAD ID takes NIL or a list of pairs.", out),
            },
        }
    }

    fn login(&mut self, tag: Tag, name: &Secret, password: Secret, out: &mut Vec<u8>) -> Outcome {
        if !name.octets().is_ascii() {
            let text = "BAD Use AUTHENTICATE for a name beyond US-ASCII (RFC 6855).";
            return self.malformed(&tag, text, out);
        }
        let credentials = Credentials::password(b"", name.octets(), password);
        Ok(Some(self.offered(tag, credentials)))
    }

    /// Begins an AUTHENTICATE exchange.
    fn authenticate(&mut self, tag: Tag, line: &[u8], out: &mut Vec<u8>) -> Outcome {
        let Some((mechanism, response)) = command::authenticate(line) else {
            self.leftover = Leftover::Responses;
            return self.malformed(&tag, "BAD AUTHENTICATE takes a mechanism.", out);
        };
        let offered = |mechanism: &Mechanism| {
            let list = self.offer.capabilities();
            list.has(&offer::word(*mechanism))
        };
        let ours = |mechanism: &Mechanism| offer::MECHANISMS.contains(mechanism);
        let Some(mechanism) = Mechanism::from_name(mechanism).filter(ours) else {
            self.leftover = Leftover::Responses;
            return self.malformed(&tag, "NO This mechanism is not offered.", out);
        };
        if !offered(&mechanism) {
            // One of ours, so that a client may remember it from a longer list: that list comes back.
            self.leftover = Leftover::Responses;
            let text = "NO [UNAVAILABLE] This mechanism is not offered for now.";
            return self.malformed(&tag, text, out);
        }
        let exchange = Exchange::new(mechanism);
        if let Some(response) = response.filter(|it| exchange.takes_first(it)) {
            return Ok(self.respond(tag, exchange, response, out));
        }
        self.challenge(tag, exchange, out);
        Ok(None)
    }

    fn challenge(&mut self, tag: Tag, exchange: Exchange, out: &mut Vec<u8>) {
        words::continuation(out, exchange.challenge());
        self.state = State::Responding(tag, exchange);
    }

    /// Reads a response of an exchange.
    fn response(
        &mut self,
        tag: Tag,
        exchange: Exchange,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match input.take_line(self.limits.max_line) {
            Err(_) => Ok(Some(self.unfit(tag, InvalidCredentials::TooLong))),
            Ok(None) => {
                self.state = State::Responding(tag, exchange);
                Ok(Some(FrontStep::NeedMore))
            }
            // RFC 9051 §6.2.2
            Ok(Some(line)) if **line == *b"*" => {
                self.malformed(&tag, "BAD You cancelled the login.", out)
            }
            Ok(Some(line)) => Ok(self.respond(tag, exchange, &line, out)),
        }
    }

    /// Reads what the client says to the challenge that its token was refused with, whatever it is, and refuses.
    fn challenged(
        &mut self,
        tag: Tag,
        refusal: ClientReply,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match input.take_line(self.limits.max_line) {
            Ok(None) => {
                self.state = State::Refused(tag, refusal);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Some(_)) => {
                self.refuse(&tag, &refusal, out);
                Ok(None)
            }
            Err(_) => {
                self.refuse(&tag, &refusal, out);
                self.violated(ClientViolation::LineTooLong, out)
            }
        }
    }

    /// Answers a login with something other than success.
    fn refuse(&mut self, tag: &Tag, reply: &ClientReply, out: &mut Vec<u8>) {
        words::refuse_login(out, tag, reply);
        self.leftover = Leftover::Responses;
    }

    fn respond(
        &mut self,
        tag: Tag,
        exchange: Exchange,
        response: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<FrontStep> {
        match exchange.respond(response) {
            Ok(Progress::Challenge(exchange)) => {
                self.challenge(tag, exchange, out);
                None
            }
            Ok(Progress::Done(credentials)) => Some(self.offered(tag, Ok(credentials))),
            Err(invalid) => Some(self.offered(tag, Err(invalid))),
        }
    }

    /// The client has offered credentials, fit or not.
    fn offered(
        &mut self,
        tag: Tag,
        credentials: Result<Credentials, InvalidCredentials>,
    ) -> FrontStep {
        match credentials {
            Ok(credentials) => {
                self.state = State::Pending(tag);
                FrontStep::Login(credentials)
            }
            Err(invalid) => self.unfit(tag, invalid),
        }
    }

    /// Lets the driver answer what cannot be credentials, in its time: guessers must not learn more, or
    /// sooner, from a guess that is malformed than from one that is wrong.
    fn unfit(&mut self, tag: Tag, invalid: InvalidCredentials) -> FrontStep {
        self.state = State::Pending(tag);
        FrontStep::Unfit(invalid)
    }

    /// Answers a command that has been read to its end and cannot be obeyed.
    fn malformed(&mut self, tag: &Tag, text: &str, out: &mut Vec<u8>) -> Outcome {
        words::tagged(out, tag, text);
        self.count_error(out)?;
        Ok(None)
    }

    /// Counts a mistake whose command has been answered, and gets past the literal that its line
    /// announces, if the client sends it without waiting.
    fn mistaken(
        &mut self,
        literal: Option<Announcement>,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.count_error(out)?;
        self.skip_literal(literal, room.line, out)
    }

    /// However long the literal is: LITERAL+ promises that it may come. It costs nothing but the time that a
    /// login may take.
    fn skip_literal(
        &mut self,
        literal: Option<Announcement>,
        line: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match literal.filter(|literal| !literal.synchronising) {
            None => Ok(None),
            Some(literal) if literal.length > MAX_LITERAL => {
                self.violated(ClientViolation::LiteralTooLong, out)
            }
            Some(literal) => {
                let missing = literal.length;
                self.state = State::Skipping(Skipping { missing, line });
                Ok(None)
            }
        }
    }

    /// Drops the octets of a literal and the line behind it.
    fn skip(&mut self, mut skipping: Skipping, input: &mut WireBuf, out: &mut Vec<u8>) -> Outcome {
        let missing = usize::try_from(skipping.missing).unwrap_or(usize::MAX);
        let count = missing.min(input.len());
        skipping.missing -= count as u64;
        input.consume(count);
        let line = match skipping.missing {
            0 => input.take_line(skipping.line),
            _ => Ok(None),
        };
        match line {
            Err(_) => self.violated(ClientViolation::LineTooLong, out),
            Ok(None) => {
                self.state = State::Skipping(skipping);
                Ok(Some(FrontStep::NeedMore))
            }
            Ok(Some(line)) => {
                let left = skipping.line - line.len();
                self.skip_literal(announced_literal(&line), left, out)
            }
        }
    }

    fn count_error(&mut self, out: &mut Vec<u8>) -> Result<(), ClientViolation> {
        self.errors += 1;
        if self.errors <= self.limits.max_errors {
            return Ok(());
        }
        self.violated(ClientViolation::TooManyErrors, out).map(drop)
    }

    /// Says goodbye to a client that broke the rules.
    fn violated(&mut self, violation: ClientViolation, out: &mut Vec<u8>) -> Outcome {
        words::untagged(out, words::violation(violation));
        self.state = State::Closed;
        Err(violation)
    }

    /// What is offered on the leg as it is now.
    fn capabilities(&self) -> Capabilities {
        match self.channel {
            Channel::Clear => offer::in_clear(&self.offer),
            Channel::Secure => self.offer.capabilities().clone(),
        }
    }
}

/// What the client is to read before it is refused.
fn challenge(reply: &ClientReply) -> Option<&[u8]> {
    match reply {
        ClientReply::Rejected(rejection) => rejection.challenge(),
        _ => None,
    }
}

impl Room {
    /// Takes what `literal` needs and returns its length; `None` when there is not enough.
    fn admit(&mut self, literal: Announcement) -> Option<usize> {
        let length = usize::try_from(literal.length).ok()?;
        self.literals = self.literals.checked_sub(length)?;
        Some(length)
    }
}

impl Front for ImapFront {
    type Follow = ImapFollower;
    type Welcome = Acceptance;

    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"* OK [CAPABILITY ");
        self.capabilities().write(out);
        out.extend_from_slice(b"] Ferrypost is ready.\r\n");
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
        self.asked_capability = false;
        self.introduction = Introduction::default();
        self.leftover = Leftover::Nothing;
    }

    fn introduction(&self) -> Introduction {
        self.introduction.clone()
    }

    fn held(&mut self, out: &mut Vec<u8>) {
        if let State::Pending(_) = self.state {
            words::untagged(out, "OK Still waiting for your server.");
        }
    }

    fn reply(&mut self, reply: ClientReply, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Pending(tag) => {
                if let Some(challenge) = challenge(&reply) {
                    words::continuation(out, &sasl::encode_base64(challenge));
                    self.state = State::Refused(tag, reply);
                    return;
                }
                self.refuse(&tag, &reply, out);
            }
            // The driver does not wait for the client's answer.
            State::Refused(tag, refusal) => self.refuse(&tag, &refusal, out),
            state => self.state = state,
        }
        match reply {
            ClientReply::Closing(why) => out.extend_from_slice(words::goodbye(why)),
            ClientReply::Unfit(InvalidCredentials::TooLong) => {
                words::untagged(out, words::violation(ClientViolation::LineTooLong));
            }
            _ => return,
        }
        self.state = State::Closed;
    }

    /// The client learns its server's capabilities in the way it looks for them: as a response of
    /// their own if it asked for them before, else inside the OK, and never both (RFC 9051 §6.2.2,
    /// §7.1; the heuristic is Dovecot's).
    fn accept(self, acceptance: Acceptance, out: &mut Vec<u8>) -> ImapFollower {
        let capabilities = offer::after_login(&acceptance.capabilities);
        out.extend_from_slice(&acceptance.untagged);
        if self.asked_capability {
            out.extend_from_slice(b"* CAPABILITY ");
            capabilities.write(out);
            out.extend_from_slice(b"\r\n");
        }
        if let State::Pending(tag) = self.state {
            out.extend_from_slice(tag.as_bytes());
            out.extend_from_slice(b" OK ");
            if !self.asked_capability {
                out.extend_from_slice(b"[CAPABILITY ");
                capabilities.write(out);
                out.extend_from_slice(b"] ");
            }
            out.extend_from_slice(acceptance.text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        ImapFollower::default()
    }
}
