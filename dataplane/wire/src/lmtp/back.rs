//! The servers' side: we are the client.

use std::collections::VecDeque;

use super::answer::{Answer, Reason};
use crate::answered::Answered;
use crate::buf::WireBuf;
use crate::keywords::Keywords;
use crate::reply::BackendViolation;
use crate::settings::BackSettings;
use crate::smtp::opening::{Dialect, Opening};
use crate::smtp::reply::{Replies, Reply};
use crate::smtp::{Envelope, Parameter};
use crate::{NegotiateStep, Open};

const QUIT: &[u8] = b"QUIT\r\n";

/// A client up to where a message may be sent.
pub struct LmtpOpening(Opening);

impl LmtpOpening {
    /// For a connection that was just made.
    pub fn new(settings: BackSettings) -> Self {
        Self(Opening::new(Dialect::Lmtp, settings))
    }

    /// The same where SMTP is spoken.
    pub fn smtp(settings: BackSettings) -> Self {
        Self(Opening::new(Dialect::Smtp, settings))
    }

    /// What the server offers.
    pub fn offered(&self) -> Option<&Keywords> {
        self.0.offered()
    }

    /// Whether the server takes announcements of clients from us.
    pub fn takes_announcements(&self) -> bool {
        self.0.takes_announcements()
    }

    /// The machine for messages.
    ///
    /// # Errors
    /// [`BackendViolation::NotReady`]
    pub fn into_back(self) -> Result<LmtpBack, BackendViolation> {
        let dialect = self.0.dialect();
        let (offered, mut replies) = self.0.finish();
        let offered = offered.ok_or(BackendViolation::NotReady)?;
        replies.decided();
        Ok(LmtpBack {
            dialect,
            offered,
            replies,
            unsent: VecDeque::new(),
            owed: VecDeque::new(),
            recipients: 0,
        })
    }
}

impl Open for LmtpOpening {
    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        self.0.step(input, out)
    }

    fn secured(&mut self) {
        self.0.secured();
    }

    fn greeting(&self) -> &str {
        self.0.greeting()
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(QUIT);
    }
}

/// A client that has a server's ear: one transaction after the other.
///
/// Commands are sent at once where the server offers PIPELINING (RFC 2920), else each after the reply to the last.
/// Their replies come in their order.
///
/// Where SMTP is spoken there is one reply about a message, whoever it is for.
pub struct LmtpBack {
    dialect: Dialect,
    offered: Keywords,
    replies: Replies,
    /// Commands that wait for the reply to the one before.
    unsent: VecDeque<(Vec<u8>, Owed)>,
    /// The replies that are due.
    owed: VecDeque<Owed>,
    /// Recipients of the transaction that the server has accepted.
    recipients: u32,
}

/// What a reply is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Mail,
    Recipient,
    /// DATA: that the message may be sent.
    Message,
    /// The message, for one recipient.
    Delivery,
    Reset,
    Quit,
}

/// What a server has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing yet: more must be read.
    NeedMore,
    /// About the sender.
    Mail(Answer),
    /// About the next recipient.
    Recipient(Answer),
    /// The message may be sent.
    GoAhead,
    /// The message may not be sent: about all recipients.
    Refused(Answer),
    /// What became of the message for the next recipient that it had accepted, or by SMTP for all of them: the last
    /// word on that.
    Delivered(Answer, Answered),
    /// The transaction is forgotten.
    Reset,
    /// It says goodbye, as we have.
    Bye,
}

impl LmtpBack {
    /// Begins a transaction.
    ///
    /// # Errors
    /// The message needs what the server has not: nothing was sent.
    pub fn mail(&mut self, from: &Envelope, out: &mut Vec<u8>) -> Result<(), Reason> {
        if from.parameter("SMTPUTF8").is_some() && !self.offered.has("SMTPUTF8") {
            return Err(Reason::Unsupported);
        }
        self.recipients = 0;
        let command = self.command("MAIL FROM", from, Parameter::extension_of_mail);
        self.send(command, Owed::Mail, out);
        Ok(())
    }

    /// Adds a recipient.
    pub fn recipient(&mut self, to: &Envelope, out: &mut Vec<u8>) {
        let command = self.command("RCPT TO", to, Parameter::extension_of_recipient);
        self.send(command, Owed::Recipient, out);
    }

    /// Asks whether the message may come.
    pub fn message(&mut self, out: &mut Vec<u8>) {
        self.send(b"DATA\r\n".to_vec(), Owed::Message, out);
    }

    /// Ends the message, whose octets the driver has written behind [`Delivery::GoAhead`], its last line end among
    /// them. From here on the server may deliver it.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b".\r\n");
        let deliveries = match self.dialect {
            Dialect::Lmtp => self.recipients,
            Dialect::Smtp => 1,
        };
        self.owed.extend((0..deliveries).map(|_| Owed::Delivery));
        self.recipients = 0;
    }

    /// Forgets the transaction.
    pub fn reset(&mut self, out: &mut Vec<u8>) {
        self.recipients = 0;
        self.send(b"RSET\r\n".to_vec(), Owed::Reset, out);
    }

    /// Says goodbye.
    pub fn quit(&mut self, out: &mut Vec<u8>) {
        self.send(QUIT.to_vec(), Owed::Quit, out);
    }

    /// What the server offers.
    pub fn offered(&self) -> &Keywords {
        &self.offered
    }

    /// Takes the server's next word.
    ///
    /// # Errors
    /// [`BackendViolation`]: nothing more can be believed of this connection.
    pub fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<Delivery, BackendViolation> {
        let Some(reply) = self.replies.next(input)? else {
            return Ok(Delivery::NeedMore);
        };
        let Some(owed) = self.owed.pop_front() else {
            // A goodbye may come at any time (RFC 5321 §3.8), and nothing else.
            return Err(match reply.code {
                421 => BackendViolation::Bye,
                _ => BackendViolation::Malformed,
            });
        };
        self.replies.decided();
        let said = self.said(owed, &reply)?;
        self.send_next(out);
        Ok(said)
    }

    fn said(&mut self, owed: Owed, reply: &Reply) -> Result<Delivery, BackendViolation> {
        let answer = || Answer::passed_on(reply).ok_or(BackendViolation::Malformed);
        Ok(match (owed, reply.code) {
            (Owed::Message, 354) => Delivery::GoAhead,
            // A message would have to follow that nobody wants.
            (Owed::Message, 200..=399) => return Err(BackendViolation::Malformed),
            (Owed::Message, _) => Delivery::Refused(answer()?),
            (Owed::Mail, _) => Delivery::Mail(answer()?),
            (Owed::Recipient, _) => {
                let answer = answer()?;
                self.recipients += u32::from(answer.is_yes());
                Delivery::Recipient(answer)
            }
            (Owed::Delivery, _) => Delivery::Delivered(answer()?, Answered::by_reading()),
            (Owed::Reset, 200..=299) => Delivery::Reset,
            (Owed::Reset, _) => return Err(BackendViolation::Malformed),
            (Owed::Quit, _) => Delivery::Bye,
        })
    }

    /// The command with those parameters that the server takes.
    fn command(
        &self,
        verb: &str,
        envelope: &Envelope,
        extension: impl Fn(&Parameter) -> Option<&'static str>,
    ) -> Vec<u8> {
        let mut command = format!("{verb}:<{}>", envelope.address.as_str());
        for parameter in &envelope.parameters {
            if extension(parameter).is_some_and(|extension| self.offered.has(extension)) {
                command.push(' ');
                command.push_str(&parameter.keyword);
                if let Some(value) = &parameter.value {
                    command.push('=');
                    command.push_str(value);
                }
            }
        }
        command.push_str("\r\n");
        command.into_bytes()
    }

    fn send(&mut self, command: Vec<u8>, owed: Owed, out: &mut Vec<u8>) {
        self.unsent.push_back((command, owed));
        self.send_next(out);
    }

    /// Sends what may be sent.
    fn send_next(&mut self, out: &mut Vec<u8>) {
        while self.owed.is_empty() || self.offered.has("PIPELINING") {
            let Some((command, owed)) = self.unsent.pop_front() else {
                return;
            };
            out.extend_from_slice(&command);
            self.owed.push_back(owed);
        }
    }
}
