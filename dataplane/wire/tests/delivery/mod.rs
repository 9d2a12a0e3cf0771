//! A driver for the machines of delivery, and the rules that they keep to: the same in pieces as at once, no reading
//! ahead, one answer for each recipient that was accepted.

use std::sync::Arc;

use ferrypost_wire::lmtp::{
    Answer, Delivery, Envelope, LmtpBack, LmtpFront, LmtpLimits, LmtpOpening, LmtpSettings,
    LmtpStep, Offer, Piece, Reason,
};
use ferrypost_wire::{
    BackLimits, BackSettings, BackendViolation, Capabilities as _, Channel, ClientViolation,
    Introduction, Keywords, NegotiateStep, Open as _, WireBuf,
};

/// Small, so that they are reached.
pub(crate) const LIMITS: LmtpLimits = LmtpLimits {
    max_line: 300,
    max_recipients: 5,
    max_commands: 12,
    max_errors: 4,
};

const BUFFER: usize = 1000;

/// What became of a mail system's session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// What the mail system reads.
    pub(crate) heard: String,
    /// What was passed on of each message.
    pub(crate) messages: Vec<String>,
    /// How many answers each had.
    pub(crate) answers: Vec<usize>,
    /// Why it had to end.
    pub(crate) violation: Option<ClientViolation>,
    /// Whether it ended at a bare CR or LF.
    pub(crate) smuggled: bool,
    /// Whether it has ended.
    pub(crate) is_over: bool,
    /// What was not read.
    pub(crate) left: Vec<u8>,
}

impl Session {
    /// How much of a message went on before the octet for which it was refused is a matter of its pieces. It went
    /// nowhere: its end never came.
    fn but_for_the_smuggled(mut self) -> Self {
        if self.smuggled {
            self.messages.pop();
            self.left.clear();
        }
        self
    }
}

/// A server of all the extensions that there are.
pub(crate) fn able() -> Keywords {
    Keywords::from_items([
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "SIZE 1000",
        "CHUNKING",
    ])
}

/// Serves a mail system that sends `input` in pieces of these sizes, for an able server.
pub(crate) fn serve(channel: Channel, input: &[u8], sizes: &[usize]) -> Session {
    serve_for(&able(), channel, input, sizes)
}

/// The same for a server that offers this.
pub(crate) fn serve_for(
    server: &Keywords,
    channel: Channel,
    input: &[u8],
    sizes: &[usize],
) -> Session {
    serve_by(LmtpFront::new(settings(server, channel)), input, sizes)
}

/// The same by SMTP, for an able server.
pub(crate) fn serve_smtp(channel: Channel, input: &[u8], sizes: &[usize]) -> Session {
    serve_by(LmtpFront::smtp(settings(&able(), channel)), input, sizes)
}

fn settings(server: &Keywords, channel: Channel) -> LmtpSettings {
    LmtpSettings {
        channel,
        offer: Arc::new(Offer::new(std::slice::from_ref(server))),
        limits: LIMITS,
    }
}

fn serve_by(front: LmtpFront, input: &[u8], sizes: &[usize]) -> Session {
    let mut serving = Serving {
        front,
        input: WireBuf::new(BUFFER),
        out: Vec::new(),
        message: None,
        accepted: 0,
        session: Session::default(),
    };
    serving.front.greet(&mut serving.out);
    let mut rest = input;
    let mut sizes = sizes.iter().cycle();
    loop {
        match serving.turn() {
            Turn::Taken => {}
            Turn::Over => {
                serving.session.is_over = true;
                break;
            }
            Turn::NeedsMore if rest.is_empty() => break,
            Turn::NeedsMore => {
                let room = BUFFER - serving.input.len();
                let size = sizes.next().copied().unwrap_or(1).clamp(1, room);
                let (piece, others) = rest.split_at(rest.len().min(size));
                serving.input.extend(piece).expect("there is room");
                rest = others;
            }
        }
    }
    let mut session = serving.session;
    session
        .messages
        .extend(serving.message.as_deref().map(text));
    session.heard = text(&serving.out);
    session.left = [serving.input.filled(), rest].concat();
    session
}

struct Serving {
    front: LmtpFront,
    input: WireBuf,
    out: Vec<u8>,
    message: Option<Vec<u8>>,
    accepted: usize,
    session: Session,
}

enum Turn {
    Taken,
    NeedsMore,
    Over,
}

impl Serving {
    fn turn(&mut self) -> Turn {
        if self.message.is_some() {
            return self.content();
        }
        let step = match self.front.step(&mut self.input, &mut self.out) {
            Ok(step) => step,
            Err(violation) => {
                self.session.violation = Some(violation);
                return Turn::Over;
            }
        };
        match step {
            LmtpStep::NeedMore => return Turn::NeedsMore,
            LmtpStep::StartTls if !self.input.is_empty() => return Turn::Over,
            LmtpStep::StartTls => self.front.secured(),
            LmtpStep::NoMessage => {}
            LmtpStep::Mail(_) | LmtpStep::Reset => self.accepted = 0,
            LmtpStep::Recipient(to) => {
                let answer = verdict(to.address.as_str());
                self.accepted += usize::from(answer.is_yes());
                self.front.recipient(&answer, &mut self.out);
            }
            LmtpStep::Message => {
                self.front.go_ahead(&mut self.out);
                self.message = Some(Vec::new());
            }
            LmtpStep::Close => return Turn::Over,
        }
        Turn::Taken
    }

    fn content(&mut self) -> Turn {
        match self.front.content(&mut self.input, &mut self.out) {
            Ok(Piece::Octets(0)) => return Turn::NeedsMore,
            Ok(Piece::Octets(count)) => {
                let octets = &self.input.filled()[..count];
                self.message
                    .as_mut()
                    .expect("one has begun")
                    .extend_from_slice(octets);
                self.input.consume(count);
            }
            Ok(Piece::Added(octets)) => {
                let message = self.message.as_mut().expect("one has begun");
                message.extend_from_slice(octets);
            }
            Ok(Piece::Withdrawn) => {
                self.message = None;
                self.accepted = 0;
            }
            Ok(Piece::End) => {
                self.answer(&yes());
                let message = self.message.take();
                self.session.messages.extend(message.as_deref().map(text));
            }
            Err(bare) => {
                self.answer(&Reason::from(bare).into());
                self.session.smuggled = true;
                return Turn::Over;
            }
        }
        Turn::Taken
    }

    fn answer(&mut self, answer: &Answer) {
        assert!(self.accepted > 0, "a message is for somebody");
        for n in 1..=self.accepted {
            let is_last = self.front.answer(answer, &mut self.out);
            if is_last {
                // By SMTP one is for all of them.
                self.session.answers.push(n);
                break;
            }
        }
        self.accepted = 0;
    }
}

/// What the driver says of a recipient.
fn verdict(address: &str) -> Answer {
    match address {
        held if held.starts_with("held") => Reason::Held.into(),
        nobody if nobody.starts_with("no") => Reason::Unlisted.into(),
        elsewhere if elsewhere.ends_with("@example.net") => Reason::NotServed.into(),
        _ => yes(),
    }
}

/// A server's yes, which nobody else can say.
fn yes() -> Answer {
    let mut back = open("PIPELINING");
    back.recipient(&envelope("RCPT TO:<a@b>"), &mut Vec::new());
    match told(&mut back, "250 2.0.0 Yes.\r\n") {
        Ok(Delivery::Recipient(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// A MAIL or a RCPT as our server reads it.
pub(crate) fn envelope(command: &str) -> Envelope {
    envelope_for(&able(), command)
}

/// The same for a server that offers this.
pub(crate) fn envelope_for(server: &Keywords, command: &str) -> Envelope {
    let mut front = LmtpFront::new(LmtpSettings {
        limits: LmtpLimits::default(),
        ..settings(server, Channel::Secure)
    });
    let mut input = WireBuf::new(10_000);
    let before = if command.starts_with("RCPT") {
        "MAIL FROM:<>\r\n"
    } else {
        ""
    };
    let said = format!("LHLO x\r\n{before}{command}\r\n");
    input.extend(said.as_bytes()).expect("there is room");
    loop {
        match front.step(&mut input, &mut Vec::new()) {
            Ok(LmtpStep::Mail(_)) if !before.is_empty() => {}
            Ok(LmtpStep::Mail(envelope) | LmtpStep::Recipient(envelope)) => return envelope,
            other => panic!("{command}: {other:?}"),
        }
    }
}

/// A client of a server that has answered LHLO with these lines.
pub(crate) fn open(extensions: &str) -> LmtpBack {
    opened(LmtpOpening::new, extensions)
}

fn opened(machine: fn(BackSettings) -> LmtpOpening, extensions: &str) -> LmtpBack {
    let mut opening = machine(BackSettings {
        channel: Channel::Secure,
        announce: None,
        introduction: Introduction::default(),
        prefaced: false,
        limits: BackLimits::default(),
    });
    let mut input = WireBuf::new(10_000);
    let mut lines = String::from("220 server LMTP\r\n250-server\r\n");
    for extension in extensions.split('|') {
        lines.extend(["250-", extension, "\r\n"]);
    }
    lines += "250 HELP\r\n";
    input.extend(lines.as_bytes()).expect("there is room");
    let step = opening.step(&mut input, &mut Vec::new());
    assert_eq!(step, Ok(NegotiateStep::Ready));
    opening.into_back().expect("it is ready")
}

/// Lets a client read something.
pub(crate) fn told(back: &mut LmtpBack, said: &str) -> Result<Delivery, BackendViolation> {
    let mut input = WireBuf::new(10_000);
    input.extend(said.as_bytes()).expect("there is room");
    back.step(&mut input, &mut Vec::new())
}

/// What becomes of a transaction with two recipients when its server says `said` in pieces of these sizes.
pub(crate) fn deliver(extensions: &str, said: &[u8], sizes: &[usize]) -> Delivered {
    deliver_by(LmtpOpening::new, extensions, said, sizes)
}

/// The same by SMTP.
pub(crate) fn deliver_smtp(extensions: &str, said: &[u8], sizes: &[usize]) -> Delivered {
    deliver_by(LmtpOpening::smtp, extensions, said, sizes)
}

/// A server's words in order, what it was sent, and what was left.
pub(crate) type Delivered = (Vec<String>, String, Vec<u8>);

fn deliver_by(
    machine: fn(BackSettings) -> LmtpOpening,
    extensions: &str,
    said: &[u8],
    sizes: &[usize],
) -> Delivered {
    let mut back = opened(machine, extensions);
    let mut out = Vec::new();
    let mut words = Vec::new();
    if back
        .mail(&envelope("MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME"), &mut out)
        .is_ok()
    {
        back.recipient(&envelope("RCPT TO:<c@d> NOTIFY=NEVER"), &mut out);
        back.recipient(&envelope("RCPT TO:<e@f>"), &mut out);
        back.message(&mut out);
    }
    let mut input = WireBuf::new(10_000);
    let mut rest = said;
    let mut sizes = sizes.iter().cycle();
    loop {
        match back.step(&mut input, &mut out) {
            Ok(Delivery::NeedMore) if rest.is_empty() => break,
            Ok(Delivery::NeedMore) => {
                let room = input.limit() - input.len();
                let size = sizes.next().copied().unwrap_or(1).clamp(1, room);
                let (piece, others) = rest.split_at(rest.len().min(size));
                input.extend(piece).expect("there is room");
                rest = others;
            }
            Ok(Delivery::GoAhead) => {
                words.push("GoAhead".to_owned());
                out.extend_from_slice(b"message\r\n");
                back.end(&mut out);
            }
            Ok(word) => words.push(format!("{word:?}")),
            Err(violation) => {
                words.push(violation.to_string());
                break;
            }
        }
    }
    (words, text(&out), [input.filled(), rest].concat())
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Serves in one of the two protocols.
pub(crate) type Serve = fn(Channel, &[u8], &[usize]) -> Session;

/// What must hold for any mail system.
pub(crate) fn front(serve: Serve, channel: Channel, input: &[u8], sizes: &[usize]) {
    let (whole, pieces) = (
        serve(channel, input, &[BUFFER]),
        serve(channel, input, sizes),
    );
    let (heard, left) = (whole.heard.len(), whole.left.clone());
    assert_eq!(
        whole.but_for_the_smuggled(),
        pieces.but_for_the_smuggled(),
        "in pieces as at once"
    );
    assert!(input.ends_with(&left), "nothing is read ahead");
    // A line of an answer for a line of input, and the answers for recipients, each of which took one.
    let lines = input.split(|&octet| octet == b'\n').count();
    assert!(heard <= (lines + 3) * 2 * 200, "bounded");
}

/// Delivers by one of the two protocols.
pub(crate) type Deliver = fn(&str, &[u8], &[usize]) -> Delivered;

/// What must hold for any server.
pub(crate) fn back(deliver: Deliver, extensions: &str, said: &[u8], sizes: &[usize]) {
    let whole = deliver(extensions, said, &[10_000]);
    assert_eq!(
        whole,
        deliver(extensions, said, sizes),
        "in pieces as at once"
    );
    assert!(said.ends_with(&whole.2), "nothing is read ahead");
}
