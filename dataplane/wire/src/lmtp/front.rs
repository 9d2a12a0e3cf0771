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
use crate::smtp::chunks::Chunks;
use crate::smtp::content::Content;
use crate::smtp::opening::Dialect;
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
    /// It has asked to send a message that is for nobody; that is answered. What is there already was sent without the
    /// answer and is no command: hang up.
    NoMessage,
    /// The transaction is over before its message; that is answered.
    Reset,
    /// It has said goodbye, or sends what cannot be told from commands. We have answered, and nothing more is read.
    Close,
}

/// An LMTP server up to what becomes of a message; or one for SMTP, which greets otherwise, takes chunks, gives one answer
/// about a message, whoever it is for, and offers STARTTLS without asking for it.
pub struct LmtpFront {
    dialect: Dialect,
    channel: Channel,
    offer: Arc<Offer>,
    limits: LmtpLimits,
    /// As it said LHLO.
    name: Option<String>,
    transaction: Option<Transaction>,
    state: State,
    /// What is said behind a chunk that is skipped.
    behind_chunk: Vec<u8>,
    commands: u32,
    errors: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Transaction {
    named: u32,
    accepted: u32,
    /// Its message comes in chunks.
    chunks: Option<Chunks>,
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
    /// The transaction's chunk.
    Chunk,
    /// The end of a chunk that nobody wants, so many octets on.
    Skip(u64),
    /// The driver's word about this many recipients.
    Answers(u32),
    /// The driver, which does not know yet that nothing more is read.
    Leaving,
    /// Nothing.
    Over,
}

impl LmtpFront {
    /// For a mail system that has just connected. Say [`greet`](Self::greet) first.
    pub fn new(settings: LmtpSettings) -> Self {
        Self::speaking(Dialect::Lmtp, settings)
    }

    /// The same for one that speaks SMTP.
    pub fn smtp(settings: LmtpSettings) -> Self {
        Self::speaking(Dialect::Smtp, settings)
    }

    fn speaking(dialect: Dialect, settings: LmtpSettings) -> Self {
        Self {
            dialect,
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            name: None,
            transaction: None,
            state: State::Command,
            behind_chunk: Vec::new(),
            commands: 0,
            errors: 0,
        }
    }

    /// The greeting.
    pub fn greet(&self, out: &mut Vec<u8>) {
        line(
            out,
            match self.dialect {
                Dialect::Lmtp => words::GREETING,
                Dialect::Smtp => words::SMTP_GREETING,
            },
        );
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
        loop {
            let step = match self.state {
                State::Command => self.command(input, out),
                State::Skip(left) => Ok(self.skip(left, input, out)),
                State::Leaving => {
                    self.state = State::Over;
                    Ok(Some(LmtpStep::Close))
                }
                _ => Ok(Some(LmtpStep::NeedMore)),
            };
            let step = step.inspect_err(|violation| self.end(*violation, out))?;
            if let Some(step) = step {
                return Ok(step);
            }
        }
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
        if self.state != State::Message {
            return;
        }
        if self.chunks().is_some() {
            // It is on its way already.
            self.state = State::Chunk;
        } else {
            line(out, words::GO_AHEAD);
            self.state = State::Content(Content::new());
        }
    }

    /// Refuses the message for all its recipients at once. If it does not come in chunks, nothing may be there of it yet:
    /// hang up, as at [`LmtpStep::NoMessage`].
    pub fn refuse(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        if self.state != State::Message {
            return;
        }
        if let Some(chunks) = self.transaction.take().and_then(|it| it.chunks) {
            self.behind_chunk.clear();
            answer.write(&mut self.behind_chunk);
            self.state = State::Skip(chunks.left());
        } else {
            answer.write(out);
            self.state = State::Command;
        }
    }

    /// The next octets of the message: those that are named are to be passed on and consumed. Behind its end each
    /// recipient that was accepted is to be [answered](Self::answer), by SMTP all of them at once. What is to be said
    /// between chunks is appended to `out`.
    ///
    /// # Errors
    /// [`BareLineEnd`]: where the message ends is not certain any more, so nothing that follows is read. Each
    /// recipient is to be answered, and the session ends.
    pub fn content(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<Piece, BareLineEnd> {
        let piece = match &mut self.state {
            State::Content(content) => content.next(input),
            State::Chunk | State::Command => self.chunked(input, out),
            _ => return Ok(Piece::Octets(0)),
        };
        if matches!(piece, Ok(Piece::End) | Err(_)) {
            let transaction = self.transaction.take().unwrap_or_default();
            self.state = State::Answers(match self.dialect {
                Dialect::Lmtp => transaction.accepted,
                Dialect::Smtp => 1,
            });
        }
        piece
    }

    /// The next octets of a message that comes in chunks, with the commands between them.
    fn chunked(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Result<Piece, BareLineEnd> {
        loop {
            let chunk = self.state == State::Chunk;
            match self.chunks().filter(|_| chunk) {
                Some(chunks) if chunks.left() > 0 => return chunks.next(input),
                Some(chunks) if chunks.is_last() => return chunks.finish(),
                Some(_) => {
                    line(out, words::CHUNK_OK);
                    self.state = State::Command;
                }
                None => match self.command(input, out) {
                    Ok(None | Some(LmtpStep::NoMessage)) => {}
                    Ok(Some(LmtpStep::NeedMore)) => return Ok(Piece::Octets(0)),
                    Ok(Some(LmtpStep::Reset)) => return Ok(Piece::Withdrawn),
                    Ok(Some(_)) => return Ok(self.give_up()),
                    Err(violation) => {
                        self.end(violation, out);
                        return Ok(self.give_up());
                    }
                },
            }
        }
    }

    /// The message will not become whole, and its sender is not read any more.
    fn give_up(&mut self) -> Piece {
        self.transaction = None;
        self.state = State::Leaving;
        Piece::Withdrawn
    }

    fn chunks(&mut self) -> Option<&mut Chunks> {
        self.transaction.as_mut()?.chunks.as_mut()
    }

    /// Reads over a chunk that nobody wants.
    fn skip(&mut self, left: u64, input: &mut WireBuf, out: &mut Vec<u8>) -> Option<LmtpStep> {
        let there = input.len();
        let skipped = usize::try_from(left).map_or(there, |left| left.min(there));
        input.consume(skipped);
        let left = left - skipped as u64;
        if left > 0 {
            self.state = State::Skip(left);
            return Some(LmtpStep::NeedMore);
        }
        out.append(&mut self.behind_chunk);
        self.state = State::Command;
        None
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
            Verb::Lhlo if self.dialect == Dialect::Lmtp => return self.hello(arguments, out),
            Verb::Ehlo if self.dialect == Dialect::Smtp => return self.hello(arguments, out),
            Verb::Helo if self.dialect == Dialect::Smtp => return self.helo(arguments, out),
            Verb::Ehlo | Verb::Helo => return self.mistake(words::LHLO_INSTEAD, out),
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
            Verb::Bdat if self.dialect == Dialect::Smtp => return self.bdat(arguments, out),
            Verb::Bdat => {
                line(out, words::NO_CHUNKS);
                self.state = State::Over;
                return Ok(Some(LmtpStep::Close));
            }
            Verb::Trust => return self.mistake(words::NOT_YOURS, out),
            Verb::Lhlo | Verb::Other => return self.mistake(words::UNKNOWN, out),
            Verb::StartTls => return self.start_tls(arguments, out),
            _ if self.needs_tls() => return self.mistake(words::TLS_FIRST, out),
            Verb::Vrfy => line(out, words::CANNOT_VERIFY),
            // Without LHLO too (Dovecot).
            Verb::Mail => return self.mail(arguments, out),
            Verb::Rcpt => return self.rcpt(arguments, out),
            Verb::Data => return self.data(arguments, out),
        }
        Ok(None)
    }

    /// Who delivers to us in clear though we have a certificate is one of ours; the world sends as it can.
    fn needs_tls(&self) -> bool {
        self.channel == Channel::Clear && self.dialect == Dialect::Lmtp
    }

    /// Says hello as before there were extensions.
    fn helo(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        let Some(name) = quirks::helo_name(arguments) else {
            return self.mistake(words::ARGUMENTS, out);
        };
        self.name = Some(name);
        line(out, "250 ferrypost");
        Ok(self.forget())
    }

    fn hello(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        let Some(name) = quirks::helo_name(arguments) else {
            return self.mistake(words::ARGUMENTS, out);
        };
        self.name = Some(name);
        let starttls = (self.channel == Channel::Clear).then(|| "STARTTLS".to_owned());
        let chunks = (self.dialect == Dialect::Smtp).then(|| "CHUNKING".to_owned());
        let ours = starttls.into_iter().chain(chunks);
        let mut lines: Vec<_> = self.offer.lines().chain(ours).collect();
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
        // What somebody in the middle has named would be among what is said under TLS.
        if self.transaction.is_some() {
            return self.mistake(words::ORDER, out);
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
        let mut from = match self.envelope(arguments, "FROM", Parameter::extension_of_mail) {
            Ok(from) => from,
            Err(words) => return self.mistake(words, out),
        };
        if self.is_too_large(&from) {
            line(out, words::TOO_LARGE);
            return Ok(None);
        }
        if !from.count_hop() {
            line(out, words::GONE_ROUND);
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
        let open = self.transaction.as_mut().filter(|it| it.chunks.is_none());
        let Some(transaction) = open else {
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
            .is_none_or(|it| it.accepted == 0 || it.chunks.is_some())
        {
            line(out, words::ORDER);
            return Ok(Some(LmtpStep::NoMessage));
        }
        self.state = State::Message;
        Ok(Some(LmtpStep::Message))
    }

    fn bdat(
        &mut self,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LmtpStep>, ClientViolation> {
        let Some((size, is_last)) = command::chunk(arguments) else {
            line(out, words::BAD_CHUNK);
            self.state = State::Over;
            return Ok(Some(LmtpStep::Close));
        };
        let open = self.transaction.as_mut().filter(|it| it.accepted > 0);
        let Some(transaction) = open else {
            self.behind_chunk.clear();
            self.state = State::Skip(size);
            let mut words = Vec::new();
            let mistake = self.mistake(words::ORDER, &mut words);
            self.behind_chunk = words;
            return mistake;
        };
        let begins = transaction.chunks.is_none();
        let chunks = transaction.chunks.get_or_insert_with(Chunks::new);
        chunks.begin(size, is_last);
        if size > 0 {
            self.commands = 0;
        }
        if begins {
            self.state = State::Message;
            return Ok(Some(LmtpStep::Message));
        }
        self.state = State::Chunk;
        Ok(None)
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
        // Digits alone: what is no number is a larger one than there are.
        let says = from
            .parameter("SIZE")
            .map(|size| size.parse().unwrap_or(u64::MAX));
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
