//! What we say ourselves, all of it constant.

use crate::reply::ClientViolation;

pub(super) const GREETING: &str = "220 ferrypost LMTP is ready.";
pub(super) const SMTP_GREETING: &str = "220 ferrypost ESMTP is ready.";
pub(super) const OK: &str = "250 2.0.0 Done.";
pub(super) const SENDER_OK: &str = "250 2.1.0 The sender is taken.";
pub(super) const GO_AHEAD: &str = "354 Send the message, and end it with CRLF.CRLF.";
pub(super) const CHUNK_OK: &str = "250 2.0.0 The chunk is taken.";
pub(super) const BYE: &str = "221 2.0.0 Goodbye.";
pub(super) const BEGIN_TLS: &str = "220 2.0.0 Begin TLS now.";
/// RFC 5321 §3.5.3: nobody is asked.
pub(super) const CANNOT_VERIFY: &str = "252 2.0.0 That is found out by sending something.";
pub(super) const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients for one message.";
pub(super) const TOO_LARGE: &str = "552 5.3.4 The message is too large.";
pub(super) const GONE_ROUND: &str = "451 4.4.6 This message goes round in a circle.";
pub(super) const UNKNOWN: &str = "500 5.5.1 This command is not known.";
pub(super) const LHLO_INSTEAD: &str = "500 5.5.1 This is LMTP, say LHLO.";
pub(super) const ORDER: &str = "503 5.5.1 This command has no place here.";
pub(super) const ARGUMENTS: &str = "501 5.5.4 The arguments of this command are wrong.";
pub(super) const ADDRESS: &str = "501 5.1.3 This is no address.";
pub(super) const PARAMETER: &str = "555 5.5.4 A parameter is not offered, or not understood.";
pub(super) const NOT_YOURS: &str = "550 5.7.0 This command is not for you.";
pub(super) const NO_CHUNKS: &str =
    "421 4.7.0 Chunks are not offered, and cannot be told from commands.";
pub(super) const BAD_CHUNK: &str =
    "421 4.7.0 The size of this chunk is none, so that it cannot be told from commands.";
pub(super) const NO_TLS: &str = "502 5.5.1 TLS is on already, or not offered.";
pub(super) const TLS_FIRST: &str = "530 5.7.0 Use STARTTLS first.";

/// Writes a line.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The goodbye to a mail system that broke the rules. Temporary: it may be somebody else next time.
pub(super) fn violation(violation: ClientViolation) -> &'static str {
    match violation {
        ClientViolation::LineTooLong => "421 4.7.0 The line is too long.",
        // Neither protocol has literals.
        ClientViolation::LiteralTooLong => "421 4.7.0 The message is too long.",
        ClientViolation::TooManyCommands => "421 4.7.0 Too many commands without a recipient.",
        ClientViolation::TooManyErrors => "421 4.7.0 Too many mistakes.",
        ClientViolation::ForeignProtocol => "421 4.7.0 This is a server for mail.",
    }
}
