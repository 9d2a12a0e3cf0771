//! What the driver needs of a protocol by which mail systems deliver: the two machines, and when a server gives its
//! word on a message.

use ferrypost_proto::v1;
use ferrypost_wire::{
    BackSettings, BackendViolation, ClientViolation, Farewell, Introduction, Keywords, Open,
    WireBuf,
    lmtp::{
        Answer, BareLineEnd, Delivery, Envelope, LmtpBack, LmtpFront, LmtpOpening, LmtpSettings,
        LmtpStep, Piece, Reason,
    },
};

/// One protocol.
pub trait MailProtocol: Sized + Send + 'static {
    /// Which one, as the contract names it.
    const PROTOCOL: v1::Protocol;
    /// The same in a trace header (RFC 5321 §4.4, RFC 3848).
    const TRACE: &'static str;
    /// For how many a server's word on a message is.
    const VERDICTS: Verdicts;
    /// The mail system's side: we are the server.
    type Front: Front;
    /// A server's side up to where a message may be sent.
    type Opening: Open;
    /// A server's side from there on: we are the client.
    type Back: Back;

    /// The machine for a mail system that has just connected.
    fn front(settings: LmtpSettings) -> Self::Front;

    /// The machine for a server that was just reached.
    fn opening(settings: BackSettings) -> Self::Opening;

    /// What a server that is ready offers.
    fn offered(opening: &Self::Opening) -> Option<&Keywords>;

    /// Whether such a server is seen not to read announcements of clients.
    fn ignores_announcements(opening: &Self::Opening) -> bool;

    /// The machine for messages.
    ///
    /// # Errors
    /// [`BackendViolation::NotReady`]
    fn back(opening: Self::Opening) -> Result<Self::Back, BackendViolation>;
}

/// For how many recipients a server's word on a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdicts {
    /// For one, in the order in which it has accepted them.
    PerRecipient,
    /// For all of them.
    PerMessage,
}

/// The mail system's side. See [`LmtpFront`], whose methods these are.
#[expect(missing_docs, reason = "they are documented there")]
#[expect(clippy::missing_errors_doc, reason = "as above")]
pub trait Front: Send + Sync + 'static {
    fn greet(&self, out: &mut Vec<u8>);
    fn step(&mut self, input: &mut WireBuf, out: &mut Vec<u8>)
    -> Result<LmtpStep, ClientViolation>;
    fn secured(&mut self);
    fn introduction(&self) -> Introduction;
    fn recipient(&mut self, answer: &Answer, out: &mut Vec<u8>);
    fn go_ahead(&mut self, out: &mut Vec<u8>);
    fn refuse(&mut self, answer: &Answer, out: &mut Vec<u8>);
    fn content(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Result<Piece, BareLineEnd>;
    fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) -> bool;
    fn farewell(&mut self, why: Farewell, out: &mut Vec<u8>);
    fn is_idle(&self) -> bool;
}

/// A server's side. See [`LmtpBack`], whose methods these are.
#[expect(missing_docs, reason = "they are documented there")]
#[expect(clippy::missing_errors_doc, reason = "as above")]
pub trait Back: Send + Sync + 'static {
    fn mail(&mut self, from: &Envelope, out: &mut Vec<u8>) -> Result<(), Reason>;
    fn recipient(&mut self, to: &Envelope, out: &mut Vec<u8>);
    fn message(&mut self, out: &mut Vec<u8>);
    fn end(&mut self, out: &mut Vec<u8>);
    fn reset(&mut self, out: &mut Vec<u8>);
    fn quit(&mut self, out: &mut Vec<u8>);
    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<Delivery, BackendViolation>;
}

/// LMTP (RFC 2033).
pub enum Lmtp {}

impl MailProtocol for Lmtp {
    const PROTOCOL: v1::Protocol = v1::Protocol::Lmtp;
    const TRACE: &'static str = "LMTP";
    const VERDICTS: Verdicts = Verdicts::PerRecipient;
    type Front = LmtpFront;
    type Opening = LmtpOpening;
    type Back = LmtpBack;

    fn front(settings: LmtpSettings) -> LmtpFront {
        LmtpFront::new(settings)
    }

    fn opening(settings: BackSettings) -> LmtpOpening {
        LmtpOpening::new(settings)
    }

    fn offered(opening: &LmtpOpening) -> Option<&Keywords> {
        opening.offered()
    }

    fn ignores_announcements(opening: &LmtpOpening) -> bool {
        !opening.takes_announcements()
    }

    fn back(opening: LmtpOpening) -> Result<LmtpBack, BackendViolation> {
        opening.into_back()
    }
}

/// SMTP (RFC 5321) between mail systems: one server for a message, and one word on it.
pub enum Smtp {}

impl MailProtocol for Smtp {
    const PROTOCOL: v1::Protocol = v1::Protocol::Smtp;
    const TRACE: &'static str = "ESMTP";
    const VERDICTS: Verdicts = Verdicts::PerMessage;
    type Front = LmtpFront;
    type Opening = LmtpOpening;
    type Back = LmtpBack;

    fn front(settings: LmtpSettings) -> LmtpFront {
        LmtpFront::smtp(settings)
    }

    fn opening(settings: BackSettings) -> LmtpOpening {
        LmtpOpening::smtp(settings)
    }

    fn offered(opening: &LmtpOpening) -> Option<&Keywords> {
        opening.offered()
    }

    fn ignores_announcements(opening: &LmtpOpening) -> bool {
        !opening.takes_announcements()
    }

    fn back(opening: LmtpOpening) -> Result<LmtpBack, BackendViolation> {
        opening.into_back()
    }
}

impl Front for LmtpFront {
    fn greet(&self, out: &mut Vec<u8>) {
        Self::greet(self, out);
    }

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<LmtpStep, ClientViolation> {
        Self::step(self, input, out)
    }

    fn secured(&mut self) {
        Self::secured(self);
    }

    fn introduction(&self) -> Introduction {
        Self::introduction(self)
    }

    fn recipient(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        Self::recipient(self, answer, out);
    }

    fn go_ahead(&mut self, out: &mut Vec<u8>) {
        Self::go_ahead(self, out);
    }

    fn refuse(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        Self::refuse(self, answer, out);
    }

    fn content(&mut self, input: &mut WireBuf, out: &mut Vec<u8>) -> Result<Piece, BareLineEnd> {
        Self::content(self, input, out)
    }

    fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) -> bool {
        Self::answer(self, answer, out)
    }

    fn farewell(&mut self, why: Farewell, out: &mut Vec<u8>) {
        Self::farewell(self, why, out);
    }

    fn is_idle(&self) -> bool {
        Self::is_idle(self)
    }
}

impl Back for LmtpBack {
    fn mail(&mut self, from: &Envelope, out: &mut Vec<u8>) -> Result<(), Reason> {
        Self::mail(self, from, out)
    }

    fn recipient(&mut self, to: &Envelope, out: &mut Vec<u8>) {
        Self::recipient(self, to, out);
    }

    fn message(&mut self, out: &mut Vec<u8>) {
        Self::message(self, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        Self::end(self, out);
    }

    fn reset(&mut self, out: &mut Vec<u8>) {
        Self::reset(self, out);
    }

    fn quit(&mut self, out: &mut Vec<u8>) {
        Self::quit(self, out);
    }

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<Delivery, BackendViolation> {
        Self::step(self, input, out)
    }
}
