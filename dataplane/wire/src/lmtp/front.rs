//! The mail system's side: we are the server.

use std::sync::Arc;

use super::answer::{Answer, Reason};
use super::command::{self, Verb};
use super::offer::Offer;
use super::words::{self, line};
use crate::buf::WireBuf;
use crate::facts::Introduction;
use crate::foreign;
use crate::reply::{ClientViolation, Farewell};
use crate::settings::Channel;
use crate::smtp::content::Content;
use crate::smtp::{BadEnvelope, BareLineEnd, Envelope, Parameter, Piece, quirks};

/// What a server for mail systems is made with.
#[derive(Debug, Clone)]
pub struct LmtpSettings {
    /// How the mail system is connected. With [`Channel::Clear`] STARTTLS comes before any message.
    pub channel: Channel,
    /// What is offered.
    pub offer: Arc<Offer>,
    /// What it may make us do.
    pub limits: LmtpLimits,
}

/// What a mail system may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LmtpLimits {
    /// Octets of a command without its end, default 4096: an address may have 256 (RFC 5321 §4.5.3.1.3), and DSN adds
    /// 700 (RFC 3461 §5.4). Past it: a farewell and the end.
    pub max_line: usize,
    /// Recipients of one message, default 1000; Postfix sends 50 at most, and 100 must be taken (RFC 5321
    /// §4.5.3.1.8). Those past it are told to come in another.
    pub max_recipients: u32,
    /// Commands in a row that name no recipient, default 100. Past it: a farewell and the end. A mail system that is told
    /// to come again for every one of its recipients goes on.
    pub max_commands: u32,
    /// Those of them that are not understood or out of place, default 20, the same as Postfix's. Past it: a farewell and
    /// the end.
    pub max_errors: u32,
}

impl Default for LmtpLimits {
    fn default() -> Self {
        Self {
            max_line: 4096,
            max_recipients: 1000,
            max_commands: 100,
            max_errors: 20,
        }
    }
}

/// What a mail system wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LmtpStep {
    /// Nothing: more must be read.
    NeedMore,
    /// TLS: hand the leg over, then say [`secured`](LmtpFront::secured).
    StartTls,
    /// A message from this sender begins; that is answered.
    Mail(Envelope),
    /// Another recipient: answer with [`recipient`](LmtpFront::recipient).
    Recipient(Envelope),
    /// The message is next, for those recipients that were accepted: answer with [`go_ahead`](LmtpFront::go_ahead)
    /// or [`refuse`](LmtpFront::refuse).
    Message,
    /// The transaction is over before its message; that is answered.
    Reset,
    /// It has said goodbye, or sends what cannot be told from commands. We have answered, and nothing more is read.
    Close,
}

/// An LMTP server up to what becomes of a message.
pub struct LmtpFront {
    channel: Channel,
    offer: Arc<Offer>,
    limits: LmtpLimits,
    /// As it said LHLO.
    name: Option<String>,
    transaction: Option<Transaction>,
    state: State,
    commands: u32,
    errors: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Transaction {
    named: u32,
    accepted: u32,
}

/// What we wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Command,
    /// The driver's TLS handshake.
    Handshake,
    /// The driver's word about a recipient.
    Recipient,
    /// The driver's word about DATA.
    Message,
    /// A message.
    Content(Content),
    /// The driver's word about this many recipients.
    Answers(u32),
    /// Nothing.
    Over,
}

impl LmtpFront {
    /// For a mail system that has just connected. Say [`greet`](Self::greet) first.
    pub fn new(settings: LmtpSettings) -> Self {
        Self {
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            name: None,
            transaction: None,
            state: State::Command,
            commands: 0,
            errors: 0,
        }
    }

    /// The greeting.
    pub fn greet(&self, out: &mut Vec<u8>) {
        line(out, words::GREETING);
    }

    /// Takes commands, as far as they can be answered without the driver.
    ///
    /// # Errors
    /// [`ClientViolation`]: the session must end, and its farewell is written.
    pub fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<LmtpStep, ClientViolation> {
        while self.state == State::Command {
            let step = self.command(input, out);
            let step = step.inspect_err(|violation| self.end(*violation, out))?;
            if let Some(step) = step {
                return Ok(step);
            }
        }
        Ok(LmtpStep::NeedMore)
    }

    /// TLS is on, and nothing that was said before it counts (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.channel = Channel::Secure;
        self.name = None;
        self.transaction = None;
        self.state = State::Command;
    }

    /// Answers a recipient.
    pub fn recipient(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        if self.state != State::Recipient {
            return;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.accepted += u32::from(answer.is_yes());
        }
        answer.write(out);
        self.commands = 0;
        self.errors = 0;
        self.state = State::Command;
    }

    /// Lets the message come: read it with [`content`](Self::content).
    pub fn go_ahead(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Message {
            line(out, words::GO_AHEAD);
            self.state = State::Content(Content::new());
        }
    }

    /// Refuses the message for all its recipients at once.
    pub fn refuse(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        if self.state == State::Message {
            answer.write(out);
            self.transaction = None;
            self.state = State::Command;
        }
    }

    /// The next octets of the message: those that are named are to be passed on and consumed. Behind its end each
    /// recipient that was accepted is to be [answered](Self::answer).
    ///
    /// # Errors
    /// [`BareLineEnd`]: where the message ends is not certain any more, so nothing that follows is read. Each
    /// recipient is to be answered, and the session ends.
    pub fn content(&mut self, input: &mut WireBuf) -> Result<Piece, BareLineEnd> {
        let State::Content(content) = &mut self.state else {
            return Ok(Piece::Octets(0));
        };
        let piece = content.next(input);
        if matches!(piece, Ok(Piece::End) | Err(_)) {
            let transaction = self.transaction.take().unwrap_or_default();
            self.state = State::Answers(transaction.accepted);
        }
        piece
    }

    /// Answers the next recipient about the message. True when that was the last.
    pub fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) -> bool {
        if let State::Answers(owed) = self.state {
            answer.write(out);
            self.state = match owed {
                0 | 1 => State::Command,
                owed => State::Answers(owed - 1),
            };
        }
        self.state == State::Command
    }

    /// The whole line that ends a session, where one may be said: between a message and the answers to it the mail
    /// system would take it for one of them.
    pub fn farewell(&mut self, why: Farewell, out: &mut Vec<u8>) {
        if matches!(
            self.state,
            State::Command | State::Recipient | State::Message
        ) {
            out.extend_from_slice(crate::smtp::goodbye(why).as_bytes());
        }
        self.state = State::Over;
    }

    /// What the mail system has said about itself.
    pub fn introduction(&self) -> Introduction {
        Introduction {
            helo: self.name.clone(),
            ..Introduction::default()
        }
    }

    /// Whether nothing of a transaction is open.
    pub fn is_idle(&self) -> bool {
        self.state == State::Command && self.transaction.is_none()
    }

    fn command(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        if self.channel == Channel::Clear && foreign::begins_tls(input) {
            return Err(ClientViolation::ForeignProtocol);
        }
        let taken = input.take_line(self.limits.max_line);
        let Some(command) = taken.map_err(|_| ClientViolation::LineTooLong)? else {
            return Ok(Some(LmtpStep::NeedMore));
        };
        if foreign::is_http(&command) {
            return Err(ClientViolation::ForeignProtocol);
        }
        self.commands += 1;
        if self.commands > self.limits.max_commands {
            return Err(ClientViolation::TooManyCommands);
        }
        let (verb, arguments) = command::split(&command);
        self.obey(verb, arguments, out)
    }

    fn obey(
        &mut self,
        verb: Verb,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        match verb {
            Verb::Lhlo => return self.lhlo(arguments, out),
            Verb::Rset => {
                line(out, words::OK);
                return Ok(self.forget());
            }
            Verb::Noop => line(out, words::OK),
            Verb::Quit => {
                line(out, words::BYE);
                self.state = State::Over;
                return Ok(Some(LmtpStep::Close));
            }
            Verb::Bdat => {
                line(out, words::NO_CHUNKS);
                self.state = State::Over;
                return Ok(Some(LmtpStep::Close));
            }
            Verb::Hello => return self.mistake(words::LHLO_INSTEAD, out),
            Verb::Trust => return self.mistake(words::NOT_YOURS, out),
            Verb::Other => return self.mistake(words::UNKNOWN, out),
            Verb::StartTls => return self.start_tls(arguments, out),
            _ if self.channel == Channel::Clear => return self.mistake(words::TLS_FIRST, out),
            Verb::Vrfy => line(out, words::CANNOT_VERIFY),
            // Without LHLO too (Dovecot).
            Verb::Mail => return self.mail(arguments, out),
            Verb::Rcpt => return self.rcpt(arguments, out),
            Verb::Data => return self.data(arguments, out),
        }
        Ok(None)
    }

    fn lhlo(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        let Some(name) = quirks::helo_name(arguments) else {
            return self.mistake(words::ARGUMENTS, out);
        };
        self.name = Some(name);
        let starttls = (self.channel == Channel::Clear).then(|| "STARTTLS".to_owned());
        let mut lines: Vec<_> = self.offer.lines().chain(starttls).collect();
        let last = lines.pop();
        line(out, "250-ferrypost");
        for extension in lines {
            line(out, &format!("250-{extension}"));
        }
        line(out, &format!("250 {}", last.unwrap_or_default()));
        Ok(self.forget())
    }

    fn start_tls(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        if self.channel == Channel::Secure {
            return self.mistake(words::NO_TLS, out);
        }
        if !arguments.is_empty() {
            return self.mistake(words::ARGUMENTS, out);
        }
        line(out, words::BEGIN_TLS);
        self.state = State::Handshake;
        Ok(Some(LmtpStep::StartTls))
    }

    fn mail(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        if self.transaction.is_some() {
            return self.mistake(words::ORDER, out);
        }
        let from = match self.envelope(arguments, "FROM", Parameter::extension_of_mail) {
            Ok(from) => from,
            Err(words) => return self.mistake(words, out),
        };
        if self.is_too_large(&from) {
            line(out, words::TOO_LARGE);
            return Ok(None);
        }
        line(out, words::SENDER_OK);
        self.transaction = Some(Transaction::default());
        Ok(Some(LmtpStep::Mail(from)))
    }

    fn rcpt(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        let Some(transaction) = &mut self.transaction else {
            return self.mistake(words::ORDER, out);
        };
        if transaction.named >= self.limits.max_recipients {
            line(out, words::TOO_MANY_RECIPIENTS);
            return Ok(None);
        }
        transaction.named += 1;
        match self.envelope(arguments, "TO", Parameter::extension_of_recipient) {
            Ok(to) if to.address.as_str().is_empty() => self.mistake(words::ADDRESS, out),
            Ok(to) => {
                self.state = State::Recipient;
                Ok(Some(LmtpStep::Recipient(to)))
            }
            Err(words) => self.mistake(words, out),
        }
    }

    fn data(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        if !arguments.is_empty() {
            return self.mistake(words::ARGUMENTS, out);
        }
        // None at all, or nobody for whom it could be (RFC 2033 §4.2).
        if self
            .transaction
            .is_none_or(|transaction| transaction.accepted == 0)
        {
            line(out, words::ORDER);
            return Ok(None);
        }
        self.state = State::Message;
        Ok(Some(LmtpStep::Message))
    }

    fn envelope(
        &self,
        arguments: &[u8],
        word: &str,
        extension: impl Fn(&Parameter) -> Option<&'static str>,
    ) -> Result<Envelope, &'static str> {
        let envelope = Envelope::parse(arguments, word).map_err(|bad| match bad {
            BadEnvelope::Syntax => words::ARGUMENTS,
            BadEnvelope::Address => words::ADDRESS,
            BadEnvelope::Parameter => words::PARAMETER,
        })?;
        let is_offered = |parameter: &Parameter| {
            parameter.is_sound() && extension(parameter).is_some_and(|it| self.offer.has(it))
        };
        if envelope.parameters.iter().all(is_offered) {
            Ok(envelope)
        } else {
            Err(words::PARAMETER)
        }
    }

    fn is_too_large(&self, from: &Envelope) -> bool {
        let says = from
            .parameter("SIZE")
            .and_then(|size| size.parse::<u64>().ok());
        matches!((says, self.offer.size()), (Some(says), Some(limit)) if says > limit)
    }

    fn forget(&mut self) -> Option<LmtpStep> {
        self.transaction.take().map(|_| LmtpStep::Reset)
    }

    fn mistake(
        &mut self,
        words: &str,
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        line(out, words);
        self.errors += 1;
        if self.errors > self.limits.max_errors {
            return Err(ClientViolation::TooManyErrors);
        }
        Ok(None)
    }

    fn end(&mut self, violation: ClientViolation, out: &mut Vec<u8>) {
        line(out, words::violation(violation));
        self.state = State::Over;
    }
}

impl From<BareLineEnd> for Reason {
    fn from(_: BareLineEnd) -> Self {
        Self::BareLineEnd
    }
}
