//! What a backend answers.

use super::frame::{Beyond, Frame, Room, Taken};
use super::lex::Lexer;
use crate::buf::WireBuf;
use crate::reply::BackendViolation;
use crate::secret::Secret;
use crate::settings::BackLimits;

/// How an answer judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Bye,
}

/// One answer, or one line of it (RFC 5804 §4, `response-*`).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// The end of an answer.
    Status(Status, Reason<'a>),
    /// A string: a challenge, or a capability without a value.
    One(Vec<u8>),
    /// Two of them: a capability with its value.
    Two(Vec<u8>, Vec<u8>),
}

/// Why, for machines and for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reason<'a> {
    /// The code's name, without its arguments.
    pub(super) code: Option<&'a [u8]>,
    pub(super) text: Vec<u8>,
}

/// Reads a response; `None` for what is none.
pub(super) fn parse(text: &[u8]) -> Option<Response<'_>> {
    let mut lexer = Lexer::new(text);
    if let Some(word) = lexer.atom() {
        return Some(Response::Status(status(word)?, reason(lexer)?));
    }
    let first = lexer.string()?.octets().to_vec();
    lexer.spaces();
    if lexer.at_end() {
        return Some(Response::One(first));
    }
    let second = lexer.string()?.octets().to_vec();
    lexer.spaces();
    lexer.at_end().then_some(Response::Two(first, second))
}

fn status(word: &[u8]) -> Option<Status> {
    [("OK", Status::Ok), ("NO", Status::No), ("BYE", Status::Bye)]
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, status)| status)
}

/// What stands behind a status. A text that is no string is taken as it is: some servers leave the quotes out.
fn reason(mut lexer: Lexer<'_>) -> Option<Reason<'_>> {
    lexer.spaces();
    let code = match lexer.eat(b'(') {
        None => None,
        Some(()) => Some(code(&mut lexer)?),
    };
    lexer.spaces();
    let rest = lexer.rest();
    let text = match lexer.string() {
        Some(text) => text.octets().to_vec(),
        None => rest.to_vec(),
    };
    Some(Reason { code, text })
}

/// Reads a code up to its closing parenthesis, behind the opening one.
fn code<'a>(lexer: &mut Lexer<'a>) -> Option<&'a [u8]> {
    lexer.spaces();
    let name = lexer.atom()?;
    loop {
        lexer.spaces();
        if lexer.eat(b')').is_some() {
            return Some(name);
        }
        if lexer.string().is_none() {
            lexer.atom()?;
        }
    }
}

/// Takes a backend's responses out of a buffer, within limits.
pub(super) struct Responses {
    limits: BackLimits,
    frame: Frame,
    /// Lines of the responses that are over.
    lines: u32,
}

impl Responses {
    pub(super) fn new(limits: BackLimits) -> Self {
        Self {
            limits,
            frame: frame(limits, 0),
            lines: 0,
        }
    }

    /// The next whole response; `None` when more must be read.
    pub(super) fn next(&mut self, input: &mut WireBuf) -> Result<Option<Secret>, BackendViolation> {
        let taken = self.frame.take(input);
        let Taken::Whole(text) = taken.map_err(|_| BackendViolation::ReplyTooLong)? else {
            return Ok(None);
        };
        self.lines += self.frame.lines();
        self.frame = frame(self.limits, self.lines);
        Ok(Some(text))
    }
}

/// A response that is to be read, behind so many lines.
fn frame(limits: BackLimits, lines: u32) -> Frame {
    Frame::new(Room {
        lines: limits.max_line,
        literals: limits.max_line,
        beyond: Beyond::Refused,
        most_lines: limits.max_lines.saturating_sub(lines),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(status: Status, code: Option<&'a str>, text: &str) -> Response<'a> {
        let reason = Reason {
            code: code.map(str::as_bytes),
            text: text.as_bytes().to_vec(),
        };
        Response::Status(status, reason)
    }

    #[test]
    fn responses_are_told_apart() {
        for (line, read) in [
            (&b"OK"[..], said(Status::Ok, None, "")),
            (b"ok \"hi\"", said(Status::Ok, None, "hi")),
            (b"NO {2}\r\nhi", said(Status::No, None, "hi")),
            (b"OK Begin TLS", said(Status::Ok, None, "Begin TLS")),
            (
                b"BYE (TRYLATER) \"later\"",
                said(Status::Bye, Some("TRYLATER"), "later"),
            ),
            (
                b"OK (TAG {2}\r\n)( \"x)\") \"done\"",
                said(Status::Ok, Some("TAG"), "done"),
            ),
            (b"\"SASL\" \"\"", Response::Two(b"SASL".to_vec(), vec![])),
            (b"{0}\r\n", Response::One(vec![])),
        ] {
            assert_eq!(parse(line), Some(read), "{}", line.escape_ascii());
        }
        for foreign in [
            &b""[..],
            b"* OK hi",
            b"+OK pop3",
            b"220 smtp",
            b"OKAY",
            b"NO (TRYLATER \"later\"",
            b"\"a\" \"b\" \"c\"",
            b"\"a",
        ] {
            assert_eq!(parse(foreign), None, "{}", foreign.escape_ascii());
        }
    }
}
